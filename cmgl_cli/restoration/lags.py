"""Steps before and after as further variables: what moved through the network, and what a station saw an hour ago.

Each row is joined by the rows around it, so that the same normal, the same twofold prior and the same EM speak of
(station, lag, variable). Weather that crosses the network, and series that change little in a step, are then predicted
from their neighbours in time; what the offsets smooth is a station's own departure alone.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cmgl_cli.restoration.anomaly_model import AnomalyModel, Rows
from cmgl_cli.restoration.gaussian import ConditionalNormal, em_covariance
from cmgl_cli.restoration.structure import fit_structure

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

MAX_LAGGED_COLUMNS = 900
# Rows a column that EM sees at most, as neighbouring rows share most of their cells, and rows filled at a time.
ROWS_A_COLUMN, ROWS_AT_ONCE = 50, 4096
_REACHES = (2, 1)


def affordable_reach(n_columns: int) -> int:
    """Return how many steps to either side the columns leave room for: two, one, or none."""
    return next((reach for reach in _REACHES if (2 * reach + 1) * n_columns <= MAX_LAGGED_COLUMNS), 0)


def with_lags(rows: Array, n_variables: int, reach: int) -> Array:
    """Return rows with those around them as further variables.

    Parameters
    ----------
    rows : ndarray, shape (n_times, n_stations * n_variables)
        NaN where missing.
    n_variables : int
        Variables, the fast index of the columns.
    reach : int
        Steps to either side.

    Returns
    -------
    ndarray, shape (n_times, n_stations * (2 * reach + 1) * n_variables)
        Stations slowest, then steps from ``-reach`` to ``reach``; NaN beyond the ends of the record.
    """
    n_times = len(rows)
    padded = np.full((n_times + 2 * reach, *rows.shape[1:]), np.nan)
    padded[reach : reach + n_times] = rows
    steps = [padded[k : k + n_times].reshape(n_times, -1, 1, n_variables) for k in range(2 * reach + 1)]
    return np.concatenate(steps, axis=2).reshape(n_times, -1)


@dataclass
class LaggedModel:
    """The covariance of anomalies with those of the steps around them.

    Attributes
    ----------
    base : AnomalyModel
        Whose anomalies (offsets apart) and climatology are used.
    reach : int
        Steps to either side.
    rows : ndarray, shape (n_times, n_columns)
        From `with_lags`.
    structured, moment : ndarray, shape (n_columns, n_columns)
        The two parts of the covariance: the prior's and the record's own.
    """

    base: AnomalyModel
    reach: int
    rows: Array = field(init=False)
    structured: Array = field(init=False)
    moment: Array = field(init=False)

    def __post_init__(self) -> None:
        n_variables = self.base.problem.shape[2]
        self.rows = with_lags(self.base.rows - self.base.offset, n_variables, self.reach)
        fitted = fit_structure(self.rows, n_variables * self.width, self.base.problem.kernels)
        self.structured = fitted.covariance()
        self.run_em(4)

    @property
    def width(self) -> int:
        """Return the steps in a row."""
        return 2 * self.reach + 1

    @property
    def cautious(self) -> float:
        """The share where a row must not fit itself, as in `AnomalyModel`."""
        n_times, n_columns = self.rows.shape
        return n_columns / (n_columns + n_times)

    def covariance(self, share: float) -> Array:
        """Blend moment and structure."""
        return (1 - share) * self.moment + share * self.structured

    def run_em(self, n_iter: int) -> None:
        """Update the moment, the structure holding the cautious share of every round's covariance."""

        def regularize(moment: Array) -> Array:
            self.moment = moment
            return self.covariance(self.cautious)

        n_times, n_columns = self.rows.shape
        stride = max(1, n_times // (ROWS_A_COLUMN * n_columns))
        em_covariance(self.rows[::stride], self.structured, n_iter=n_iter, regularize=regularize)

    def means(self, covariance: Array, rows: Rows) -> Array:
        """Return values of some rows under one covariance; only the mean of a square needs variances."""
        filled, variance = self._fill(rows, covariance, self.base.problem.root)
        return self.base.back(filled, variance, rows)[0]

    def predict(self, share: Array, wanted: Mask) -> tuple[Array, Array]:
        """Return values and standard errors of the wanted variables, each by the covariance of its own share.

        Parameters
        ----------
        share : ndarray, shape (n_variables,)
            Weight of the structured prior.
        wanted : ndarray of bool, shape (n_variables,)
            What is returned of the others is climatology.
        """
        n_times, n_stations, n_variables = self.base.problem.shape
        filled, variance = np.zeros(self.base.rows.shape), np.zeros(self.base.rows.shape)
        for a in np.unique(share[wanted]):
            chosen = wanted & (share == a)
            columns, covariance = np.tile(chosen, n_stations), self.covariance(a)
            for part in np.array_split(np.arange(n_times), -(-n_times // ROWS_AT_ONCE)):
                means, variances = self._fill(part, covariance, chosen)
                filled[part[:, None], columns] = means[:, columns]
                variance[part[:, None], columns] = variances[:, columns]
        return self.base.back(filled, variance)

    def _fill(self, rows: Rows, covariance: Array, wanted: Mask) -> tuple[Array, Array]:
        """Return the conditional means of the middle steps, and the variances of the wanted variables."""
        _, n_stations, n_variables = self.base.problem.shape
        chosen = np.zeros((n_stations, self.width, n_variables), dtype=bool)
        chosen[:, self.reach] = wanted
        middle = np.zeros_like(chosen)
        middle[:, self.reach] = True
        fill = ConditionalNormal(self.rows[rows], covariance, chosen.reshape(-1)).fill()
        return fill.values[:, middle.reshape(-1)], fill.variance[:, middle.reshape(-1)]
