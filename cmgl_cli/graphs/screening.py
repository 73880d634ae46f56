"""Exact screening and the check that the problem is bounded."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from cmgl_cli.errors import InputError
from cmgl_cli.graphs.audit import components
from cmgl_cli.graphs.certificate import Problem, logdet
from cmgl_cli.graphs.penalty import Penalty, project_dual


def screen(problem: Problem) -> NDArray[np.int64]:
    """Return the component [p] of every node; nodes in different components have no edge in any class's solution.

    Nodes i and j are linked iff -alpha_c Sigma_c,ij leaves the polytope of their penalty: iff for some c
    |alpha_c Sigma_c,ij| > w_c,ij, or |sum_c alpha_c Sigma_c,ij| > rho. Otherwise it is a dual point for which the
    block-diagonal solution meets every optimality condition.
    """
    if problem.plain:
        penalty = problem.penalty
        arrays = (problem.covariance, problem.alpha, penalty.specific, penalty.common)
        return components(*(array.numpy() for array in arrays))
    pull = problem.scale * problem.covariance
    linked = (pull.abs() > problem.penalty.specific).any(0) | (pull.sum(0).abs() > problem.penalty.common)
    return connected_components(linked.cpu().numpy(), directed=False)[1].astype(np.int64)


def restrict(problem: Problem, nodes: NDArray[np.int64]) -> Problem:
    """Return the problem over a subset of the nodes."""
    index = torch.as_tensor(nodes, device=problem.covariance.device)
    penalty = Penalty(_sub(problem.penalty.specific, index), _sub(problem.penalty.common, index))
    return Problem(_sub(problem.covariance, index), penalty, problem.alpha, problem.positive)


def _sub(matrices: Tensor, index: Tensor) -> Tensor:
    return matrices.index_select(-1, index).index_select(-2, index).contiguous()


def require_bounded(problem: Problem) -> None:
    """Raise `InputError` unless a dual point in the domain is found, which proves that a solution exists.

    Positive definite covariances are one. Otherwise the off-diagonals are shrunk as far as the penalty allows: with
    positive weights that always succeeds, with zero weights on a singular covariance the problem can be unbounded.
    """
    if problem.positive:
        return
    covariance, scale = problem.covariance, problem.scale
    floor = 1e-10 * torch.diag_embed(torch.diagonal(covariance, dim1=1, dim2=2).abs())
    if logdet(covariance - floor) is not None:
        return
    off_diagonal = torch.tril(covariance, -1) + torch.triu(covariance, 1)
    for step in (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001):
        dual = project_dual(-step * scale * off_diagonal, problem.penalty)
        if logdet(covariance + dual / scale - floor) is not None:
            return
    dual = project_dual(scale * torch.diag_embed(torch.diagonal(covariance, dim1=1, dim2=2)), problem.penalty)
    if logdet(covariance + dual / scale - floor) is not None:
        return
    worst = int(torch.linalg.eigvalsh(covariance)[:, 0].argmin())
    raise InputError(
        "the problem may be unbounded: a covariance is singular and its penalty leaves directions free",
        f"class {worst}; smallest gamma W off the diagonal {_smallest(problem.penalty.specific):.3g}, "
        f"rho {float(problem.penalty.common.max()):.3g}",
        "set a weight floor (0.01, say), add a ridge (0.01), or raise rho",
    )


def _smallest(specific: Tensor) -> float:
    p = specific.shape[-1]
    if p < 2:
        return 0.0
    mask = ~torch.eye(p, dtype=torch.bool, device=specific.device)
    return float(specific[:, mask].min())
