"""Compiled operations on packed symmetric matrices [C, q], q = p (p + 1) / 2: lower triangles, row after row.

Edges lie along the last axis, so that the proximal problems of many edges run in one vector register, and half of the
memory traffic of full matrices is saved.
"""

import numpy as np
from numba import njit

from cmgl_cli.graphs.kernels import FAST

LANES = 128


@njit(cache=True, nogil=True)
def pack(matrices):
    """Return the lower triangles [C, q] of symmetric matrices [C, p, p]."""
    n_classes, p = matrices.shape[0], matrices.shape[1]
    out = np.empty((n_classes, p * (p + 1) // 2))
    for c in range(n_classes):
        k = 0
        for i in range(p):
            for j in range(i + 1):
                out[c, k] = matrices[c, i, j]
                k += 1
    return out


@njit(cache=True, nogil=True)
def unpack(packed, out):
    """Write the symmetric matrix [p, p] of a lower triangle [q] into ``out``."""
    k = 0
    for i in range(out.shape[0]):
        for j in range(i + 1):
            out[i, j] = packed[k]
            out[j, i] = packed[k]
            k += 1


@njit(cache=True, nogil=True, fastmath=FAST)
def _soft_one_class(point, bound, rho, inv_mu, out, common):
    for k in range(point.shape[1]):
        own, level = bound[0, k] * inv_mu, rho[k] * inv_mu
        limit = min(own, level)
        x = max(point[0, k] - limit, 0.0) + min(point[0, k] + limit, 0.0)
        out[0, k] = x
        common[k] = x if level < own else 0.0


@njit(cache=True, nogil=True, fastmath=FAST)
def _bracket(point, bound, level, inv_mu, lanes, common):
    """Set target, bracket and start of the root of every lane; return whether any is away from zero."""
    target, low, high, mass, excess = lanes[0], lanes[1], lanes[2], lanes[3], lanes[4]
    width = len(common)
    for j in range(width):
        excess[j], mass[j], low[j], high[j] = 0.0, level[j] * inv_mu, 0.0, 0.0
    for c in range(point.shape[0]):
        row, limit = point[c], bound[c]
        for j in range(width):
            v, b = row[j], limit[j] * inv_mu
            clipped = min(max(v, -b), b)
            excess[j] += clipped
            mass[j] += abs(clipped)
            low[j], high[j] = min(low[j], v), max(high[j], v)
    any_open = False
    for j in range(width):
        rho = level[j] * inv_mu
        target[j] = rho if excess[j] > 0.0 else -rho
        if abs(excess[j]) <= rho:
            low[j], high[j], common[j] = 0.0, 0.0, 0.0
        else:
            any_open = True
            low[j] = 0.0 if excess[j] > 0.0 else low[j]
            high[j] = high[j] if excess[j] > 0.0 else 0.0
            common[j] = common[j] if low[j] < common[j] < high[j] else 0.0
    return any_open


@njit(cache=True, nogil=True, fastmath=FAST)
def _root_step(point, bound, inv_mu, lanes, common):
    """Take one safeguarded Newton step in every lane; return whether any lane moved."""
    target, low, high, mass, excess, slope = lanes[0], lanes[1], lanes[2], lanes[3], lanes[4], lanes[5]
    width = len(common)
    for j in range(width):
        excess[j], slope[j] = -target[j], 0.0
    for c in range(point.shape[0]):
        row, limit = point[c], bound[c]
        for j in range(width):
            v, b = row[j] - common[j], limit[j] * inv_mu
            clipped = min(max(v, -b), b)
            excess[j] += clipped
            slope[j] += 1.0 if clipped == v else 0.0
    moved = False
    for j in range(width):
        t = common[j]
        below = t if excess[j] > 0.0 else low[j]
        above = high[j] if excess[j] > 0.0 else t
        following = t + excess[j] / slope[j] if slope[j] > 0.0 else 0.5 * (below + above)
        following = following if below < following < above else 0.5 * (below + above)
        if low[j] < high[j] and abs(excess[j]) > 1e-15 * mass[j] and following != t:
            low[j], high[j], common[j], moved = below, above, following, True
    return moved


@njit(cache=True, nogil=True, fastmath=FAST)
def prox_packed(point, bound, rho, inv_mu, out, common):
    """Out [C, q] <- proximal point of inv_mu h at ``point`` [C, q]; ``common`` [q] holds a guess and then the root.

    `kernels.prox_entry` for a curvature shared by all classes, many edges at a time; ``bound`` [C, q] are the levels
    gamma W, ``rho`` [q] those of the common part.
    """
    n_classes, size = point.shape
    if n_classes == 1:
        _soft_one_class(point, bound, rho, inv_mu, out, common)
        return
    lanes = np.empty((6, LANES))
    for first in range(0, size, LANES):  # slices of known length let the inner loops vectorise
        last = min(first + LANES, size)
        values, limits, middle = point[:, first:last], bound[:, first:last], common[first:last]
        if _bracket(values, limits, rho[first:last], inv_mu, lanes, middle):
            for _ in range(100):
                if not _root_step(values, limits, inv_mu, lanes, middle):
                    break
        for c in range(n_classes):
            row, limit, result = values[c], limits[c], out[c, first:last]
            for k in range(len(middle)):
                v, b = row[k] - middle[k], limit[k] * inv_mu
                result[k] = middle[k] + max(v - b, 0.0) + min(v + b, 0.0)
