"""``cmgl experiment``: a grid of independent cells, resumable, to one artifact, one table and one figure."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cmgl_cli.artifacts import Artifact, ArtifactWriter, publish_bytes
from cmgl_cli.datasets.stations import StationTable, read_stations
from cmgl_cli.errors import UsageError, suggest
from cmgl_cli.experiments import (
    EXPERIMENTS,
    SECONDS,
    Chain,
    Experiment,
    Journal,
    Request,
    Results,
    chosen,
    paired_gains,
    run_cells,
    summary_tables,
    to_csv,
    to_latex,
    to_markdown,
    workers,
)
from cmgl_cli.pipeline import Job, Prepared, execute, make_job, status
from cmgl_cli.reports import png
from cmgl_cli.settings import ExperimentConfig
from cmgl_cli.steps import steps_of


def prepare(job: Job) -> Prepared:
    """Bring what all cells share up to date: the features, or the record that the experiment works on."""
    config: ExperimentConfig = job.config
    experiment = _experiment(config.experiment)
    digests = {"experiment": f"{experiment.name} {experiment.version}"}
    if experiment.needs == "features":
        _extract(job)
        if job.dry_run and not (job.run.folder / "features.h5").exists():
            return Prepared(digests)
        chain = Chain.of(job.run)
        return Prepared({**digests, **chain.digests()}, chain)
    if not experiment.needs:
        return Prepared(digests)
    if not config.input:
        raise UsageError(
            "this experiment works on a record", config.experiment, "give --input FILE, and --stations FILE"
        )
    table = _complete(read_stations(config.input, config.stations), config)
    return Prepared({**digests, "stations": table.digest()}, table)


def _extract(job: Job) -> None:
    """Make the features, where a dataset says of what; without one, those that are there are taken."""
    if not job.run.dataset:
        return
    run = replace(job.run, until=("extract",))
    if job.dry_run:
        for item in status(run, job.console):
            if item.state != "up to date":
                job.console.info(f"{item.step.label}: {item.state}, would be made")
        return
    for step in steps_of(run):
        execute(make_job(step, run, job.console, verify=job.verify))


def _experiment(name: str) -> Experiment:
    if name not in EXPERIMENTS:
        raise UsageError("unknown experiment", f"cmgl experiment {name}", suggest(name, EXPERIMENTS))
    return EXPERIMENTS[name]


def _complete(table: StationTable, config: ExperimentConfig) -> StationTable:
    """Return the asked part of a record: the period, and the stations that observed enough of it."""
    kept = [name for name in table.stations if name not in config.exclude]
    table = table.select(stations=kept, start=config.start, end=config.end)
    share = table.observed.mean(axis=(0, 2))
    enough = [name for name, part in zip(table.stations, share, strict=True) if part >= config.complete]
    if not enough:
        raise UsageError(
            "no station observed enough", f"--complete {config.complete}, best {share.max():.2f}", "lower --complete"
        )
    return table.select(stations=enough)


def compute(job: Job, data: StationTable | Chain | None, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    """Run the cells that are not in the journal yet, and store all."""
    config: ExperimentConfig = job.config
    experiment = EXPERIMENTS[config.experiment]
    request = Request(config.quick, config.years, config.seeds, config.text_encoder, data)
    cells = chosen(experiment.cells(request), config.only)
    scope = {"experiment": experiment.name, "version": experiment.version}
    if data is not None:
        scope["data"] = data.digest()
    journal = Journal(job.output.with_suffix(".cells.jsonl"), scope)
    done = sum(cell in journal for cell in cells)
    if done:
        job.console.info(f"{experiment.name}: {done} of {len(cells)} cells are done already")
    with job.console.progress(experiment.name, len(cells), "cells", done) as ticker:
        results = run_cells(
            experiment,
            cells,
            data,
            journal,
            parallel=workers(config.backend, config.jobs, config.scheduler),
            on_done=lambda cell: ticker.advance(),
        )
    _write(out, results)


def _write(out: ArtifactWriter, results: Results) -> None:
    for name in dict.fromkeys(key for cell in results.cells for key in cell):
        values = [cell.get(name, "") for cell in results.cells]
        texts = any(isinstance(value, str) for value in values)
        out.write(f"parameters/{name}", np.array(values, dtype=object if texts else np.float64))
    # times differ from run to run, so they stay outside the content
    times = [name for name in results.names() if name.startswith(SECONDS)]
    for name in results.names():
        if name not in times:
            out.write(f"metrics/{name.replace('/', '-')}", results.column(name))
    out.provenance["times"] = {name: [_rounded(value) for value in results.column(name)] for name in times}


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None


def summarize(artifact: Artifact, job: Job) -> None:
    """Print the tables; write them beside the artifact as Markdown, CSV and LaTeX, with the figure."""
    experiment = EXPERIMENTS[artifact.identity.config["experiment"]]
    results = _read(artifact)
    tables = summary_tables(experiment, results)
    gains = paired_gains(experiment, results)
    for table in (*tables, *gains):
        job.console.table(table.title, table.header, table.rows)
    extra = [table for name in results.names() for table in summary_tables(experiment, results, name)]
    more = [table for table in extra if table.title not in {one.title for one in tables}]
    files = {
        ".md": to_markdown([*tables, *gains, *more]),
        ".csv": to_csv(results),
        ".tex": to_latex([*tables, *gains]),
    }
    contents = {suffix: text.encode() for suffix, text in files.items()} | {".png": png(experiment.figure(results))}
    for suffix, content in contents.items():
        publish_bytes(job.output.with_suffix(suffix), content)
    job.console.fields(
        "experiment",
        {"cells": len(results.cells), "written": [str(job.output.with_suffix(suffix)) for suffix in contents]},
    )


def _read(artifact: Artifact) -> Results:
    parameters, metrics = artifact.group("parameters"), artifact.group("metrics")
    times = artifact.provenance.get("times", {})
    metrics |= {name: np.array(values, dtype=np.float64) for name, values in times.items()}
    count = len(next(iter(parameters.values())))
    cells = [{name: _scalar(values[i]) for name, values in parameters.items()} for i in range(count)]
    found = [{n: float(v[i]) for n, v in metrics.items() if not np.isnan(v[i])} for i in range(count)]
    return Results(tuple(cells), tuple(found))


def _scalar(value: object) -> str | int | float:
    if isinstance(value, str):
        return value
    number = float(value)  # type: ignore[arg-type]
    return int(number) if number.is_integer() else number
