"""The default restoration: a multivariate normal over (station, variable) with the twofold structure as its prior.

The covariance is ``(1 - a)`` times what the record says (EM) plus ``a`` times a fitted sum of
[spatial kernel (x) signed modality matrix], a one number a variable; each station's own slow and fast departures from
its neighbours are smoothed through the gaps. Every choice is made on observed cells hidden for the purpose, in the
shapes of the record's own gaps.
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cmgl_cli.restoration.gaussian import ConditionalNormal, em_covariance
from cmgl_cli.restoration.holdout import transplanted_gaps
from cmgl_cli.restoration.offsets import fit_offsets, smooth_offsets
from cmgl_cli.restoration.seasons import SeasonalBasis, seasonal_means, seasonal_spreads
from cmgl_cli.restoration.structure import fit_structure

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Rows = slice | NDArray[np.int64]

SHARES = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0)
MAX_SCORED_ROWS = 120
Z90 = 1.6448536269514722
# The choices were made on the very cells that calibrate the bands, which look too good there, the more so the fewer
# they are: the bands are widened by this over the root of their number (3 % for 4,000 cells, 14 % for 200).
SELECTION = 2.0
# With fewer hold-out cells than this the model's own standard errors are the better half of the answer.
TRUSTED_CELLS = 30
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Problem:
    """A record to restore.

    Attributes
    ----------
    values : ndarray, shape (n_times, n_stations, n_variables)
        NaN where missing.
    basis : SeasonalBasis
        Seasonal regressors of the times.
    kernels : ndarray, shape (n_kernels, n_stations, n_stations)
        From `spatial_kernels`.
    features : ndarray or None
        Position and elevation, for the climatology of short records.
    root : ndarray of bool, shape (n_variables,)
        Variables worked on as square roots.
    """

    values: Array
    basis: SeasonalBasis
    kernels: Array
    features: Array | None
    root: Mask

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return times, stations, variables."""
        n_times, n_stations, n_variables = self.values.shape
        return n_times, n_stations, n_variables


@dataclass(frozen=True)
class Choices:
    """What hold-out decided.

    Attributes
    ----------
    share : ndarray, shape (n_variables,)
        a, the weight of the structured prior.
    offsets : ndarray of bool, shape (n_variables,)
        Whether station offsets are on.
    widening : ndarray, shape (n_variables,)
        Factor on the standard errors that makes 90 % bands cover 90 % of the hidden cells.
    root : ndarray of bool, shape (n_variables,)
        Variables worked on as square roots.
    """

    share: Array
    offsets: Mask
    widening: Array
    root: Mask


@dataclass(frozen=True)
class GaussianRestoration:
    """Result of `restore_gaussian`.

    Attributes
    ----------
    values, standard_error : ndarray, shape (n_times, n_stations, n_variables)
        Filled record in its own units and calibrated standard errors (0 where observed).
    choices : Choices
        What hold-out decided.
    hidden : ndarray of bool
        The hold-out cells.
    hidden_values : ndarray
        The record restored with those cells hidden.
    modality : ndarray, shape (n_variables, n_variables)
        Signed modality correlation of the structured part.
    """

    values: Array
    standard_error: Array
    choices: Choices
    hidden: Mask
    hidden_values: Array
    modality: Array


@dataclass
class _Model:
    """Working state: anomalies of one record, its covariance and offsets."""

    problem: Problem
    mean: Array = field(init=False)
    spread: Array = field(init=False)
    rows: Array = field(init=False)
    structured: Array = field(init=False)
    modality: Array = field(init=False)
    moment: Array = field(init=False)
    offset: Array = field(init=False)
    offset_variance: Array = field(init=False)

    def __post_init__(self) -> None:
        problem = self.problem
        n_times, n_stations, n_variables = problem.shape
        transformed = np.where(problem.root, np.sqrt(np.maximum(problem.values, 0)), problem.values)
        self.mean = seasonal_means(transformed, problem.basis, features=problem.features)
        self.spread = seasonal_spreads(transformed - self.mean, problem.basis)
        self.rows = ((transformed - self.mean) / self.spread).reshape(n_times, -1)
        self.offset = np.zeros_like(self.rows)
        self.offset_variance = np.zeros_like(self.rows)
        self.fit_structured()

    def fit_structured(self) -> None:
        structure = fit_structure(self.rows - self.offset, self.problem.shape[2], self.problem.kernels)
        self.structured, self.modality = structure.covariance(), structure.pooled_modality()

    def covariance(self, share: float) -> Array:
        """Blend moment and structure."""
        return (1 - share) * self.moment + share * self.structured

    @property
    def cautious(self) -> float:
        """The share where a row must not fit itself: as many pseudo-observations as the covariance has rows."""
        n_times, n_columns = self.rows.shape
        return n_columns / (n_columns + n_times)

    def run_em(self, n_iter: int) -> None:
        """Update the moment, the structure holding the cautious share of every round's covariance."""

        def regularize(moment: Array) -> Array:
            self.moment = moment
            return self.covariance(self.cautious)

        start = self.covariance(self.cautious) if hasattr(self, "moment") else self.structured
        em_covariance(self.rows - self.offset, start, n_iter=n_iter, regularize=regularize)

    def conditionals(self, share: Array, rows: Rows = slice(None)) -> Iterator[tuple[Mask, ConditionalNormal]]:
        """Yield each share's columns with the covariance of that share: a joint one would cut the variables' ties."""
        data = self.rows[rows] - self.offset[rows]
        for a in np.unique(share):
            columns = np.tile(share == a, self.problem.shape[1])
            yield columns, ConditionalNormal(data, self.covariance(a), columns)

    def update_offsets(self, share: Array, active: Mask) -> None:
        """Smooth what each cell keeps of its leave-one-out residual, given the others without their offsets."""
        residual, deviation = np.empty_like(self.rows), np.empty_like(self.rows)
        for columns, conditional in self.conditionals(np.maximum(share, self.cautious)):
            alone = conditional.leave_one_out()
            residual[:, columns] = alone.residual[:, columns]
            deviation[:, columns] = np.sqrt(alone.variance[:, columns])
        residual += self.offset
        known = np.isfinite(deviation)
        unit = np.array([np.median(c[k]) if k.any() else 1.0 for c, k in zip(deviation.T, known.T, strict=True)])
        unit = np.where(unit > 0, unit, 1.0)
        noise = np.where(known, (deviation / unit) ** 2, 1.0)
        n_variables = self.problem.shape[2]
        # new arrays: a copy of this model keeps its own
        self.offset, self.offset_variance = self.offset.copy(), self.offset_variance.copy()
        for v in np.flatnonzero(active):
            part = slice(v, None, n_variables)
            model = fit_offsets(residual[:, part] / unit[part])
            mean, variance = smooth_offsets(residual[:, part] / unit[part], noise[:, part], model)
            self.offset[:, part], self.offset_variance[:, part] = mean * unit[part], variance * unit[part] ** 2

    def back(self, filled: Array, variance: Array, rows: Rows = slice(None)) -> tuple[Array, Array]:
        """Return values and standard errors in the record's units; a root's mean and spread by quadrature."""
        shape = (-1, *self.problem.shape[1:])
        spread = self.spread[rows]
        values = (filled + self.offset[rows]).reshape(shape) * spread + self.mean[rows]
        missing = np.isnan(self.rows[rows])
        variance = (variance + np.where(missing, self.offset_variance[rows], 0)).reshape(shape)
        error = np.sqrt(variance) * spread
        for v in np.flatnonzero(self.problem.root):
            nodes = np.maximum(values[..., v, None] + error[..., v, None] * _NODES, 0.0) ** 2
            mean = nodes @ _WEIGHTS
            error[..., v] = np.sqrt(np.maximum((nodes - mean[..., None]) ** 2 @ _WEIGHTS, 0.0))
            values[..., v] = mean
        return values, error

    def means(self, covariance: Array, rows: Rows) -> Array:
        """Return values of some rows under one covariance; only the mean of a square needs variances."""
        rooted = np.tile(self.problem.root, self.problem.shape[1])
        fill = ConditionalNormal(self.rows[rows] - self.offset[rows], covariance, rooted).fill()
        return self.back(fill.values, fill.variance, rows)[0]

    def predict(self, share: Array, rows: Rows = slice(None)) -> tuple[Array, Array]:
        """Return values and standard errors of some rows."""
        shape = self.rows[rows].shape
        filled, variance = np.empty(shape), np.empty(shape)
        for columns, conditional in self.conditionals(share, rows):
            fill = conditional.fill()
            filled[:, columns], variance[:, columns] = fill.values[:, columns], fill.variance[:, columns]
        return self.back(filled, variance, rows)


def restore_gaussian(problem: Problem, period: int, seed: int = 0, *, rounds: int = 2) -> GaussianRestoration:
    """Restore a record, every choice by hold-out.

    Parameters
    ----------
    problem : Problem
        The record; ``root`` marks the candidates for the square root, which hold-out may refuse.
    period : int
        Steps of the year, for the shape of the hold-out gaps.
    seed : int
        Of the hold-out.
    rounds : int
        Rounds of covariance and offsets.
    """
    values = problem.values
    missing = np.isnan(values)
    hidden = transplanted_gaps(missing, period, np.random.default_rng(seed))
    training = replace(problem, values=np.where(hidden, np.nan, values))
    if problem.root.any():
        problem, training = _choose_root(problem, training, hidden)
    choices, hidden_values = _choose(training, values, hidden, rounds)
    model = _Model(problem)
    model.run_em(4)
    model = _with_offsets(model, choices.share, choices.offsets, rounds)
    filled, error = model.predict(choices.share)
    error = error * choices.widening
    return GaussianRestoration(
        np.where(missing, filled, values),
        np.where(missing, error, 0.0),
        choices,
        hidden,
        np.where(hidden | missing, hidden_values, values),
        model.modality,
    )


def _errors(restored: Array, values: Array, hidden: Mask) -> Array:
    """Return each variable's mean squared error on hidden cells (NaN without any)."""
    square = np.where(hidden, (restored - values) ** 2, 0.0).sum(axis=(0, 1))
    return square / np.where(hidden.any(axis=(0, 1)), hidden.sum(axis=(0, 1)), np.nan)


def _choose_root(problem: Problem, training: Problem, hidden: Mask) -> tuple[Problem, Problem]:
    rows = np.flatnonzero(hidden.any(axis=(1, 2)))
    scores = []
    for root in (problem.root, np.zeros_like(problem.root)):
        model = _Model(replace(training, root=root))
        scores.append(_errors(model.means(model.structured, rows), problem.values[rows], hidden[rows]))
    root = problem.root & ~(scores[1] < scores[0])
    return replace(problem, root=root), replace(training, root=root)


def _choose(training: Problem, values: Array, hidden: Mask, rounds: int) -> tuple[Choices, Array]:
    """Fit the record without the hidden cells and decide share, offsets and widening on them."""
    n_variables = training.shape[2]
    rows = np.flatnonzero(hidden.any(axis=(1, 2)))
    model = _Model(training)
    model.run_em(4)
    share = _choose_share(model, values, hidden, rows)
    start, (plain, _) = copy(model), model.predict(share)
    model = _with_offsets(model, share, np.ones(n_variables, dtype=bool), rounds)
    share = _choose_share(model, values, hidden, rows)
    restored, error = model.predict(share)
    offsets = ~(_errors(plain, values, hidden) < _errors(restored, values, hidden))
    if not offsets.all():
        model = _with_offsets(start, share, offsets, rounds)
        restored, error = model.predict(share)
    if not offsets.any():
        share = _choose_share(model, values, hidden, rows)
        restored, error = model.predict(share)
    widening = _widening(restored, error, values, hidden)
    return Choices(share, offsets, widening, training.root), restored


def _with_offsets(model: _Model, share: Array, active: Mask, rounds: int) -> _Model:
    """Fit offsets and covariance in turn, starting from a model without offsets."""
    for _ in range(rounds if active.any() else 0):
        model.update_offsets(share, active)
        model.fit_structured()
        model.run_em(2)
    return model


def _choose_share(model: _Model, values: Array, hidden: Mask, rows: NDArray[np.int64]) -> Array:
    """Return the share with the least error on hidden cells, for each variable.

    A short record has few hidden cells, and with fewer rows than columns a small share can only seem good.
    """
    rows = rows[:: max(1, len(rows) // MAX_SCORED_ROWS)]
    usable = [share for share in SHARES if share >= model.cautious / 2]
    table = []
    for share in usable:
        restored = model.means(model.covariance(share), rows)
        table.append(np.nan_to_num(_errors(restored, values[rows], hidden[rows])))
    return np.array(usable)[np.stack(table).argmin(axis=0)]


def _widening(restored: Array, error: Array, values: Array, hidden: Mask) -> Array:
    result = np.ones(values.shape[2])
    for v in range(values.shape[2]):
        cells = hidden[..., v] & (error[..., v] > 0)
        if cells.sum() >= 20:
            ratio = np.abs(restored[..., v] - values[..., v])[cells] / error[..., v][cells]
            factor = max(float(np.quantile(ratio, 0.9)) / Z90, 1e-3)
            count = float(cells.sum())
            result[v] = (1 + SELECTION / count**0.5) * factor ** (count / (count + TRUSTED_CELLS))
    return result
