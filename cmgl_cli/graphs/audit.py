"""Compiled certificate, screening and input check in double precision: what surrounds every solve on the CPU.

The same mathematics as `certificate`, `screening` and `inputs` in torch, which remain the reference and serve other
devices and single precision; small problems would otherwise spend more time in dispatch than in arithmetic.
"""

import numpy as np
from numba import njit

from cmgl_cli.graphs.kernels import FAST
from cmgl_cli.graphs.lapack import factor, invert
from cmgl_cli.graphs.packed import prox_packed, unpack


@njit(cache=True, nogil=True)
def lifted_value(sigma, alpha, free, bound, rho):
    """Return the dual value at the projection of ``free`` [C, q] onto the polytopes, or -inf; ``free`` is kept."""
    n_classes, p = sigma.shape[0], sigma.shape[1]
    point, lifted, value = np.empty_like(free), np.empty((p, p)), 0.0
    prox_packed(free, bound, rho, 1.0, point, np.zeros(free.shape[1]))
    for c in range(n_classes):
        k = 0
        for i in range(p):
            for j in range(i + 1):
                lifted[i, j] = sigma[c, i, j] + (free[c, k] - point[c, k]) / alpha[c]
                lifted[j, i] = lifted[i, j]
                k += 1
        determinant = factor(lifted)
        if np.isnan(determinant):
            return -np.inf
        value += alpha[c] * (determinant + p)
    return value


@njit(cache=True, nogil=True, fastmath=FAST)
def penalty_value(packed, common, bound, rho, p):
    """Return h of packed symmetric matrices [C, q] whose common part is ``common`` [q]; off-diagonals count twice."""
    total = 0.0
    for c in range(packed.shape[0]):
        inner, diagonal = 0.0, 0.0
        for k in range(packed.shape[1]):
            inner += bound[c, k] * abs(packed[c, k] - common[k])
        for i in range(p):
            k = i * (i + 3) // 2
            diagonal += bound[c, k] * abs(packed[c, k] - common[k])
        total += 2.0 * inner - diagonal
    for k in range(packed.shape[1]):
        total += 2.0 * rho[k] * abs(common[k])
    for i in range(p):
        k = i * (i + 3) // 2
        total -= rho[k] * abs(common[k])
    return total


@njit(cache=True, nogil=True)
def median(packed, bound, rho):
    """Return the minimiser t [q] of rho |t| + sum_c w_c |x_c - t| of least magnitude: a weighted median with zero."""
    n_classes, size = packed.shape
    common = np.zeros(size)
    for k in range(size):
        lead, slack = 0.0, rho[k]
        for c in range(n_classes):
            x = packed[c, k]
            lead += bound[c, k] if x > 0.0 else -bound[c, k] if x < 0.0 else 0.0
            slack += bound[c, k] if x == 0.0 else 0.0
        if abs(lead) <= slack:
            continue
        side = 1.0 if lead > 0.0 else -1.0
        order = np.argsort(side * packed[:, k])
        slope = rho[k]
        for c in range(n_classes):
            slope -= bound[c, k]
        for c in order:
            slope += 2.0 * bound[c, k]
            if slope >= 0.0 and side * packed[c, k] > 0.0:
                common[k] = packed[c, k]
                break
    return common


@njit(cache=True, nogil=True)
def audit(sigma, alpha, packed, bound, rho, common):
    """Return objective, dual value at the point that Omega^{-1} suggests, and KKT residual of packed [C, q].

    ``common`` [q] is the `median` of ``packed``.
    """
    n_classes, p = sigma.shape[0], sigma.shape[1]
    free, dense, objective = np.empty_like(packed), np.empty((p, p)), 0.0
    for c in range(n_classes):
        unpack(packed[c], dense)
        determinant = factor(dense)
        if np.isnan(determinant):
            return np.inf, -np.inf, np.inf
        invert(dense)
        fit, k = 0.0, 0
        for i in range(p):
            for j in range(i + 1):
                fit += (1.0 if i == j else 2.0) * sigma[c, i, j] * packed[c, k]
                free[c, k] = alpha[c] * (dense[i, j] - sigma[c, i, j])
                k += 1
        objective += alpha[c] * (fit - determinant)
    objective += penalty_value(packed, common, bound, rho, p)
    bound_value = lifted_value(sigma, alpha, free, bound, rho)
    shifted, residual = packed + free, 0.0
    prox_packed(shifted, bound, rho, 1.0, free, np.zeros(free.shape[1]))
    for c in range(n_classes):
        for k in range(packed.shape[1]):
            residual = max(residual, abs(packed[c, k] - free[c, k]))
    return objective, bound_value, residual


@njit(cache=True, nogil=True)
def assemble(precision, packed_common, free):
    """Return common, specific, their sum and the edges [C]; where ``free`` [p], the common diagonal is the mean."""
    n_classes, p = precision.shape[0], precision.shape[1]
    common, specific, total = np.empty((p, p)), np.empty_like(precision), np.empty_like(precision)
    edges = np.zeros(n_classes, np.int64)
    unpack(packed_common, common)
    for i in range(p):
        if free[i]:
            common[i, i] = 0.0
            for c in range(n_classes):
                common[i, i] += precision[c, i, i] / n_classes
    for c in range(n_classes):
        for i in range(p):
            for j in range(p):
                specific[c, i, j] = precision[c, i, j] - common[i, j]
                total[c, i, j] = common[i, j] + specific[c, i, j]
                edges[c] += 1 if j < i and total[c, i, j] != 0.0 else 0
    return common, specific, total, edges


@njit(cache=True, nogil=True)
def components(sigma, alpha, weight, rho):
    """Return the screening component [p] of every node, numbered by first node; see `screening.screen`."""
    n_classes, p = sigma.shape[0], sigma.shape[1]
    linked = np.zeros((p, p), np.bool_)
    for i in range(p):
        for j in range(i):
            total, any_beyond = 0.0, False
            for c in range(n_classes):
                pull = alpha[c] * sigma[c, i, j]
                total += pull
                any_beyond |= abs(pull) > weight[c, i, j]
            linked[i, j] = any_beyond or abs(total) > rho[i, j]
            linked[j, i] = linked[i, j]
    labels, stack, count = np.full(p, -1), np.empty(p, np.int64), 0
    for root in range(p):
        if labels[root] >= 0:
            continue
        labels[root], stack[0], depth = count, root, 1
        while depth > 0:
            depth -= 1
            node = stack[depth]
            for other in range(p):
                if linked[node, other] and labels[other] < 0:
                    labels[other], stack[depth] = count, other
                    depth += 1
        count += 1
    return labels


@njit(cache=True, nogil=True)
def admissible(sigma, weight, ridge, floor, gamma, out, specific):
    """Check covariances [C, p, p] and weights [1 or C, p, p], write the symmetrised problem; return if all is well.

    Well: finite, positive variances, symmetric, positive definite beyond rounding, weights in [0, 1]. Whatever fails
    here is looked at again, and named, by the checks of `inputs`.
    """
    n_classes, p = sigma.shape[0], sigma.shape[1]
    lowered, size = np.empty((p, p)), 0.0
    for c in range(n_classes):
        for i in range(p):
            if not (0.0 < sigma[c, i, i] < np.inf):
                return False
            size = max(size, sigma[c, i, i])
    for c in range(n_classes):
        shared = c if weight.shape[0] > 1 else 0
        for i in range(p):
            for j in range(i + 1):
                a, b, w, v = sigma[c, i, j], sigma[c, j, i], weight[shared, i, j], weight[shared, j, i]
                if not (abs(a - b) <= 1e-10 * size and abs(w - v) <= 1e-6):
                    return False
                if not (0.0 <= w <= 1.0 and 0.0 <= v <= 1.0):
                    return False
                out[c, i, j] = 0.5 * (a + b) + (ridge if i == j else 0.0)
                out[c, j, i] = out[c, i, j]
                specific[c, i, j] = gamma[c] * max(0.5 * (w + v), floor)
                specific[c, j, i] = specific[c, i, j]
                lowered[i, j] = 0.5 * (a + b) * (1.0 - 1e-10 if i == j else 1.0)
                lowered[j, i] = lowered[i, j]
        if np.isnan(factor(lowered)):
            return False
    return True
