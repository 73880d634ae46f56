"""The paper's baselines on matrices (samples, stations, columns): two models, two networks, two unrolled methods."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmgl_cli.restoration.alternation import additive_fill
from cmgl_cli.restoration.graph_learning import DenseSupport, pdhg_step
from cmgl_cli.restoration.linear_operators import laplacian_of, unit_mean_diagonal
from cmgl_cli.restoration.training import TrainingBatch, TrainingConfig, train
from cmgl_cli.restoration.unrolled import neighbour_laplacian

Setting = TypeVar("Setting", int, float)

_LADDER = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_RANKS = (1, 2, 4, 6, 8, 12)


def graph_lowpass(observed: Tensor, mask: Tensor, *, n_neighbors: int = 6, seed: int = 0) -> Tensor:
    """Filter the additive fill by ``(I + alpha L)^-1`` on a nearest-neighbour graph, alpha by hold-out.

    Parameters
    ----------
    observed, mask : Tensor, shape (samples, n, m)
        Samples share the graph of the first fill's rows.
    n_neighbors : int
        Neighbours a station.
    seed : int
        Of the hold-out.
    """

    def fill(known: Tensor, alpha: float) -> Tensor:
        start = additive_fill(observed, known)
        laplacian = neighbour_laplacian(start, n_neighbors)
        eye = torch.eye(laplacian.shape[-1], dtype=laplacian.dtype, device=laplacian.device)
        return torch.linalg.solve(eye + alpha * laplacian, start)

    return _by_holdout(fill, _LADDER, observed, mask, seed)


def svd_fill(observed: Tensor, mask: Tensor, *, n_iter: int = 20, seed: int = 0) -> Tensor:
    """Fill each matrix by iterated truncation of its singular values, one rank for all by hold-out."""

    def fill(known: Tensor, rank: int) -> Tensor:
        current = additive_fill(observed, known)
        for _ in range(n_iter):
            u, s, vt = torch.linalg.svd(torch.where(known, observed, current), full_matrices=False)
            current = (u[..., :rank] * s[..., None, :rank]) @ vt[..., :rank, :]
        return current

    ranks = [rank for rank in _RANKS if rank < min(observed.shape[-2:])]
    return _by_holdout(fill, ranks, observed, mask, seed)


def _by_holdout(
    fill: Callable[[Tensor, Setting], Tensor], settings: Sequence[Setting], observed: Tensor, mask: Tensor, seed: int
) -> Tensor:
    """Return the fill of the setting that does best on a tenth of the observed cells."""
    mask = mask.to(torch.bool)
    drawn = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)) < 0.1
    hidden = mask & drawn.to(mask.device)
    errors = [float(((fill(mask & ~hidden, setting) - observed)[hidden] ** 2).mean()) for setting in settings]
    return fill(mask, settings[errors.index(min(errors))])


class AutoEncoder(nn.Module):
    """Denoising autoencoder of whole matrices: one hidden layer, the paper's size at 50 x 60.

    Parameters
    ----------
    n, m : int
        Stations and columns.
    width : int
        Hidden units.
    """

    def __init__(self, n: int, m: int, width: int = 49):
        super().__init__()
        self.encode = nn.Linear(n * m, width)
        self.decode = nn.Linear(width, n * m)

    def forward(self, observed: Tensor, mask: Tensor) -> Tensor:
        """Return restored signals for ``(samples, n, m)``."""
        start = additive_fill(observed, mask.to(torch.bool))
        return self.decode(F.relu(self.encode(start.flatten(-2)))).reshape(observed.shape)


class GraphConvolution(nn.Module):
    """Two graph convolutions on the nearest-neighbour graph of the stations, values and mask as features.

    Parameters
    ----------
    m : int
        Columns.
    width : int
        Hidden features.
    n_neighbors : int
        Neighbours a station.
    """

    def __init__(self, m: int, width: int = 140, n_neighbors: int = 6):
        super().__init__()
        self.first, self.second = nn.Linear(2 * m, width), nn.Linear(width, m)
        self.n_neighbors = n_neighbors

    def forward(self, observed: Tensor, mask: Tensor) -> Tensor:
        """Return restored signals for ``(samples, n, m)``."""
        start = additive_fill(observed, mask.to(torch.bool))
        laplacian = neighbour_laplacian(start, self.n_neighbors)
        weights = -laplacian * (1 - torch.eye(laplacian.shape[-1], dtype=start.dtype, device=start.device))
        weights = weights + torch.eye(laplacian.shape[-1], dtype=start.dtype, device=start.device) / self.n_neighbors
        root = weights.sum(-1).rsqrt()
        smooth = root[..., :, None] * weights * root[..., None, :]
        hidden = F.relu(smooth @ self.first(torch.cat([start, mask.to(start.dtype)], dim=-1)))
        return smooth @ self.second(hidden)


class SumRegularised(nn.Module):
    """The unrolled methods before this one: smoothness on the two graphs added, ``alpha L_s X + beta X L_m`` (1).

    TGSR-DAU takes nearest-neighbour graphs of the first fill, LLAP-DAU learns unsigned ones from the current signal.

    Parameters
    ----------
    learn : bool
        Learn the graphs (LLAP) or not (TGSR).
    layers : int
        Outer layers; six numbers each.
    steps : int
        Conjugate-gradient steps a layer, with one learnt factor for all.
    """

    def __init__(self, learn: bool, layers: int = 3, steps: int = 5):
        super().__init__()
        self.learn, self.steps = learn, steps
        start = torch.tensor([0.1, 0.1, 1.0, 1.0, 1.0, 1.0])
        self.numbers = nn.Parameter(torch.log(torch.expm1(start)).repeat(layers, 1))

    def forward(self, observed: Tensor, mask: Tensor) -> Tensor:
        """Return restored signals for ``(samples, n, m)``."""
        known = mask.to(torch.bool)
        signal = additive_fill(observed, known)
        data, weights = torch.where(known, observed, 0), known.to(observed.dtype)
        graphs = neighbour_laplacian(signal, 6), neighbour_laplacian(signal.mT, 6)
        for alpha, beta, kappa, theta1, theta2, theta3 in F.softplus(self.numbers):
            if self.learn:
                thetas = (theta1, theta2, theta3)
                graphs = _unsigned_graph(signal, thetas), _unsigned_graph(signal.mT, thetas)
            else:
                alpha, beta = alpha * theta1, beta * theta2
            signal = self._solve(signal, data, weights, graphs, (alpha, beta, kappa))
        return signal

    def _solve(
        self,
        signal: Tensor,
        data: Tensor,
        weights: Tensor,
        graphs: tuple[Tensor, Tensor],
        numbers: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        alpha, beta, kappa = numbers

        def apply(x: Tensor) -> Tensor:
            return weights * x + alpha * (graphs[0] @ x) + beta * (x @ graphs[1])

        residual = data - apply(signal)
        direction, power = residual, (residual**2).sum((-2, -1), keepdim=True)
        tiny = torch.finfo(signal.dtype).tiny
        for _ in range(self.steps):
            image = apply(direction)
            step = kappa * power / (direction * image).sum((-2, -1), keepdim=True).clamp_min(tiny)
            signal, residual = signal + step * direction, residual - step * image
            power, before = (residual**2).sum((-2, -1), keepdim=True), power
            direction = residual + power / before.clamp_min(tiny) * direction
        return signal


def _unsigned_graph(rows: Tensor, thetas: tuple[Tensor, Tensor, Tensor], steps: int = 10) -> Tensor:
    """Return the Laplacian that (25) learns from the Gram matrix of rows, pooled over samples."""
    kernel = unit_mean_diagonal((rows @ rows.mT).mean(-3, keepdim=True))
    support = DenseSupport(kernel.shape[-1], kernel)
    weights = support.off_diagonal.expand(kernel.shape) / support.squared_norm
    dual = torch.zeros_like(kernel[..., 0])
    diagonal = kernel.diagonal(dim1=-2, dim2=-1)
    for _ in range(steps):
        weights, dual = pdhg_step(weights, dual, diagonal, kernel, thetas, (2.0 / support.squared_norm, 0.4), support)
    return laplacian_of(weights)


def baseline_network(name: str, n: int, m: int) -> nn.Module:
    """Return an untrained network of the paper's comparison.

    Parameters
    ----------
    name : {"autoencoder", "gcn", "tgsr-dau", "llap-dau"}
        Which.
    n, m : int
        Stations and columns.
    """
    makers: dict[str, Callable[[], nn.Module]] = {
        "autoencoder": lambda: AutoEncoder(n, m),
        "gcn": lambda: GraphConvolution(m),
        "tgsr-dau": lambda: SumRegularised(learn=False),
        "llap-dau": lambda: SumRegularised(learn=True),
    }
    return makers[name]()


def train_baseline(
    name: str, batches: Sequence[TrainingBatch], config: TrainingConfig, *, judge: Sequence[TrainingBatch] = ()
) -> nn.Module:
    """Return a trained baseline; the weights start from the training seed, ``judge`` is as for `train`."""
    n, m = batches[0].observed.shape[-2:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = baseline_network(name, n, m)
    train(model, batches, config, judge=judge)
    return model
