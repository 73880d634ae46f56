r"""Learn the weights of one graph from a kernel by primal-dual hybrid gradient.

The problem (17), (25) over symmetric :math:`W \ge 0` with zero diagonal and degrees :math:`d = W 1` is

.. math:: \theta_1 (d^T \mathrm{diag} K - \langle W, K\rangle)
          + \theta_2 (\|d\|^2 + \|W\|_F^2) - \theta_3 \sum_i \log d_i .

All inner products are those of full matrices, hence the factor 1/2 in the adjoint of the degree operator
(the printed form lacks it, and mixing the two solves another problem). On an edge support every entry of a
pair of mirrored entries moves alike, so the same step serves the weights of an edge list.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.linear_operators import edge_degree, laplacian_of, sparse_laplacian

Scalar = float | Tensor


@dataclass(frozen=True)
class LearntGraph:
    """A learnt graph.

    Attributes
    ----------
    weights : Tensor
        ``(..., n, n)`` symmetric with zero diagonal, or ``(..., n_edges)`` on an edge support.
    edges : Tensor or None
        The support ``(2, n_edges)``, None where every pair is allowed.
    n_nodes : int
        Number of nodes.
    n_iter : int
        Iterations done (the largest over the batch).
    converged : bool
        Whether every problem of the batch met the tolerance.
    residual : float
        The largest relative optimality residual of the batch.
    """

    weights: Tensor
    edges: Tensor | None
    n_nodes: int
    n_iter: int
    converged: bool
    residual: float

    @property
    def laplacian(self) -> Tensor:
        """Dense ``(..., n, n)`` Laplacian, or a sparse CSR one on an edge support (single graphs only)."""
        if self.edges is None:
            return laplacian_of(self.weights)
        return sparse_laplacian(self.weights, self.edges, self.n_nodes)


class DenseSupport:
    """Every pair of distinct nodes may carry an edge: weights are ``(..., n, n)``."""

    multiplicity = 1.0

    def __init__(self, n_nodes: int, like: Tensor):
        self.n_nodes = n_nodes
        self.off_diagonal = 1 - torch.eye(n_nodes, dtype=like.dtype, device=like.device)
        self.squared_norm = float(n_nodes - 1)

    def degree(self, weights: Tensor) -> Tensor:
        """Return ``W 1``."""
        return weights.sum(-1)

    def adjoint(self, dual: Tensor) -> Tensor:
        """Return ``(u 1^T + 1 u^T) / 2``."""
        return (dual[..., :, None] + dual[..., None, :]) / 2

    def project(self, weights: Tensor) -> Tensor:
        """Return the nearest admissible weights; symmetry is inherited from the kernel."""
        return weights.clamp_min(0) * self.off_diagonal

    def norm(self, weights: Tensor) -> Tensor:
        """Return the Frobenius norm over the last two axes."""
        return torch.linalg.vector_norm(weights, dim=(-2, -1))


class EdgeSupport:
    """Only the listed edges may carry weight: weights are ``(..., n_edges)``."""

    multiplicity = 2.0

    def __init__(self, n_nodes: int, edges: Tensor):
        self.n_nodes, self.edges = n_nodes, edges
        count = torch.bincount(edges.reshape(-1), minlength=n_nodes)
        if int(count.min()) == 0:
            node = int(torch.argmin(count))
            raise InputError("a node has no candidate edge", f"node {node}", "add edges, or drop the node")
        self.squared_norm = float(count.max())

    def degree(self, weights: Tensor) -> Tensor:
        """Return ``W 1``."""
        return edge_degree(weights, self.edges, self.n_nodes)

    def adjoint(self, dual: Tensor) -> Tensor:
        """Return the entries of ``(u 1^T + 1 u^T) / 2`` on the edges."""
        return (dual[..., self.edges[0]] + dual[..., self.edges[1]]) / 2

    def project(self, weights: Tensor) -> Tensor:
        """Return the nearest non-negative weights."""
        return weights.clamp_min(0)

    def norm(self, weights: Tensor) -> Tensor:
        """Return the Frobenius norm of the symmetric matrix that the edges stand for."""
        return math.sqrt(self.multiplicity) * torch.linalg.vector_norm(weights, dim=-1)


Support = DenseSupport | EdgeSupport


def degree_root(linear: Tensor, curvature: Scalar, theta3: Scalar) -> Tensor:
    """Return the positive root of ``a d^2 - b d - theta3`` without cancellation.

    Parameters
    ----------
    linear : Tensor
        b; for b < 0 the textbook form ``(b + r) / 2a`` loses nine digits, so ``2 theta3 / (r - b)`` is used.
    curvature : float or Tensor
        a > 0.
    theta3 : float or Tensor
        theta3 > 0.
    """
    root = torch.sqrt(linear**2 + 4 * curvature * theta3) + linear.abs()
    return torch.where(linear >= 0, root / (2 * curvature), 2 * theta3 / root)


def pdhg_step(
    weights: Tensor,
    dual: Tensor,
    diagonal: Tensor,
    off_diagonal: Tensor,
    thetas: tuple[Scalar, Scalar, Scalar],
    steps: tuple[Scalar, Scalar],
    support: Support,
) -> tuple[Tensor, Tensor]:
    """Return weights and dual after one step of (27), (29), (31), (32) in Frobenius geometry.

    Parameters
    ----------
    weights, dual : Tensor
        W on the support and u ``(..., n)``.
    diagonal, off_diagonal : Tensor
        The kernel's diagonal ``(..., n)`` and its entries on the support.
    thetas : tuple
        theta1, theta2, theta3.
    steps : tuple
        tau, sigma with ``tau (theta2 + sigma ||S||^2) <= 1``.
    support : DenseSupport or EdgeSupport
        Where edges may be.
    """
    theta1, theta2, theta3 = thetas
    tau, sigma = steps
    gradient = 2 * theta2 * weights - theta1 * off_diagonal
    moved = support.project(weights - tau * (gradient + support.adjoint(dual)))
    target = dual + sigma * support.degree(2 * moved - weights)
    degree = degree_root(target - theta1 * diagonal, 2 * theta2 + sigma, theta3)
    return moved, target - sigma * degree


def learn_graph(
    kernel: Tensor | tuple[Tensor, Tensor],
    theta1: float,
    theta2: float,
    theta3: float,
    *,
    edges: Tensor | None = None,
    tol: float = 1e-6,
    max_iter: int = 5000,
) -> LearntGraph:
    """Solve (25) for one kernel or a batch of kernels.

    Parameters
    ----------
    kernel : Tensor, shape (..., n, n), or pair of Tensors
        Symmetric K (for a signed graph the modulated ``C o K`` of (20)). With ``edges`` also the pair
        ``(diagonal (..., n), entries on the edges (..., n_edges))``, which is all that the problem needs.
    theta1, theta2, theta3 : float
        Weights of the kernel, of the squared weights and degrees (> 0) and of the log barrier (> 0).
    edges : Tensor of int64, shape (2, n_edges), optional
        Undirected candidate edges, each once; None allows every pair.
    tol : float
        Both relative optimality residuals (stationarity in W, and ``d - W 1``) must fall below it.
    max_iter : int
        Iterations at most; ``converged`` tells whether they sufficed.

    Returns
    -------
    LearntGraph

    Raises
    ------
    InputError
        Where theta2 or theta3 is not positive, the kernel is not finite or square, or a node has no edge.
    """
    diagonal, off_diagonal, support = _unpack(kernel, edges)
    if not (theta1 >= 0 and theta2 > 0 and theta3 > 0):
        raise InputError(
            "graph weights need theta1 >= 0, theta2 > 0 and theta3 > 0",
            f"{theta1}, {theta2}, {theta3}",
            "use theta1 = 0 or more, theta2 and theta3 above 0",
        )
    thetas = (theta1, theta2, theta3)
    start, steps = _start_and_steps(diagonal, off_diagonal, thetas, support)
    weights = support.project(torch.full_like(off_diagonal, start))
    dual = torch.zeros_like(diagonal)
    residual, n_iter = math.inf, 0
    for n_iter in range(1, max_iter + 1):
        before = weights, dual
        weights, dual = pdhg_step(weights, dual, diagonal, off_diagonal, thetas, steps, support)
        if n_iter % 10 == 0 or n_iter == max_iter:
            residual = _residual(before, (weights, dual), off_diagonal, thetas, steps, support)
            if residual <= tol:
                break
    return LearntGraph(weights, edges, support.n_nodes, n_iter, residual <= tol, residual)


def graph_objective(weights: Tensor, kernel: Tensor, theta1: float, theta2: float, theta3: float) -> Tensor:
    """Return the objective (25) of dense weights ``(..., n, n)``."""
    degree = weights.sum(-1)
    fit = (degree * kernel.diagonal(dim1=-2, dim2=-1)).sum(-1) - (weights * kernel).sum((-2, -1))
    size = (degree**2).sum(-1) + (weights**2).sum((-2, -1))
    return theta1 * fit + theta2 * size - theta3 * degree.log().sum(-1)


def _unpack(kernel: Tensor | tuple[Tensor, Tensor], edges: Tensor | None) -> tuple[Tensor, Tensor, Support]:
    if isinstance(kernel, tuple):
        if edges is None:
            raise InputError("a kernel given on edges needs its edges", "edges=None", "pass edges=")
        diagonal, entries = kernel
    else:
        if kernel.ndim < 2 or kernel.shape[-1] != kernel.shape[-2]:
            raise InputError("a kernel must be square", f"shape {tuple(kernel.shape)}", "pass (..., n, n)")
        kernel = (kernel + kernel.mT) / 2
        diagonal = kernel.diagonal(dim1=-2, dim2=-1)
        entries = kernel if edges is None else kernel[..., edges[0], edges[1]]
    n_nodes = diagonal.shape[-1]
    if n_nodes < 2:
        raise InputError("a graph needs two nodes at least", f"{n_nodes} node", "add stations or columns")
    if not bool(torch.isfinite(entries).all() and torch.isfinite(diagonal).all()):
        raise InputError("the kernel holds values that are not finite", "NaN or infinity", "fill the signal first")
    support = DenseSupport(n_nodes, entries) if edges is None else EdgeSupport(n_nodes, edges)
    return diagonal, entries, support


def _start_and_steps(
    diagonal: Tensor, off_diagonal: Tensor, thetas: tuple[float, float, float], support: Support
) -> tuple[float, tuple[float, float]]:
    """Choose the uniform start and steps for strong convexity 2 theta2 and the barrier's curvature there."""
    theta1, theta2, theta3 = thetas
    n = support.n_nodes
    edges_a_node = off_diagonal.shape[-1] * 2 / n if isinstance(support, EdgeSupport) else n - 1.0
    if isinstance(support, EdgeSupport):
        mean_entry = float(off_diagonal.mean())
    else:
        mean_entry = float((off_diagonal * support.off_diagonal).sum((-2, -1)).mean()) / (n * (n - 1))
    slope = theta1 * (float(diagonal.mean()) - mean_entry)
    curvature = 2 * theta2 * (1 + 1 / edges_a_node)
    degree = float(degree_root(torch.tensor(-slope, dtype=torch.float64), curvature, theta3))
    smoothness = 2 * theta2 + theta3 / degree**2
    sigma = math.sqrt(2 * theta2 * smoothness / support.squared_norm)
    tau = 1 / (theta2 + sigma * support.squared_norm)
    return degree / edges_a_node, (tau, sigma)


def _residual(
    before: tuple[Tensor, Tensor],
    after: tuple[Tensor, Tensor],
    off_diagonal: Tensor,
    thetas: tuple[float, float, float],
    steps: tuple[float, float],
    support: Support,
) -> float:
    """Return the largest relative distance of the new point from the optimality conditions."""
    moved, risen = before[0] - after[0], before[1] - after[1]
    primal = moved * (1 / steps[0] - 2 * thetas[1]) - support.adjoint(risen)
    dual = risen / steps[1] - support.degree(moved)
    primal_scale = thetas[0] * support.norm(off_diagonal) + 2 * thetas[1] * support.norm(after[0])
    primal_scale = primal_scale + support.norm(support.adjoint(after[1]))
    dual_scale = torch.linalg.vector_norm(support.degree(after[0]), dim=-1)
    admissible = support.project(torch.ones_like(primal))
    relative = torch.maximum(
        support.norm(primal * admissible) / primal_scale, torch.linalg.vector_norm(dual, dim=-1) / dual_scale
    )
    return float(relative.max())
