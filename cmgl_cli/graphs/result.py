"""What a joint fit returns."""

from dataclasses import dataclass, field
from typing import Any

from cmgl_cli.errors import NotConvergedError


@dataclass(frozen=True)
class Step:
    """One line of a solver's history: iteration, objective, dual objective, certified gap, CPU seconds.

    Where the whole fit is one compiled call, the seconds are those of all of it.
    """

    iteration: int
    objective: float
    dual_objective: float
    gap: float
    seconds: float


@dataclass(frozen=True)
class JointResult:
    """Solution of the joint graphical lasso (equation 10) and its certificate.

    Attributes
    ----------
    precision : array [C, p, p]
        Omega = Theta + S, positive definite.
    common : array [p, p]
        Theta; on an unpenalised diagonal the mean of the classes.
    specific : array [C, p, p]
        S.
    objective, dual_objective : float
        Primal value at ``precision``, dual value at the better of two feasible points: one built from ``precision``,
        one from ``dual``; -inf when neither is in the domain.
    duality_gap : float
        objective - dual_objective: a bound on the distance to the optimal value, whatever the solver did.
    relative_gap : float
        duality_gap / max(1, |objective|).
    kkt_residual : float
        Largest entry of Omega - prox(Omega - gradient), unit step.
    n_iter : int
        Iterations (splitting, ADMM), Newton steps (active-set) or sweeps and Newton steps (descent) of the slowest
        component.
    converged : bool
        relative_gap <= tol.
    solver : str
        The solver that ran.
    edges : tuple of int, length C
        Non-zero off-diagonal pairs of each class.
    components : array [p] of int
        Component of the screening graph each node lies in.
    seconds : float
        CPU seconds of the process spent in the fit.
    history : tuple of Step
        Certificates along the way (of the largest component).
    tol : float
        Tolerance asked for.
    dual : array [C, p, p] or None
        The dual variable D of the solvers that have one: what certifies the gap, and a warm start's better half.
    """

    precision: Any
    common: Any
    specific: Any
    objective: float
    dual_objective: float
    duality_gap: float
    relative_gap: float
    kkt_residual: float
    n_iter: int
    converged: bool
    solver: str
    edges: tuple[int, ...]
    components: Any
    seconds: float
    history: tuple[Step, ...] = field(default=(), repr=False)
    tol: float = 1e-6
    dual: Any = field(default=None, repr=False)

    def raise_not_converged(self) -> "JointResult":
        """Return self, or raise `NotConvergedError` with the gap reached."""
        if not self.converged:
            raise NotConvergedError(
                "the joint fit stopped before its tolerance",
                f"relative gap {self.relative_gap:.3g} > {self.tol:.3g} after {self.n_iter} steps of {self.solver}",
                "raise max_iter, loosen tol, or use solver='admm'",
            )
        return self
