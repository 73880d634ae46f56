r"""The solvers for double precision on the CPU: sweeps over columns, accelerated splitting, Newton's method.

1. Sweeps (`kernels.sweep`): exact minimisation over one column of all classes at a time. Monotone, every iterate
   positive definite and exactly sparse; a handful of sweeps solves one class of mildly correlated data.
2. Accelerated splitting (`splitting`), from where the sweeps left off: the first choice for several classes and the
   fast one for strongly correlated data.
3. Newton steps on the face of the pattern (`newton`), each followed by a sweep that may change it, for what is left
   at tolerances below 1e-8: quadratic, where splitting is linear. Should they stall, splitting goes on, and if that
   does not end either, two-block ADMM takes over from the point they reached.

`solve_descent` begins with the first, `solve_splitting` with the second. Sweeps and Newton steps need an unpenalised
diagonal.
"""

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmgl_cli.graphs import kernels
from cmgl_cli.graphs.admm import Iterate, solve_admm
from cmgl_cli.graphs.audit import lifted_value, median
from cmgl_cli.graphs.certificate import Certificate, Problem
from cmgl_cli.graphs.interrupts import deliver
from cmgl_cli.graphs.newton import newton_step
from cmgl_cli.graphs.packed import pack, prox_packed, unpack
from cmgl_cli.graphs.result import Step
from cmgl_cli.graphs.splitting import Splitting, first_point

Array = NDArray[np.float64]
SLOW_SWEEPS = 25
STALLED = 6
SPLITTING_STEPS = 400
HANDOVER = 1e-8
FORCING = 0.1
INNER_PASSES = 5


class Descent:
    """State of one solve: the point, its inverse, and what was done to it."""

    def __init__(self, problem: Problem, start: Tensor, dual: Tensor | None = None):
        self.sigma, self.weight = _array(problem.covariance), _array(problem.penalty.specific)
        self.levels, self.alpha = _array(problem.penalty.common), _array(problem.alpha)
        self.rho = float(self.levels.max())
        self.omega = _array(start).copy()
        self.dual = None if dual is None else _array(dual)
        self.warm = bool(np.count_nonzero(np.triu(self.omega[0], 1)))
        self.common = np.zeros(self.sigma.shape[1:])
        if self.warm:
            unpack(median(pack(self.omega), pack(self.weight), pack(self.levels[None])[0]), self.common)
        self.inverse: NDArray[Any] = np.empty(0)  # what the sweeps need; the splitting does without
        self.began = time.process_time()
        self.n_iter = 0
        self.change = 0.1
        self.history: list[Step] = []
        self.value, self.bound = np.inf, -np.inf

    @property
    def gap(self) -> float:
        """Return the certified relative gap of the last check."""
        return relative_gap(self.value, self.bound)

    def check(self) -> float:
        """Evaluate objective and dual bound, note them, and return the relative gap."""
        deliver()
        self.value = kernels.objective(self.sigma, self.omega, self.common, self.weight, self.rho, self.alpha)
        self.bound = -np.inf
        if self.dual is not None:
            bound, rho = pack(self.weight), pack(self.levels[None])[0]
            self.bound = lifted_value(self.sigma, self.alpha, pack(self.dual), bound, rho)
        else:
            self.require_inverse()
        if self.inverse.size:
            by_inverse = kernels.dual_value(self.sigma, self.inverse, self.weight, self.rho, self.alpha)
            if by_inverse > self.bound and self.dual is not None:
                self.dual = self._feasible()  # the whole problem is certified by what certifies its parts
            self.bound = max(self.bound, by_inverse)
        self._note(self.n_iter, self.value, self.bound)
        return self.gap

    def _feasible(self) -> Array:
        """Return the dual point nearest to alpha (W - Sigma)."""
        free = pack(self.alpha[:, None, None] * (self.inverse - self.sigma))
        point, out = np.empty_like(free), np.empty_like(self.sigma)
        bound, rho = pack(self.weight), pack(self.levels[None])[0]
        prox_packed(free, bound, rho, 1.0, point, np.zeros(free.shape[1]))
        for c in range(len(out)):
            unpack(free[c] - point[c], out[c])
        return out

    def _note(self, iteration: int, value: float, bound: float) -> None:
        seconds = time.process_time() - self.began
        self.history.append(Step(iteration, value, bound, value - bound, seconds))

    def require_inverse(self) -> None:
        """Invert the point unless its inverse is at hand."""
        if not self.inverse.size:
            self.inverse = np.linalg.inv(self.omega)

    def sweep(self) -> None:
        """Run one sweep; columns are solved a hundred times more accurately than they last moved."""
        tol = max(1e-2 * self.change, 1e-13)
        self.change = kernels.sweep(
            self.sigma, self.omega, self.inverse, self.common, self.weight, self.rho, self.alpha, tol, INNER_PASSES
        )
        self.n_iter += 1
        if self.n_iter % 50 == 0:  # rank-two updates collect rounding
            self.inverse = np.linalg.inv(self.omega)

    def first_sweeps(self, tol: float, limit: int) -> bool:
        """Sweep as long as that promises to be quick; return whether the gap is closed."""
        self.dual = None  # the sweeps leave it behind
        self.require_inverse()
        values = [self.value]
        for count in range(1, limit + 1):
            self.sweep()
            if self.check() <= tol:
                return True
            values.append(self.value)
            if count >= 4 and not 1.0 < _sweeps_left(values, tol) <= SLOW_SWEEPS:
                return False
        return False

    def split(self, tol: float, max_iter: int) -> None:
        """Run the splitting from here until the gap is closed or its steps are up. A point no better is not taken."""
        if self.dual is None and (self.warm or self.n_iter):
            self.require_inverse()
            self.dual = self.alpha[:, None, None] * (self.inverse - self.sigma)
        elif self.dual is None:
            levels = pack(self.weight), pack(self.levels[None])[0]
            self.omega, self.dual = first_point(self.sigma, self.alpha, *levels)
        splitting = Splitting(self.sigma, self.weight, self.levels, self.alpha, self.omega, self.dual)
        taken, value, bound = 0, np.inf, -np.inf
        for taken, value, bound in splitting.solve(tol, min(max_iter - self.n_iter, SPLITTING_STEPS)):
            self._note(self.n_iter + taken, value, bound)
        self.n_iter += taken
        if value < self.value or value - bound < self.value - self.bound:
            self.omega, self.common, self.dual = splitting.precision(), splitting.common(), splitting.dual()
            self.value, self.bound, self.change = value, bound, 1e-2

    def newton(self) -> None:
        """Take one Newton step on the face of the current point."""
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
            10 * self.omega.shape[1],
        )
        self.n_iter += 1

    def polish(self, tol: float, max_iter: int) -> bool:
        """Alternate Newton steps and sweeps until the gap is closed or they stall; return whether it is closed."""
        self.inverse = np.linalg.inv(self.omega)
        best, stalled = np.inf, 0
        while self.n_iter < max_iter and stalled < STALLED:
            self.newton()
            self.sweep()
            if self.check() <= tol:
                return True
            stalled = 0 if self.gap < 0.9 * best else stalled + 1
            best = min(best, self.gap)
        return False

    def run(self, tol: float, max_iter: int, sweeping: bool) -> None:
        """Iterate until the certified gap is at most ``tol`` or ``max_iter`` steps of any kind are done."""
        free = not np.diagonal(self.levels).any()
        if free and (self.warm or sweeping or max_iter == 0) and self.check() <= tol:
            return
        if sweeping and self.first_sweeps(tol, max_iter):
            return
        if not free:
            self.split(tol, max_iter)
        elif self.n_iter < max_iter:
            self.split(max(tol, HANDOVER), max_iter)
            precise = tol < HANDOVER  # a tiny gap is asked for the sake of the point: one Newton step at least
            if (precise or self.gap > tol) and self.n_iter < max_iter and not self.polish(tol, max_iter):
                self.split(tol, max_iter)


def solve_splitting(
    problem: Problem, start: Tensor, tol: float, max_iter: int, dual: Tensor | None = None, sweeping: bool = False
) -> Iterate:
    """Solve from ``start`` [C, p, p] and, if known, its dual; see the module's account."""
    state = Descent(problem, start, dual)
    state.run(tol, max_iter, sweeping)
    precision = torch.as_tensor(state.omega, dtype=start.dtype, device=start.device)
    if state.gap > tol and state.n_iter < max_iter:
        rest = solve_admm(problem, precision, tol, max_iter - state.n_iter)
        return Iterate(rest.precision, rest.certificate, state.n_iter + rest.n_iter, state.history + rest.history)
    certificate = Certificate(state.value, state.bound, np.nan)
    dual = None if state.dual is None else torch.as_tensor(state.dual, dtype=start.dtype, device=start.device)
    return Iterate(precision, certificate, state.n_iter, state.history, dual)


def solve_descent(problem: Problem, start: Tensor, tol: float, max_iter: int, dual: Tensor | None = None) -> Iterate:
    """Solve from ``start`` [C, p, p], beginning with sweeps; see the module's account."""
    return solve_splitting(problem, start, tol, max_iter, dual, sweeping=True)


def relative_gap(value: float, bound: float) -> float:
    """Return the gap over max(1, |value|), infinite outside the domain."""
    return (value - bound) / max(1.0, abs(value)) if value < np.inf else np.inf


def _sweeps_left(values: list[float], tol: float) -> float:
    """Extrapolate the decrease of the last sweeps geometrically: how many more until it is a tenth of the tolerance.

    Zero when it is below rounding: sweeping is over, whatever the gap.
    """
    last, before = values[-2] - values[-1], values[-3] - values[-2]
    goal = 0.1 * tol * max(1.0, abs(values[-1]))
    if last <= 1e-14 * max(1.0, abs(values[-1])):
        return 0.0
    rate = last / max(before, 1e-300)
    return np.inf if rate >= 1 else max(2.0, float(np.log(goal / last) / np.log(rate)))


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float64)
