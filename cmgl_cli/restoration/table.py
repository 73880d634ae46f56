"""Restore a station record: arrays in, a filled record with standard errors, skill and graphs out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.alternation import TwofoldConfig, learn_modality, learn_spatial
from cmgl_cli.restoration.blocks import restore_blocks
from cmgl_cli.restoration.holdout import transplanted_gaps
from cmgl_cli.restoration.linear_operators import knn_edges
from cmgl_cli.restoration.matrix_methods import MATRIX_METHODS, fill_with_matrices
from cmgl_cli.restoration.peers import NEEDS_COORDINATES, PEERS, fill_with_peer
from cmgl_cli.restoration.seasons import SeasonalBasis, seasonal_basis, typical_step

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

COMPARED = ("climatology", "knn", "climatology-kriging", "mvn-em")
METHODS = ("default", *PEERS, *MATRIX_METHODS)
MAX_DENSE_STATIONS = 600


@dataclass(frozen=True)
class Variable:
    """A measured quantity.

    Attributes
    ----------
    name : str
        Its name.
    lower, upper : float or None
        Physical bounds; fills are kept within, observations are not touched.
    """

    name: str
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Stations:
    """Where the stations are.

    Attributes
    ----------
    names : sequence of str
        One a station.
    latitude, longitude : ndarray or None
        Degrees; None where unknown (the method then has no map to lean on).
    elevation : ndarray or None
        Metres.
    """

    names: Sequence[str]
    latitude: Array | None = None
    longitude: Array | None = None
    elevation: Array | None = None

    def coordinates(self) -> Array | None:
        """Return east, north (km) and elevation (in tens of metres), shape (n_stations, 2 or 3)."""
        if self.latitude is None or self.longitude is None:
            return None
        north = np.asarray(self.latitude, float) * 111.195
        east = np.asarray(self.longitude, float) * 111.195 * np.cos(np.radians(np.mean(self.latitude)))
        columns = [east, north]
        if self.elevation is not None and np.isfinite(self.elevation).all():
            columns.append(np.asarray(self.elevation, float) / 10)
        return np.stack(columns, axis=1)


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
class TwofoldGraphs:
    """The graphs of the restored record.

    Attributes
    ----------
    spatial_edges : ndarray of int, shape (2, n_edges)
        Pairs of stations with positive weight.
    spatial_weights : ndarray, shape (n_edges,)
        Their weights.
    modality_weights : ndarray, shape (n_variables, n_variables)
        Signed weights between variables.
    """

    spatial_edges: NDArray[np.int64]
    spatial_weights: Array
    modality_weights: Array


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


@dataclass(frozen=True)
class RestoredTable:
    """Result of `restore_table`.

    Attributes
    ----------
    values : ndarray, shape (n_times, n_stations, n_variables)
        Observed values bit for bit, gaps filled.
    standard_error : ndarray
        Of every filled cell, such that value +- 1.645 standard errors covers 90 % of hold-out cells; 0 where observed.
    filled : ndarray of bool
        True where a value was filled.
    skill : list of Skill
        Hold-out errors of the method and of what it is compared with.
    diagnostics : Diagnostics
        What was noticed.
    graphs : TwofoldGraphs
        Learnt on the restored record.
    """

    values: Array
    standard_error: Array
    filled: Mask
    skill: list[Skill]
    diagnostics: Diagnostics
    graphs: TwofoldGraphs


def restore_table(
    values: Array,
    time: NDArray[np.datetime64],
    stations: Stations,
    variables: Sequence[Variable],
    *,
    method: str = "default",
    compare: Sequence[str] = COMPARED,
    ordered: Sequence[tuple[str, str]] = (),
    seed: int = 0,
) -> RestoredTable:
    """Fill the gaps of a station record.

    Parameters
    ----------
    values : ndarray, shape (n_times, n_stations, n_variables)
        NaN where missing.
    time : ndarray of datetime64, shape (n_times,)
        Regular and increasing.
    stations : Stations
        Names and, for all but the simplest, positions.
    variables : sequence of Variable
        Names and physical bounds.
    method : str
        One of `METHODS`.
    compare : sequence of str
        Peers in the skill table; empty skips them.
    ordered : sequence of (str, str)
        Pairs of variables of which the first never exceeds the second; filled cells are moved where needed.
    seed : int
        Of hold-out and training; same input and seed, same output.

    Returns
    -------
    RestoredTable

    Raises
    ------
    InputError
        Unknown method, shapes that disagree, infinite values, irregular times, or no observation at all.
    """
    values = np.array(values, dtype=np.float64)
    time = np.asarray(time)
    _check(values, time, stations, variables, method)
    basis, period = seasonal_basis(time), steps_per_year(time)
    missing = np.isnan(values)
    coordinates = stations.coordinates()
    runner = _Runner(values, basis, period, stations, variables, seed)
    result = runner.run(method)
    filled = keep_physical(result.values, missing, variables, ordered)
    training = np.where(result.hidden, np.nan, values)
    hold = {method: keep_physical(result.hidden_values, np.isnan(training), variables, ordered)}
    for name in compare:
        if name != method and (coordinates is not None or name not in NEEDS_COORDINATES):
            fill = fill_with_peer(name, training, basis, coordinates)
            hold[name] = keep_physical(fill, np.isnan(training), variables, ordered)
    skill = [
        _skill(variable.name, name, (fill - values)[..., v][result.hidden[..., v]])
        for v, variable in enumerate(variables)
        for name, fill in hold.items()
    ]
    diagnostics = _diagnose(values, stations, variables, skill, method)
    diagnostics.settings.update(result.settings)
    graphs = learn_graphs(filled, basis, coordinates)
    return RestoredTable(filled, result.standard_error, missing, skill, diagnostics, graphs)


@dataclass(frozen=True)
class _Run:
    values: Array
    standard_error: Array
    hidden: Mask
    hidden_values: Array
    settings: dict[str, object]


@dataclass(frozen=True)
class _Runner:
    """One record and everything the methods need to know of it."""

    values: Array
    basis: SeasonalBasis
    period: int
    stations: Stations
    variables: Sequence[Variable]
    seed: int

    def run(self, method: str) -> _Run:
        if method == "default":
            return self._default()
        missing = np.isnan(self.values)
        hidden = transplanted_gaps(missing, self.period, np.random.default_rng(self.seed))
        hidden_values = self._fill(method, np.where(hidden, np.nan, self.values))
        error = np.where(hidden, hidden_values - self.values, np.nan)
        spread = np.array([_quantile(error[..., v]) for v in range(len(self.variables))])
        filled = self._fill(method, self.values)
        return _Run(filled, np.where(missing, spread, 0.0), hidden, hidden_values, {"method": method})

    def _default(self) -> _Run:
        root = np.array([_wants_root(self.values[..., v], variable) for v, variable in enumerate(self.variables)])
        place = self.stations
        result, settings = restore_blocks(
            self.values, self.basis, self.period, place.coordinates(), place.elevation, root, self.seed
        )
        return _Run(result.values, result.standard_error, result.hidden, result.hidden_values, settings)

    def _fill(self, method: str, values: Array) -> Array:
        if method in PEERS:
            return fill_with_peer(method, values, self.basis, self.stations.coordinates())
        length = 12 if self.period == 12 else 28
        return fill_with_matrices(method, values, self.basis, length, seed=self.seed)


def _quantile(error: Array) -> float:
    known = np.abs(error[np.isfinite(error)])
    return float(np.quantile(known, 0.9)) / 1.6448536269514722 if known.size else float("nan")


def _wants_root(values: Array, variable: Variable) -> bool:
    """Tell whether a variable is a skewed amount: bounded below by zero, never negative, and right-skewed."""
    known = values[np.isfinite(values)]
    if variable.lower != 0 or variable.upper is not None or known.size < 10 or known.min() < 0 or known.std() == 0:
        return False
    return float((((known - known.mean()) / known.std()) ** 3).mean()) > 0.75


def steps_per_year(time: NDArray[np.datetime64]) -> int:
    """Return the number of steps of a year (365 for days, 12 for months, at least 1)."""
    return max(1, round(365.2425 / typical_step(time)))


def keep_physical(
    values: Array, filled: Mask, variables: Sequence[Variable], ordered: Sequence[tuple[str, str]] = ()
) -> Array:
    """Return values whose filled cells respect bounds and order; observed cells are not touched."""
    result = values.copy()
    for v, variable in enumerate(variables):
        clipped = np.clip(result[..., v], variable.lower, variable.upper) if _bounded(variable) else result[..., v]
        result[..., v] = np.where(filled[..., v], clipped, result[..., v])
    names = [variable.name for variable in variables]
    for low_name, high_name in ordered:
        low, high = names.index(low_name), names.index(high_name)
        wrong = result[..., low] > result[..., high]
        both = wrong & filled[..., low] & filled[..., high]
        middle = (result[..., low] + result[..., high]) / 2
        for v, other in ((low, high), (high, low)):
            alone = wrong & filled[..., v] & ~filled[..., other]
            result[..., v] = np.where(both, middle, np.where(alone, values[..., other], result[..., v]))
    return result


def _bounded(variable: Variable) -> bool:
    return variable.lower is not None or variable.upper is not None


def learn_graphs(values: Array, basis: SeasonalBasis, coordinates: Array | None) -> TwofoldGraphs:
    """Learn the spatial and the signed modality graph of a complete record's anomalies.

    Parameters
    ----------
    values : ndarray, shape (n_times, n_stations, n_variables)
        Without gaps.
    basis : SeasonalBasis
        Seasonal regressors.
    coordinates : ndarray or None
        Beyond `MAX_DENSE_STATIONS` stations the edges are sought among the nearest neighbours.
    """
    rest = values - np.einsum("tp,psv->tsv", basis.values, _least_squares(values, basis.values))
    spread = rest.std(axis=0)
    signal = torch.from_numpy(rest / np.where(spread > 0, spread, 1.0))
    n_stations, n_variables = values.shape[1:]
    if n_stations < 2:
        return TwofoldGraphs(np.zeros((2, 0), np.int64), np.zeros(0), np.zeros((n_variables, n_variables)))
    config = TwofoldConfig(spatial=(1.0, 0.1, 0.5), rank=1, end="leading")
    modality = torch.eye(n_variables, dtype=torch.float64)
    if n_variables > 1:
        modality, _ = learn_modality(signal, torch.eye(n_stations, dtype=torch.float64), config)
    edges = None
    if n_stations > MAX_DENSE_STATIONS and coordinates is not None:
        edges = knn_edges(coordinates, 10)
    graph = learn_spatial(signal, modality, config, edges)
    if graph.edges is None:
        index = np.triu_indices(n_stations, 1)
        pairs, weights = np.stack(index), graph.weights.numpy()[index]
    else:
        pairs, weights = graph.edges.numpy(), graph.weights.numpy()
    signed = -modality.numpy() * (1 - np.eye(n_variables))
    return TwofoldGraphs(pairs[:, weights > 0], weights[weights > 0], signed)


def _least_squares(values: Array, design: Array) -> Array:
    slopes = np.linalg.lstsq(design, values.reshape(len(values), -1), rcond=None)[0]
    return np.asarray(slopes, dtype=np.float64).reshape(-1, *values.shape[1:])


def _skill(variable: str, method: str, error: Array) -> Skill:
    if error.size == 0:
        return Skill(variable, method, float("nan"), float("nan"), 0)
    return Skill(variable, method, float(np.sqrt((error**2).mean())), float(np.abs(error).mean()), error.size)


def _diagnose(
    values: Array, stations: Stations, variables: Sequence[Variable], skill: list[Skill], method: str
) -> Diagnostics:
    known = np.isfinite(values)
    alive: Mask = np.asarray(known.any(axis=0), dtype=bool)
    dead: Mask = ~np.asarray(alive.any(axis=1), dtype=bool)
    series = [(str(n), v.name) for n in stations.names for v in variables]
    lonely = (~alive & ~dead[:, None]).reshape(-1)
    low = np.where(known, values, np.inf).min(axis=0)
    high = np.where(known, values, -np.inf).max(axis=0)
    constant = ((low == high) & (known.sum(axis=0) > 2)).reshape(-1)
    notes = [_verdict(variable.name, skill, method) for variable in variables]
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


def _check(
    values: Array, time: NDArray[np.datetime64], stations: Stations, variables: Sequence[Variable], method: str
) -> None:
    if method not in METHODS:
        raise InputError("unknown method", f"method={method!r}", f"known: {', '.join(METHODS)}")
    if values.shape != (len(time), len(stations.names), len(variables)):
        shape = f"values {values.shape}, {len(time)} times, {len(stations.names)} stations, {len(variables)} variables"
        raise InputError("the record's shapes disagree", shape, "pass values as (time, station, variable)")
    if np.isinf(values).any():
        t, s, v = (int(i[0]) for i in np.nonzero(np.isinf(values)))
        where = f"time {time[t]}, station {stations.names[s]}, {variables[v].name}"
        raise InputError("the record holds an infinite value", where, "clear it (NaN)")
    if not np.isfinite(values).any():
        raise InputError("the record holds no observation", f"{values.size} cells", "check the columns read")
    steps = np.diff(time.astype("datetime64[s]").astype(np.int64)) / 86400.0
    if len(steps) and (steps.min() <= 0 or steps.max() > 1.15 * max(steps.min(), 1e-9)):
        k = int(np.argmax(np.abs(steps - np.median(steps))))
        raise InputError("the times are not regular", f"{time[k]} to {time[k + 1]}", "insert the missing times as gaps")
