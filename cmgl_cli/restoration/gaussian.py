"""Conditional means and variances of a multivariate normal with gaps, and its covariance by EM."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from cmgl_cli.errors import InputError

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Fill:
    """Rows completed by conditional means.

    Attributes
    ----------
    values : ndarray, shape (n_rows, n_columns)
        Observed values untouched, gaps filled.
    variance : ndarray, shape (n_rows, n_columns)
        Conditional variance, 0 where observed.
    """

    values: Array
    variance: Array


@dataclass(frozen=True)
class LeaveOneOut:
    """What each observed cell adds to its row's other observed cells.

    Attributes
    ----------
    residual : ndarray, shape (n_rows, n_columns)
        Each observed cell minus its mean given the row's other observed cells; NaN in gaps.
    variance : ndarray, shape (n_rows, n_columns)
        Variance of each observed cell given the row's other observed cells; NaN in gaps.
    """

    residual: Array
    variance: Array


@dataclass(frozen=True)
class _Part:
    """Rows with the same gaps, and the Cholesky factor of the smaller of the two systems that fill them.

    ``factor`` is that of the gaps' precision where ``by_gap``, else that of the observed cells' covariance. The last
    ``n_wanted`` gaps are the wanted ones.
    """

    lines: Index
    gap: Index
    seen: Index
    by_gap: bool
    factor: Array
    n_wanted: int


class ConditionalNormal:
    """Zero-mean normal rows given their observed cells.

    Rows with the same gaps are solved together, and only what is asked for is computed: means need a factor and two
    triangular solves, variances an inverse factor, leave-one-out residuals a solve for every observed cell.

    Parameters
    ----------
    rows : ndarray, shape (n_rows, n_columns)
        NaN where missing.
    covariance : ndarray, shape (n_columns, n_columns)
        Positive definite.
    wanted : ndarray of bool, shape (n_columns,), optional
        Columns whose variances and leave-one-out residuals are asked for.
    """

    def __init__(self, rows: Array, covariance: Array, wanted: Mask | None = None) -> None:
        self.covariance = covariance
        self.missing = np.isnan(rows)
        self.zeroed = np.where(self.missing, 0.0, rows)
        self.wanted = np.ones(rows.shape[1], dtype=bool) if wanted is None else wanted

    @cached_property
    def precision(self) -> Array:
        """The inverse covariance; rows with few gaps are solved with it."""
        return inverse(self.covariance)

    @cached_property
    def pulls(self) -> Array:
        """The observed values times the precision: the gradient at gaps of zero."""
        return self.zeroed @ self.precision

    def means(self) -> Array:
        """Return the rows with their gaps filled by conditional means."""
        weights = np.zeros_like(self.zeroed)
        values = self.zeroed.copy()
        for part in self._parts(1.0):
            self._solve_means(part, values, weights)
        return self._completed(values, weights)

    def fill(self) -> Fill:
        """Return means, and the variances of the wanted columns' gaps (NaN in the others')."""
        weights, values = np.zeros_like(self.zeroed), self.zeroed.copy()
        variance = np.where(self.missing & ~self.wanted, np.nan, 0.0)
        diagonal = np.diagonal(self.covariance)
        for part in self._parts(1.3):
            self._solve_means(part, values, weights)
            gap = part.gap[len(part.gap) - part.n_wanted :]
            if part.by_gap:
                # the wanted gaps come last, so their part of the inverse needs the last block of the factor alone
                first = len(part.gap) - part.n_wanted
                root = _triangular_inverse(part.factor[first:, first:])
                variance[part.lines[:, None], gap] = (root**2).sum(axis=0)
            else:
                root = _half_solve(part.factor, self.covariance[part.seen[:, None], gap])
                variance[part.lines[:, None], gap] = np.maximum(diagonal[gap] - (root**2).sum(axis=0), 0.0)
        return Fill(self._completed(values, weights), variance)

    def moment(self) -> Array:
        """Return the mean over rows of the expected second moment, an EM step's estimate of the covariance."""
        weights, values = np.zeros_like(self.zeroed), self.zeroed.copy()
        lower = np.zeros_like(self.covariance)
        for part in self._parts(1.7):
            self._solve_means(part, values, weights)
            pairs = part.gap[:, None], part.gap
            if part.by_gap:
                lower[pairs] += len(part.lines) * lapack.dpotri(part.factor, lower=True)[0]
            else:
                root = _half_solve(part.factor, self.covariance[part.seen[:, None], part.gap])
                lower[pairs] += len(part.lines) * np.tril(self.covariance[pairs] - root.T @ root)
        values = self._completed(values, weights)
        return (values.T @ values + _mirrored(lower)) / len(values)

    def leave_one_out(self) -> LeaveOneOut:
        """Return residuals and variances of the wanted columns' observed cells (NaN in the others')."""
        weights, values = np.zeros_like(self.zeroed), self.zeroed.copy()
        own = np.full_like(self.zeroed, np.nan)
        diagonal = np.diagonal(self.precision)
        own[~self.missing.any(axis=1)] = np.where(self.wanted, diagonal, np.nan)
        for part in self._parts(0.7):
            self._solve_means(part, values, weights)
            chosen = self.wanted[part.seen]
            seen = part.seen[chosen]
            if part.by_gap:
                root = _half_solve(part.factor, self.precision[part.gap[:, None], seen])
                own[part.lines[:, None], seen] = diagonal[seen] - (root**2).sum(axis=0)
            else:
                own[part.lines[:, None], seen] = (_triangular_inverse(part.factor) ** 2).sum(axis=0)[chosen]
        variance = 1.0 / own
        return LeaveOneOut((self._completed(values, weights) @ self.precision) * variance, variance)

    def _parts(self, most: float) -> Iterator[_Part]:
        """Yield the groups of rows that have gaps, solved by gap up to so many gaps an observed cell.

        The system has the size of the gaps or of the observed cells; where both cost the same depends on what is asked
        for beside the means.
        """
        codes = np.packbits(self.missing, axis=1)
        _, index, count = np.unique(
            codes.view(f"V{codes.shape[1]}").reshape(-1), return_inverse=True, return_counts=True
        )
        for lines in np.split(np.argsort(index, kind="stable"), np.cumsum(count)[:-1]):
            pattern = self.missing[lines[0]]
            if pattern.any():
                rest, wanted = np.flatnonzero(pattern & ~self.wanted), np.flatnonzero(pattern & self.wanted)
                gap, seen = np.concatenate([rest, wanted]), np.flatnonzero(~pattern)
                by_gap = len(gap) <= most * len(seen)
                matrix, used = (self.precision, gap) if by_gap else (self.covariance, seen)
                block = matrix.take(used, axis=0).take(used, axis=1)
                yield _Part(lines, gap, seen, by_gap, _factor(block), len(wanted))

    def _solve_means(self, part: _Part, values: Array, weights: Array) -> None:
        """Write the means of a group into ``values``, or the weights of its observed cells into ``weights``."""
        if part.by_gap:
            target = part.lines[:, None], part.gap
            values[target] = -lapack.dpotrs(part.factor, self.pulls[target].T, lower=True)[0].T
        elif len(part.seen):
            target = part.lines[:, None], part.seen
            weights[target] = lapack.dpotrs(part.factor, self.zeroed[target].T, lower=True)[0].T

    def _completed(self, values: Array, weights: Array) -> Array:
        """Return the values with the gaps of the rows solved by observed cells: covariances times weights."""
        lines = np.flatnonzero(weights.any(axis=1))
        if len(lines):
            values[lines] = np.where(self.missing[lines], weights[lines] @ self.covariance, values[lines])
        return values


def _factor(matrix: Array) -> Array:
    """Return the lower Cholesky factor; the matrix is overwritten."""
    if not len(matrix):
        return matrix
    factor, info = lapack.dpotrf(matrix.T, lower=True, overwrite_a=True)
    if info:
        raise InputError("a covariance is not positive definite", f"leading minor {info}", "add noise to its diagonal")
    return factor


def _triangular_inverse(factor: Array) -> Array:
    return lapack.dtrtri(factor, lower=True)[0] if len(factor) else factor


def _half_solve(factor: Array, right: Array) -> Array:
    """Return the factor's inverse times ``right``: its columns' squares sum to a quadratic form."""
    return lapack.dtrtrs(factor, right, lower=True)[0] if factor.size and right.size else right


def _mirrored(lower: Array) -> Array:
    """Return the symmetric matrix of a lower triangle (zero above)."""
    full = lower + lower.T
    full.flat[:: len(full) + 1] *= 0.5
    return full


def inverse(matrix: Array) -> Array:
    """Return the inverse of a positive definite matrix by Cholesky (half the work of a general one)."""
    # dpotrf has cleared the upper half
    return _mirrored(lapack.dpotri(_factor(matrix.copy()), lower=True)[0])


def conditional_fill(rows: Array, covariance: Array) -> Fill:
    """Fill zero-mean rows with gaps by their conditional means, with variances.

    Parameters
    ----------
    rows : ndarray, shape (n_rows, n_columns)
        NaN where missing.
    covariance : ndarray, shape (n_columns, n_columns)
        Positive definite.
    """
    return ConditionalNormal(rows, covariance).fill()


def conditional_means(rows: Array, covariance: Array) -> Array:
    """Fill zero-mean rows with gaps by their conditional means, at a fraction of the cost of `conditional_fill`.

    Parameters
    ----------
    rows : ndarray, shape (n_rows, n_columns)
        NaN where missing.
    covariance : ndarray, shape (n_columns, n_columns)
        Positive definite.
    """
    return ConditionalNormal(rows, covariance).means()


def em_covariance(
    rows: Array,
    start: Array,
    *,
    n_iter: int = 20,
    tol: float = 1e-3,
    regularize: Callable[[Array], Array] = lambda covariance: covariance,
) -> tuple[Array, int]:
    """Return the covariance of zero-mean rows with gaps by expectation maximisation.

    Parameters
    ----------
    rows : ndarray, shape (n_rows, n_columns)
        NaN where missing.
    start : ndarray, shape (n_columns, n_columns)
        Positive definite first guess.
    n_iter, tol : int, float
        Stop after so many rounds, or when the covariance's relative change falls below ``tol``.
    regularize : callable
        Applied to each estimate: shrinkage towards a prior (a maximum a posteriori EM) or a ridge.

    Returns
    -------
    covariance : ndarray
        Regularised.
    n_iter : int
        Rounds done.
    """
    covariance = start
    for done in range(1, n_iter + 1):
        updated = regularize(ConditionalNormal(rows, covariance).moment())
        change = np.linalg.norm(updated - covariance) / np.linalg.norm(covariance)
        covariance = updated
        if change < tol:
            return covariance, done
    return covariance, n_iter
