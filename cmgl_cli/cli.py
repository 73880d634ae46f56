"""The command line: options and help, nothing else. Every stage is imported inside its command."""

import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from cmgl_cli import __version__, completion
from cmgl_cli.commands import Request, run_stage
from cmgl_cli.config import build_run
from cmgl_cli.console import Console
from cmgl_cli.errors import EXIT_INTERRUPTED, OutputError, UsageError
from cmgl_cli.flags import (
    EXTRA,
    ArtifactFile,
    Artifacts,
    AsJson,
    Config,
    Dataset,
    DatasetOptions,
    Debug,
    DryRun,
    Force,
    KnownDataset,
    Quiet,
    Root,
    Sources,
    Verify,
    stage_flags,
    with_signature,
)
from cmgl_cli.pipeline import Job, run_all, status, summarize
from cmgl_cli.settings import STAGE_CONFIGS
from cmgl_cli.steps import STEPS

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
    "init": "cmgl init mine --root photos",
    "run": "cmgl run configs/smoke.yaml",
    "status": "cmgl status configs/smoke.yaml",
    "inspect": "cmgl inspect artifacts/digits/graphs.h5",
    "report": "cmgl report artifacts/digits/classification.h5",
    "datasets": "cmgl datasets voc2012",
    "env": "cmgl env --json",
    "demo": "cmgl demo --artifacts first-look",
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

    def command(**typed: Any) -> None:
        console = Console(typed["quiet"], typed["as_json"], typed["debug"])
        settled = {key: typed[key] for key in (*settings, "dataset", "root", "dataset_options", "name", "artifacts")}
        paths = {key: typed[key] for key in (*roles, "output")}
        if typed.get("list"):
            _guarded(console, lambda: _list_experiments(console))
            return
        request = Request(stage, typed["config"], settled, paths, {key: typed[key] for key in EXTRA.get(stage, {})})
        control = {key: typed[key] for key in ("force", "dry_run", "verify")}
        _guarded(console, lambda: run_stage(request, console, **control))

    command.__doc__ = config_class.__doc__
    return with_signature(command, stage_flags(stage, steps, config_class))


def _list_experiments(console: Console) -> None:
    from cmgl_cli.about import list_experiments

    list_experiments(console)


def _registered(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a command whose help ends with its example."""
    return app.command(name, epilog=f"Example: `{EXAMPLES[name]}`")


for _stage in STAGE_CONFIGS:
    _registered(_stage)(_stage_command(_stage))


def _run_config(path: Path, artifacts: Path | None, root: Path | None) -> Any:
    run = build_run(path, {"artifacts": artifacts, "root": root})
    if not run.name:
        raise UsageError("the configuration names no dataset", str(path), "add a line: dataset: NAME")
    return run


@_registered("run")
def run_command(  # noqa: PLR0913 (one parameter a flag)
    config: Config,
    artifacts: Artifacts = None,
    root: Root = None,
    force: Force = False,
    dry_run: DryRun = False,
    verify: Verify = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Bring every stale stage of an experiment up to date."""
    console = Console(quiet, as_json, debug)

    def body() -> None:
        run = _run_config(config, artifacts, root)
        if dry_run:
            _print_status(run, console)
        else:
            _finish_run(run_all(run, console, force=force, verify=verify))

    _guarded(console, body)


@_registered("init")
def init_command(  # noqa: PLR0913 (one parameter a flag)
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new experiment.")],
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of your images, or .npz file. Default: the folder NAME.", autocompletion=completion.files()
        ),
    ] = None,
    dataset: Dataset = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: NAME.yaml.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a commented file of settings for your own folder of images, or for a known dataset."""
    console = Console(quiet, as_json, debug)

    def body() -> None:
        from cmgl_cli.starter import write_starter

        write_starter(name, console, dataset=dataset, root=root, output=output)

    _guarded(console, body)


@_registered("status")
def status_command(
    config: Config,
    artifacts: Artifacts = None,
    root: Root = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say which stages of an experiment are up to date, and why the others are not."""
    console = Console(quiet, as_json, debug)
    _guarded(console, lambda: _print_status(_run_config(config, artifacts, root), console))


@_registered("inspect")
def inspect_command(
    file: ArtifactFile,
    verify: Annotated[bool, typer.Option("--verify", help="Recompute the content digest.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what an artifact holds and where it comes from."""
    console = Console(quiet, as_json, debug)

    def body() -> None:
        from cmgl_cli.about import inspect_artifact

        inspect_artifact(file, console, verify=verify)

    _guarded(console, body)


@_registered("report")
def report_command(  # noqa: PLR0913 (one parameter a flag)
    sources: Sources,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Default: report.html beside the artifacts.",
            autocompletion=completion.files(".html"),
        ),
    ] = None,
    dataset: Dataset = None,
    root: Root = None,
    dataset_options: DatasetOptions = None,
    artifacts: Artifacts = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write one page of what was run, what came out and what the graphs say; beside it the same as Markdown.

    What an artifact was made from is added where it lies beside it. Artifacts of several seeds give mean and spread.
    """
    console = Console(quiet, as_json, debug)
    typed = {"dataset": dataset, "root": root, "dataset_options": dataset_options, "artifacts": artifacts}

    def body() -> None:
        from cmgl_cli.reports.command import report

        report(sources, output, typed, console)

    _guarded(console, body)


@_registered("datasets")
def datasets_command(
    name: KnownDataset = None,
    root: Root = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the datasets, the folder layout each expects, and which are found."""
    console = Console(quiet, as_json, debug)

    def body() -> None:
        from cmgl_cli.about import list_datasets

        list_datasets(name, root, console)

    _guarded(console, body)


@_registered("env")
def env_command(quiet: Quiet = False, as_json: AsJson = False, debug: Debug = False) -> None:
    """Print what a bug report needs: versions, devices, settings."""
    console = Console(quiet, as_json, debug)

    def body() -> None:
        from cmgl_cli.about import environment

        console.fields("environment", environment())

    _guarded(console, body)


@_registered("demo")
def demo_command(
    artifacts: Artifacts = None, quiet: Quiet = False, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Run the whole main job on bundled data: handwritten digits and their texts, in, graphs and classes out."""
    console = Console(quiet, as_json, debug)

    def body() -> None:
        from cmgl_cli.about import demo_config

        run = build_run(demo_config(), {"artifacts": artifacts})
        _finish_run(run_all(run, console))

    _guarded(console, body)


def _finish_run(jobs: list[Job]) -> None:
    from cmgl_cli.reports.command import report_of_run

    for job in jobs:
        summarize(job)
    report_of_run(job.run, job.console)


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
