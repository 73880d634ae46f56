"""The flags of the commands: those that several share, and those of a stage, made from its inputs and settings."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from cmgl_cli import completion
from cmgl_cli.commands import OWN_PRIORS
from cmgl_cli.steps import Step

Flag = tuple[Any, Any, Any]
"""Type, default, and what typer is told."""


def _path(about: str, *names: str, suffixes: Sequence[str] = ()) -> Flag:
    return Path | None, None, typer.Option(*names, help=about, autocompletion=completion.files(*suffixes))


def _text(about: str, complete: completion.Completer | None = None) -> Flag:
    return str | None, None, typer.Option(help=about, autocompletion=complete)


def _switch(about: str, *names: str) -> Flag:
    return bool, False, typer.Option(*names, help=about)


COMMON: Mapping[str, Flag] = {
    "dataset": _text("Name of the dataset (see: cmgl datasets).", completion.datasets),
    "root": _path("Folder the datasets lie in. Default: $CMGL_DATA, then ./data."),
    "dataset_options": _text("Options of the dataset's reader as YAML: '{masks: labels, classes: [road, sky]}'."),
    "name": _text("Name of the experiment. Default: the dataset's name."),
    "artifacts": _path("Folder of all experiments. Default: artifacts."),
    "config": _path("YAML file with settings; flags win over it.", suffixes=completion.CONFIG),
}
TALK: Mapping[str, Flag] = {
    "quiet": _switch("Only results, warnings and errors.", "--quiet", "-q"),
    "as_json": _switch("Results as one JSON object on stdout.", "--json"),
    "debug": _switch("Show tracebacks.", "--debug"),
}
CONTROL: Mapping[str, Flag] = {
    "force": _switch("Compute even when the output is up to date.", "--force"),
    "dry_run": _switch("Say what would be done, and why.", "--dry-run"),
    "verify": _switch("Recompute the digests of inputs and outputs first.", "--verify"),
}
EXTRA: Mapping[str, Mapping[str, Flag]] = {
    "extract": {
        "images": _path("Encode every image below this folder, labels unknown."),
        "shard": _text("Encode part i of n, as i/n; set by torchrun and srun."),
        "merge": _switch("Join the complete shards into one file.", "--merge"),
    },
    "segment": {"images": _path("Label every image below this folder with a learnt decoder.")},
    "experiment": {"list": _switch("Show the experiments there are.", "--list")},
}
Quiet = Annotated[bool, TALK["quiet"][2]]
AsJson = Annotated[bool, TALK["as_json"][2]]
Debug = Annotated[bool, TALK["debug"][2]]
Force = Annotated[bool, CONTROL["force"][2]]
DryRun = Annotated[bool, CONTROL["dry_run"][2]]
Verify = Annotated[bool, CONTROL["verify"][2]]
Artifacts = Annotated[Path | None, COMMON["artifacts"][2]]
Dataset = Annotated[str | None, COMMON["dataset"][2]]
DatasetOptions = Annotated[str | None, COMMON["dataset_options"][2]]
Root = Annotated[Path | None, COMMON["root"][2]]
Config = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="YAML file with the settings of an experiment.",
        autocompletion=completion.files(*completion.CONFIG),
    ),
]
Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="ARTIFACT...|CONFIG",
        help="Artifacts, or the YAML file of an experiment.",
        autocompletion=completion.files(*completion.ARTIFACT, *completion.CONFIG),
    ),
]
ArtifactFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="An artifact.", autocompletion=completion.files(*completion.ARTIFACT)),
]
KnownDataset = Annotated[
    str | None, typer.Argument(help="Show the layout of this one.", autocompletion=completion.datasets)
]


def stage_flags(stage: str, steps: Sequence[Step], config_class: type) -> dict[str, Flag]:
    """Return the flags of a stage by parameter name.

    Parameters
    ----------
    stage : str
    steps : sequence of Step
        Its variants: their inputs and outputs.
    config_class : type
        The dataclass of its settings.
    """
    flags = dict(COMMON)
    for role, item in {item.role: item for step in steps for item in step.inputs}.items():
        suffixes = (*completion.ARTIFACT, *(OWN_PRIORS if role == "prior" else ()))
        about = f"Input. Default: artifacts/NAME/{item.file}" if item.implied else f"Input: a {item.file} to use."
        flags[role] = _path(about, "--" + role.replace("_", "-"), suffixes=suffixes)
    usual = " or ".join(step.output for step in steps)
    flags["output"] = _path(f"Default: artifacts/NAME/{usual}", "--output", "-o", suffixes=completion.ARTIFACT)
    flags.update(EXTRA.get(stage, {}))
    hints = typing.get_type_hints(config_class)
    flags.update({item.name: _setting(item, hints[item.name]) for item in fields(config_class)})
    return {**flags, **CONTROL, **TALK}


def _setting(item: Field, hint: Any) -> Flag:
    kind = typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
    about, complete = _about(item, kind), _completer(kind, item.metadata["choices"])
    if item.metadata["positional"]:
        argument = typer.Argument(metavar=item.name.upper(), help=about, show_default=False, autocompletion=complete)
        return str | None, None, argument
    flag = "--" + item.name.replace("_", "-")
    if kind is bool:
        return bool | None, None, typer.Option(f"{flag}/--no-{flag[2:]}", help=about, show_default=False)
    simple = kind if kind in (int, float, Path) else str
    return simple | None, None, typer.Option(flag, help=about, show_default=False, autocompletion=complete)


def _completer(kind: Any, choices: Sequence[str]) -> completion.Completer | None:
    if choices:
        return completion.words(choices)
    return completion.files() if kind is Path or Path in typing.get_args(kind) else None


def _about(item: Field, kind: Any) -> str:
    about = item.metadata["about"]
    if item.metadata["choices"]:
        about += f" One of: {', '.join(item.metadata['choices'])}."
    if item.default not in (None, (), "") and kind is not bool:
        default = ",".join(map(str, item.default)) if isinstance(item.default, tuple) else item.default
        about += f" Default: {default}."
    return about


def with_signature(command: Callable[..., None], flags: Mapping[str, Flag]) -> Callable[..., None]:
    """Give a function the signature that typer reads."""
    made = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])
        for name, (kind, default, info) in flags.items()
    ]
    command.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]
    command.__annotations__ = {item.name: item.annotation for item in made}
    return command
