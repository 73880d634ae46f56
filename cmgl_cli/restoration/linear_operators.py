"""Laplacians, dense or sparse, and the kernels that couple the two graphs.

A dense Laplacian is a tensor ``(..., n, n)`` that broadcasts over samples; a sparse one is a two-dimensional
``torch.sparse`` tensor shared by all samples.
"""

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from cmgl_cli.errors import InputError


def laplacian_of(weights: Tensor) -> Tensor:
    """Return the combinatorial Laplacian ``diag(W 1) - W`` of dense weights ``(..., n, n)``."""
    return torch.diag_embed(weights.sum(-1)) - weights


def sparse_laplacian(weights: Tensor, edges: Tensor, n_nodes: int) -> Tensor:
    """Return the Laplacian of an edge list as a sparse CSR tensor.

    Parameters
    ----------
    weights : Tensor, shape (n_edges,)
        One weight an undirected edge.
    edges : Tensor of int64, shape (2, n_edges)
        End points, each edge once.
    n_nodes : int
        Number of nodes.
    """
    i, j = edges
    degree = edge_degree(weights, edges, n_nodes)
    nodes = torch.arange(n_nodes, device=edges.device)
    index = torch.stack([torch.cat([i, j, nodes]), torch.cat([j, i, nodes])])
    values = torch.cat([-weights, -weights, degree])
    shape = (n_nodes, n_nodes)
    return torch.sparse_coo_tensor(index, values, shape, check_invariants=False).coalesce().to_sparse_csr()


def edge_degree(weights: Tensor, edges: Tensor, n_nodes: int) -> Tensor:
    """Return the degrees ``(..., n_nodes)`` of edge weights ``(..., n_edges)``."""
    degree = weights.new_zeros(*weights.shape[:-1], n_nodes)
    return degree.index_add(-1, edges[0], weights).index_add(-1, edges[1], weights)


def knn_edges(points: np.ndarray, n_neighbors: int) -> Tensor:
    """Return the undirected edges ``(2, n_edges)``, i < j, that join each point with its nearest neighbours.

    Parameters
    ----------
    points : ndarray, shape (n_nodes, n_coordinates)
        Finite coordinates in a space where Euclidean distance is meaningful.
    n_neighbors : int
        Neighbours of each point; the union over both directions is kept, so degrees vary.
    """
    points = np.asarray(points, dtype=float)
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise InputError("a station has no finite coordinates", f"row {row}", "drop it or give its coordinates")
    k = min(n_neighbors, len(points) - 1)
    _, index = cKDTree(points).query(points, k=k + 1)
    head = np.repeat(np.arange(len(points)), k + 1)
    pairs = np.stack([head, index.reshape(-1)])
    pairs = np.sort(pairs[:, pairs[0] != pairs[1]], axis=0)
    return torch.from_numpy(np.ascontiguousarray(np.unique(pairs, axis=1).astype(np.int64)))


def is_sparse(matrix: Tensor) -> bool:
    """Tell whether a tensor has a sparse layout."""
    return matrix.layout != torch.strided


def left_product(laplacian: Tensor, signal: Tensor) -> Tensor:
    """Return ``L X`` for ``signal`` ``(..., n, m)`` and a dense or sparse ``laplacian``."""
    if not is_sparse(laplacian):
        return laplacian @ signal
    if signal.ndim == 2:
        return laplacian @ signal
    n = signal.shape[-2]
    flat = signal.movedim(-2, 0).reshape(n, -1)
    return (laplacian @ flat).reshape(n, *signal.shape[:-2], signal.shape[-1]).movedim(0, -2)


def right_product(signal: Tensor, laplacian: Tensor) -> Tensor:
    """Return ``X L`` for a symmetric dense or sparse ``laplacian``."""
    if not is_sparse(laplacian):
        return signal @ laplacian
    return left_product(laplacian, signal.mT).mT


def spatial_kernel(signal: Tensor, modality_laplacian: Tensor) -> Tensor:
    """Return ``X L_m X^T`` (18), shape ``(..., n, n)``."""
    return right_product(signal, modality_laplacian) @ signal.mT


def modality_kernel(signal: Tensor, spatial_laplacian: Tensor) -> Tensor:
    """Return ``X^T L_s X`` (18), shape ``(..., m, m)``."""
    return signal.mT @ left_product(spatial_laplacian, signal)


def spatial_kernel_on_edges(signal: Tensor, modality_laplacian: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Return the diagonal ``(..., n)`` and the edge entries ``(..., n_edges)`` of ``X L_m X^T``.

    The full kernel of 50,000 stations would need 20 GB; the edges are taken in blocks to keep temporaries small.
    """
    filtered = right_product(signal, modality_laplacian)
    diagonal = (filtered * signal).sum(-1)
    block = max(1, 2**24 // max(signal[..., 0, :].numel(), 1))
    parts = [(filtered[..., part[0], :] * signal[..., part[1], :]).sum(-1) for part in torch.split(edges, block, dim=1)]
    return diagonal, torch.cat(parts, dim=-1)


def unit_mean_diagonal(kernel: Tensor) -> Tensor:
    """Divide each kernel by its mean diagonal, so that one set of weights serves every scale of signal."""
    scale = kernel.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return kernel / scale.clamp_min(torch.finfo(kernel.dtype).tiny)
