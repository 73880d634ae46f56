"""One record as anomalies of a normal over (station, variable): climatology, covariance, offsets, prediction."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cmgl_cli.restoration.climatology import fit_climatology
from cmgl_cli.restoration.gaussian import ConditionalNormal, em_covariance
from cmgl_cli.restoration.offsets import fit_offsets, smooth_offsets
from cmgl_cli.restoration.seasons import SeasonalBasis, seasonal_spreads
from cmgl_cli.restoration.structure import fit_structure

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Rows = slice | NDArray[np.int64]

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


@dataclass
class AnomalyModel:
    """Anomalies of one record, their covariance and offsets, as far as they have been fitted.

    Attributes
    ----------
    problem : Problem
        The record.
    mean, mean_variance, spread : ndarray, shape (n_times, n_stations, n_variables)
        Climatology, the variance with which it is known, and the standard deviation of anomalies.
    rows : ndarray, shape (n_times, n_stations * n_variables)
        Standardised anomalies, NaN where missing.
    structured, moment : ndarray, shape (n_stations * n_variables, n_stations * n_variables)
        The two parts of the covariance: the prior's and the record's own.
    modality : ndarray, shape (n_variables, n_variables)
        Signed modality correlation of the structured part.
    offset, offset_variance : ndarray, shape (n_times, n_stations * n_variables)
        Station offsets in units of ``rows``.
    """

    problem: Problem
    mean: Array = field(init=False)
    mean_variance: Array = field(init=False)
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
        climatology = fit_climatology(transformed, problem.basis, problem.features)
        self.mean, self.mean_variance = climatology.mean, climatology.variance
        self.spread = seasonal_spreads(transformed - self.mean, problem.basis)
        self.rows = ((transformed - self.mean) / self.spread).reshape(n_times, -1)
        self.offset = np.zeros_like(self.rows)
        self.offset_variance = np.zeros_like(self.rows)
        self.fit_structured()

    def fit_structured(self) -> None:
        """Fit the structured covariance to the anomalies without offsets."""
        structure = fit_structure(self.rows - self.offset, self.problem.shape[2], self.problem.kernels)
        self.structured, self.modality = structure.covariance(), structure.pooled_modality()

    def refine_means(self, active: Mask) -> None:
        """Fit the climatology again to what each cell's others leave of it: weather is then not taken for climate.

        Two Januaries of which a station observed the cold one make its January too cold, unless its neighbours tell.
        """
        shape = self.problem.shape
        columns = np.tile(active, shape[1])
        conditional = ConditionalNormal(self.rows, self.covariance(self.cautious), columns)
        expected = np.where(columns, self.rows - conditional.leave_one_out().residual, 0.0).reshape(shape) * self.spread
        transformed = self.rows.reshape(shape) * self.spread + self.mean
        climatology = fit_climatology(transformed - expected, self.problem.basis, self.problem.features)
        self.mean = np.where(active, climatology.mean, self.mean)
        self.mean_variance = np.where(active, climatology.variance, self.mean_variance)
        self.spread = seasonal_spreads(transformed - self.mean, self.problem.basis)
        self.rows = ((transformed - self.mean) / self.spread).reshape(self.rows.shape)
        self.fit_structured()
        self.run_em(2)

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
        error = np.sqrt(variance * spread**2 + np.where(missing.reshape(shape), self.mean_variance[rows], 0))
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
