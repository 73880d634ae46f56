"""Experiments, one section each: mean and spread over seeds or folds, and the figure beside the artifact."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cmgl_cli.artifacts import Artifact
from cmgl_cli.reports.material import Run, kinds
from cmgl_cli.reports.page import Figure, Section, Table
from cmgl_cli.reports.sections.parts import shortened

REPEATED = ("seed", "fold")
"""Parameters over which a mean is taken."""
METRICS_SHOWN = 6
LARGEST_FIGURE = 3_000_000
ROWS_OF_GRID = 60


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return a section for every experiment."""
    made = []
    for at, run in enumerate(kinds(runs, "experiment")):
        artifact = run.open("experiment")
        if artifact is not None:
            with artifact:
                made.append(_section(artifact, at))
    return made


def _section(artifact: Artifact, at: int) -> Section:
    name = str(artifact.config.get("experiment", artifact.path.stem))
    parameters, metrics = artifact.group("parameters"), artifact.group("metrics")
    table = summary(parameters, metrics)
    over = [key for key in REPEATED if key in parameters]
    cells = len(next(iter(metrics.values()), np.array([])))
    text = f"{cells} cells were computed, each from its parameters alone."
    if over:
        text += f" Mean ± standard deviation are over {' and '.join(over)}."
    return Section(f"Experiment {name}", [text], [table] if table.rows else [], _beside(artifact.path, name, at))


def summary(parameters: Mapping[str, np.ndarray], metrics: Mapping[str, np.ndarray]) -> Table:
    """Return mean and spread of the metrics for every setting of the parameters that vary.

    Parameters
    ----------
    parameters, metrics : mapping of str to ndarray, [cells]
        Metrics may be NaN where a cell has none.
    """
    varied = [name for name, values in parameters.items() if name not in REPEATED and len(set(values.tolist())) > 1]
    groups: dict[tuple[str, ...], list[int]] = {}
    for i in range(len(next(iter(metrics.values()), []))):
        groups.setdefault(tuple(_text(parameters[name][i]) for name in varied), []).append(i)
    shown = list(metrics)[:METRICS_SHOWN]
    rows = [
        [*key, *(_mean_and_spread(metrics[name][cells]) for name in shown), str(len(cells))]
        for key, cells in groups.items()
    ]
    return shortened(Table((*varied, *shown, "cells"), rows, "What was measured"), ROWS_OF_GRID)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _mean_and_spread(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "–"
    text = f"{known.mean():.4g}"
    # the standard deviation that the experiment's own tables show
    return text if len(known) < 2 else f"{text} ± {known.std():.2g}"


def _beside(path: Path, name: str, at: int) -> list[Figure]:
    """Return the figure that the experiment wrote beside its artifact, where it lies there still."""
    picture = path.with_suffix(".png")
    try:
        data = picture.read_bytes() if picture.stat().st_size <= LARGEST_FIGURE else b""
    except OSError:
        return []
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return []
    caption = f"The figure of experiment {name}"
    reading = "One curve or bar a method; whiskers are one standard deviation over repetitions."
    return [Figure(f"experiment-{at + 1}", data, f"{caption}. {reading}", caption + ".", reading)]
