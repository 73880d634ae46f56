r"""Accelerated operator splitting: the start of the descent solver on strongly correlated data.

Two-block ADMM in its Douglas-Rachford form, s <- s + lambda (prox_f(2 x - s) - x) with x = prox_h(s), over-relaxed and
accelerated by Anderson's method of small memory. It does not need to be accurate: it finds the pattern (zeros, ties,
signs) in a few dozen eigendecompositions, where descent needs hundreds of sweeps, and hands over to Newton's method.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cmgl_cli.graphs.kernels import objective, prox_entry
from cmgl_cli.graphs.newton import pattern

Array = NDArray[Any]
RELAXATION = 1.7
MEMORY = 5
SETTLED = 0.002


@njit(cache=True)
def prox_penalty(point, mu, weight, rho, out, common):
    """Out <- proximal point of h / mu at ``point`` [C, p, p]; its common part into ``common``."""
    n_classes, p = point.shape[0], point.shape[1]
    values, bound, solution = np.empty(n_classes), np.empty(n_classes), np.empty(n_classes)
    curvature = np.full(n_classes, mu)
    for i in range(p):
        for c in range(n_classes):
            out[c, i, i] = point[c, i, i]
        for j in range(i):
            for c in range(n_classes):
                values[c], bound[c] = 0.5 * (point[c, i, j] + point[c, j, i]), weight[c, i, j]
            t = prox_entry(values, curvature, bound, rho, solution)
            common[i, j] = t
            common[j, i] = t
            for c in range(n_classes):
                out[c, i, j] = solution[c]
                out[c, j, i] = solution[c]


def prox_likelihood(sigma: Array, point: Array, mu: float, alpha: Array) -> Array:
    """Return the argmin of alpha (tr(Sigma Z) - logdet Z) + mu/2 ||Z - point||^2, by eigendecomposition."""
    values, vectors = np.linalg.eigh(point - (alpha / mu)[:, None, None] * sigma)
    constant = 4.0 * alpha[:, None] / mu
    root = np.sqrt(values * values + constant)
    positive = np.where(values >= 0, 0.5 * (values + root), 0.5 * constant / (root - values))
    return np.matmul(vectors * positive[:, None, :], vectors.transpose(0, 2, 1))


class Anderson:
    """Anderson acceleration of a fixed-point map s -> s + residual, of memory `MEMORY`."""

    def __init__(self, size: int):
        self.points, self.residuals = np.empty((MEMORY, size)), np.empty((MEMORY, size))
        self.last_point, self.last_residual = np.empty(size), np.empty(size)
        self.last_size = np.inf
        self.count = 0

    def restart(self) -> None:
        """Forget the past: the map has changed."""
        self.count, self.last_size = 0, np.inf

    def advance(self, point: Array, residual: Array) -> None:
        """Move ``point`` in place; a residual that has doubled drops the memory (the safeguard)."""
        x, r = point.reshape(-1), residual.reshape(-1)
        size = float(np.linalg.norm(r))
        if size > 2.0 * self.last_size:
            self.count = 0
        if self.count:
            slot = (self.count - 1) % MEMORY
            np.subtract(x, self.last_point, out=self.points[slot])
            np.subtract(r, self.last_residual, out=self.residuals[slot])
        self.last_point[:], self.last_residual[:], self.last_size = x, r, size
        x += r
        number = min(self.count, MEMORY)
        self.count += 1
        if number:
            recent = self.residuals[:number]
            gram = recent @ recent.T
            level = 1e-10 * float(np.trace(gram))
            if level > 0:
                mix = np.linalg.solve(gram + level * np.eye(number), recent @ r)
                x -= mix @ self.points[:number]
                x -= mix @ recent


def split_start(
    sigma: Array, state: tuple[Array, Array], weight: Array, rho: float, alpha: Array, limit: int
) -> tuple[Array, Array, int, bool]:
    """Run the splitting from (precision, dual) until the pattern settles or ``limit`` steps are done.

    Settled: the share of entries that changed their class (zero, tied, free) within 5 steps is at most `SETTLED`, and
    the sparse iterate is positive definite. Returns precision, common part, steps, and whether it settled.
    """
    n_classes, p = sigma.shape[:2]
    omega, dual = state
    # The dual variable lives on the scale of the penalty, the primal on that of Omega; their ratio balances the two.
    mu = float(np.sqrt((np.vdot(weight, weight) + rho * rho * p * p / n_classes + 1e-8) / np.vdot(omega, omega)))
    point, common, x = omega + dual / mu, np.zeros((p, p)), np.empty_like(omega)
    kind, previous = pattern(omega, common), omega.copy()
    accelerator = Anderson(omega.size)
    for iteration in range(1, limit + 1):
        prox_penalty(point, mu, weight, rho, x, common)
        if iteration % 5 == 0:
            following = pattern(x, common)
            changed, kind = float((following != kind).mean()), following
            if changed <= SETTLED and np.isfinite(objective(sigma, x, common, weight, rho, alpha)):
                return x, common, iteration, True
        residual = prox_likelihood(sigma, 2.0 * x - point, mu, alpha) - x
        factor = _balance(residual, x, previous, point) if iteration % 5 == 0 and iteration <= 30 else 1.0
        previous = x.copy()
        if factor != 1.0:
            mu *= factor
            point = x + (point - x) / factor
            accelerator.restart()
            continue
        residual *= RELAXATION
        accelerator.advance(point, residual)
    return x, common, limit, False


def _balance(residual: Array, x: Array, previous: Array, point: Array) -> float:
    """Return 2 or 1/2 when the relative primal and dual residuals differ by more than that, else 1."""
    primal = np.linalg.norm(residual) / np.linalg.norm(x)
    dual = np.linalg.norm(x - previous) / max(float(np.linalg.norm(point - x)), 1e-300)
    return 2.0 if primal > 2.0 * dual else 0.5 if dual > 2.0 * primal else 1.0
