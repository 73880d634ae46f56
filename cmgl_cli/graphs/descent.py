r"""Block coordinate descent over columns, with two accelerators for strongly correlated data.

1. Sweeps (`kernels.sweep`): exact minimisation over one column of all classes at a time. Monotone, every iterate
   positive definite and exactly sparse; a handful of sweeps solves mildly correlated data.
2. When sweeps progress slowly, a short accelerated splitting (`splitting`) finds the pattern of the solution.
3. Newton steps on the face of the pattern (`newton`), each followed by a sweep that may change it, until the certified
   gap is closed. Should they stall, two-block ADMM takes over from the point they reached.

The diagonal must be unpenalised. Everything runs in float64.
"""

import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmgl_cli.graphs import kernels
from cmgl_cli.graphs.admm import Iterate, solve_admm
from cmgl_cli.graphs.certificate import Certificate, Problem
from cmgl_cli.graphs.newton import newton_step, pattern
from cmgl_cli.graphs.penalty import Penalty, split
from cmgl_cli.graphs.result import Step
from cmgl_cli.graphs.splitting import split_start

Array = NDArray[np.float64]
SLOW_SWEEPS = 25
OPEN = 0.01
STALLED = 6
SPLITTING_STEPS = 150
FORCING = 0.1
INNER_PASSES = 5


class Descent:
    """State of one solve: the point, its inverse, and what was done to it."""

    def __init__(self, problem: Problem, start: Tensor, accelerate: bool = True):
        self.sigma = _array(problem.covariance)
        self.weight = _array(problem.penalty.specific)
        self.rho = float(problem.penalty.common.max()) if len(self.sigma[0]) > 1 else 0.0
        self.alpha = _array(problem.alpha)
        self.omega = _array(start).copy()
        self.common = (
            _array(split(start.double().cpu(), _on_cpu(problem))[0])
            if bool(torch.count_nonzero(start.triu(1)))
            else np.zeros(self.sigma.shape[1:])
        )
        np.fill_diagonal(self.common, 0.0)
        self.inverse = np.linalg.inv(self.omega)
        self.accelerate = accelerate
        self.began = time.process_time()
        self.n_iter = 0
        self.change = 0.1
        self.open_share = 1.0
        self.history: list[Step] = []
        self.value = self.bound = -np.inf

    @property
    def gap(self) -> float:
        """Return the certified relative gap of the last check."""
        return (self.value - self.bound) / max(1.0, abs(self.value))

    def check(self) -> float:
        """Evaluate objective and dual bound, note them, and return the relative gap."""
        self.value = kernels.objective(self.sigma, self.omega, self.common, self.weight, self.rho, self.alpha)
        self.bound = kernels.dual_value(self.sigma, self.inverse, self.weight, self.rho, self.alpha)
        seconds = time.process_time() - self.began
        self.history.append(Step(self.n_iter, self.value, self.bound, self.value - self.bound, seconds))
        return self.gap

    def sweep(self) -> None:
        """Run one sweep; columns are solved a hundred times more accurately than they last moved."""
        tol = max(1e-2 * self.change, 1e-13)
        self.change = kernels.sweep(
            self.sigma, self.omega, self.inverse, self.common, self.weight, self.rho, self.alpha, tol, INNER_PASSES
        )
        self.n_iter += 1
        if self.n_iter % 50 == 0:  # rank-two updates collect rounding
            self.inverse = np.linalg.inv(self.omega)

    def newton(self) -> None:
        """Take one Newton step on the face of the current point."""
        p = self.omega.shape[1]
        self.value, _ = newton_step(
            self.sigma,
            self.omega,
            self.inverse,
            self.common,
            self.weight,
            self.rho,
            self.alpha,
            self.value,
            FORCING,
            10 * p,
        )
        self.n_iter += 1

    def split(self) -> None:
        """Replace the point by that of a short splitting, if it is positive definite and better."""
        start = (self.omega, np.zeros_like(self.omega))
        omega, common, steps, inside = split_start(
            self.sigma, start, self.weight, self.rho, self.alpha, SPLITTING_STEPS
        )
        self.n_iter += steps
        value = kernels.objective(self.sigma, omega, common, self.weight, self.rho, self.alpha)
        if inside and value < self.value:
            self.omega, self.common, self.value = omega, common, value
            self.inverse = np.linalg.inv(omega)
            self.change = 1e-2

    def first_sweeps(self, tol: float, limit: int) -> bool:
        """Sweep while that is quick or the pattern is still open; return whether the gap is closed."""
        values, kind = [self.value], pattern(self.omega, self.common)
        for count in range(1, limit + 1):
            self.sweep()
            if self.check() <= tol:
                return True
            values.append(self.value)
            following = pattern(self.omega, self.common)
            self.open_share, kind = float((following != kind).mean()), following
            left = _sweeps_left(values, tol) if count >= 4 else 2.0
            if self.accelerate and (left > SLOW_SWEEPS or left <= 1.0 or (count >= 4 and self.open_share <= OPEN)):
                return False
        return False

    def run(self, tol: float, max_iter: int) -> None:
        """Iterate until the certified gap is at most ``tol`` or ``max_iter`` steps of any kind are done."""
        if self.check() <= tol or self.first_sweeps(tol, max_iter):
            return
        if self.accelerate and self.open_share > OPEN and self.n_iter < max_iter:
            self.split()
        best, stalled = np.inf, 0
        while self.n_iter < max_iter and stalled < STALLED:
            if self.accelerate:
                self.newton()
            self.sweep()
            if self.check() <= tol:
                return
            stalled = 0 if self.gap < 0.9 * best or not self.accelerate else stalled + 1
            best = min(best, self.gap)


def solve_descent(problem: Problem, start: Tensor, tol: float, max_iter: int, accelerate: bool = True) -> Iterate:
    """Solve from ``start`` [C, p, p]; see the module's account."""
    state = Descent(problem, start, accelerate)
    state.run(tol, max_iter)
    precision = torch.as_tensor(state.omega, dtype=start.dtype, device=start.device)
    if state.gap > tol and state.n_iter < max_iter:
        rest = solve_admm(problem, precision, tol, max_iter - state.n_iter)
        return Iterate(rest.precision, rest.certificate, state.n_iter + rest.n_iter, state.history + rest.history)
    return Iterate(precision, Certificate(state.value, state.bound, np.nan), state.n_iter, state.history)


def _sweeps_left(values: list[float], tol: float) -> float:
    """Extrapolate the decrease of the last sweeps geometrically: how many more until it is below the tolerance."""
    last, before = values[-2] - values[-1], values[-3] - values[-2]
    goal = 0.1 * tol * max(1.0, abs(values[-1]))
    if last <= goal:
        return 1.0
    rate = last / max(before, 1e-300)
    return np.inf if rate >= 1 else float(np.log(goal / last) / np.log(rate))


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float64)


def _on_cpu(problem: Problem) -> Penalty:
    return Penalty(problem.penalty.specific.double().cpu(), problem.penalty.common.double().cpu())
