"""What a user should know about a record before trusting its fills: dead series, skill on hold-out, what was lost."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cmgl_cli.restoration.record import Stations, Variable

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Skill:
    """Errors of one method on the hold-out cells of one variable, in its own units.

    Attributes
    ----------
    variable, method : str
        Names.
    rmse, mae : float
        Root mean squared and mean absolute error; NaN without hold-out cells.
    n : int
        Hold-out cells.
    """

    variable: str
    method: str
    rmse: float
    mae: float
    n: int


@dataclass(frozen=True)
class Diagnostics:
    """What a user should know about the record.

    Attributes
    ----------
    dead_stations : list of str
        Stations without any observation.
    dead_series : list of (station, variable)
        Series without any observation at stations that have others.
    constant_series : list of (station, variable)
        Series whose observations never change.
    empty_times : list of int
        Times at which nothing was observed: their fills are climatology and offsets alone.
    same_place : list of (station, station)
        Pairs at the same coordinates.
    notes : list of str
        Sentences: what was lost for want of coordinates, where the method does not beat a peer.
    settings : dict
        What hold-out chose.
    """

    dead_stations: list[str]
    dead_series: list[tuple[str, str]]
    constant_series: list[tuple[str, str]]
    empty_times: list[int]
    same_place: list[tuple[str, str]]
    notes: list[str] = field(default_factory=list)
    settings: dict[str, object] = field(default_factory=dict)


def skill_of(variable: str, method: str, error: Array) -> Skill:
    """Return the errors of one method on one variable; NaN without hold-out cells."""
    if error.size == 0:
        return Skill(variable, method, float("nan"), float("nan"), 0)
    return Skill(variable, method, float(np.sqrt((error**2).mean())), float(np.abs(error).mean()), error.size)


def diagnose(
    values: Array, stations: Stations, variables: Sequence[Variable], skill: list[Skill], method: str
) -> Diagnostics:
    """Return what was noticed about a record and about the method's skill on it.

    Parameters
    ----------
    values : ndarray, shape (n_times, n_stations, n_variables)
        NaN where missing.
    stations : Stations
    variables : sequence of Variable
    skill : list of Skill
        Of the method and of what it is compared with.
    method : str
    """
    known = np.isfinite(values)
    alive: Mask = np.asarray(known.any(axis=0), dtype=bool)
    dead: Mask = ~np.asarray(alive.any(axis=1), dtype=bool)
    series = [(str(n), v.name) for n in stations.names for v in variables]
    lonely = (~alive & ~dead[:, None]).reshape(-1)
    low = np.where(known, values, np.inf).min(axis=0)
    high = np.where(known, values, -np.inf).max(axis=0)
    constant = ((low == high) & (known.sum(axis=0) > 2)).reshape(-1)
    # a variable without gaps, or without observations, has no fills to judge
    gaps: Mask = np.asarray(known.any(axis=(0, 1)) & ~known.all(axis=(0, 1)), dtype=bool)
    notes = [_verdict(variable.name, skill, method) for variable, some in zip(variables, gaps, strict=True) if some]
    if stations.coordinates() is None:
        notes.append("no coordinates: no spatial kernel and no kriging; stations are related by their records alone")
    return Diagnostics(
        [str(n) for n, gone in zip(stations.names, dead, strict=True) if gone],
        [pair for pair, gone in zip(series, lonely, strict=True) if gone],
        [pair for pair, same in zip(series, constant, strict=True) if same],
        np.flatnonzero(~known.any(axis=(1, 2))).tolist(),
        _same_place(stations),
        [note for note in notes if note],
    )


def _verdict(variable: str, skill: list[Skill], method: str) -> str:
    rows = {row.method: row for row in skill if row.variable == variable}
    own = rows.pop(method)
    if own.n < 20:
        return f"{variable}: {own.n} hold-out cells only, its skill and standard errors are not calibrated"
    better = [f"{name} ({row.rmse:.4g})" for name, row in rows.items() if row.rmse < own.rmse]
    return f"{variable}: {method} ({own.rmse:.4g}) does not beat {', '.join(better)} on hold-out" if better else ""


def _same_place(stations: Stations) -> list[tuple[str, str]]:
    coordinates = stations.coordinates()
    if coordinates is None:
        return []
    _, index = np.unique(np.round(coordinates[:, :2], 3), axis=0, return_inverse=True)
    first: dict[int, str] = {}
    pairs = []
    for name, place in zip(stations.names, index.reshape(-1).tolist(), strict=True):
        if place in first:
            pairs.append((first[place], str(name)))
        first.setdefault(place, str(name))
    return pairs
