"""The signal for given graphs: conjugate gradient on (16), and the cells that (16) leaves undetermined."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from torch import Tensor

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.linear_operators import is_sparse, left_product, right_product


@dataclass(frozen=True)
class SolvedSignal:
    """A restored signal.

    Attributes
    ----------
    signal : Tensor, shape (..., n, m)
        The solution reached from the start.
    undetermined : Tensor of bool, shape (..., n, m)
        Cells that no observation reaches through the graphs: their value is that of the start's null part
        (zero start: the solution of least norm) and says nothing about the signal.
    n_iter : int
        Iterations (the largest over the batch).
    converged : bool
        Whether every sample met the tolerance.
    residual : float
        The largest relative residual.
    """

    signal: Tensor
    undetermined: Tensor
    n_iter: int
    converged: bool
    residual: float


def twofold_operator(
    signal: Tensor, mask: Tensor, spatial_laplacian: Tensor, modality_laplacian: Tensor, mu: float | Tensor
) -> Tensor:
    """Return ``M o X + mu L_s X L_m`` (16) without forming the system's matrix."""
    return mask * signal + mu * right_product(left_product(spatial_laplacian, signal), modality_laplacian)


def solve_signal(
    observed: Tensor,
    mask: Tensor,
    spatial_laplacian: Tensor,
    modality_laplacian: Tensor,
    mu: float,
    *,
    initial: Tensor | None = None,
    tol: float = 1e-8,
    max_iter: int = 2000,
) -> SolvedSignal:
    """Solve ``mu L_s X L_m + M o X = M o Y`` (16) by conjugate gradient.

    Parameters
    ----------
    observed : Tensor, shape (..., n, m)
        Y; cells outside the mask are never read, NaN there is fine.
    mask : Tensor, shape (..., n, m)
        True or 1 where observed; a batch of it broadcasts over samples.
    spatial_laplacian, modality_laplacian : Tensor
        Dense (broadcasting over samples) or sparse two-dimensional; positive semidefinite.
    mu : float
        Weight of the smoothness, > 0.
    initial : Tensor, optional
        Where to start; the null part of it stays. Zeros by default.
    tol : float
        On the residual's norm relative to that of ``M o Y``.
    max_iter : int
        Iterations at most.

    Returns
    -------
    SolvedSignal

    Raises
    ------
    InputError
        Where mu is not positive, shapes disagree, or an observed cell is not finite.
    """
    mask = torch.broadcast_to(mask, observed.shape).to(torch.bool)
    _check(observed, mask, spatial_laplacian, modality_laplacian, mu)
    data = torch.where(mask, observed, 0)
    weights = mask.to(observed.dtype)
    signal = torch.zeros_like(data) if initial is None else initial.clone()

    def apply(x: Tensor) -> Tensor:
        return twofold_operator(x, weights, spatial_laplacian, modality_laplacian, mu)

    residual = data - apply(signal)
    direction, power = residual, _inner(residual, residual)
    goal = _inner(data, data).clamp_min(torch.finfo(data.dtype).tiny)
    n_iter = 0
    while n_iter < max_iter and bool((power > tol**2 * goal).any()):
        image = apply(direction)
        step = _ratio(power, _inner(direction, image))
        signal = signal + step * direction
        residual = residual - step * image
        power, before = _inner(residual, residual), power
        direction = residual + _ratio(power, before) * direction
        n_iter += 1
    relative = float((power / goal).max().sqrt())
    undetermined = undetermined_cells(mask, spatial_laplacian, modality_laplacian)
    return SolvedSignal(signal, undetermined, n_iter, relative <= tol, relative)


def undetermined_cells(mask: Tensor, spatial_laplacian: Tensor, modality_laplacian: Tensor) -> Tensor:
    """Return the cells in which some solution of the homogeneous system (16) is not zero.

    A null solution is ``a s^T + 1 b^T`` within each pair of a spatial and a modality component (s the polarity of a
    balanced component), with ``a_i s_j + b_j = 0`` wherever (i, j) is observed. So a cell is determined exactly when
    its station and its column lie in the same component of the graph that joins stations and columns by observed
    cells; a component whose Laplacian is not singular (unbalanced signs, or a proper precision) is grounded.

    Parameters
    ----------
    mask : Tensor of bool, shape (..., n, m)
        Observed cells.
    spatial_laplacian, modality_laplacian : Tensor
        As in `solve_signal`; a batch of Laplacians is matched with the batch of masks.

    Returns
    -------
    Tensor of bool, shape (..., n, m)
    """
    n, m = mask.shape[-2:]
    masks = mask.reshape(-1, n, m).cpu().numpy().astype(bool)
    spatial, modality = (
        _structures(laplacian, len(masks), mask.shape[:-2]) for laplacian in (spatial_laplacian, modality_laplacian)
    )
    cells = np.stack([_undetermined(*item) for item in zip(masks, spatial, modality, strict=True)])
    return torch.from_numpy(cells).reshape(mask.shape).to(mask.device)


Structure = tuple[np.ndarray, np.ndarray]


def _structures(laplacian: Tensor, count: int, batch: torch.Size) -> list[Structure]:
    """Return (component of each node, whether the component is grounded) for every sample."""
    laplacian = laplacian.detach()
    if is_sparse(laplacian) or laplacian.ndim == 2:
        return [_structure(laplacian)] * count
    broadcast = torch.broadcast_to(laplacian, (*batch, *laplacian.shape[-2:])).reshape(-1, *laplacian.shape[-2:])
    return [_structure(one) for one in broadcast]


def _structure(laplacian: Tensor) -> Structure:
    matrix = _to_scipy(laplacian)
    count, label = connected_components(matrix, directed=False)
    grounded = np.array([not _is_singular(matrix, label == part) for part in range(count)])
    return label, grounded


def _is_singular(matrix: csr_array, nodes: np.ndarray) -> bool:
    """Tell whether a component has a null vector: only the signs along its edges can be one."""
    index = np.flatnonzero(nodes)
    block = matrix if len(index) == matrix.shape[0] else matrix[index][:, index]
    tolerance = 64 * float(np.finfo(matrix.dtype).eps) * float(np.abs(block.diagonal()).max())
    return bool(np.abs(block @ _switching(block)).max() <= tolerance)


def _switching(block: csr_array) -> np.ndarray:
    """Return the sign of each node of one component, walked along a spanning tree (all ones where unsigned)."""
    entries = coo_array(block)
    sign = np.ones(block.shape[0])
    if not (entries.data[entries.row != entries.col] > 0).any():
        return sign
    order, parent = breadth_first_order(block, 0, directed=False)
    for node in order[1:]:
        sign[node] = -np.sign(block[node, parent[node]]) * sign[parent[node]]
    return sign


def _undetermined(mask: np.ndarray, spatial: Structure, modality: Structure) -> np.ndarray:
    (row_part, row_grounded), (column_part, column_grounded) = spatial, modality
    n, m = mask.shape
    n_row_parts, n_column_parts = len(row_grounded), len(column_grounded)
    ground = n * n_column_parts + m * n_row_parts
    station_node = np.arange(n)[:, None] * n_column_parts + column_part[None, :]
    column_node = n * n_column_parts + np.arange(m)[None, :] * n_row_parts + row_part[:, None]
    stations = np.arange(n * n_column_parts)[column_grounded[np.arange(n * n_column_parts) % n_column_parts]]
    columns = np.arange(m * n_row_parts)[row_grounded[np.arange(m * n_row_parts) % n_row_parts]] + n * n_column_parts
    head = np.concatenate([station_node[mask], stations, columns])
    tail = np.concatenate([column_node[mask], np.full(len(stations) + len(columns), ground)])
    links = coo_array((np.ones(len(head), dtype=np.int8), (head, tail)), shape=(ground + 1, ground + 1))
    label = connected_components(links, directed=False)[1]
    return label[station_node] != label[column_node]


def _to_scipy(laplacian: Tensor) -> csr_array:
    if not is_sparse(laplacian):
        return csr_array(laplacian.cpu().numpy())
    csr = laplacian.to_sparse_csr().cpu()
    parts = (csr.values().numpy(), csr.col_indices().numpy(), csr.crow_indices().numpy())
    return csr_array(parts, shape=tuple(laplacian.shape))


def _check(observed: Tensor, mask: Tensor, spatial: Tensor, modality: Tensor, mu: float) -> None:
    n, m = observed.shape[-2:]
    if spatial.shape[-1] != n or modality.shape[-1] != m:
        sizes = f"signal {n} x {m}, Laplacians of {spatial.shape[-1]} and {modality.shape[-1]} nodes"
        raise InputError("the Laplacians do not fit the signal", sizes, "pass stations as rows, columns as columns")
    if not mu > 0:
        raise InputError("mu must be positive", f"mu={mu}", "raise it")
    if not bool(torch.isfinite(torch.where(mask, observed, 0)).all()):
        raise InputError("an observed cell is not finite", "NaN or infinity inside the mask", "clear its mask")


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1), keepdim=True)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b > 0, a / torch.where(b > 0, b, 1), 0)
