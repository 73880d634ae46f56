"""Anderson's acceleration of a fixed-point iteration, over-relaxed, with a small memory, in compiled code.

D. G. Anderson, Iterative procedures for nonlinear integral equations, J. ACM 12 (1965).
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cmgl_cli.graphs.kernels import FAST

Array = NDArray[np.float64]
RELAXATION = 1.7
MEMORY = 8
BLOCK = 1024


class Memory(NamedTuple):
    """Anderson's memory: differences of residuals, and of points plus residuals; products; last point and residual."""

    moves: Array
    residuals: Array
    gram: Array
    right: Array
    last_point: Array
    last_residual: Array
    state: Array


@njit(cache=True, nogil=True)
def new_memory(size):
    """Return an empty memory for points of ``size`` numbers."""
    return Memory(
        np.empty((MEMORY, size)),
        np.empty((MEMORY, size)),
        np.zeros((MEMORY, MEMORY)),
        np.zeros(MEMORY),
        np.empty(size),
        np.empty(size),
        np.array([0.0, np.inf]),
    )


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
def accelerate(point, residual, memory):
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
