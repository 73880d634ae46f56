"""A restored station record: what was filled and how well, the learnt graphs, gaps with their bands."""

from collections.abc import Mapping, Sequence

import numpy as np

from cmgl_cli.artifacts import Artifact
from cmgl_cli.reports.material import Run, kinds
from cmgl_cli.reports.page import Figure, Section, Table
from cmgl_cli.reports.sections.parts import figure
from cmgl_cli.reports.station_figures import filled_figure, station_figures

READINGS = {
    "gaps": (
        "Gaps of some stations, what was filled in, and how sure that is",
        "Blue is what was observed, orange what was filled. The band should hold the truth nine times in ten: "
        "wide where little is known, narrow where neighbours and other variables say much.",
    ),
    "filled": (
        "How much was filled at every station, and how sure that is",
        "A station is a dot where it lies: the larger, the more of its values were filled; the stronger its colour, "
        "the less sure they are (mean standard error). Large and pale dots are gaps that neighbours fill well.",
    ),
    "skill": (
        "Errors on observations that were hidden and filled like gaps, method by method",
        "Every method filled the same hidden observations; a shorter bar means values closer to what had been "
        "observed. Blue is the method that filled this record.",
    ),
    "spatial-graph": (
        "The learnt graph between stations, on the map",
        "Dots are stations, coloured by their elevation. Joined stations inform each other, thick lines more; "
        "stations that are near and not joined do not help each other.",
    ),
    "modality-graph": (
        "The learnt graph between variables",
        "A solid orange line joins variables that rise together, a dashed blue one variables of which one falls when "
        "the other rises; the numbers are the weights.",
    ),
}


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return a section for every restored record."""
    found = kinds(runs, "restoration")
    return [_section(run, "" if len(found) == 1 else f": {run.name}", at) for at, run in enumerate(found)]


def _section(run: Run, suffix: str, at: int) -> Section:
    artifact = run.open("restoration")
    if artifact is None:
        return Section("The restored record")
    with artifact:
        tables = [table for table in (_skill(artifact), _simulated(artifact)) if table.rows]
        figures = _figures(artifact, f"-{at + 1}" if suffix else "")
        text = _summary(artifact)
        points = [note for note in artifact["notes"].tolist() if note]
    return Section(f"The restored record{suffix}", [text], tables, figures, points)


def _summary(artifact: Artifact) -> str:
    filled, times = artifact["filled"], artifact["time"]
    share = filled.mean(axis=(0, 1))
    each = ", ".join(f"{name} {part:.1%}" for name, part in zip(artifact["variable"], share, strict=True))
    return (
        f"{filled.shape[1]} stations, {filled.shape[0]:,} times from {times[0][:10]} to {times[-1][:10]}. Filled in: "
        f"{each} of all values; observed values are as they were."
    )


def _skill(artifact: Artifact) -> Table:
    skill, units = artifact.group("skill"), dict(zip(artifact["variable"], artifact["unit"], strict=True))
    rows: list[list[str]] = []
    best: list[int] = []
    for i in np.lexsort((skill["rmse"], _first_seen(skill["variable"]))):
        name = str(skill["variable"][i])
        if not rows or rows[-1][0] != name:
            best.append(len(rows))
        unit = str(units.get(name, ""))
        rows.append(
            [
                name,
                str(skill["method"][i]),
                _number(skill["rmse"][i]),
                _number(skill["mae"][i]),
                unit,
                str(int(skill["n"][i])),
            ]
        )
    columns = ("variable", "method", "RMSE", "MAE", "unit", "hidden values")
    return Table(columns, rows, "Skill on hidden observations, best first; the best of each variable in bold", best)


def _first_seen(values: np.ndarray) -> np.ndarray:
    """Return for every value the place at which it first occurs."""
    names = list(dict.fromkeys(values.tolist()))
    return np.array([names.index(value) for value in values.tolist()], dtype=np.int64)


def _simulated(artifact: Artifact) -> Table:
    found: Mapping[str, np.ndarray] = artifact.group("simulated")
    if not len(found):
        return Table((), ())
    columns = ("variable", "RMSE", "MAE", "truth inside the 90 % band", "hidden values")
    rows = [
        [str(name), _number(rmse), _number(mae), f"{cover:.1%}", str(int(n))]
        for name, rmse, mae, cover, n in zip(
            artifact["variable"], found["rmse"], found["mae"], found["coverage"], found["n"], strict=True
        )
        if n
    ]
    return Table(columns, rows, "Gaps that were made on purpose (--simulate), against what had been observed there")


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3g}"


def _figures(artifact: Artifact, suffix: str) -> list[Figure]:
    drawings = station_figures(artifact)
    if np.isfinite(artifact["coordinates"][:, :2]).all():
        drawings["filled"] = filled_figure(
            artifact["coordinates"],
            artifact["filled"],
            artifact["standard_error"],
            artifact["variable"].tolist(),
            artifact["unit"].tolist(),
        )
    return [
        figure(f"restoration-{name}{suffix}", drawings[name], *words)
        for name, words in READINGS.items()
        if name in drawings
    ]


def says(run: Run) -> list[str]:
    """Return what the graphs of a restored record say, in sentences."""
    artifact = run.open("restoration")
    if artifact is None:
        return []
    with artifact:
        names, skill, weights = (
            artifact["variable"].tolist(),
            artifact.group("skill"),
            artifact["graphs/modality_weights"],
        )
        stations, edges, strength = (
            artifact["station"],
            artifact["graphs/spatial_edges"],
            artifact["graphs/spatial_weights"],
        )
    return [*_variables(names, weights), *_neighbours(stations, edges, strength), *_verdict(names, skill)]


def _variables(names: Sequence[str], weights: np.ndarray) -> list[str]:
    rows, columns = np.triu_indices(len(names), 1)
    order = np.argsort(-np.abs(weights[rows, columns]), kind="stable")
    lines = []
    for i in order[:2]:
        value = weights[rows[i], columns[i]]
        if value:
            how = "rise and fall together" if value > 0 else "move against each other"
            lines.append(f"{names[rows[i]]} and {names[columns[i]]} {how} (weight {value:+.2g})")
    return (
        [f"Between variables: {'; '.join(lines)}."]
        if lines
        else ["The variables were found to say nothing of each other."]
    )


def _neighbours(stations: np.ndarray, edges: np.ndarray, strength: np.ndarray) -> list[str]:
    if not len(strength):
        return []
    top = np.argsort(-strength, kind="stable")[:3]
    pairs = "; ".join(f"{stations[a]} and {stations[b]}" for a, b in edges[:, top].T)
    return [f"Between stations: {len(strength):,} links; the closest ties are {pairs}."]


def _verdict(names: Sequence[str], skill: Mapping[str, np.ndarray]) -> list[str]:
    lines = []
    for name in names:
        rows = np.flatnonzero(skill["variable"] == name)
        rows = rows[np.isfinite(skill["rmse"][rows])]
        if len(rows) < 2:
            continue
        ours, rest = rows[0], rows[1:]
        peer = rest[int(np.argmin(skill["rmse"][rest]))]
        change = skill["rmse"][ours] / skill["rmse"][peer] - 1
        word = "below" if change < 0 else "above"
        lines.append(f"{name} {abs(change):.1%} {word} {skill['method'][peer]}")
    if not lines:
        return []
    return [
        "On hidden observations the error of what filled this record, beside the best other method: "
        f"{', '.join(lines)}."
    ]
