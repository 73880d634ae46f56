"""``cmgl experiment twofold-stations``: gaps hidden in a station record, filled by the default and by every peer.

A cell is one method on one drawing of gaps. Gaps lie in held-out years only: every third one, every second in records
of less than five years, every second stretch of 28 steps in records of less than two.
"""

import numpy as np
import torch
from matplotlib.figure import Figure

from cmgl_cli.datasets.stations import StationTable
from cmgl_cli.experiments.engine import Cell, Experiment, Request, Results
from cmgl_cli.reports.experiment_figures import Panel, panels_figure
from cmgl_cli.restoration.peers import NEEDS_COORDINATES
from cmgl_cli.restoration.table import Stations, Variable, restore_table

SEEDS = 5
RATES = (0.1, 0.3, 0.5)
OUTAGE_STEPS = {"monthly": 6, "daily": 14, "hourly": 72}
STEPS_A_YEAR = {"monthly": 12, "daily": 365, "hourly": 8766}
DEFAULT, CLIMATOLOGY = "default", "climatology"
METHODS = (
    DEFAULT,
    "mvn-em-shrunk",
    "climatology-kriging",
    "knn",
    "mvn-em",
    "soft-impute",
    "paper",
    "iterative",
    "linear",
    CLIMATOLOGY,
)


def cells(request: Request) -> list[Cell]:
    """Return the grid: record lengths, patterns of gaps, missing rates, methods, mask seeds."""
    table: StationTable = request.data
    located = bool(np.isfinite(table.coordinates[:, :2]).all())
    methods = [name for name in METHODS if located or name not in NEEDS_COORDINATES]
    seeds, rates, patterns = range(SEEDS), list(RATES), ["MCAR", "outage"]
    if request.quick:
        seeds, rates, patterns, methods = range(1), [0.3], ["MCAR"], [DEFAULT, "knn", CLIMATOLOGY]
    return [
        {"years": years, "pattern": pattern, "rate": rate, "method": method, "seed": seed}
        for years in request.years
        for pattern in patterns
        for rate in rates
        for method in methods
        for seed in seeds
    ]


def run(cell: Cell, data: StationTable) -> dict[str, float]:
    """Hide, restore, score: mean squared error on hidden cells, each variable in units of its own spread."""
    torch.set_num_threads(1)
    table = shortened(data, int(cell["years"]))
    hidden = hidden_cells(table, str(cell["pattern"]), float(cell["rate"]), int(cell["seed"]))
    record = np.where(hidden, np.nan, table.values)
    scale = np.nanstd(record, axis=(0, 1))
    variables = [Variable(name, lower=_floor(table.values[..., v])) for v, name in enumerate(table.variables)]
    result = restore_table(record, table.time, _places(table), variables, method=str(cell["method"]), compare=())
    error = (result.values - table.values) / np.where(scale > 0, scale, 1.0)
    inside = np.abs(result.values - table.values) <= 1.645 * result.standard_error
    metrics = {"MSE": float((error[hidden] ** 2).mean())}
    for v, name in enumerate(table.variables):
        cells_of = hidden[..., v]
        if cells_of.any():
            metrics[f"MSE {name}"] = float((error[..., v][cells_of] ** 2).mean())
            metrics[f"cover {name}"] = float(inside[..., v][cells_of].mean())
    return metrics


def _floor(values: np.ndarray) -> float | None:
    return 0.0 if np.nanmin(values) == 0 else None


def _places(table: StationTable) -> Stations:
    if not np.isfinite(table.coordinates[:, :2]).all():
        return Stations(table.stations)
    elevation = table.elevation if np.isfinite(table.elevation).all() else None
    return Stations(table.stations, table.latitude, table.longitude, elevation)


def shortened(table: StationTable, years: int) -> StationTable:
    """Return the last so many years of a record; all of it for 0."""
    steps = years * STEPS_A_YEAR[table.frequency]
    if not 0 < steps < len(table.time):
        return table
    return table.select(start=str(table.time[-steps]))


def hidden_cells(table: StationTable, pattern: str, rate: float, seed: int) -> np.ndarray:
    """Return the observed cells to hide, bool [time, station, variable].

    Parameters
    ----------
    table : StationTable
    pattern : {"MCAR", "outage"}
        Single cells, or whole stations silent for half a year of months, 14 days or 72 hours.
    rate : float
        Share of the cells, or of the stations, in every held-out stretch.
    seed : int
    """
    rng = np.random.default_rng(seed)
    n_times, n_stations, n_variables = table.values.shape
    hidden = np.zeros((n_times, n_stations, n_variables), dtype=bool)
    for rows in held_out(table):
        if pattern == "MCAR":
            hidden[rows] = rng.random((len(rows), n_stations, n_variables)) < rate
            continue
        length = min(OUTAGE_STEPS[table.frequency], len(rows))
        for station in rng.permutation(n_stations)[: round(rate * n_stations)]:
            first = rows[0] + rng.integers(0, len(rows) - length + 1)
            hidden[first : first + length, station] = True
    return hidden & table.observed


def held_out(table: StationTable) -> list[np.ndarray]:
    """Return the rows of every held-out stretch."""
    years = table.time.astype("datetime64[Y]").astype(int)
    span = len(table.time) / STEPS_A_YEAR[table.frequency]
    block = years if span >= 2 else np.arange(len(table.time)) // 28
    every = 3 if span >= 5 else 2
    return [np.flatnonzero(block == one) for one in np.unique(block) if one % every == every - 1]


def figure(results: Results) -> Figure:
    """Draw the error against the missing rate for both patterns, and per variable over all rates."""
    panels = []
    for years in results.values("years"):
        for pattern in results.values("pattern"):
            part = results.where(years=years, pattern=pattern)
            record = f"{years} years" if years else "whole record"
            panels.append(Panel(f"{pattern}, {record}", "missing rate", "MSE", part, "rate"))
        bars = [name for name in results.names() if name.startswith("MSE ")]
        part, label = results.where(years=years), f"MSE / {CLIMATOLOGY}"
        panels.append(Panel("by variable, all gaps", "", label, part, "method", tuple(bars), CLIMATOLOGY))
    return panels_figure(panels, columns=3, first=DEFAULT, left_out={CLIMATOLOGY, "linear"})


TWOFOLD_STATIONS = Experiment(
    name="twofold-stations",
    about="Restoration of a station record given with --input: gaps in held-out years, all peers, five mask seeds",
    version=4,
    cells=cells,
    run=run,
    pages=("years",),
    rows="method",
    columns=("pattern", "rate"),
    metric="MSE",
    reference=DEFAULT,
    figure=figure,
    needs="stations",
)
