r"""The proximal point of the likelihood: exact by an eigendecomposition, or by an expansion around an earlier one.

With z_0 = Q diag(1 / lambda) Q^T the last exact proximal point, f is replaced by its second-order expansion at z_0,
whose proximal point at v is

    z = z_0 + Q [ (Q^T (mu (v - z_0) - grad f(z_0)) Q)_ij / (alpha lambda_i lambda_j + mu) ] Q^T,

four matrix products, in single precision: what is rounded is the step, not the point. The neglected term is of the
order of delta ||W D W||, D = z - z_0, delta = ||W^1/2 D W^1/2||.

Where that is no longer small against the residual mu ||z - x||, the expansion is renewed: z_0 moves to z, gradient
exact by a Cholesky factor, basis kept. What the move has coupled in the old basis joins delta. The
eigendecomposition is made anew (for that class) once that is not enough, or a step leaves the trust region. So the
fixed point is that of the exact iteration.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cmgl_cli.graphs.eigen import eigen
from cmgl_cli.graphs.kernels import FAST
from cmgl_cli.graphs.lapack import factor, invert

Array = NDArray[Any]
TRUST = 4.0
STALENESS = 10.0
COUPLED = 2.0
ROUNDING = 1e-6
EXACT, LAZY, RENEWED = 1, 2, 3


class Reference(NamedTuple):
    """Expansion of the likelihood of every class: basis (rows), eigenvalues of W, z_0, its gradient; stale coupling."""

    vectors: Array
    inverse_values: Array
    point: Array
    gradient: Array
    coupling: Array
    fresh: NDArray[np.int64]


@njit(cache=True, nogil=True)
def new_reference(n_classes, p):
    """Return room for the expansions of C classes, none of them made yet."""
    full = (n_classes, p, p)
    return Reference(
        np.empty(full, np.float32),
        np.empty((n_classes, p)),
        np.empty(full),
        np.empty(full),
        np.zeros(n_classes),
        np.zeros(n_classes, np.int64),
    )


@njit(cache=True, nogil=True, fastmath=FAST)
def exact_step(sigma, alpha, mu, iterate, scratch, reference, c):
    """Take the exact proximal step at 2 x - s and make it the expansion point."""
    (x, point), (work, product) = iterate, scratch
    p, k = work.shape[0], 0
    gradient, centre, vectors = reference.gradient[c], reference.point[c], reference.vectors[c]
    for i in range(p):
        for j in range(i + 1):
            target = 2.0 * x[k] - point[k]
            gradient[i, j] = mu * target
            work[i, j] = target - (alpha / mu) * sigma[i, j]
            work[j, i] = work[i, j]
            k += 1
    values, basis = eigen(work)
    constant = 4.0 * alpha / mu
    for k in range(p):
        root = np.sqrt(values[k] * values[k] + constant)
        # for negative eigenvalues the sum cancels; its conjugate form does not
        positive = 0.5 * (values[k] + root) if values[k] >= 0.0 else 0.5 * constant / (root - values[k])
        reference.inverse_values[c, k] = 1.0 / positive
        values[k] = np.sqrt(positive)
    for i in range(p):
        row, scaled, single, root = basis[i], product[i], vectors[i], values[i]
        for j in range(p):
            single[j] = row[j]
            scaled[j] = row[j] * root
    np.dot(product.T, product, work)
    for i in range(p):
        for j in range(i + 1):
            centre[i, j] = work[i, j]
            gradient[i, j] -= mu * work[i, j]
    reference.coupling[c], reference.fresh[c] = ROUNDING, 1


@njit(cache=True, nogil=True, fastmath=FAST)
def _expand(alpha, mu, iterate, single, reference, c):
    """Write the expansion's step, in its basis, to the first scratch; return its size and the term it neglects."""
    (x, point), (work, product) = iterate, single
    p, k = work.shape[0], 0
    vectors, centre, gradient = reference.vectors[c], reference.point[c], reference.gradient[c]
    for i in range(p):
        for j in range(i + 1):
            entry = np.float32(mu * (2.0 * x[k] - point[k] - centre[i, j]) - gradient[i, j])
            work[i, j], work[j, i] = entry, entry
            k += 1
    np.dot(vectors, work, product)
    np.dot(product, vectors.T, work)
    weights, level = reference.inverse_values[c].astype(np.float32), np.float32(mu)
    local, bend = 0.0, 0.0
    for i in range(p):
        left, row, own, turned = np.float32(alpha) * weights[i], work[i], np.float32(0.0), np.float32(0.0)
        for j in range(p):
            curvature = left * weights[j]
            step = row[j] / (curvature + level)
            row[j] = step
            pull = curvature * step
            own += pull * step
            turned += pull * pull
        local += float(own)
        bend += float(turned)
    size = np.sqrt(local / alpha)
    return size, (size + reference.coupling[c]) * np.sqrt(bend)


@njit(cache=True, nogil=True, fastmath=FAST)
def _turn_back(single, vectors):
    """Take the first scratch from the basis of the expansion to that of the nodes."""
    work, product = single
    np.dot(vectors.T, work, product)
    np.dot(product, vectors, work)


@njit(cache=True, nogil=True, fastmath=FAST)
def _renew(sigma, alpha, spaces, reference, c):
    """Move the expansion point by the step in the first scratch, its basis kept; return False where that fails.

    The gradient is exact there, by a Cholesky factor. The Hessian is diagonal in the old basis but for what the step
    has coupled, the relative size of which is noted.
    """
    (inverse, _), single = spaces
    work, weights = single[0], reference.inverse_values[c]
    p, coupling = work.shape[0], 0.0
    for i in range(p):
        part = 0.0
        for j in range(i):
            part += work[i, j] * work[i, j] * weights[j]
        coupling += 2.0 * part * weights[i]
    reference.coupling[c] += np.sqrt(coupling)
    if reference.coupling[c] > COUPLED:
        return False
    for i in range(p):
        value = 1.0 / weights[i] + work[i, i]
        if value <= 0.0:
            return False
        weights[i] = 1.0 / value
    _turn_back(single, reference.vectors[c])
    centre, gradient = reference.point[c], reference.gradient[c]
    for i in range(p):
        for j in range(i + 1):
            centre[i, j] += work[i, j]
            inverse[i, j] = centre[i, j]
    if np.isnan(factor(inverse)):
        return False
    invert(inverse)
    for i in range(p):
        for j in range(i + 1):
            gradient[i, j] = alpha * (sigma[i, j] - inverse[i, j])
    return True


@njit(cache=True, nogil=True, fastmath=FAST)
def lazy_step(sigma, alpha, mu, iterate, spaces, reference, c, last_residual):
    """Take the step of the expansion, less its point, into single scratch; return how: 0 if it cannot be trusted."""
    slack, single, way = STALENESS * mu * last_residual, spaces[1], LAZY
    size, neglected = _expand(alpha, mu, iterate, single, reference, c)
    if size > TRUST:
        return 0
    if neglected > slack:
        if not _renew(sigma, alpha, spaces, reference, c):
            return 0
        size, neglected = _expand(alpha, mu, iterate, single, reference, c)
        if neglected > slack:
            return 0
        way = RENEWED
    _turn_back(single, reference.vectors[c])
    return way
