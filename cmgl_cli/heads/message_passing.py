r"""Signed message passing over class graphs.

.. math::
    h_i &= \mathrm{gelu}\Big(\sum_{j \ne i: \Omega_{ij} > 0} a_{ij} W_{pos} z_j
           + \sum_{j \ne i: \Omega_{ij} < 0} a_{ij} W_{neg} z_j\Big) \qquad (19) \\
    a_{ij} &= |\Omega_{ij}| \Big/ \Big(\sum_{j \ne i} |\Omega_{ij}| + \epsilon\Big) \qquad (20)

The sums leave out j = i, which would swamp the positive path. All graphs go through one matrix product: the rows of
the G graphs are stacked to [G p, 2 p] (positive beside negative weights) and meet [Z W_pos ; Z W_neg], so that C
graphs cost C p^2 d and not C times a network.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmgl_cli.errors import InputError

EPSILON = 1e-8


class SignedGraphs(NamedTuple):
    """Row-normalised edge weights a_ij of equation (20), parted by sign.

    Attributes
    ----------
    positive, negative : Tensor, [G, p, p] or [B, G, p, p]
        Non-negative, zero on the diagonal; rows of their sum add up to 1, or to 0 for a node without edges. With four
        axes, every image has graphs of its own.
    """

    positive: Tensor
    negative: Tensor


def signed_graphs(precision: Tensor, epsilon: float = EPSILON) -> SignedGraphs:
    """Return the edge weights (20) of precision matrices [..., p, p].

    Raises
    ------
    InputError
        If the matrices are not square or an entry is not finite.
    """
    if precision.ndim < 3 or precision.shape[-1] != precision.shape[-2]:
        raise InputError(
            "precision must be a stack of square matrices", f"got {tuple(precision.shape)}", "pass [G, p, p]"
        )
    if not bool(torch.isfinite(precision).all()):
        raise InputError(
            "precision holds NaN or infinite values", f"shape {tuple(precision.shape)}", "refit the graphs"
        )
    edges = precision * (1 - torch.eye(precision.shape[-1], dtype=precision.dtype, device=precision.device))
    weights = edges / (edges.abs().sum(-1, keepdim=True) + epsilon)
    return SignedGraphs(weights.clamp(min=0), (-weights).clamp(min=0))


def mixture_precision(precision: Tensor, presence: Tensor) -> Tensor:
    """Return one graph an image, the class graphs weighted by how likely each class is present.

    Parameters
    ----------
    precision : Tensor, [C, p, p]
    presence : Tensor, [B, C]
        Non-negative weights, normalised here.

    Returns
    -------
    Tensor, [B, 1, p, p]

    Raises
    ------
    InputError
        If the shapes disagree, or an image has no class.
    """
    if presence.ndim != 2 or presence.shape[1] != len(precision):
        raise InputError(
            "presence does not fit the graphs", f"{tuple(presence.shape)} for {len(precision)} classes", "pass [B, C]"
        )
    total = presence.sum(1, keepdim=True)
    if not bool((total > 0).all()):
        row = int((total <= 0).flatten().nonzero()[0])
        raise InputError("an image has no class", f"row {row} of presence", "use the common graph for it")
    return torch.einsum("bc,cij->bij", presence / total, precision)[:, None]


class SignedMessagePassing(nn.Module):
    """One round of signed message passing (19) over any number of graphs.

    Parameters
    ----------
    width : int
        d_k, the width of the nodes.
    residual : bool
        Return h_i + z_i in place of h_i (ours): without it a node without edges says nothing.
    """

    def __init__(self, width: int, *, residual: bool = False):
        super().__init__()
        self.residual = residual
        self.w_pos = nn.Linear(width, width, bias=False)
        self.w_neg = nn.Linear(width, width, bias=False)

    def forward(self, nodes: Tensor, graphs: SignedGraphs) -> Tensor:
        """Return H [B, G, p, d_k] of nodes Z [B, p, d_k].

        Raises
        ------
        InputError
            If nodes and graphs differ in their number of nodes, or per-image graphs in the number of images.
        """
        _check(nodes, graphs)
        both = torch.cat([graphs.positive, graphs.negative], -1)
        sent = torch.cat([self.w_pos(nodes), self.w_neg(nodes)], 1)
        batch, size, width = nodes.shape
        if both.ndim == 3:
            received = (both.reshape(-1, 2 * size) @ sent).reshape(batch, -1, size, width)
        else:
            received = both @ sent[:, None]
        hidden = functional.gelu(received)
        return hidden + nodes[:, None] if self.residual else hidden


def head_flops(n_nodes: int, width: int, n_graphs: int, n_classes: int, n_patches: int) -> dict[str, int]:
    """Return the floating point operations of one image, a multiply-add counted as two.

    "transform": Z W_pos and Z W_neg. "messages": (19) on all graphs. "scoring": nodes to class scores. "projection":
    A^T times the node scores. "total": their sum. "projecting first": the total if H were projected to the patches
    before it is scored, as (21) is written.

    Parameters
    ----------
    n_nodes, width, n_graphs, n_classes, n_patches : int
        p, d_k, G (1 or C), C, N_p.
    """
    transform = 2 * 2 * n_nodes * width**2
    messages = 2 * n_graphs * n_nodes * (2 * n_nodes) * width
    scoring = 2 * n_nodes * width * n_classes
    projection = 2 * n_patches * n_nodes * n_classes
    literal = 2 * n_graphs * n_patches * n_nodes * width + 2 * n_patches * width * n_classes
    return {
        "transform": transform,
        "messages": messages,
        "scoring": scoring,
        "projection": projection,
        "total": transform + messages + scoring + projection,
        "projecting first": transform + messages + literal,
    }


def _check(nodes: Tensor, graphs: SignedGraphs) -> None:
    """Check that nodes and graphs belong together."""
    shape = graphs.positive.shape
    if nodes.ndim != 3 or shape[-1] != nodes.shape[1] or (len(shape) == 4 and shape[0] != len(nodes)):
        raise InputError(
            "graphs and nodes do not fit each other",
            f"graphs {tuple(shape)}, nodes {tuple(nodes.shape)}",
            "use graphs fitted on these nodes",
        )
