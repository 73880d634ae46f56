"""Restore a station record: arrays in, a filled record with standard errors, skill and graphs out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.alternation import TwofoldConfig, learn_modality, learn_spatial
from cmgl_cli.restoration.blocks import restore_blocks
from cmgl_cli.restoration.diagnostics import Diagnostics, Skill, diagnose, skill_of
from cmgl_cli.restoration.holdout import transplanted_gaps
from cmgl_cli.restoration.linear_operators import knn_edges
from cmgl_cli.restoration.matrix_methods import MATRIX_METHODS, fill_with_matrices
from cmgl_cli.restoration.peers import NEEDS_COORDINATES, PEERS, fill_with_peer
from cmgl_cli.restoration.record import Stations, Variable
from cmgl_cli.restoration.seasons import SeasonalBasis, seasonal_basis, typical_step

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

Filler = Callable[[Array], Array]

COMPARED = ("climatology", "linear", "knn", "climatology-kriging", "mvn-em")
METHODS = ("default", *PEERS, *MATRIX_METHODS)
MAX_DENSE_STATIONS = 600


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
    method: str | Filler = "default",
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
    method : str or callable
        One of `METHODS`, or what fills a record, such as networks that were trained before (the skill table calls it
        "network").
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
    if isinstance(method, str) and method not in METHODS:
        raise InputError("unknown method", f"method={method!r}", f"known: {', '.join(METHODS)}")
    _check(values, time, stations, variables)
    basis, period = seasonal_basis(time), steps_per_year(time)
    missing = np.isnan(values)
    coordinates = stations.coordinates()
    runner = _Runner(values, basis, period, stations, variables, seed)
    result = runner.run(method)
    label = method if isinstance(method, str) else "network"
    filled = keep_physical(result.values, missing, variables, ordered)
    training = np.where(result.hidden, np.nan, values)
    hold = {label: keep_physical(result.hidden_values, np.isnan(training), variables, ordered)}
    for name in compare:
        if name != label and (coordinates is not None or name not in NEEDS_COORDINATES):
            fill = fill_with_peer(name, training, basis, coordinates)
            hold[name] = keep_physical(fill, np.isnan(training), variables, ordered)
    skill = [
        skill_of(variable.name, name, (fill - values)[..., v][result.hidden[..., v]])
        for v, variable in enumerate(variables)
        for name, fill in hold.items()
    ]
    diagnostics = diagnose(values, stations, variables, skill, label)
    diagnostics.settings.update(result.settings)
    graphs = learn_graphs(filled, basis, coordinates)
    # a variable that nobody observed has no scale: any number would be invented
    unknown: Mask = np.asarray(missing.all(axis=(0, 1)), dtype=bool)
    filled[..., unknown] = np.nan
    error = np.where(unknown, np.nan, result.standard_error)
    diagnostics.notes.extend(
        f"{variable.name}: never observed anywhere, left empty"
        for variable, gone in zip(variables, unknown, strict=True)
        if gone
    )
    return RestoredTable(filled, error, missing & ~unknown, skill, diagnostics, graphs)


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

    def run(self, method: str | Filler) -> _Run:
        if method == "default":
            return self._default()
        missing = np.isnan(self.values)
        hidden = transplanted_gaps(missing, self.period, np.random.default_rng(self.seed))
        hidden_values = self._fill(method, np.where(hidden, np.nan, self.values))
        error = np.where(hidden, hidden_values - self.values, np.nan)
        spread = np.array([_quantile(error[..., v]) for v in range(len(self.variables))])
        filled = self._fill(method, self.values)
        return _Run(
            filled,
            np.where(missing, spread, 0.0),
            hidden,
            hidden_values,
            {"method": method if isinstance(method, str) else "network"},
        )

    def _default(self) -> _Run:
        root = np.array([_wants_root(self.values[..., v], variable) for v, variable in enumerate(self.variables)])
        place = self.stations
        result, settings = restore_blocks(
            self.values, self.basis, self.period, place.coordinates(), place.elevation, root, self.seed
        )
        return _Run(result.values, result.standard_error, result.hidden, result.hidden_values, settings)

    def _fill(self, method: str | Filler, values: Array) -> Array:
        if not isinstance(method, str):
            return method(values)
        if method in PEERS:
            return fill_with_peer(method, values, self.basis, self.stations.coordinates())
        return fill_with_matrices(method, values, self.basis, window_length(self.period), seed=self.seed)


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


def window_length(period: int) -> int:
    """Return the steps of one matrix: a year of months, else the paper's 28."""
    return 12 if period == 12 else 28


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


def _check(values: Array, time: NDArray[np.datetime64], stations: Stations, variables: Sequence[Variable]) -> None:
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
