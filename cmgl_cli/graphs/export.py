"""Sparse forms of a fit: an edge table and the partial correlations."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmgl_cli.graphs.result import JointResult


def partial_correlation(precision: ArrayLike) -> NDArray[np.float64]:
    """Return -Omega_ij / sqrt(Omega_ii Omega_jj) with unit diagonal, for [..., p, p]."""
    omega = np.asarray(precision, dtype=np.float64)
    scale = 1.0 / np.sqrt(np.diagonal(omega, axis1=-2, axis2=-1))
    result = -omega * scale[..., :, None] * scale[..., None, :]
    np.einsum("...ii->...i", result)[...] = 1.0
    return result


def edge_table(result: JointResult, stability: ArrayLike | None = None) -> dict[str, NDArray[Any]]:
    """Return the edges of every class as columns of equal length, ordered by class, i, j.

    Columns: ``class``, ``i``, ``j`` (i < j), ``weight`` (Omega_ij), ``partial_correlation``, ``common_share`` =
    |Theta_ij| / (|Theta_ij| + |S_ij|), ``specific_share`` = 1 - common_share, and ``stability`` (NaN when not given).

    Parameters
    ----------
    result : JointResult
    stability : array [C, p, p], optional
        Edge frequencies; see `edge_stability`.
    """
    omega = np.asarray(result.precision, dtype=np.float64)
    common, specific = np.asarray(result.common, dtype=np.float64), np.asarray(result.specific, dtype=np.float64)
    label, i, j = np.nonzero(np.triu(omega != 0, 1))
    shared, own = np.abs(common[i, j]), np.abs(specific[label, i, j])
    share = shared / (shared + own)
    return {
        "class": label,
        "i": i,
        "j": j,
        "weight": omega[label, i, j],
        "partial_correlation": partial_correlation(omega)[label, i, j],
        "common_share": share,
        "specific_share": 1.0 - share,
        "stability": np.full(len(i), np.nan) if stability is None else np.asarray(stability)[label, i, j],
    }
