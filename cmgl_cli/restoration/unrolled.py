"""The alternation as a feedforward network (3.5): a fixed number of steps whose numbers are learnt.

Per outer layer: theta1, theta2, theta3, tau, sigma for each of T steps of each graph, and for the signal mu and a
factor on each of the K exact conjugate-gradient steps and directions. L = 3, T = K = 5 make 183 numbers.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.alternation import additive_fill
from cmgl_cli.restoration.graph_learning import DenseSupport, pdhg_step
from cmgl_cli.restoration.linear_operators import laplacian_of, modality_kernel, spatial_kernel, unit_mean_diagonal
from cmgl_cli.restoration.polarity import End, signed_laplacian, signed_polarity
from cmgl_cli.restoration.signal_solver import twofold_operator

Variant = Literal["signed", "unsigned", "fixed-modality", "no-graph-learning"]

# theta1, theta2, theta3, tau (n - 1), sigma: near the iterative solver's settings and its step rule.
_START = {"spatial": (0.3, 1.0, 1.0, 2.0, 0.4), "modality": (1.0, 1.0, 1.0, 2.0, 0.4)}


@dataclass(frozen=True)
class UnrolledConfig:
    """Shape of the network.

    Attributes
    ----------
    layers, graph_steps, signal_steps : int
        L, T and K.
    rank : int
        Dimension of the eigenspace that gives the signs.
    end : {"leading", "trailing"}
        Which end of the spectrum.
    variant : str
        ``signed`` (the method), ``unsigned`` (C = 1), ``fixed-modality`` (path graph over the columns) or
        ``no-graph-learning`` (nearest-neighbour graphs of the first fill).
    mu : float
        Where the smoothness weight starts.
    n_neighbors : int
        Neighbours of the fixed graphs of ``no-graph-learning``.
    """

    layers: int = 3
    graph_steps: int = 5
    signal_steps: int = 5
    rank: int = 6
    end: End = "leading"
    variant: Variant = "signed"
    mu: float = 0.1
    n_neighbors: int = 6


class UnrolledRestorer(nn.Module):
    """Restore signals that share their graphs by L layers of truncated alternation.

    Parameters
    ----------
    config : UnrolledConfig
        Shape of the network and variant.

    Notes
    -----
    All numbers are kept positive by softplus. The signs C are treated as constants in the backward pass: the
    gradient of an eigenspace is unbounded where eigenvalues meet.
    """

    def __init__(self, config: UnrolledConfig = UnrolledConfig()):
        super().__init__()
        if config.variant not in ("signed", "unsigned", "fixed-modality", "no-graph-learning"):
            raise InputError("unknown variant of the network", f"variant={config.variant!r}", "use 'signed'")
        self.config = config
        shape = (config.layers, config.graph_steps, 1)
        if config.variant != "no-graph-learning":
            self.spatial = nn.Parameter(_inverse_softplus(_START["spatial"]).repeat(shape))
        if config.variant in ("signed", "unsigned"):
            self.modality = nn.Parameter(_inverse_softplus(_START["modality"]).repeat(shape))
        self.signal = nn.Parameter(_inverse_softplus((1.0, 1.0)).repeat(config.layers, config.signal_steps, 1))
        self.mu = nn.Parameter(_inverse_softplus((config.mu,)).repeat(config.layers))

    def forward(self, observed: Tensor, mask: Tensor) -> Tensor:
        """Return restored signals.

        Parameters
        ----------
        observed, mask : Tensor, shape (..., samples, n, m)
            Samples along the third axis from the end share their graphs (kernels are pooled over it).

        Returns
        -------
        Tensor, shape (..., samples, n, m)
        """
        return self.layer_outputs(observed, mask)[-1][0]

    def layer_outputs(self, observed: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return signal, spatial and modality Laplacian after every layer (for Figure 9)."""
        if observed.ndim < 3:
            raise InputError(
                "the network takes (samples, stations, columns)", f"{tuple(observed.shape)}", "add an axis"
            )
        mask = mask.to(torch.bool)
        signal = additive_fill(observed, mask)
        data, weights = torch.where(mask, observed, 0), mask.to(observed.dtype)
        spatial = _GraphState.uniform(signal.shape[:-3], signal.shape[-2], signal)
        modality = _GraphState.uniform(signal.shape[:-3], signal.shape[-1], signal)
        fixed = self._fixed_graphs(signal)
        spatial_laplacian, outputs = fixed[0] if fixed[0] is not None else spatial.laplacian(), []
        for layer in range(self.config.layers):
            modality_laplacian = fixed[1]
            if modality_laplacian is None:
                modality, modality_laplacian = self._learn_modality(layer, signal, spatial_laplacian, modality)
            if fixed[0] is None:
                kernel = _pooled(spatial_kernel(signal, modality_laplacian))
                spatial = spatial.advanced(kernel, _positive(self.spatial[layer]))
                spatial_laplacian = spatial.laplacian()
            signal = self._solve(layer, signal, data, weights, (spatial_laplacian, modality_laplacian))
            outputs.append((signal, spatial_laplacian.squeeze(-3), modality_laplacian.squeeze(-3)))
        return outputs

    def _learn_modality(
        self, layer: int, signal: Tensor, spatial_laplacian: Tensor, state: "_GraphState"
    ) -> tuple["_GraphState", Tensor]:
        kernel = _pooled(modality_kernel(signal, spatial_laplacian))
        polarity = torch.ones_like(kernel)
        if self.config.variant == "signed":
            rank = min(self.config.rank, kernel.shape[-1])
            polarity = signed_polarity(kernel.detach(), rank, self.config.end)
        state = state.advanced(polarity * kernel, _positive(self.modality[layer]))
        return state, signed_laplacian(polarity, state.laplacian())

    def _fixed_graphs(self, signal: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if self.config.variant == "no-graph-learning":
            count = self.config.n_neighbors
            return neighbour_laplacian(signal, count), neighbour_laplacian(signal.mT, count)
        if self.config.variant == "fixed-modality":
            return None, path_laplacian(signal.shape[-1], signal).unsqueeze(0)
        return None, None

    def _solve(
        self, layer: int, signal: Tensor, data: Tensor, weights: Tensor, laplacians: tuple[Tensor, Tensor]
    ) -> Tensor:
        mu = _positive(self.mu[layer])
        factors = _positive(self.signal[layer])
        residual = data - twofold_operator(signal, weights, *laplacians, mu)
        direction, power = residual, _power(residual, residual)
        for kappa, xi in factors:
            image = twofold_operator(direction, weights, *laplacians, mu)
            step = kappa * power / _power(direction, image).clamp_min(_tiny(signal))
            signal = signal + step * direction
            residual = residual - step * image
            power, before = _power(residual, residual), power
            direction = residual + xi * power / before.clamp_min(_tiny(signal)) * direction
        return signal


@dataclass(frozen=True)
class _GraphState:
    """Weights and dual of one graph, carried from layer to layer; axis -3 is the pooled sample axis."""

    weights: Tensor
    dual: Tensor
    support: DenseSupport

    @classmethod
    def uniform(cls, batch: torch.Size, n: int, like: Tensor) -> "_GraphState":
        support = DenseSupport(n, like)
        weights = support.off_diagonal.expand(*batch, 1, n, n) / (n - 1)
        return cls(weights, like.new_zeros(*batch, 1, n), support)

    def advanced(self, kernel: Tensor, numbers: Tensor) -> "_GraphState":
        """Run one step for each row of theta1, theta2, theta3, tau (n - 1), sigma."""
        weights, dual = self.weights, self.dual
        diagonal = kernel.diagonal(dim1=-2, dim2=-1)
        for theta1, theta2, theta3, scaled_tau, sigma in numbers:
            steps = scaled_tau / (self.support.n_nodes - 1), sigma
            weights, dual = pdhg_step(weights, dual, diagonal, kernel, (theta1, theta2, theta3), steps, self.support)
        return _GraphState(weights, dual, self.support)

    def laplacian(self) -> Tensor:
        return laplacian_of(self.weights)


def path_laplacian(n: int, like: Tensor) -> Tensor:
    """Return the Laplacian of the path over n nodes in the dtype and on the device of ``like``."""
    weights = torch.diag(like.new_ones(n - 1), 1)
    return laplacian_of(weights + weights.mT)


def neighbour_laplacian(signal: Tensor, n_neighbors: int) -> Tensor:
    """Return Laplacians ``(..., 1, n, n)`` of the nearest-neighbour graphs of rows, pooled over samples.

    Mean degree one, so that the smoothness weight means the same for every size.
    """
    rows = signal.movedim(-3, -2).flatten(-2)
    distance = torch.cdist(rows, rows)
    count = min(n_neighbors, rows.shape[-2] - 1)
    nearest = distance.topk(count + 1, largest=False).indices[..., 1:]
    weights = torch.zeros_like(distance).scatter(-1, nearest, 1.0)
    weights = torch.maximum(weights, weights.mT) / count
    return laplacian_of(weights).unsqueeze(-3)


def _pooled(kernel: Tensor) -> Tensor:
    return unit_mean_diagonal(kernel.mean(-3, keepdim=True))


def _positive(raw: Tensor) -> Tensor:
    return F.softplus(raw)


def _inverse_softplus(values: tuple[float, ...]) -> Tensor:
    return torch.log(torch.expm1(torch.tensor(values, dtype=torch.float64))).to(torch.get_default_dtype())


def _power(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1), keepdim=True)


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
