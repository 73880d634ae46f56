"""The command line: options and help, nothing else. Every stage is imported inside its command."""

import inspect
import os
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from cmgl_cli import __version__
from cmgl_cli.commands import Request, run_stage
from cmgl_cli.config import build_run
from cmgl_cli.console import Console
from cmgl_cli.errors import EXIT_INTERRUPTED, OutputError, UsageError
from cmgl_cli.pipeline import STEPS, Job, run_all, status, summarize
from cmgl_cli.settings import STAGE_CONFIGS

app = typer.Typer(
    name="cmgl",
    help="Learn the sparse dependency graph of multimodal data, and use it.\n\n"
    "The stages, in order: render-text, extract, distill, prior, fit-graphs, then classify or segment. "
    "Each reads artifacts, computes, and writes one artifact below artifacts/NAME/.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only results, warnings and errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Results as one JSON object on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]

COMMON: dict[str, tuple[Any, Any, Any]] = {
    "dataset": (str | None, None, typer.Option(help="Name of the dataset (see: cmgl datasets).")),
    "root": (Path | None, None, typer.Option(help="Folder the datasets lie in. Default: $CMGL_DATA, then ./data.")),
    "dataset_options": (
        str | None,
        None,
        typer.Option(help="Options of the dataset's reader as YAML: '{masks: labels, classes: [road, sky]}'."),
    ),
    "name": (str | None, None, typer.Option(help="Name of the experiment. Default: the dataset's name.")),
    "artifacts": (Path | None, None, typer.Option(help="Folder of all experiments. Default: artifacts.")),
    "config": (Path | None, None, typer.Option(help="YAML file with settings; flags win over it.")),
}
CONTROL: dict[str, tuple[Any, Any, Any]] = {
    "force": (bool, False, typer.Option("--force", help="Compute even when the output is up to date.")),
    "dry_run": (bool, False, typer.Option("--dry-run", help="Say what would be done, and why.")),
    "verify": (bool, False, typer.Option("--verify", help="Recompute the digests of all inputs first.")),
    "quiet": (bool, False, typer.Option("--quiet", "-q", help="Only results, warnings and errors.")),
    "as_json": (bool, False, typer.Option("--json", help="Results as one JSON object on stdout.")),
    "debug": (bool, False, typer.Option("--debug", help="Show tracebacks.")),
}
EXTRA: dict[str, dict[str, tuple[Any, Any, Any]]] = {
    "extract": {
        "images": (Path | None, None, typer.Option(help="Encode every image below this folder, labels unknown.")),
        "shard": (str | None, None, typer.Option(help="Encode part i of n, as i/n; set by torchrun and srun.")),
        "merge": (bool, False, typer.Option("--merge", help="Join the complete shards into one file.")),
    },
    "experiment": {"list": (bool, False, typer.Option("--list", help="Show the experiments there are."))},
}
EXTRA["segment"] = {
    "images": (Path | None, None, typer.Option(help="Label every image below this folder with a learnt decoder.")),
}
EXAMPLES = {
    "render-text": "cmgl render-text --dataset digits --preview pages.png",
    "extract": "cmgl extract --dataset digits --encoder builtin:tiny",
    "distill": "cmgl distill --dataset digits --nodes 24",
    "prior": "cmgl prior --dataset digits --direction text-to-image",
    "fit-graphs": "cmgl fit-graphs --dataset digits --rho 0.05 --gamma 0.1 --k 0",
    "classify": "cmgl classify --dataset digits",
    "segment": "cmgl segment --dataset digits --epochs 2",
    "twofold-restore": "cmgl twofold-restore --input observations.csv --stations stations.csv --export filled.nc",
    "experiment": "cmgl experiment twofold-synthetic --quick",
}


def _guarded(console: Console, body: Callable[[], None]) -> None:
    """Run a command; turn what goes wrong into three lines and an exit code."""
    try:
        body()
        console.finish()
    except KeyboardInterrupt:
        console.warn("interrupted; what was finished is kept, the same command goes on from there")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        # the reader of a pipe left (head, less): nothing to say, and nothing to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except Exception as error:
        code = console.error(error)
        if isinstance(error, OutputError):
            # HDF5 takes the process down when it closes at exit a file that it could not write
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        raise typer.Exit(code) from None


def _stage_command(stage: str) -> Callable[..., None]:
    """Make the command of a stage: its flags are its inputs and the settings of its config class."""
    config_class = STAGE_CONFIGS[stage]
    steps = [step for step in STEPS if step.stage == stage]
    roles = {item.role: item for step in steps for item in step.inputs}
    settings = [item.name for item in fields(config_class)]
    extra = EXTRA.get(stage, {})

    def command(**typed: Any) -> None:
        console = Console(typed["quiet"], typed["as_json"], typed["debug"])
        settled = {key: typed[key] for key in (*settings, "dataset", "root", "dataset_options", "name", "artifacts")}
        paths = {key: typed[key] for key in (*roles, "output")}
        if typed.get("list"):
            _guarded(console, lambda: _list_experiments(console))
            return
        request = Request(stage, typed["config"], settled, paths, {key: typed[key] for key in extra})
        control = {key: typed[key] for key in ("force", "dry_run", "verify")}
        _guarded(console, lambda: run_stage(request, console, **control))

    parameters: dict[str, tuple[Any, Any, Any]] = {**COMMON}
    for role, item in roles.items():
        flag = "--" + role.replace("_", "-")
        about = f"Input. Default: artifacts/NAME/{item.file}" if item.implied else f"Input: a {item.file} to use."
        parameters[role] = (Path | None, None, typer.Option(flag, help=about))
    usual = " or ".join(step.output for step in steps)
    parameters["output"] = (Path | None, None, typer.Option("--output", "-o", help=f"Default: artifacts/NAME/{usual}"))
    parameters.update(extra)
    parameters.update(_setting_parameters(config_class))
    parameters.update(CONTROL)
    command.__doc__ = f"{(config_class.__doc__ or '').strip()}\n\nExample: `{EXAMPLES[stage]}`"
    return _with_signature(command, parameters)


def _list_experiments(console: Console) -> None:
    from cmgl_cli.about import list_experiments

    list_experiments(console)


def _setting_parameters(config_class: type) -> dict[str, tuple[Any, Any, Any]]:
    hints = typing.get_type_hints(config_class)
    parameters: dict[str, tuple[Any, Any, Any]] = {}
    for item in fields(config_class):
        hint, about = hints[item.name], item.metadata["about"]
        if item.metadata["choices"]:
            about += f" One of: {', '.join(item.metadata['choices'])}."
        if item.default not in (None, ()) and hint is not bool:
            default = ",".join(map(str, item.default)) if isinstance(item.default, tuple) else item.default
            about += f" Default: {default}."
        flag = "--" + item.name.replace("_", "-")
        kind = next(arm for arm in (typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)))
        if item.metadata["positional"]:
            parameters[item.name] = (
                str | None,
                None,
                typer.Argument(metavar=item.name.upper(), help=about, show_default=False),
            )
        elif kind is bool:
            parameters[item.name] = (
                bool | None,
                None,
                typer.Option(f"{flag}/--no-{flag[2:]}", help=about, show_default=False),
            )
        else:
            simple = kind if kind in (int, float, Path) else str
            parameters[item.name] = (simple | None, None, typer.Option(flag, help=about, show_default=False))
    return parameters


def _with_signature(command: Callable[..., None], parameters: dict[str, tuple[Any, Any, Any]]) -> Callable[..., None]:
    """Give a function the signature that typer reads."""
    made = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])
        for name, (kind, default, info) in parameters.items()
    ]
    command.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]
    command.__annotations__ = {item.name: item.annotation for item in made}
    return command


for _stage in STAGE_CONFIGS:
    app.command(_stage)(_stage_command(_stage))


def _run_config(path: Path, artifacts: Path | None, root: Path | None) -> Any:
    run = build_run(path, {"artifacts": artifacts, "root": root})
    if not run.name:
        raise UsageError("the configuration names no dataset", str(path), "add a line: dataset: NAME")
    return run


Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file with the settings of an experiment.")]
Artifacts = Annotated[Path | None, typer.Option(help="Folder of all experiments. Default: artifacts.")]
Root = Annotated[Path | None, typer.Option(help="Folder the datasets lie in. Default: $CMGL_DATA, then ./data.")]


@app.command("run")
def run_command(  # noqa: PLR0913 (one parameter a flag)
    config: Config,
    artifacts: Artifacts = None,
    root: Root = None,
    force: Annotated[bool, typer.Option("--force", help="Compute every stage again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and why.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Recompute the digests of all inputs first.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Bring every stale stage of an experiment up to date.

    Example: `cmgl run configs/digits.yaml`
    """
    console = Console(quiet, as_json, debug)

    def body() -> None:
        run = _run_config(config, artifacts, root)
        if dry_run:
            _print_status(run, console)
        else:
            _finish_run(run_all(run, console, force=force, verify=verify))

    _guarded(console, body)


@app.command("status")
def status_command(
    config: Config,
    artifacts: Artifacts = None,
    root: Root = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say which stages of an experiment are up to date, and why the others are not.

    Example: `cmgl status configs/digits.yaml`
    """
    console = Console(quiet, as_json, debug)
    _guarded(console, lambda: _print_status(_run_config(config, artifacts, root), console))


@app.command("inspect")
def inspect_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An artifact.")],
    verify: Annotated[bool, typer.Option("--verify", help="Recompute the content digest.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what an artifact holds and where it comes from.

    Example: `cmgl inspect artifacts/digits/graphs.h5`
    """
    console = Console(quiet, as_json, debug)

    def body() -> None:
        from cmgl_cli.about import inspect_artifact

        inspect_artifact(file, console, verify=verify)

    _guarded(console, body)


@app.command("datasets")
def datasets_command(
    name: Annotated[str | None, typer.Argument(help="Show the layout of this one.")] = None,
    root: Root = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the datasets, the folder layout each expects, and which are found.

    Example: `cmgl datasets voc2012`
    """
    console = Console(quiet, as_json, debug)

    def body() -> None:
        from cmgl_cli.about import list_datasets

        list_datasets(name, root, console)

    _guarded(console, body)


@app.command("env")
def env_command(quiet: Quiet = False, as_json: AsJson = False, debug: Debug = False) -> None:
    """Print what a bug report needs: versions, devices, settings.

    Example: `cmgl env`
    """
    console = Console(quiet, as_json, debug)

    def body() -> None:
        from cmgl_cli.about import environment

        console.fields("environment", environment())

    _guarded(console, body)


@app.command("demo")
def demo_command(
    artifacts: Artifacts = None, quiet: Quiet = False, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Run the whole main job on bundled data: handwritten digits and their texts, in, graphs and classes out.

    Example: `cmgl demo`
    """
    console = Console(quiet, as_json, debug)

    def body() -> None:
        from cmgl_cli.about import demo_config

        run = build_run(demo_config(), {"artifacts": artifacts})
        _finish_run(run_all(run, console))

    _guarded(console, body)


def _finish_run(jobs: list[Job]) -> None:
    from cmgl_cli.reports.experiment import write_report

    for job in jobs:
        summarize(job)
    html, markdown = write_report(job.run)
    job.console.fields("report", {"page": html.resolve(), "text": markdown.resolve()})


def _print_status(run: Any, console: Console) -> None:
    rows = [(item.step.label, item.state, item.step.output, "; ".join(item.reasons)) for item in status(run, console)]
    console.table(f"{run.name} ({run.folder})", ("stage", "state", "output", "why"), rows)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cmgl {__version__}")
        raise typer.Exit


@app.callback()
def callback(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Learn the sparse dependency graph of multimodal data, and use it."""


def main() -> None:
    """Run the command line; the entry point of the `cmgl` script."""
    app()
