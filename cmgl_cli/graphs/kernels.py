"""Compiled building blocks of the descent solver: one edge's proximal problem, one sweep, objective and certificate.

Arrays are class first: covariance, precision, inverse and weights [C, p, p], common part [p, p]. The penalty levels are
those of `cmgl_cli.graphs.penalty` (gamma W and rho), with an unpenalised diagonal.
"""

import numpy as np
from numba import njit

from cmgl_cli.graphs.lapack import factor

FAST = {"reassoc", "contract", "nsz", "arcp"}  # lets sums vectorise; infinities and NaN keep their meaning


@njit(cache=True, nogil=True, fastmath=FAST)
def prox_entry(values, curvature, weight, rho, out):
    """Solve min over t, x of rho |t| + sum_c w_c |x_c - t| + a_c (x_c - v_c)^2 / 2; write x to ``out``, return t."""
    n = len(values)
    lead, mass = 0.0, rho
    for c in range(n):
        pull = curvature[c] * values[c]
        clipped = min(max(pull, -weight[c]), weight[c])
        lead += clipped
        mass += abs(clipped)
    t = 0.0
    if abs(lead) > rho:
        target = rho if lead > 0 else -rho
        low, high = 0.0, 0.0
        for c in range(n):
            low, high = min(low, values[c]), max(high, values[c])
        for _ in range(100):
            excess, slope = -target, 0.0
            for c in range(n):
                pull = curvature[c] * (values[c] - t)
                excess += min(max(pull, -weight[c]), weight[c])
                slope += curvature[c] if abs(pull) < weight[c] else 0.0
            if abs(excess) <= 1e-15 * mass:
                break
            if excess > 0:
                low = t
            else:
                high = t
            following = t + excess / slope if slope > 0 else 0.5 * (low + high)
            if not (low < following < high):
                following = 0.5 * (low + high)
            if following == t:
                break
            t = following
    for c in range(n):
        shifted = values[c] - t
        bound = weight[c] / curvature[c]
        out[c] = t + (shifted - bound if shifted > bound else shifted + bound if shifted < -bound else 0.0)
    return t


@njit(cache=True, nogil=True, fastmath=FAST)
def sweep(sigma, omega, inverse, common, weight, rho, alpha, tol, max_inner):  # noqa: PLR0913
    """Minimise over every column in turn, exactly up to ``tol``; return the largest change of an entry.

    With column j of Omega_c = (theta, theta_jj) and V = (Omega_c without j)^{-1}, the column's problem is
    sum_c alpha_c (s_jj theta^T V theta / 2 + s_j^T theta) + h(theta), and theta_jj = 1 / s_jj + theta^T V theta keeps
    every class positive definite. V = W - w_j w_j^T / w_jj is never formed; W follows by a rank-two update.
    """
    n_classes, p = sigma.shape[0], sigma.shape[1]
    product, ratio = np.empty((n_classes, p)), np.empty((n_classes, p))
    column, bound = np.empty((p, n_classes)), np.empty((p, n_classes))
    linear, curvature = np.empty((p, n_classes)), np.empty((p, n_classes))
    values, solution, slope = np.empty(n_classes), np.empty(n_classes), np.empty(n_classes)
    active = np.empty(p, np.int64)
    largest = 0.0
    for j in range(p):
        for c in range(n_classes):
            top, s = 1.0 / inverse[c, j, j], sigma[c, j, j]
            slope[c] = alpha[c] * s
            for k in range(p):
                ratio[c, k] = inverse[c, j, k] * top
                product[c, k] = -ratio[c, k]
                column[k, c] = omega[c, j, k]
                bound[k, c] = weight[c, j, k]
                linear[k, c] = alpha[c] * sigma[c, j, k]
                curvature[k, c] = alpha[c] * s * (inverse[c, k, k] - ratio[c, k] * inverse[c, j, k])
        n_active, column_change = 0, 0.0
        for inner in range(max_inner):
            count = p if inner == 0 else n_active
            change = 0.0
            for index in range(count):
                i = index if inner == 0 else active[index]
                if i == j:
                    continue
                nonzero, inside, lead = False, True, 0.0
                for c in range(n_classes):
                    g = slope[c] * product[c, i] + linear[i, c]
                    values[c] = g
                    nonzero |= column[i, c] != 0.0
                    inside &= abs(g) <= bound[i, c]
                    lead += g
                if not nonzero and inside and abs(lead) <= rho:
                    continue
                for c in range(n_classes):
                    values[c] = column[i, c] - values[c] / curvature[i, c]
                common[i, j] = prox_entry(values, curvature[i], bound[i], rho, solution)
                nonzero = False
                for c in range(n_classes):
                    step = solution[c] - column[i, c]
                    nonzero |= solution[c] != 0.0
                    if step != 0.0:
                        column[i, c] = solution[c]
                        change = max(change, abs(step))
                        back = step * ratio[c, i]
                        for k in range(p):
                            product[c, k] += step * inverse[c, i, k] - back * inverse[c, j, k]
                if inner == 0 and nonzero:
                    active[n_active] = i
                    n_active += 1
            column_change = max(column_change, change)
            if change <= tol:
                break
        largest = max(largest, column_change)
        for c in range(n_classes):
            s = sigma[c, j, j]
            if column_change == 0.0 and abs(inverse[c, j, j] - s) <= 1e-14 * s:
                continue
            product[c, j] = 0.0
            inner_product = 0.0
            for k in range(p):
                if k != j:
                    inner_product += column[k, c] * product[c, k]
                    omega[c, j, k] = column[k, c]
                    omega[c, k, j] = column[k, c]
            omega[c, j, j] = 1.0 / s + inner_product
            for i in range(p):
                down, up = ratio[c, i], s * product[c, i]
                if i != j and (down != 0.0 or up != 0.0):  # the first sweep from a diagonal start meets many zeros
                    for k in range(p):
                        inverse[c, i, k] += up * product[c, k] - down * inverse[c, j, k]
            for k in range(p):
                inverse[c, j, k] = -s * product[c, k]
                inverse[c, k, j] = -s * product[c, k]
            inverse[c, j, j] = s
        for k in range(p):
            common[j, k] = common[k, j]
    return largest


@njit(cache=True, nogil=True, fastmath=FAST)
def objective(sigma, omega, common, weight, rho, alpha):
    """Return the primal value at (Theta, Omega), infinite outside the positive definite cone."""
    n_classes, p = sigma.shape[0], sigma.shape[1]
    total = 0.0
    for c in range(n_classes):
        determinant = factor(omega[c].copy())
        if np.isnan(determinant):
            return np.inf
        fit, penalty = 0.0, 0.0
        for i in range(p):
            for j in range(p):
                fit += sigma[c, i, j] * omega[c, i, j]
                if i != j:
                    penalty += weight[c, i, j] * abs(omega[c, i, j] - common[i, j])
        total += alpha[c] * (fit - determinant) + penalty
    shared = 0.0
    for i in range(p):
        for j in range(p):
            if i != j:
                shared += abs(common[i, j])
    return total + rho * shared


@njit(cache=True, nogil=True, fastmath=FAST)
def dual_value(sigma, inverse, weight, rho, alpha):
    """Return the dual value at the projection of alpha (Omega^{-1} - Sigma) onto the polytopes, or -inf."""
    n_classes, p = sigma.shape[0], sigma.shape[1]
    point = np.empty((n_classes, p, p))
    values, ones, bound, out = np.empty(n_classes), np.ones(n_classes), np.empty(n_classes), np.empty(n_classes)
    for i in range(p):
        for c in range(n_classes):
            point[c, i, i] = sigma[c, i, i]
        for j in range(i):
            total, inside = 0.0, True
            for c in range(n_classes):
                d = alpha[c] * (0.5 * (inverse[c, i, j] + inverse[c, j, i]) - sigma[c, i, j])
                values[c], bound[c] = d, weight[c, i, j]
                inside &= abs(d) <= bound[c]
                total += d
            t = 0.0
            if not inside or abs(total) > rho:
                t = prox_entry(values, ones, bound, rho, out)
            for c in range(n_classes):
                d = min(max(values[c] - t, -bound[c]), bound[c])
                point[c, i, j] = sigma[c, i, j] + d / alpha[c]
                point[c, j, i] = point[c, i, j]
    value = 0.0
    for c in range(n_classes):
        determinant = factor(point[c])
        if np.isnan(determinant):
            return -np.inf
        value += alpha[c] * (determinant + p)
    return value
