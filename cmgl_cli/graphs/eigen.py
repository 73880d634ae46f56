"""Eigendecomposition of small symmetric matrices in compiled code.

LAPACK spends two thirds of its time on the tridiagonal matrix when p is a few dozen. Here its implicit QR steps with
Wilkinson's shift (Golub and Van Loan, Matrix Computations, section 8.3) rotate the basis while the next rotation is
still being computed: its rows are contiguous, and the lower one of those that a rotation touches is kept for the next.
For larger p divide and conquer is the better algorithm.
"""

import numpy as np
from numba import njit

from cmgl_cli.graphs.kernels import FAST
from cmgl_cli.graphs.lapack import tridiagonal

SMALL = 64
STEPS = 30
ROUNDING = 2.0**-53


@njit(cache=True, nogil=True, fastmath=FAST)
def _implicit_step(diagonal, beside, basis, carried, first, last):
    """Take one QR step on the unreduced block ``first`` to ``last`` of a tridiagonal matrix and rotate the basis."""
    half, off = 0.5 * (diagonal[last - 1] - diagonal[last]), beside[last - 1]
    root = np.sqrt(half * half + off * off)
    shift = diagonal[last] - off * off / (half + (root if half >= 0.0 else -root))
    here, bulge, entry = diagonal[first] - shift, beside[first], diagonal[first]
    carried[:] = basis[first]
    for k in range(first, last):
        square = here * here + bulge * bulge
        inverse = 1.0 / np.sqrt(square) if square > 0.0 else 0.0
        c, s = here * inverse if square > 0.0 else 1.0, bulge * inverse
        if k > first:
            beside[k - 1] = square * inverse
        following, off = diagonal[k + 1], beside[k]
        turn = s * (following - entry) + 2.0 * c * off
        diagonal[k], entry = entry + s * turn, following - s * turn
        here = c * turn - off
        if k + 1 < last:
            bulge = s * beside[k + 1]
            beside[k + 1] *= c
        upper, lower = basis[k], basis[k + 1]
        for j in range(len(carried)):
            a, b = carried[j], lower[j]
            upper[j] = c * a + s * b
            carried[j] = c * b - s * a
    basis[last] = carried
    diagonal[last], beside[last - 1] = entry, here


@njit(cache=True, nogil=True)
def _diagonalise(diagonal, beside, basis):
    """Make a tridiagonal matrix diagonal in place, rotating the rows of the basis along; return whether that ended."""
    last, carried = len(diagonal) - 1, np.empty(basis.shape[1])
    for _ in range(STEPS * len(diagonal)):
        while last > 0 and _negligible(diagonal, beside, last - 1):
            last -= 1
        if last <= 0:
            return True
        first = last - 1
        while first > 0 and not _negligible(diagonal, beside, first - 1):
            first -= 1
        _implicit_step(diagonal, beside, basis, carried, first, last)
    return False


@njit(cache=True, nogil=True)
def _negligible(diagonal, beside, k):
    return abs(beside[k]) <= ROUNDING * (abs(diagonal[k]) + abs(diagonal[k + 1]))


@njit(cache=True, nogil=True)
def eigen(matrix):
    """Return eigenvalues [p], in no order, and eigenvectors [p, p], one a row, of a symmetric matrix [p, p].

    Parameters
    ----------
    matrix : ndarray [p, p]
        C-contiguous; not changed.
    """
    p = len(matrix)
    if p <= SMALL:
        values, beside, rows = np.empty(p), np.empty(max(p - 1, 0)), matrix.copy()
        tridiagonal(rows, values, beside)
        if _diagonalise(values, beside, rows):
            return values, rows
    values, columns = np.linalg.eigh(matrix)
    return values, columns.T
