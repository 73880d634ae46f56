"""The alternation (14): signal, spatial graph and signed modality graph in turn, each problem solved to tolerance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.graph_learning import LearntGraph, learn_graph
from cmgl_cli.restoration.linear_operators import (
    modality_kernel,
    spatial_kernel,
    spatial_kernel_on_edges,
    unit_mean_diagonal,
)
from cmgl_cli.restoration.polarity import End, signed_laplacian, signed_polarity
from cmgl_cli.restoration.signal_solver import solve_signal

Thetas = tuple[float, float, float]


@dataclass(frozen=True)
class TwofoldConfig:
    """Settings of the alternation.

    Attributes
    ----------
    mu : float
        Weight of the smoothness in (14).
    spatial, modality : tuple of three floats
        theta1, theta2, theta3 of (25) for kernels of unit mean diagonal.
    rank : int
        Dimension of the eigenspace that gives the signs; 0 learns an unsigned modality graph.
    end : {"leading", "trailing"}
        Which end of the kernel's spectrum.
    outer : int
        Rounds at most.
    tol : float
        Rounds stop when the signal's relative change falls below it.
    graph_tol, graph_iter, signal_tol, signal_iter : float, int
        Tolerances and iteration limits of the inner solvers. Each round starts from the last one's signal, so the
        inner problems need not be solved to the end in any one round.
    """

    mu: float = 0.1
    spatial: Thetas = (1.0, 0.05, 0.5)
    modality: Thetas = (1.0, 0.05, 0.5)
    rank: int = 6
    end: End = "leading"
    outer: int = 20
    tol: float = 1e-4
    graph_tol: float = 1e-4
    graph_iter: int = 1000
    signal_tol: float = 1e-5
    signal_iter: int = 60


@dataclass(frozen=True)
class Restoration:
    """Result of `restore`.

    Attributes
    ----------
    signal : Tensor, shape (..., n, m)
        Restored signals.
    undetermined : Tensor of bool, shape (..., n, m)
        Cells that the observations do not reach.
    spatial_laplacian, modality_laplacian : Tensor
        Shared by the samples; the modality one carries signs.
    polarity : Tensor or None
        C of (24).
    n_outer : int
        Rounds done.
    change : float
        Relative change of the signal in the last round.
    """

    signal: Tensor
    undetermined: Tensor
    spatial_laplacian: Tensor
    modality_laplacian: Tensor
    polarity: Tensor | None
    n_outer: int
    change: float


def restore(
    observed: Tensor,
    mask: Tensor,
    config: TwofoldConfig = TwofoldConfig(),
    *,
    initial: Tensor | None = None,
    edges: Tensor | None = None,
    spatial_laplacian: Tensor | None = None,
    modality_laplacian: Tensor | None = None,
) -> Restoration:
    """Restore signals that share their graphs, learning the graphs that are not given.

    Parameters
    ----------
    observed : Tensor, shape (n, m) or (samples, n, m)
        Y; cells outside the mask are never read.
    mask : Tensor
        True where observed.
    config : TwofoldConfig
        Settings.
    initial : Tensor, optional
        First fill; `additive_fill` by default.
    edges : Tensor of int64, shape (2, n_edges), optional
        Support of the spatial graph; the way to large networks.
    spatial_laplacian, modality_laplacian : Tensor, optional
        Known graphs, used as they are in every round.

    Returns
    -------
    Restoration
    """
    mask = torch.broadcast_to(mask, observed.shape).to(torch.bool)
    signal = additive_fill(observed, mask) if initial is None else initial.clone()
    spatial, modality, polarity = spatial_laplacian, modality_laplacian, None
    change, n_outer, solved = float("inf"), 0, None
    while n_outer < config.outer and change > config.tol:
        n_outer += 1
        if modality_laplacian is None:
            modality, polarity = learn_modality(signal, spatial, config)
        if spatial_laplacian is None:
            spatial = learn_spatial(signal, _known(modality), config, edges).laplacian
        solved = solve_signal(
            observed,
            mask,
            _known(spatial),
            _known(modality),
            config.mu,
            initial=signal,
            tol=config.signal_tol,
            max_iter=config.signal_iter,
        )
        change = float(torch.linalg.vector_norm(solved.signal - signal) / torch.linalg.vector_norm(solved.signal))
        signal = solved.signal
    if solved is None:
        raise InputError("the alternation needs one round at least", f"outer={config.outer}", "use 1 or more")
    return Restoration(signal, solved.undetermined, _known(spatial), _known(modality), polarity, n_outer, change)


def learn_modality(signal: Tensor, spatial: Tensor | None, config: TwofoldConfig) -> tuple[Tensor, Tensor | None]:
    """Return the signed modality Laplacian and C from the kernel pooled over samples.

    Without a spatial graph yet, stations are centred: the complete graph's Laplacian, up to scale.
    """
    if spatial is None:
        centred = signal - signal.mean(-2, keepdim=True)
        kernel = centred.mT @ centred
    else:
        kernel = modality_kernel(signal, spatial)
    kernel = unit_mean_diagonal(_pooled(kernel))
    if config.rank == 0:
        return learn_graph(kernel, *config.modality, tol=config.graph_tol, max_iter=config.graph_iter).laplacian, None
    polarity = signed_polarity(kernel, config.rank, config.end)
    graph = learn_graph(polarity * kernel, *config.modality, tol=config.graph_tol, max_iter=config.graph_iter)
    return signed_laplacian(polarity, graph.laplacian), polarity


def learn_spatial(signal: Tensor, modality: Tensor, config: TwofoldConfig, edges: Tensor | None = None) -> LearntGraph:
    """Return the spatial graph from the kernel pooled over samples, on all pairs or on ``edges``."""
    if edges is None:
        kernel = unit_mean_diagonal(_pooled(spatial_kernel(signal, modality)))
        return learn_graph(kernel, *config.spatial, tol=config.graph_tol, max_iter=config.graph_iter)
    diagonal, entries = spatial_kernel_on_edges(signal, modality, edges)
    if diagonal.ndim > 1:
        diagonal, entries = diagonal.mean(0), entries.mean(0)
    scale = diagonal.mean().clamp_min(torch.finfo(diagonal.dtype).tiny)
    on_edges = (diagonal / scale, entries / scale)
    return learn_graph(on_edges, *config.spatial, edges=edges, tol=config.graph_tol, max_iter=config.graph_iter)


def additive_fill(observed: Tensor, mask: Tensor) -> Tensor:
    """Return Y with its gaps filled by station mean + column mean - mean, zero weight for what has no data."""
    data = torch.where(mask, observed, 0)
    weight = mask.to(observed.dtype)
    mean = data.sum((-2, -1), keepdim=True) / weight.sum((-2, -1), keepdim=True).clamp_min(1)
    rest = (data - mean) * weight
    column = rest.sum(-2, keepdim=True) / weight.sum(-2, keepdim=True).clamp_min(1)
    rest = (rest - column) * weight
    station = rest.sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp_min(1)
    return torch.where(mask, data, mean + column + station)


def _pooled(kernel: Tensor) -> Tensor:
    return kernel if kernel.ndim == 2 else kernel.reshape(-1, *kernel.shape[-2:]).mean(0)


def _known(laplacian: Tensor | None) -> Tensor:
    if laplacian is None:
        raise InputError("a graph is missing", "laplacian = None", "pass it, or let it be learnt")
    return laplacian
