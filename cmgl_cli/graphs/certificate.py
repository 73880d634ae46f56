r"""Objective, dual bound and optimality residual of a candidate solution, independent of the solver that made it.

Primal   sum_c alpha_c [tr(Sigma_c Omega_c) - logdet Omega_c] + h(Omega)
Dual     max over D in the polytopes of `penalty`:  sum_c alpha_c [logdet(Sigma_c + D_c / alpha_c) + p]

At the optimum D_c = alpha_c (Omega_c^{-1} - Sigma_c). For any Omega that matrix, projected onto the polytopes, is dual
feasible, so its value bounds the optimum from below wherever Sigma_c + D_c / alpha_c is positive definite.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cmgl_cli.graphs.penalty import Penalty, project_dual, prox, split, value


@dataclass(frozen=True)
class Problem:
    """Equation (10): covariances [C, p, p], penalty levels and the weight alpha of every class [C].

    ``positive``: the covariances are known to be positive definite.
    """

    covariance: Tensor
    penalty: Penalty
    alpha: Tensor
    positive: bool = False

    @property
    def plain(self) -> bool:
        """Whether the compiled code for double precision on the CPU applies."""
        return self.covariance.device.type == "cpu" and self.covariance.dtype == torch.float64

    @property
    def free_diagonal(self) -> bool:
        """Whether the penalty spares the diagonal."""
        specific = torch.diagonal(self.penalty.specific, dim1=1, dim2=2)
        return not bool(specific.any()) and not bool(torch.diagonal(self.penalty.common).any())

    @property
    def scale(self) -> Tensor:
        """Return alpha as [C, 1, 1]."""
        return self.alpha[:, None, None]


@dataclass(frozen=True)
class Certificate:
    """Primal and dual value of a point; infinite where the point leaves the domain."""

    objective: float
    dual_objective: float
    kkt_residual: float

    @property
    def gap(self) -> float:
        """Return the certified distance to the optimal value."""
        return self.objective - self.dual_objective

    @property
    def relative_gap(self) -> float:
        """Return the gap over max(1, |objective|)."""
        return self.gap / max(1.0, abs(self.objective)) if self.objective < float("inf") else float("inf")


def logdet(matrices: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return log-determinants [C] and Cholesky factors, or None if a matrix is not positive definite."""
    factor, info = torch.linalg.cholesky_ex(matrices)
    if bool((info != 0).any()):
        return None
    return 2 * torch.log(torch.diagonal(factor, dim1=-2, dim2=-1)).sum(-1), factor


def certify(precision: Tensor, problem: Problem) -> Certificate:
    """Certify ``precision`` [C, p, p]: objective, dual bound and KKT residual."""
    factored = logdet(precision)
    if factored is None:
        return Certificate(float("inf"), float("-inf"), float("inf"))
    determinants, factor = factored
    scale, p = problem.scale, precision.shape[-1]
    common, specific = split(precision, problem.penalty)
    fit = (problem.covariance * precision).sum((1, 2)) - determinants
    objective = float((problem.alpha * fit).sum() + value(common, specific, problem.penalty))
    gradient = scale * (problem.covariance - torch.cholesky_inverse(factor))
    common, specific = prox(precision - gradient, problem.penalty, 1.0)
    residual = float((precision - common - specific).abs().max())
    dual = project_dual(-gradient, problem.penalty)
    lifted = logdet(problem.covariance + dual / scale)
    bound = float("-inf") if lifted is None else float((problem.alpha * (lifted[0] + p)).sum())
    return Certificate(objective, bound, residual)
