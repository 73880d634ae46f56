"""One class in double precision on the CPU: the whole fit, checks and certificate included, as one compiled call.

A small fit takes less time than what surrounds it; here that is a few microseconds. Whatever is out of the ordinary
(several classes, a penalised diagonal, tensors, anything amiss with the input) is left to the general route of `joint`.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from cmgl_cli.graphs.active_set import Task, descend, first_edges, make_room, shrink
from cmgl_cli.graphs.admm import Iterate
from cmgl_cli.graphs.audit import admissible, components
from cmgl_cli.graphs.certificate import Certificate, Problem
from cmgl_cli.graphs.descent import HANDOVER, SPLITTING_STEPS, solve_splitting
from cmgl_cli.graphs.lapack import factor, invert
from cmgl_cli.graphs.packed import pack, unpack
from cmgl_cli.graphs.result import JointResult, Step
from cmgl_cli.graphs.splitting import begin, dual_of, solve_compiled

# Below this variance of the eigenvalues of a correlation matrix active sets win, above it splitting; up to FEW nodes,
# and beyond (docs/graphs.md).
FEW, SPREAD_FEW, SPREAD = 32, 1.0, 0.55
MAX_STEPS = 50
# How much heavier D weighs at the start by T^{-1}, and by an empty graph's step where T is positive definite, or not;
# the variance up to which T^{-1} is the better start. All measured, not derived.
NEAR, MILD, STRONG = 4.0, 2.0, 0.5
SPREAD_NEAR = 3.0
NO_START, NO_CHECKS = np.empty((0, 0)), np.empty((0, 3))


@njit(cache=True, nogil=True)
def spread(covariance):
    """Return the variance of the eigenvalues of the correlation matrix: its mean sum of squared correlations."""
    p, total = len(covariance), 0.0
    scale = 1.0 / np.diag(covariance)
    for i in range(p):
        row, part = covariance[i], 0.0
        for j in range(i):
            part += row[j] * row[j] * scale[j]
        total += 2.0 * part * scale[i]
    return total / p


@njit(cache=True, nogil=True)
def near_independence(covariance):
    """Return whether nodes are so little correlated that active sets win."""
    return spread(covariance) < (SPREAD_FEW if len(covariance) <= FEW else SPREAD)


@njit(cache=True, nogil=True)
def _limits(specific, rho):
    """Return lambda = min(rho, gamma W) off the diagonal, zero on it."""
    limit = np.minimum(specific, rho)
    for i in range(len(limit)):
        limit[i, i] = 0.0
    return limit


@njit(cache=True, nogil=True)
def _residual(task, x, inverse):
    """Return the largest entry of X - prox(X - gradient), unit step."""
    largest = 0.0
    for i in range(len(x)):
        for j in range(i + 1):
            target = x[i, j] - task.sigma[i, j] + inverse[i, j]
            bound = task.limit[i, j]
            near = max(target - bound, 0.0) + min(target + bound, 0.0)
            largest = max(largest, abs(x[i, j] - near))
    return largest


@njit(cache=True, nogil=True)
def _feasible(task, inverse, dual):
    """Write the dual point nearest to W - Sigma."""
    for i in range(len(dual)):
        for j in range(len(dual)):
            bound = task.limit[i, j]
            dual[i, j] = min(max(inverse[i, j] - task.sigma[i, j], -bound), bound)


@njit(cache=True, nogil=True)
def _block(matrix, nodes):
    out = np.empty((len(nodes), len(nodes)))
    for i in range(len(nodes)):
        for j in range(len(nodes)):
            out[i, j] = matrix[nodes[i], nodes[j]]
    return out


@njit(cache=True, nogil=True)
def _put(block, nodes, matrix):
    for i in range(len(nodes)):
        for j in range(len(nodes)):
            matrix[nodes[i], nodes[j]] = block[i, j]


@njit(cache=True, nogil=True)
def _members(labels, label):
    """Return the nodes of a component."""
    count = 0
    for own in labels:
        count += 1 if own == label else 0
    nodes = np.empty(count, np.int64)
    count = 0
    for i in range(len(labels)):
        if labels[i] == label:
            nodes[count] = i
            count += 1
    return nodes


@njit(cache=True, nogil=True)
def _solve_part(task, x, dual, started, tol, max_iter):
    """Solve one component over ``x`` in place, write D, and return (steps, objective, dual bound, residual)."""
    if len(x) == 1:
        level = task.sigma[0, 0] + task.limit[0, 0]
        x[0, 0], dual[0, 0] = 1.0 / level, task.limit[0, 0]
        value = 1.0 + np.log(level)
        return 0, value, value, 0.0
    steps, value, bound, inverse = descend(task, x, started, tol, max_iter, make_room(len(x)))
    _feasible(task, inverse, dual)
    return steps, value, bound, _residual(task, x, inverse)


@njit(cache=True, nogil=True)
def solve_task(task, labels, x, started, tol, max_iter):
    """Solve every component over ``x`` [p, p] in place, a positive definite start if ``started``.

    Return D and (steps, objective, dual bound, residual).
    """
    p, last = len(labels), 0
    dual = np.empty((p, p))
    for label in labels:
        last = max(last, label)
    if last == 0:
        return dual, _solve_part(task, x, dual, started, tol, max_iter)
    steps, value, bound, residual = 0, 0.0, 0.0, 0.0
    for i in range(p):
        for j in range(p):
            dual[i, j] = -task.sigma[i, j]
            x[i, j] = x[i, j] if labels[i] == labels[j] else 0.0
    for label in range(last + 1):
        nodes = _members(labels, label)
        part, inner = Task(_block(task.sigma, nodes), _block(task.limit, nodes)), _block(x, nodes)
        own_dual = np.empty_like(inner)
        taken, primal, lower, worst = _solve_part(part, inner, own_dual, started, tol, max_iter)
        steps, value, bound, residual = max(steps, taken), value + primal, bound + lower, max(residual, worst)
        _put(inner, nodes, x)
        _put(own_dual, nodes, dual)
    return dual, (steps, value, bound, residual)


@njit(cache=True, nogil=True)
def _split(x, specific, rho):
    """Return common and specific part [p, p] of X, and its edges: all common where rho is the smaller penalty."""
    common, own, edges = np.zeros_like(x), np.zeros_like(x), 0
    for i in range(len(x)):
        common[i, i] = x[i, i]
        for j in range(len(x)):
            if i != j and rho < specific[i, j]:
                common[i, j] = x[i, j]
            elif i != j:
                own[i, j] = x[i, j]
            edges += 1 if j < i and x[i, j] != 0.0 else 0
    return common, own, edges


@njit(cache=True, nogil=True)
def _prepare(sigma, weight, levels):
    """Return whether the input is well, Sigma and gamma W symmetrised, lambda, components, `near_independence`."""
    rho, gamma, ridge, floor = levels
    p = sigma.shape[1]
    covariance, specific = np.empty((1, p, p)), np.empty((1, p, p))
    if not admissible(sigma, weight, ridge, floor, np.array([gamma]), covariance, specific):
        return False, covariance[0], specific[0], covariance[0], np.zeros(p, np.int64), False
    limit = _limits(specific[0], rho)
    labels = components(covariance, np.ones(1), limit.reshape(1, p, p), limit)
    return True, covariance[0], specific[0], limit, labels, near_independence(covariance[0])


@njit(cache=True, nogil=True)
def _by_active_set(task, labels, start, tol, max_iter):
    """Return X, D and (steps, objective, dual bound, residual); an infinite objective: a bad start."""
    if np.isnan(factor(start.copy())):
        return start, start, (0, np.inf, -np.inf, np.inf)
    x = start.copy() if start.size > 0 else np.zeros_like(task.sigma)
    dual, numbers = solve_task(task, labels, x, start.size > 0, tol, max_iter)
    return x, dual, numbers


@njit(cache=True, nogil=True)
def _rough_start(task):
    """Return a first guess of X [1, p, p], of D, and of how much heavier D should weigh."""
    x, dual, work = np.empty_like(task.sigma), np.empty_like(task.sigma), np.empty_like(task.sigma)
    positive = shrink(task, work, x)
    balance = NEAR if positive and spread(task.sigma) < SPREAD_NEAR else MILD if positive else STRONG
    if balance == NEAR:
        invert(x)
    else:
        first_edges(task, x, dual, work)
        invert(work)
    _feasible(task, work, dual)
    return x.reshape(1, *x.shape), dual.reshape(1, *x.shape), balance


@njit(cache=True, nogil=True)
def _by_splitting(task, tol, max_iter):
    """Return X, D, (steps, objective, dual bound, residual) and the checks along the way (`solve_compiled`)."""
    p = len(task.sigma)
    start, dual, balance = _rough_start(task)
    bound = pack(task.limit.reshape(1, p, p))
    parts = begin(bound, bound[0], pack(start), pack(dual), balance)
    checks = solve_compiled(task.sigma.reshape(1, p, p), bound[0], np.ones(1), parts, tol, max_iter)
    x, point, work = start[0], dual[0], np.empty((p, p))
    unpack(parts[0].x[0], x)
    dual_of(parts[0], 0, point)
    work[:] = x
    factor(work)
    invert(work)
    steps, value, lower = checks[-1]
    return x, point, (int(steps), value, lower, _residual(task, x, work)), checks


def fit_one_class(
    covariances: Any, weights: Any, levels: tuple[Any, ...], initial: Any, limits: tuple[float, int], forced: bool
) -> JointResult | None:
    """Return the fit of one class, or None where the general route of `fit_joint` is to take it.

    Parameters
    ----------
    covariances : array [p, p] or [1, p, p]
    weights : float or array [p, p] or [1, p, p]
    levels : (rho, gamma, ridge, weight floor)
    initial : JointResult or array, optional
    limits : (tol, max_iter)
    forced : bool
        Whether active sets are asked for; otherwise only where they win.
    """
    began, (tol, max_iter) = time.process_time(), limits
    sigma, given = _stacked(covariances), tuple(_number(level) for level in levels)
    if sigma is None or not all(0.0 <= level < np.inf for level in given):
        return None
    weight = _weight(weights, sigma.shape)
    start = NO_START if initial is None else _start(initial)
    if weight is None or start is None or start.shape not in ((0, 0), sigma.shape[1:]):
        return None
    well, covariance, specific, limit, labels, mild = _prepare(sigma, weight, given)
    task = Task(covariance, limit)
    if not well:
        return None
    checks = NO_CHECKS
    if forced or mild:
        x, dual, numbers = _by_active_set(task, labels, start, float(tol), min(max_iter, MAX_STEPS))
    elif initial is None and tol >= HANDOVER and max_iter > 0 and not labels.any():
        x, dual, numbers, checks = _by_splitting(task, float(tol), min(max_iter, SPLITTING_STEPS))
    else:
        return None
    steps, value, bound, residual = numbers
    gap, scale = value - bound, max(1.0, abs(value))
    if value == np.inf or (gap > tol * scale and steps < max_iter):
        return None
    common, own, edges = _split(x, specific, given[0])
    seconds = time.process_time() - began
    return JointResult(
        precision=x[None],
        common=common,
        specific=own[None],
        objective=value,
        dual_objective=bound,
        duality_gap=gap,
        relative_gap=gap / scale,
        kkt_residual=residual,
        n_iter=steps,
        converged=gap <= tol * scale,
        solver="splitting" if len(checks) else "active-set",
        edges=(edges,),
        components=labels,
        seconds=seconds,
        history=tuple(Step(int(n), v, b, v - b, seconds) for n, v, b in checks.tolist() or [[steps, value, bound]]),
        tol=tol,
        dual=dual[None],
    )


def _weight(weights: Any, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Return W [1, p, p], or None for anything but a number or one matrix in double precision."""
    if isinstance(weights, (int, float)):
        return np.full(shape, weights, np.float64)
    weight = _stacked(weights)
    return weight if weight is not None and weight.shape == shape else None


def _number(level: Any) -> float:
    """Return a number, or the only one of an array; NaN for anything else."""
    if isinstance(level, np.ndarray):
        level = level.item() if level.size == 1 else np.nan
    return float(level) if isinstance(level, (int, float)) else np.nan


def _stacked(array: Any) -> NDArray[np.float64] | None:
    """Return [1, p, p], contiguous, or None for anything but one square matrix in double precision."""
    if not isinstance(array, np.ndarray) or array.dtype != np.float64 or array.size == 0:
        return None
    stack = array[None] if array.ndim == 2 else array
    if stack.ndim != 3 or len(stack) != 1 or stack.shape[1] != stack.shape[2]:
        return None
    return np.ascontiguousarray(stack)


def _start(initial: Any) -> NDArray[np.float64] | None:
    stack = _stacked(initial.precision if isinstance(initial, JointResult) else initial)
    return None if stack is None else stack[0]


def solve_active_set(problem: Problem, start: Tensor, tol: float, max_iter: int, dual: Tensor | None = None) -> Iterate:
    """Solve one component of one class, diagonal penalised or not; should the gap stop falling, splitting goes on."""
    alpha = float(problem.alpha[0])
    penalty = torch.minimum(problem.penalty.specific[0], problem.penalty.common) / alpha
    task = Task(*(np.ascontiguousarray(m.numpy(), np.float64) for m in (problem.covariance[0], penalty)))
    x = np.array(start[0].numpy())
    started, given = bool(np.count_nonzero(np.triu(x, 1))), tol / max(1.0, alpha)
    steps, value, bound, inverse = descend(task, x, started, given, min(max_iter, MAX_STEPS), make_room(len(x)))
    gap = value - bound
    point = np.empty_like(x)
    _feasible(task, inverse, point)
    reached, lower = torch.from_numpy(x)[None], torch.from_numpy(alpha * point)[None]
    if gap > given * max(1.0, abs(value)) and steps < max_iter:
        rest = solve_splitting(problem, reached, tol, max_iter - steps, lower)
        return replace(rest, n_iter=steps + rest.n_iter)
    certificate = Certificate(alpha * value, alpha * bound, np.nan)
    step = Step(steps, alpha * value, alpha * bound, alpha * gap, 0.0)
    return Iterate(reached, certificate, steps, [step], lower)
