"""``cmgl report``: from what was typed to the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmgl_cli.config import RunConfig, build_run
from cmgl_cli.console import Console
from cmgl_cli.errors import UsageError
from cmgl_cli.reports.material import Images, runs_of_config, runs_of_files
from cmgl_cli.reports.report import Written, write_report

CONFIGS = (".yaml", ".yml")


def report(sources: Sequence[Path], output: Path | None, typed: Mapping[str, Any], console: Console) -> None:
    """Write the report of an experiment or of artifacts, and say where it lies and what is missing.

    Parameters
    ----------
    sources : sequence of Path
        One YAML file, or artifacts.
    output : Path or None
        The page; beside the first artifact by default.
    typed : mapping
        ``artifacts``, ``dataset``, ``root`` and ``dataset_options`` as typed; None where they were not.
    console : Console
    """
    configs = [path for path in sources if path.suffix.lower() in CONFIGS]
    if configs and len(sources) > 1:
        raise UsageError(
            "a report is of one configuration, or of artifacts",
            ", ".join(map(str, sources)),
            "give the YAML file alone, or only .h5 files",
        )
    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise UsageError("the report is an HTML page", f"--output {output}", "choose a name that ends in .html")
    config = build_run(configs[0] if configs else None, typed)
    if configs:
        if not config.name:
            raise UsageError("the configuration names no dataset", str(configs[0]), "add a line: dataset: NAME")
        runs = runs_of_config(config)
    else:
        runs = runs_of_files(sources, Images(config.dataset, config.root, config.dataset_options))
    say(write_report(runs, output or runs[0].folder / "report.html"), console)


def report_of_run(config: RunConfig, console: Console) -> None:
    """Write the report of an experiment into its folder."""
    say(write_report(runs_of_config(config), config.folder / "report.html"), console)


def say(written: Written, console: Console) -> None:
    """Print where a report lies, and what it lacks."""
    size = written.page.stat().st_size / 1e6
    values = {
        "page": written.page.resolve(),
        "text": written.twin.resolve(),
        "sections": list(written.sections),
        "size": f"{size:.1f} MB",
    }
    console.fields("report", {**values, "missing": list(written.notes)} if written.notes else values)
