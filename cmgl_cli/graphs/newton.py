r"""Newton's method on the face of the penalty the current point lies on.

Near the solution the pattern is settled: which entries are zero, which classes share the common value t of an edge, and
the signs of the rest. On the subspace of that pattern the objective is smooth, with Hessian D -> alpha_c W_c D_c W_c,
and Newton's direction comes from conjugate gradients at two matrix products per class and step. Descent sweeps find and
change the pattern; the Newton step removes the slow directions that strong correlation leaves to descent.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.linalg.blas import daxpy

from cmgl_cli.graphs.kernels import FAST, objective

Array = NDArray[Any]
FIXED, FREE, TIED = 0, 1, 2


@njit(cache=True)
def pattern(omega, common):
    """Classify every entry: at zero, free, or tied to the common value of its edge; [C, p, p] int8."""
    n_classes, p = omega.shape[0], omega.shape[1]
    kind = np.empty((n_classes, p, p), np.int8)
    for c in range(n_classes):
        for i in range(p):
            for j in range(p):
                x, t = omega[c, i, j], common[i, j]
                kind[c, i, j] = FREE if i == j or x != t else (TIED if t != 0.0 else FIXED)
    return kind


@njit(cache=True, fastmath=FAST)
def project(matrices, kind, has_ties):
    """Project [C, p, p] in place onto the subspace of the pattern: zero the fixed, average the tied, make symmetric."""
    n_classes, p = matrices.shape[0], matrices.shape[1]
    for c in range(n_classes):
        for i in range(p):
            for j in range(i):
                value = 0.5 * (matrices[c, i, j] + matrices[c, j, i]) if kind[c, i, j] != FIXED else 0.0
                matrices[c, i, j] = value
                matrices[c, j, i] = value
    if not has_ties:
        return
    total, number = np.empty(p), np.empty(p)
    for i in range(p):
        total[:] = 0.0
        number[:] = 0.0
        for c in range(n_classes):
            for j in range(i):
                if kind[c, i, j] == TIED:
                    total[j] += matrices[c, i, j]
                    number[j] += 1.0
        for j in range(i):
            if number[j] > 0:
                total[j] /= number[j]
        for c in range(n_classes):
            for j in range(i):
                if kind[c, i, j] == TIED:
                    matrices[c, i, j] = total[j]
                    matrices[c, j, i] = total[j]


@njit(cache=True, fastmath=FAST)
def reduced_gradient(sigma, omega, inverse, common, weight, rho, alpha, kind, has_ties):
    """Return the gradient of the objective on the subspace of the pattern [C, p, p]."""
    n_classes, p = omega.shape[0], omega.shape[1]
    gradient = np.empty((n_classes, p, p))
    for c in range(n_classes):
        for i in range(p):
            for j in range(p):
                gradient[c, i, j] = alpha[c] * (sigma[c, i, j] - inverse[c, i, j])
    for i in range(p):
        for j in range(p):
            if i == j:
                continue
            t, slope, tied = common[i, j], 0.0, 0
            if t != 0.0:
                slope = rho if t > 0 else -rho
            for c in range(n_classes):
                if kind[c, i, j] == FREE:
                    pull = weight[c, i, j] if omega[c, i, j] > t else -weight[c, i, j]
                    gradient[c, i, j] += pull
                    slope -= pull
                elif kind[c, i, j] == TIED:
                    tied += 1
            if tied > 0:
                for c in range(n_classes):
                    if kind[c, i, j] == TIED:
                        gradient[c, i, j] += slope / tied
    project(gradient, kind, has_ties)
    return gradient


def curve(inverse: Array, direction: Array, alpha: Array, kind: Array, has_ties: bool, out: Array) -> None:
    """Write the projected Hessian product alpha W D W into ``out``."""
    np.matmul(np.matmul(inverse, direction), inverse, out=out)
    if (alpha != 1.0).any():
        out *= alpha[:, None, None]
    project(out, kind, has_ties)


def newton_direction(
    inverse: Array, alpha: Array, gradient: Array, kind: Array, forcing: float, max_steps: int
) -> tuple[Array, int]:
    """Solve the Newton system on the subspace by conjugate gradients to relative residual ``forcing``."""
    has_ties = bool((kind == TIED).any())
    solution, product = np.zeros_like(gradient), np.empty_like(gradient)
    residual = -gradient
    direction = residual.copy()
    flat = [array.reshape(-1) for array in (solution, residual, direction, product)]
    energy = float(flat[1] @ flat[1])
    goal = forcing * forcing * energy
    steps = 0
    while steps < max_steps and energy > goal and energy > 0:
        curve(inverse, direction, alpha, kind, has_ties, product)
        step = energy / float(flat[2] @ flat[3])
        daxpy(flat[2], flat[0], a=step)
        daxpy(flat[3], flat[1], a=-step)
        following = float(flat[1] @ flat[1])
        direction *= following / energy
        direction += residual
        energy = following
        steps += 1
    return solution, steps


@njit(cache=True)
def move(omega, common, direction, kind, step, new_omega, new_common):
    """Step along the direction; an entry that would cross a kink of the penalty stops on it."""
    n_classes, p = omega.shape[0], omega.shape[1]
    for i in range(p):
        for c in range(n_classes):
            new_omega[c, i, i] = omega[c, i, i] + step * direction[c, i, i]
        for j in range(i):
            t, shift = common[i, j], 0.0
            if t != 0.0:
                for c in range(n_classes):
                    if kind[c, i, j] == TIED:
                        shift = step * direction[c, i, j]
                        break
            moved = t + shift
            if moved * t <= 0.0:
                moved = 0.0
            new_common[i, j] = moved
            new_common[j, i] = moved
            for c in range(n_classes):
                x = moved
                if kind[c, i, j] == FREE:
                    x = omega[c, i, j] + step * direction[c, i, j]
                    if (x - moved) * (omega[c, i, j] - t) <= 0.0:
                        x = moved
                new_omega[c, i, j] = x
                new_omega[c, j, i] = x


def newton_step(  # noqa: PLR0913 (the state of the solver, passed as the kernels take it)
    sigma: Array,
    omega: Array,
    inverse: Array,
    common: Array,
    weight: Array,
    rho: float,
    alpha: Array,
    value: float,
    forcing: float,
    max_steps: int,
) -> tuple[float, int]:
    """Improve omega, common and inverse in place; return the new objective and the conjugate gradient steps taken."""
    kind = pattern(omega, common)
    gradient = reduced_gradient(sigma, omega, inverse, common, weight, rho, alpha, kind, bool((kind == TIED).any()))
    direction, steps = newton_direction(inverse, alpha, gradient, kind, forcing, max_steps)
    new_omega, new_common = np.empty_like(omega), np.zeros_like(common)
    step = 1.0
    for _ in range(12):
        move(omega, common, direction, kind, step, new_omega, new_common)
        candidate = objective(sigma, new_omega, new_common, weight, rho, alpha)
        if candidate < value:
            omega[:], common[:] = new_omega, new_common
            inverse[:] = np.linalg.inv(omega)
            return candidate, steps
        step *= 0.5
    return value, steps
