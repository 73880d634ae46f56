r"""Accelerated operator splitting with a lazily refreshed Hessian: the fast solver for several classes.

Two-block ADMM in its Douglas-Rachford form, on packed triangles:

    x <- prox_{h / mu}(s),    z <- prox_{f / mu}(2 x - s),    s <- s + 1.7 (z - x), accelerated

with f the likelihood and h the penalty. Three things make it fast (`anderson`, `expansion`).

* Anderson's method of small memory halves the iterations.
* z rarely needs an eigendecomposition, but four matrix products with an older one, in single precision.
* Nor does an older one that is stale need a new one at once: its point moves, exactly, and its basis is kept.

x is exactly sparse; mu (s - x) is exactly dual feasible: the two certify each other, without any inverse. Their gap
falls as the square of the residual, which tells when to look at it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cmgl_cli.graphs.anderson import accelerate, new_memory
from cmgl_cli.graphs.expansion import EXACT, exact_step, lazy_step, new_reference
from cmgl_cli.graphs.interrupts import deliver
from cmgl_cli.graphs.kernels import FAST
from cmgl_cli.graphs.lapack import factor, invert
from cmgl_cli.graphs.packed import pack, prox_packed, unpack

Array = NDArray[np.float64]
BALANCED = 30
LEAP = 2.0
HALVINGS = 30
WARM = 4.0
SMALLEST = 1e-8


class State(NamedTuple):
    """The iterate: s, x, its common part and predecessor, z - x and penalty bounds, packed; mu, residuals, counters."""

    point: Array
    x: Array
    common: Array
    previous: Array
    residual: Array
    bound: Array
    sizes: Array
    scalars: Array
    counts: NDArray[np.int64]


MU, RESIDUAL = 0, 1
FIRST_CHECK = 1e-2
SHORTEST, LONGEST = 0.1, 0.95
ITERATIONS = 0


@njit(cache=True, nogil=True, fastmath=FAST)
def _likelihood_step(sigma, alpha, state, reference):
    """Residual <- z - x, class by class, and ``sizes`` its norms; an expansion is judged against the last one's."""
    n_classes, p = sigma.shape[0], sigma.shape[1]
    double = np.empty((p, p)), np.empty((p, p))
    single = np.empty((p, p), np.float32), np.empty((p, p), np.float32)
    mu = state.scalars[MU]
    for c in range(n_classes):
        x, point, residual, centre = state.x[c], state.point[c], state.residual[c], reference.point[c]
        way = 0
        if reference.fresh[c] == 1:
            way = lazy_step(sigma[c], alpha[c], mu, (x, point), (double, single), reference, c, state.sizes[c])
        if way == 0:
            exact_step(sigma[c], alpha[c], mu, (x, point), double, reference, c)
            single[0][:] = 0.0
            way = EXACT
        state.counts[way] += 1
        total, k, step = 0.0, 0, single[0]
        for i in range(p):
            for j in range(i + 1):
                difference = step[i, j] + centre[i, j] - x[k]
                residual[k] = difference
                total += difference * difference
                k += 1
        sizes = 2.0 * total
        for i in range(p):
            sizes -= residual[i * (i + 3) // 2] ** 2
        state.sizes[c] = np.sqrt(sizes)


@njit(cache=True, nogil=True, fastmath=FAST)
def _balance(state, memory):
    """Move mu towards equal primal and dual residuals (relative), where they differ by more than twice."""
    primal, drift, size, dual = 0.0, 0.0, 0.0, 0.0
    for c in range(state.x.shape[0]):
        primal += state.sizes[c] ** 2
        for k in range(state.x.shape[1]):
            x = state.x[c, k]
            drift += (x - state.previous[c, k]) ** 2
            size += x * x
            dual += (state.point[c, k] - x) ** 2
    primal, drift = np.sqrt(0.5 * primal / max(size, 1e-300)), np.sqrt(drift / max(dual, 1e-300))
    ratio = primal / max(drift, 1e-300)
    if 0.5 <= ratio <= 2.0:
        return
    factor = min(max(ratio, 1.0 / LEAP), LEAP)
    state.scalars[MU] *= factor
    for c in range(state.x.shape[0]):  # x remains the proximal point of s
        for k in range(state.x.shape[1]):
            state.point[c, k] = state.x[c, k] + (state.point[c, k] - state.x[c, k]) / factor
    memory.state[0], memory.state[1] = 0.0, np.inf  # the map has changed


@njit(cache=True, nogil=True)
def _advance(sigma, rho, alpha, state, reference, memory, due, limit):
    """Iterate in place until the relative residual is at most ``due`` or ``limit`` iterations are done in all.

    x is the proximal point of s on return; the residual is that of the iterate before.
    """
    while state.counts[ITERATIONS] < limit:
        state.counts[ITERATIONS] += 1
        count = state.counts[ITERATIONS]
        _likelihood_step(sigma, alpha, state, reference)
        total, size = 0.0, 0.0
        for c in range(len(state.sizes)):
            total += state.sizes[c] ** 2
            size += np.dot(state.x[c], state.x[c])
        state.scalars[RESIDUAL] = np.sqrt(total / max(size, 1e-300))
        balancing = count % 5 == 0 and count <= BALANCED
        if balancing:
            state.previous[:] = state.x
        accelerate(state.point.reshape(-1), state.residual.reshape(-1), memory)
        prox_packed(state.point, state.bound, rho, 1.0 / state.scalars[MU], state.x, state.common)
        if balancing:
            _balance(state, memory)
        if state.scalars[RESIDUAL] <= due:
            break


@njit(cache=True, nogil=True, fastmath=FAST)
def _certificate(sigma, rho, alpha, state):
    """Return the objective at x and the dual value at mu (s - x), infinite outside their domains."""
    n_classes, p = sigma.shape[0], sigma.shape[1]
    dense, lifted = np.empty((p, p)), np.empty((p, p))
    mu, primal, dual = state.scalars[MU], 0.0, 0.0
    for c in range(n_classes):
        unpack(state.x[c], dense)
        fit, penalty, k = 0.0, 0.0, 0
        for i in range(p):
            for j in range(i + 1):
                twice = 1.0 if i == j else 2.0
                x = state.x[c, k]
                fit += twice * sigma[c, i, j] * x
                penalty += twice * state.bound[c, k] * abs(x - state.common[k])
                lifted[i, j] = sigma[c, i, j] + mu * (state.point[c, k] - x) / alpha[c]
                lifted[j, i] = lifted[i, j]
                k += 1
        primal += alpha[c] * (fit - factor(dense)) + penalty
        dual += alpha[c] * (factor(lifted) + p)
    k = 0
    for i in range(p):
        for j in range(i + 1):
            primal += (1.0 if i == j else 2.0) * rho[k] * abs(state.common[k])
            k += 1
    return np.inf if np.isnan(primal) else primal, -np.inf if np.isnan(dual) else dual


@njit(cache=True, nogil=True)
def first_point(sigma, alpha, bound, rho):
    """Return an empty graph's Newton step, as far as it descends, and the dual variable its inverse suggests.

    W is diagonal there, so that the model falls apart into edges; exact for correlations, a start for anything else.
    Every class halves its own step, against the penalty that it would pay alone.

    Parameters
    ----------
    sigma : ndarray [C, p, p]
    alpha : ndarray [C]
    bound, rho : ndarray [C, q], [q]
        Penalty levels, packed.
    """
    n_classes, p = sigma.shape[0], sigma.shape[1]
    target, step, work = np.empty_like(bound), np.empty_like(bound), np.empty((p, p))
    x, dual, variances = np.empty_like(sigma), np.empty_like(sigma), np.empty((n_classes, p))
    for c in range(n_classes):
        k = 0
        for i in range(p):
            diagonal = i * (i + 3) // 2
            variances[c, i] = sigma[c, i, i] + min(bound[c, diagonal], rho[diagonal] / n_classes) / alpha[c]
            for j in range(i):
                target[c, k] = -sigma[c, i, j] / (variances[c, i] * variances[c, j])
                k += 1
            target[c, k] = 0.0
            k += 1
    prox_packed(target, bound, rho, 1.0 / alpha.mean(), step, np.zeros(bound.shape[1]))
    for c in range(n_classes):
        least, size = np.log(variances[c]).sum(), 1.0
        for _ in range(HALVINGS):
            value, k = 0.0, 0
            for i in range(p):
                for j in range(i):
                    entry = size * step[c, k]
                    x[c, i, j], x[c, j, i], work[i, j] = entry, entry, entry
                    value += 2.0 * (sigma[c, i, j] * entry + bound[c, k] * abs(entry) / alpha[c])
                    k += 1
                x[c, i, i], work[i, i] = 1.0 / variances[c, i], 1.0 / variances[c, i]
                k += 1
            if value - factor(work) <= least:
                break
            size *= 0.5
        invert(work)
        dual[c] = alpha[c] * (work - sigma[c])
    return x, dual


@njit(cache=True, nogil=True)
def begin(bound, rho, x, free, balance):
    """Return the state at a point and dual variable, and room for expansions and memory.

    Parameters
    ----------
    bound, rho : ndarray [C, q], [q]
        Penalty levels, packed.
    x, free : ndarray [C, q]
        Positive definite; alpha (Omega^{-1} - Sigma) or another guess of the dual variable. Packed, overwritten.
    balance : float
        mu over the norm of the feasible dual variable against that of x.
    """
    n_classes, size = x.shape
    common, point = np.zeros(size), np.empty(x.shape)
    prox_packed(free, bound, rho, 1.0, point, common)
    dual, primal = 0.0, 0.0
    for c in range(n_classes):
        for k in range(size):
            free[c, k] -= point[c, k]
            dual += free[c, k] * free[c, k]
            primal += x[c, k] * x[c, k]
    mu = balance * np.sqrt((dual + SMALLEST) / primal)
    for c in range(n_classes):
        for k in range(size):
            point[c, k] = x[c, k] + free[c, k] / mu
    prox_packed(point, bound, rho, 1.0 / mu, x, common)
    scalars, counts, unknown = np.array([mu, np.inf]), np.zeros(4, np.int64), np.full(n_classes, np.inf)
    state = State(point, x, common, x.copy(), np.empty(x.shape), bound, unknown, scalars, counts)
    p = (int(np.sqrt(8.0 * size + 1.0)) - 1) // 2
    return state, new_reference(n_classes, p), new_memory(x.size)


@njit(cache=True, nogil=True)
def _outlook(value, bound, residual, tol):
    """Return the relative gap, and the residual at which to look again: the gap falls as the square of the residual."""
    gap = (value - bound) / max(1.0, abs(value)) if value < np.inf else np.inf
    promising = np.sqrt(tol / gap) if 0.0 < gap < np.inf else 0.0
    return gap, residual * min(max(promising, SHORTEST), LONGEST)


@njit(cache=True, nogil=True)
def solve_compiled(sigma, rho, alpha, parts, tol, limit):
    """Do what `Splitting.solve` does from what `begin` returned; return iterations, primal and dual value [n, 3]."""
    state, reference, memory = parts
    checks, count, due, gap = np.empty((limit, 3)), 0, FIRST_CHECK, np.inf
    while state.counts[ITERATIONS] < limit and gap > tol:
        _advance(sigma, rho, alpha, state, reference, memory, due, limit)
        value, bound = _certificate(sigma, rho, alpha, state)
        checks[count, 0], checks[count, 1], checks[count, 2] = state.counts[ITERATIONS], value, bound
        gap, due = _outlook(value, bound, state.scalars[RESIDUAL], tol)
        count += 1
    return checks[:count]


@njit(cache=True, nogil=True)
def dual_of(state, c, out):
    """Write the dual variable D [p, p] of class c, feasible for any iterate."""
    unpack(state.scalars[MU] * (state.point[c] - state.x[c]), out)


class Splitting:
    """State of one solve by splitting.

    Parameters
    ----------
    sigma : ndarray [C, p, p]
    weight : ndarray [C, p, p]
        gamma W of every entry.
    rho : ndarray [p, p]
        Level of the common part.
    alpha : ndarray [C]
    start, dual : ndarray [C, p, p]
        Positive definite; start of the dual variable alpha (Omega^{-1} - Sigma).
    """

    def __init__(self, sigma: Array, weight: Array, rho: Array, alpha: Array, start: Array, dual: Array):  # noqa: PLR0913
        self.sigma, self.rho, self.alpha = sigma, pack(rho[None])[0], alpha
        self.state, self.reference, self.memory = begin(pack(weight), self.rho, pack(start), pack(dual), WARM)

    def advance(self, due: float, limit: int) -> tuple[int, float]:
        """Iterate until the relative residual ||z - x|| / ||x|| is at most ``due``, or to iteration ``limit``.

        Returns
        -------
        tuple of int and float
            Iterations done in all, and the relative residual.
        """
        _advance(self.sigma, self.rho, self.alpha, self.state, self.reference, self.memory, due, limit)
        return int(self.state.counts[ITERATIONS]), float(self.state.scalars[RESIDUAL])

    def solve(self, tol: float, limit: int) -> Iterator[tuple[int, float, float]]:
        """Iterate until the certified gap over max(1, |objective|) is ``tol`` or ``limit`` iterations are done.

        Yields
        ------
        tuple of int and two floats
            Iterations done in all, primal value at x, dual value at mu (s - x), at every check.
        """
        due, taken, gap = FIRST_CHECK, 0, np.inf
        while taken < limit and gap > tol:
            taken, residual = self.advance(due, limit)
            value, bound = self.certificate()
            yield taken, value, bound
            deliver()
            gap, due = _outlook(value, bound, residual, tol)

    def certificate(self) -> tuple[float, float]:
        """Return the primal value at x and the dual value at mu (s - x), infinite outside their domains."""
        return _certificate(self.sigma, self.rho, self.alpha, self.state)

    def precision(self) -> Array:
        """Return x as [C, p, p]."""
        out = np.empty_like(self.sigma)
        for c in range(len(out)):
            unpack(self.state.x[c], out[c])
        return out

    def common(self) -> Array:
        """Return the common part [p, p] of x."""
        out = np.empty(self.sigma.shape[1:])
        unpack(self.state.common, out)
        return out

    def dual(self) -> Array:
        """Return the dual variable D [C, p, p], feasible for any iterate."""
        out = np.empty_like(self.sigma)
        for c in range(len(out)):
            dual_of(self.state, c, out[c])
        return out
