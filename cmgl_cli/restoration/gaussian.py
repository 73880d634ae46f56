"""Conditional means and variances of a multivariate normal with gaps, and its covariance by EM."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from cmgl_cli.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fill:
    """Rows completed by conditional means.

    Attributes
    ----------
    values : ndarray, shape (n_rows, n_columns)
        Observed values untouched, gaps filled.
    variance : ndarray, shape (n_rows, n_columns)
        Conditional variance, 0 where observed.
    spread : ndarray, shape (n_columns, n_columns)
        Sum over rows of the conditional covariances, what EM needs.
    alone : ndarray, shape (n_rows, n_columns)
        Variance of each observed cell given the row's other observed cells; 0 in gaps.
    residual : ndarray, shape (n_rows, n_columns)
        Each observed cell minus its mean given the row's other observed cells; NaN in gaps.
    """

    values: Array
    variance: Array
    spread: Array
    alone: Array
    residual: Array


def inverse(matrix: Array) -> Array:
    """Return the inverse of a positive definite matrix by Cholesky (half the work of a general one)."""
    factor, info = lapack.dpotrf(matrix, lower=True)
    if info:
        raise InputError("a covariance is not positive definite", f"leading minor {info}", "add noise to its diagonal")
    result = lapack.dpotri(factor, lower=True)[0]
    # dpotrf has cleared the upper half, so the sum doubles the diagonal and nothing else
    full = result + result.T
    full.flat[:: len(full) + 1] *= 0.5
    return full


def conditional_fill(rows: Array, covariance: Array, *, precision: Array | None = None) -> Fill:
    """Fill zero-mean rows with gaps by their conditional means.

    Rows with the same gaps are solved together; each system has the size of the smaller of the two parts.

    Parameters
    ----------
    rows : ndarray, shape (n_rows, n_columns)
        NaN where missing.
    covariance : ndarray, shape (n_columns, n_columns)
        Positive definite.
    precision : ndarray, optional
        Its inverse, where it is known already.
    """
    missing = np.isnan(rows)
    values, variance = np.where(missing, 0.0, rows), np.zeros_like(rows)
    spread = np.zeros_like(covariance)
    own_precision = np.zeros_like(rows)
    patterns, index = np.unique(missing, axis=0, return_inverse=True)
    precision = inverse(covariance) if precision is None else precision
    for number, pattern in enumerate(patterns):
        members = np.flatnonzero(index.reshape(-1) == number)
        gap, seen = np.flatnonzero(pattern), np.flatnonzero(~pattern)
        lines = members[:, None]
        mean, conditional, own = _conditional(values[lines, seen], gap, seen, covariance, precision)
        values[lines, gap] = mean
        variance[lines, gap] = np.maximum(np.diagonal(conditional), 0.0)
        spread[gap[:, None], gap] += len(members) * conditional
        own_precision[lines, seen] = own
    alone = np.divide(1.0, own_precision, out=np.zeros_like(rows), where=own_precision > 0)
    residual = np.where(missing, np.nan, (values @ precision) * alone)
    return Fill(values, variance, spread, alone, residual)


def _conditional(
    seen_values: Array, gap: NDArray[np.int64], seen: NDArray[np.int64], covariance: Array, precision: Array
) -> tuple[Array, Array, Array]:
    """Return mean and covariance of the gaps, and the diagonal of the observed part's inverse covariance."""
    if len(seen) == 0:
        return np.zeros((len(seen_values), len(gap))), covariance[gap[:, None], gap], np.zeros(0)
    if len(gap) == 0:
        return np.zeros((len(seen_values), 0)), np.zeros((0, 0)), np.diagonal(precision)
    if len(gap) <= len(seen):
        conditional = inverse(precision[gap[:, None], gap])
        link = precision[seen[:, None], gap]
        pull = link @ conditional
        return -seen_values @ pull, conditional, np.diagonal(precision)[seen] - (pull * link).sum(axis=1)
    seen_inverse = inverse(covariance[seen[:, None], seen])
    link = covariance[seen[:, None], gap]
    gain = seen_inverse @ link
    return seen_values @ gain, covariance[gap[:, None], gap] - link.T @ gain, np.diagonal(seen_inverse)


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
        fill = conditional_fill(rows, covariance)
        updated = regularize((fill.values.T @ fill.values + fill.spread) / len(rows))
        change = np.linalg.norm(updated - covariance) / np.linalg.norm(covariance)
        covariance = updated
        if change < tol:
            return covariance, done
    return covariance, n_iter
