r"""One class by proximal Newton steps over an active set, in compiled code.

    minimise  tr(Sigma X) - logdet X + sum_ij lambda_ij |X_ij|

The second-order model at X, W = X^{-1}, is minimised by coordinate descent over the free entries (X_ij != 0 or
|Sigma_ij - W_ij| > lambda_ij); a line search with Cholesky factors keeps X positive definite (Hsieh et al., QUIC, JMLR
2014). What differs from QUIC:

* The first model is taken at W = T, Sigma shrunk towards zero by lambda: the point of the dual where every entry is at
  its bound. With Z = X + D the model is tr((Sigma - 2 W) Z) + tr(W Z W Z) / 2 + ||Z||, so that neither T^{-1} nor any
  start is needed; Z begins as the solution for a tree (Fattahi and Sojoudi, JMLR 2019), on the pattern of T. One to
  five further steps are left. It needs T positive definite; strongly correlated data fail that and are better
  served by splitting anyhow.
* U = D W is read by columns and written by rows, a column of the model at a time: all inner loops are contiguous.
* The end is a certified duality gap.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cmgl_cli.graphs.kernels import FAST
from cmgl_cli.graphs.lapack import factor, invert

Array = NDArray[np.float64]
FORCING = 0.2
MAX_PASSES = 60
ARMIJO = 1e-3
ROUNDING = 1e-13
HALVINGS = 30
LAG = 0.01
STALLED = 3


class Task(NamedTuple):
    """Covariance and penalty levels lambda [p, p], both symmetric."""

    sigma: Array
    limit: Array


class Room(NamedTuple):
    """Free entries by columns (row indices, start of every column), D, D W, and the column of D W in use."""

    rows: NDArray[Any]
    starts: NDArray[Any]
    step: Array
    product: Array
    column: Array


@njit(cache=True, nogil=True)
def make_room(p):
    """Return working memory for p nodes."""
    rows, starts = np.empty(p * (p + 1) // 2, np.int32), np.empty(p + 1, np.int64)
    return Room(rows, starts, np.empty((p, p)), np.empty((p, p)), np.empty(p))


@njit(cache=True, nogil=True, fastmath=FAST)
def list_free(task, x, inverse, room):
    """List the free entries of the upper triangle column by column; return their number."""
    count = 0
    for j in range(len(x)):
        room.starts[j] = count
        row, dual, target, bound = x[j], inverse[j], task.sigma[j], task.limit[j]
        for i in range(j + 1):
            if row[i] != 0.0 or abs(target[i] - dual[i]) > bound[i]:
                room.rows[count] = i
                count += 1
    room.starts[len(x)] = count
    return count


@njit(cache=True, nogil=True, fastmath=FAST)
def model_pass(task, x, inverse, room):
    """Minimise the model over every free entry in turn; return the squared length of the moves in its own metric."""
    p, moved = len(x), 0.0
    step, product, column = room.step, room.product, room.column
    for j in range(p):
        first, last = room.starts[j], room.starts[j + 1]
        if first == last:
            continue
        own, own_product = inverse[j], product[j]
        for k in range(p):
            column[k] = product[k, j]
        for index in range(first, last):
            i = room.rows[index]
            other = inverse[i]
            gradient = task.sigma[j, i] - own[i]
            for k in range(p):
                gradient += other[k] * column[k]
            curvature = own[i] * own[i] + (other[i] * own[j] if i != j else 0.0)
            now, reach = x[j, i] + step[j, i], task.limit[j, i] / curvature
            target = now - gradient / curvature
            target = target - reach if target > reach else target + reach if target < -reach else 0.0
            move = target - now
            if move == 0.0:
                continue
            moved += curvature * move * move * (2.0 if i != j else 1.0)
            step[j, i] += move
            row = product[i]
            column[i] += move * own[j]
            if i != j:
                step[i, j] = step[j, i]
                for k in range(p):
                    row[k] += move * own[k]
                    own_product[k] += move * other[k]
                column[j] += move * own[i]
            else:
                for k in range(p):
                    row[k] += move * own[k]
    return moved


@njit(cache=True, nogil=True)
def minimise_model(task, x, inverse, room):
    """Pass over the free entries until a pass moves little against all passes; return the length of all moves."""
    total = 0.0
    for _ in range(MAX_PASSES):
        moved = model_pass(task, x, inverse, room)
        total += moved
        if moved <= FORCING * FORCING * total:
            break
    return np.sqrt(total)


@njit(cache=True, nogil=True, fastmath=FAST)
def model_change(task, x, inverse, room):
    """Return <Sigma - W, D> + ||X + D|| - ||X||: what the line search may hope for."""
    total = 0.0
    for j in range(len(x)):
        for index in range(room.starts[j], room.starts[j + 1]):
            i = room.rows[index]
            change = (task.sigma[j, i] - inverse[j, i]) * room.step[j, i]
            change += task.limit[j, i] * (abs(x[j, i] + room.step[j, i]) - abs(x[j, i]))
            total += change if i == j else 2.0 * change
    return total


@njit(cache=True, nogil=True, fastmath=FAST)
def try_step(task, x, step, size, trial):
    """Write X + size D to the lower triangle of ``trial``, factor it, and return the objective there, or infinity."""
    total = 0.0
    for i in range(len(x)):
        row, move, target, bound, out, part = x[i], step[i], task.sigma[i], task.limit[i], trial[i], 0.0
        for j in range(i + 1):
            entry = row[j] + size * move[j]
            out[j] = entry
            part += target[j] * entry + bound[j] * abs(entry)
        total += 2.0 * part - target[i] * out[i] - bound[i] * abs(out[i])
    determinant = factor(trial)
    return np.inf if np.isnan(determinant) else total - determinant


@njit(cache=True, nogil=True)
def take_step(x, room, size):
    """Add size D to X."""
    for j in range(len(x)):
        for index in range(room.starts[j], room.starts[j + 1]):
            i = room.rows[index]
            x[j, i] += size * room.step[j, i]
            x[i, j] = x[j, i]


@njit(cache=True, nogil=True, fastmath=FAST)
def dual_bound(task, inverse, work):
    """Return logdet(Sigma + D) + p at the feasible D nearest to W - Sigma, or -inf; ``work`` is overwritten."""
    p = len(work)
    for i in range(p):
        target, bound, dual, row = task.sigma[i], task.limit[i], inverse[i], work[i]
        for j in range(i + 1):
            row[j] = target[j] + min(max(dual[j] - target[j], -bound[j]), bound[j])
    determinant = factor(work)
    return -np.inf if np.isnan(determinant) else determinant + p


@njit(cache=True, nogil=True, fastmath=FAST)
def shrink(task, out, work):
    """Write T to ``out`` and its factor to ``work``; return whether T is positive definite."""
    for i in range(len(out)):
        target, bound, row, copy = task.sigma[i], task.limit[i], out[i], work[i]
        for j in range(len(out)):
            row[j] = max(target[j] - bound[j], 0.0) + min(target[j] + bound[j], 0.0)
        row[i] = target[i] + bound[i]
        copy[:] = row
    return not np.isnan(factor(work))


@njit(cache=True, nogil=True, fastmath=FAST)
def _tree_solution(shrunk, room):
    """Write to room's D the solution that would hold were the pattern of T a tree, and D T to its product."""
    step, product, p = room.step, room.product, len(shrunk)
    product[:] = 0.0
    for j in range(p):
        step[j, j] += 1.0 / shrunk[j, j]
        for index in range(room.starts[j], room.starts[j + 1] - 1):
            i = room.rows[index]
            t, scale = shrunk[j, i], shrunk[i, i] * shrunk[j, j]
            share = 1.0 / (scale - t * t)
            step[j, i] = -t * share
            step[i, j] = step[j, i]
            step[i, i] += t * t * share / shrunk[i, i]
            step[j, j] += t * t * share / shrunk[j, j]
    for j in range(p):
        for index in range(room.starts[j], room.starts[j + 1]):
            i = room.rows[index]
            move, row, own = step[j, i], product[i], product[j]
            for k in range(p):
                row[k] += move * shrunk[j, k]
            if i != j:
                for k in range(p):
                    own[k] += move * shrunk[i, k]
    return p


@njit(cache=True, nogil=True)
def _shrunken_start(task, x, inverse, room):
    """Write the minimiser of the model at T to ``x``; return whether T is positive definite.

    ``x`` [p, p] is zero before; ``inverse`` is T after.
    """
    if not shrink(task, inverse, room.step):
        return False
    room.step[:] = 0.0
    list_free(Task(inverse, task.limit), inverse, inverse, room)  # the pattern of T
    _tree_solution(inverse, room)
    minimise_model(Task(task.sigma - inverse, task.limit), x, inverse, room)
    take_step(x, room, 1.0)
    return True


@njit(cache=True, nogil=True)
def empty_graph(task, x):
    """Write the best X without edges; return the objective there."""
    x[:] = 0.0
    value = float(len(x))
    for i in range(len(x)):
        level = task.sigma[i, i] + task.limit[i, i]
        x[i, i] = 1.0 / level
        value += np.log(level)
    return value


@njit(cache=True, nogil=True)
def first_edges(task, x, step, work):
    """Write an empty graph's Newton step, as far as it descends, to ``x``, factored to ``work``; return the objective.

    W is diagonal there, so that the model's minimiser is -T_ij / (T_ii T_jj).
    """
    value, trial, size = empty_graph(task, x), np.inf, 1.0
    for i in range(len(x)):
        for j in range(len(x)):
            target, bound = task.sigma[i, j], task.limit[i, j]
            step[i, j] = -x[i, i] * x[j, j] * (max(target - bound, 0.0) + min(target + bound, 0.0))
        step[i, i] = 0.0
    for _ in range(HALVINGS):
        trial = try_step(task, x, step, size, work)
        if trial <= value + ROUNDING * max(1.0, abs(value)):
            break
        size *= 0.5
    for i in range(len(x)):
        for j in range(len(x)):
            x[i, j] += size * step[i, j]
    return trial


@njit(cache=True, nogil=True)
def _value_at(task, x, room, work):
    """Return the objective at X, or infinity; ``work`` is X factored."""
    room.step[:] = 0.0
    return try_step(task, x, room.step, 0.0, work)


@njit(cache=True, nogil=True)
def _first_point(task, x, work, room):
    """Take the first step from nothing to ``x``; return the objective there."""
    x[:] = 0.0
    if _shrunken_start(task, x, work, room):
        value = _value_at(task, x, room, work)
        if value < np.inf:
            return value
    return first_edges(task, x, room.step, work)


@njit(cache=True, nogil=True)
def _search_line(task, x, room, value, change, work):
    """Return the largest step size 2^-n that lowers the objective enough, and the objective there."""
    size, trial, slack = 1.0, np.inf, ROUNDING * max(1.0, abs(value))
    for _ in range(HALVINGS):
        trial = try_step(task, x, room.step, size, work)
        if trial <= value + ARMIJO * size * change + slack:
            break
        size *= 0.5
    return size, trial


@njit(cache=True, nogil=True)
def descend(task, x, started, tol, max_iter, room):
    """Minimise over ``x`` in place; return steps, objective, dual bound and X^{-1}; an infinite objective: a bad start.

    Parameters
    ----------
    task : Task
    x : ndarray [p, p]
        Where to begin if ``started``; a matrix that is not positive definite is left alone then.
    started : bool
    tol : float
        Certified gap over max(1, |objective|) at which to stop.
    max_iter : int
        Steps allowed; fewer are taken where the gap no longer falls.
    room : Room
    """
    inverse, work = np.empty_like(x), np.empty_like(x)
    steps = 0
    if not started and max_iter > 0:
        value, steps = _first_point(task, x, inverse, room), 1
    else:
        if not started:
            empty_graph(task, x)
        value = _value_at(task, x, room, inverse)
    if value == np.inf:
        return steps, value, -np.inf, inverse
    invert(inverse)
    reach, bound, best, stalled = 0.0 if started else np.inf, -np.inf, np.inf, 0
    while True:
        small = tol * max(1.0, abs(value))
        if LAG * reach <= small or steps >= max_iter:
            bound = max(bound, dual_bound(task, inverse, work))
            stalled = 0 if value - bound < 0.5 * best else stalled + 1
            best = min(best, value - bound)
            if best <= small or steps >= max_iter or stalled == STALLED:
                break
        list_free(task, x, inverse, room)
        room.step[:] = 0.0
        room.product[:] = 0.0
        reach = minimise_model(task, x, inverse, room)
        size, trial = _search_line(task, x, room, value, model_change(task, x, inverse, room), work)
        steps += 1
        if trial == np.inf:
            break
        take_step(x, room, size)
        value = trial
        invert(work)
        inverse, work = work, inverse
    return steps, value, bound, inverse
