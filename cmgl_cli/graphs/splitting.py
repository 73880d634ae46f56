r"""Accelerated operator splitting with a lazily refreshed Hessian: the fast solver for several classes.

Two-block ADMM in its Douglas-Rachford form, on packed triangles:

    x <- prox_{h / mu}(s),    z <- prox_{f / mu}(2 x - s),    s <- s + 1.7 (z - x), accelerated

with f the likelihood and h the penalty. Two things make it fast. Anderson's method of small memory halves the
iterations. And z rarely needs an eigendecomposition: with z_0 = Q diag(1 / lambda) Q^T the last exact one, f is
replaced by its second-order expansion at z_0, whose proximal point is

    z = z_0 + Q [ (Q^T (mu v - B) Q)_ij / (alpha lambda_i lambda_j + mu) ] Q^T,   B = mu z_0 + grad f(z_0),

four matrix products, a tenth of the price. The neglected term is of the order of delta ||W D W||, D = z - z_0, delta =
||W^1/2 D W^1/2||; the eigendecomposition is made anew (for that class) once delta leaves the trust region or the term
is no longer small against the residual mu ||z - x||, so that the fixed point is that of the exact iteration.

x is exactly sparse; mu (s - x) is exactly dual feasible: the two certify each other, without any inverse.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cmgl_cli.graphs.kernels import FAST, cholesky_logdet
from cmgl_cli.graphs.packed import pack, prox_packed, unpack

Array = NDArray[np.float64]
RELAXATION = 1.7
MEMORY = 8
BLOCK = 1024
TRUST = 2.0
STALENESS = 10.0
BALANCED = 30
WARM = 2.0


class Reference(NamedTuple):
    """Expansion of the likelihood of every class: eigenvectors, inverse eigenvalues, z_0 and B of the module's text."""

    vectors: Array
    inverse_values: Array
    point: Array
    slope: Array
    fresh: NDArray[np.int64]


class Memory(NamedTuple):
    """Anderson's memory: differences of residuals, and of points plus residuals; products; last point and residual."""

    moves: Array
    residuals: Array
    gram: Array
    right: Array
    last_point: Array
    last_residual: Array
    state: Array


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
ITERATIONS, EXACT, LAZY = 0, 1, 2


@njit(cache=True, nogil=True, fastmath=FAST)
def _exact(sigma, alpha, mu, iterate, scratch, reference, c):
    """Take the exact proximal step at 2 x - s into the first scratch matrix and make it the expansion point."""
    (x, point), (work, product) = iterate, scratch
    p, k = work.shape[0], 0
    for i in range(p):
        for j in range(i + 1):
            target = 2.0 * x[k] - point[k]
            reference.slope[c, i, j], reference.slope[c, j, i] = mu * target, mu * target
            work[i, j] = target - (alpha / mu) * sigma[i, j]
            work[j, i] = work[i, j]
            k += 1
    values, vectors = np.linalg.eigh(work)
    constant = 4.0 * alpha / mu
    for k in range(p):
        root = np.sqrt(values[k] * values[k] + constant)
        # for negative eigenvalues the sum cancels; its conjugate form does not
        positive = 0.5 * (values[k] + root) if values[k] >= 0.0 else 0.5 * constant / (root - values[k])
        reference.inverse_values[c, k] = 1.0 / positive
        values[k] = np.sqrt(positive)
    for i in range(p):
        for j in range(p):
            reference.vectors[c, i, j] = vectors[i, j]
            product[i, j] = vectors[i, j] * values[j]
    np.dot(product, product.T, work)
    reference.point[c] = work
    reference.fresh[c] = 1


@njit(cache=True, nogil=True, fastmath=FAST)
def _lazy(alpha, mu, iterate, scratch, reference, c, last_residual):
    """Take the step of the expansion, less its point, into the first scratch; return False if it cannot be trusted."""
    (x, point), (work, product) = iterate, scratch
    p, k = work.shape[0], 0
    vectors = reference.vectors[c]
    for i in range(p):
        for j in range(i + 1):
            work[i, j] = mu * (2.0 * x[k] - point[k]) - reference.slope[c, i, j]
            work[j, i] = work[i, j]
            k += 1
    np.dot(vectors.T, work, product)
    np.dot(product, vectors, work)
    local, bend = 0.0, 0.0
    for i in range(p):
        left = alpha * reference.inverse_values[c, i]
        for j in range(p):
            curvature = left * reference.inverse_values[c, j]
            step = work[i, j] / (curvature + mu)
            work[i, j] = step
            local += curvature * step * step
            bend += curvature * curvature * step * step
    if local > TRUST * TRUST * alpha or np.sqrt(local * bend / alpha) > STALENESS * mu * last_residual:
        return False
    np.dot(vectors, work, product)
    np.dot(product, vectors.T, work)
    return True


@njit(cache=True, nogil=True, fastmath=FAST)
def _likelihood_step(sigma, alpha, state, reference):
    """Residual <- z - x, class by class, and ``sizes`` its norms; an expansion is judged against the last one's."""
    n_classes, p = sigma.shape[0], sigma.shape[1]
    work, product = np.empty((p, p)), np.empty((p, p))
    mu = state.scalars[MU]
    for c in range(n_classes):
        x, point = state.x[c], state.point[c]
        lazily = reference.fresh[c] == 1 and _lazy(
            alpha[c], mu, (x, point), (work, product), reference, c, state.sizes[c]
        )
        if not lazily:
            _exact(sigma[c], alpha[c], mu, (x, point), (work, product), reference, c)
        state.counts[LAZY if lazily else EXACT] += 1
        total, k, base = 0.0, 0, 1.0 if lazily else 0.0
        for i in range(p):
            for j in range(i + 1):
                difference = work[i, j] + base * reference.point[c, i, j] - x[k]
                state.residual[c, k] = difference
                total += difference * difference
                k += 1
        sizes = 2.0 * total
        for i in range(p):
            sizes -= state.residual[c, i * (i + 3) // 2] ** 2
        state.sizes[c] = np.sqrt(sizes)


@njit(cache=True, nogil=True, fastmath=FAST)
def _difference(now, last, moved, arrived, change, move):
    """Change <- now - last, move <- moved - arrived + change, last <- now, arrived <- moved; return |change|^2."""
    total = 0.0
    for k in range(len(now)):
        step = now[k] - last[k]
        change[k], move[k] = step, moved[k] - arrived[k] + step
        last[k], arrived[k] = now[k], moved[k]
        total += step * step
    return total


@njit(cache=True, nogil=True, fastmath=FAST)
def _remember(point, residual, memory, count):
    """Store the newest difference in its slot, update all products of the memory; return how many are remembered.

    One pass over blocks that stay in cache; a slice of known length lets the inner loops vectorise.
    """
    number, slot = min(count, MEMORY), (count - 1) % MEMORY
    right, own = np.zeros(MEMORY), 0.0
    if count == 0:
        memory.last_point[:], memory.last_residual[:] = point, residual
    for first in range(0, len(point) if count > 0 else 0, BLOCK):
        last = min(first + BLOCK, len(point))
        now = residual[first:last]
        own += _difference(
            now,
            memory.last_residual[first:last],
            point[first:last],
            memory.last_point[first:last],
            memory.residuals[slot, first:last],
            memory.moves[slot, first:last],
        )
        for other in range(number):
            past, total = memory.residuals[other, first:last], 0.0
            for k in range(len(now)):
                total += past[k] * now[k]
            right[other] += total
    for other in range(number):  # <r_other, r_now - r_last> without another pass
        memory.gram[other, slot] = right[other] - memory.right[other]
        memory.gram[slot, other] = memory.gram[other, slot]
    if number > 0:
        memory.gram[slot, slot] = own
    memory.right[:] = right
    return number


@njit(cache=True, nogil=True, fastmath=FAST)
def _accelerate(point, residual, memory):
    """Anderson's step: move ``point`` [N] by the over-relaxed residual [N], mixed with its past."""
    count, last_size = int(memory.state[0]), memory.state[1]
    size = 0.0
    for k in range(len(point)):
        residual[k] *= RELAXATION
        size += residual[k] * residual[k]
    size = np.sqrt(size)
    if size > 2.0 * last_size:  # the safeguard: a residual that has doubled drops the memory
        count = 0
    number = _remember(point, residual, memory, count)
    memory.state[0], memory.state[1] = count + 1, size
    level, mix = 0.0, np.zeros(number)
    for slot in range(number):
        level += memory.gram[slot, slot]
    if level > 0.0:
        system = memory.gram[:number, :number].copy()
        for slot in range(number):
            system[slot, slot] += 1e-10 * level
        mix = np.linalg.solve(system, memory.right[:number].copy())
    for first in range(0, len(point), BLOCK):
        last = min(first + BLOCK, len(point))
        moving, step = point[first:last], residual[first:last]
        for k in range(len(moving)):
            moving[k] += step[k]
        for slot in range(number):
            share, move = mix[slot], memory.moves[slot, first:last]
            for k in range(len(moving)):
                moving[k] -= share * move[k]


@njit(cache=True, nogil=True, fastmath=FAST)
def _balance(state, memory):
    """Double or halve mu when the relative primal and dual residuals differ by more than that; return whether."""
    primal, drift, size, dual = 0.0, 0.0, 0.0, 0.0
    for c in range(state.x.shape[0]):
        for k in range(state.x.shape[1]):
            x = state.x[c, k]
            primal += state.residual[c, k] ** 2
            drift += (x - state.previous[c, k]) ** 2
            size += x * x
            dual += (state.point[c, k] - x) ** 2
    primal, drift = np.sqrt(primal / size), np.sqrt(drift / max(dual, 1e-300))
    factor = 2.0 if primal > 2.0 * drift else 0.5 if drift > 2.0 * primal else 1.0
    if factor != 1.0:
        state.scalars[MU] *= factor
        for c in range(state.x.shape[0]):
            for k in range(state.x.shape[1]):
                state.point[c, k] = state.x[c, k] + (state.point[c, k] - state.x[c, k]) / factor
        memory.state[0], memory.state[1] = 0.0, np.inf  # the map has changed
    return factor != 1.0


@njit(cache=True, nogil=True)
def _advance(sigma, rho, alpha, state, reference, memory, steps):
    """Take ``steps`` iterations in place and note the relative residual; x is the proximal point of s on return."""
    for _ in range(steps):
        state.counts[ITERATIONS] += 1
        count = state.counts[ITERATIONS]
        _likelihood_step(sigma, alpha, state, reference)
        changed = count % 5 == 0 and count <= BALANCED and _balance(state, memory)
        if (count + 1) % 5 == 0 and count < BALANCED:
            state.previous[:] = state.x
        if not changed:
            _accelerate(state.point.reshape(-1), state.residual.reshape(-1), memory)
        prox_packed(state.point, state.bound, rho, 1.0 / state.scalars[MU], state.x, state.common)
    total, size = 0.0, 0.0
    for c in range(len(state.sizes)):
        total += state.sizes[c] ** 2
        size += np.dot(state.x[c], state.x[c])
    state.scalars[RESIDUAL] = np.sqrt(total / size)


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
        primal += alpha[c] * (fit - cholesky_logdet(dense)) + penalty
        dual += alpha[c] * (cholesky_logdet(lifted) + p)
    k = 0
    for i in range(p):
        for j in range(i + 1):
            primal += (1.0 if i == j else 2.0) * rho[k] * abs(state.common[k])
            k += 1
    return np.inf if np.isnan(primal) else primal, -np.inf if np.isnan(dual) else dual


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
    start : ndarray [C, p, p]
        Positive definite.
    dual : ndarray [C, p, p], optional
        Start of the dual variable alpha (Omega^{-1} - Sigma).
    balance : float
        Where a dual is given: mu over its norm against that of the start.
    """

    def __init__(  # noqa: PLR0913 (the problem as the kernels take it)
        self,
        sigma: Array,
        weight: Array,
        rho: Array,
        alpha: Array,
        start: Array,
        dual: Array | None = None,
        balance: float = WARM,
    ):
        self.sigma, self.rho, self.alpha = sigma, pack(rho[None])[0], alpha
        n_classes, p = sigma.shape[:2]
        bound, x = pack(weight), pack(start)
        shape, size = x.shape, x.size
        common, point = np.zeros(shape[1]), np.empty(shape)
        if dual is None:
            level = np.vdot(bound, bound) + np.vdot(self.rho, self.rho) / n_classes
            mu = float(np.sqrt((level + 1e-8) / np.vdot(x, x)))
            point[:] = x
        else:
            free = pack(dual)
            prox_packed(free, bound, self.rho, 1.0, point, common)
            feasible = free - point
            mu = balance * float(np.sqrt((np.vdot(feasible, feasible) + 1e-8) / np.vdot(x, x)))
            point = x + feasible / mu
        self.state = State(
            point, x, common, x.copy(), np.empty(shape), bound, np.full(n_classes, np.inf),
            np.array([mu, np.inf]), np.zeros(3, np.int64),
        )  # fmt: skip
        prox_packed(point, bound, self.rho, 1.0 / mu, x, common)
        full = (n_classes, p, p)
        self.reference = Reference(
            np.empty(full), np.empty((n_classes, p)), np.empty(full), np.empty(full), np.zeros(n_classes, np.int64)
        )
        self.memory = Memory(
            np.empty((MEMORY, size)),
            np.empty((MEMORY, size)),
            np.zeros((MEMORY, MEMORY)),
            np.zeros(MEMORY),
            np.empty(size),
            np.empty(size),
            np.array([0.0, np.inf]),
        )

    def advance(self, steps: int) -> float:
        """Take ``steps`` iterations; return the relative residual ||z - x|| / ||x||."""
        _advance(self.sigma, self.rho, self.alpha, self.state, self.reference, self.memory, steps)
        return float(self.state.scalars[RESIDUAL])

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
            unpack(self.state.scalars[MU] * (self.state.point[c] - self.state.x[c]), out[c])
        return out
