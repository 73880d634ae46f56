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
FACES = 6


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


@njit(cache=True)
def tie_shares(kind):
    """Return 1 / (number of classes tied at an entry), zero where there is none: [p, p] float64."""
    share = np.zeros(kind.shape[1:])
    for c in range(kind.shape[0]):
        for i in range(kind.shape[1]):
            for j in range(kind.shape[2]):
                share[i, j] += 1.0 if kind[c, i, j] == TIED else 0.0
    for i in range(kind.shape[1]):
        for j in range(kind.shape[2]):
            share[i, j] = 1.0 / share[i, j] if share[i, j] > 0 else 0.0
    return share


@njit(cache=True, fastmath=FAST)
def project(matrices, kind, share):
    """Project symmetric [C, p, p] in place onto the subspace of the pattern: zero the fixed, average the tied."""
    n_classes, p = matrices.shape[0], matrices.shape[1]
    mean = np.zeros(p)
    for i in range(p):
        if n_classes > 1:
            mean[:] = 0.0
            for c in range(n_classes):
                for j in range(p):
                    mean[j] += matrices[c, i, j] if kind[c, i, j] == TIED else 0.0
            for j in range(p):
                mean[j] *= share[i, j]
        for c in range(n_classes):
            for j in range(p):
                kept = matrices[c, i, j] if kind[c, i, j] == FREE else 0.0
                matrices[c, i, j] = mean[j] if kind[c, i, j] == TIED else kept


@njit(cache=True, fastmath=FAST)
def reduced_gradient(sigma, omega, inverse, common, weight, rho, alpha, kind):
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
    project(gradient, kind, tie_shares(kind))
    return gradient


def curve(inverse: Array, direction: Array, face: tuple[Array, Array], work: Array, out: Array) -> None:
    """Write the projected product W D W into ``out``; ``work`` is scratch of the same shape."""
    np.matmul(inverse, direction, out=work)
    np.matmul(work, inverse, out=out)
    project(out, *face)


def conjugate_gradients(
    inverse: Array, gradient: Array, start: Array, kind: Array, goal: float, max_steps: int
) -> tuple[Array, int]:
    """Minimise the quadratic model over the subspace of the pattern from ``start``,.

    The model is <G, D> + <D, W D W> / 2, with sqrt(alpha) taken into W. Returns direction and number of steps.
    """
    product, work = np.empty_like(gradient), np.empty_like(gradient)
    solution, residual = start.copy(), -gradient
    face = (kind, tie_shares(kind))
    if start.any():
        curve(inverse, solution, face, work, product)
        residual -= product
    project(residual, *face)
    direction = residual.copy()
    flat = [array.reshape(-1) for array in (solution, residual, direction, product)]
    energy = float(flat[1] @ flat[1])
    steps = 0
    while steps < max_steps and energy > goal:
        curve(inverse, direction, face, work, product)
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
            if t == 0.0 or moved / t <= 1e-10:
                moved = 0.0
            new_common[i, j] = moved
            new_common[j, i] = moved
            for c in range(n_classes):
                x = moved
                if kind[c, i, j] == FREE:
                    x = omega[c, i, j] + step * direction[c, i, j]
                    if (x - moved) / (omega[c, i, j] - t) <= 1e-10:
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
    """Improve omega, common and inverse in place; return the new objective and the conjugate gradient steps taken.

    A full step that crosses kinks is not cut short: the entries that cross are put on their kinks and the model is
    minimised again over the smaller face, a few times, so that one blocking entry does not block the rest.
    """
    kind = pattern(omega, common)
    gradient = reduced_gradient(sigma, omega, inverse, common, weight, rho, alpha, kind)
    size = float(np.linalg.norm(gradient))
    if size == 0.0:
        return value, 0
    curvature = inverse * np.sqrt(alpha)[:, None, None]
    direction, face = np.zeros_like(omega), kind
    new_omega, new_common = np.empty_like(omega), np.zeros_like(common)
    steps = 0
    for _ in range(FACES):
        direction, taken = conjugate_gradients(curvature, gradient, direction, face, (forcing * size) ** 2, max_steps)
        steps += taken
        move(omega, common, direction, kind, 1.0, new_omega, new_common)
        reached = pattern(new_omega, new_common)
        direction = new_omega - omega
        if np.array_equal(reached, face):
            break
        face = reached
    step = 1.0
    for _ in range(12):
        candidate = objective(sigma, new_omega, new_common, weight, rho, alpha)
        if candidate < value:
            omega[:], common[:] = new_omega, new_common
            inverse[:] = np.linalg.inv(omega)
            return candidate, steps
        step *= 0.5
        move(omega, common, direction, kind, step, new_omega, new_common)
    return value, steps
