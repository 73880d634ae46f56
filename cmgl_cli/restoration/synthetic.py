"""Synthetic signals of section 4.1 and the masks of section 4: drawn from a generator, never from global state."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.linear_operators import knn_edges, laplacian_of

N_COMMUNITIES = 6


@dataclass(frozen=True)
class SyntheticSignals:
    """Signals on one twofold graph.

    Attributes
    ----------
    clean, observed : Tensor, shape (n_signals, n, m)
        X of unit variance, and Y = X + noise (complete; mask it yourself).
    points : Tensor, shape (n, 2)
        Positions of the stations in the unit square.
    spatial_laplacian : Tensor, shape (n, n)
        True spatial graph.
    modality_laplacian : Tensor or None
        True signed modality graph; the piecewise smooth signals have none.
    community : Tensor of int64, shape (m,)
        Community (modality) of each column.
    sigma : float
        Standard deviation of the noise.
    """

    clean: Tensor
    observed: Tensor
    points: Tensor
    spatial_laplacian: Tensor
    modality_laplacian: Tensor | None
    community: Tensor
    sigma: float


def random_spatial_graph(n: int, generator: Generator, n_neighbors: int = 6) -> tuple[Tensor, Tensor]:
    """Return points in the unit square and the Laplacian of their nearest-neighbour graph with unit weights."""
    points = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    i, j = knn_edges(points.numpy(), n_neighbors)
    weights = torch.zeros(n, n, dtype=torch.float64)
    weights[i, j] = weights[j, i] = 1.0
    return points, laplacian_of(weights)


def random_modality_graph(m: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return the signed Laplacian of a balanced stochastic block model and the communities.

    Six communities, edges within with probability 0.3 and between with 0.5, magnitudes uniform on [0.1, 1]; the
    communities fall into two groups of three and edges between the groups are negative.
    """
    community = torch.arange(m) % N_COMMUNITIES
    community = community[torch.randperm(m, generator=generator)]
    group = torch.zeros(N_COMMUNITIES)
    group[torch.randperm(N_COMMUNITIES, generator=generator)[: N_COMMUNITIES // 2]] = 1
    same = community[:, None] == community[None, :]
    probability = torch.where(same, 0.3, 0.5)
    drawn = torch.rand(m, m, generator=generator) < probability
    magnitude = 0.1 + 0.9 * torch.rand(m, m, generator=generator, dtype=torch.float64)
    weights = torch.triu(drawn * magnitude, diagonal=1)
    weights = weights + weights.mT
    sign = torch.where(group[community][:, None] == group[community][None, :], 1.0, -1.0)
    return torch.diag(weights.sum(1)) - sign * weights, community


def pseudo_inverse_root(laplacian: Tensor) -> Tensor:
    """Return the symmetric square root of the pseudo-inverse of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(laplacian)
    kept = values > 1e-9 * values[-1]
    inverse = torch.where(kept, values.clamp_min(torch.finfo(values.dtype).tiny).rsqrt(), 0)
    return (vectors * inverse) @ vectors.mT


def matrix_normal_signals(
    generator: Generator, *, n: int = 50, m: int = 60, n_signals: int = 20, snr_db: float = 20.0
) -> SyntheticSignals:
    """Draw signals of covariance ``L_m^+ (x) L_s^+`` (9) with noise of the given ratio in dB."""
    points, spatial = random_spatial_graph(n, generator)
    modality, community = random_modality_graph(m, generator)
    white = torch.randn(n_signals, n, m, generator=generator, dtype=torch.float64)
    clean = pseudo_inverse_root(spatial) @ white @ pseudo_inverse_root(modality)
    return _noisy(clean, points, spatial, modality, community, snr_db, generator)


def piecewise_smooth_signals(
    generator: Generator, *, n: int = 50, m: int = 60, n_signals: int = 20, snr_db: float = 20.0
) -> SyntheticSignals:
    """Draw signals of six spatial patterns with oscillations in opposite phase (36), (37).

    Columns are ordered by community; the normalised index runs over the columns of one community.
    """
    points, spatial = random_spatial_graph(n, generator)
    community = torch.arange(m) * N_COMMUNITIES // m
    base = torch.randn(n_signals, n, N_COMMUNITIES, generator=generator, dtype=torch.float64)
    base = pseudo_inverse_root(spatial) @ base
    time = torch.arange(m, dtype=torch.float64) / max(m - 1, 1)
    phase = torch.where(community % 2 == 0, 0.0, -math.pi)
    clean = base[..., community] + 0.25 * torch.sin(math.pi / 2 * time + phase)
    return _noisy(clean, points, spatial, None, community, snr_db, generator)


def anti_correlated_signals(
    generator: Generator, *, n: int = 50, m: int = 60, n_signals: int = 20, snr_db: float = 20.0
) -> SyntheticSignals:
    """Draw signals of six spatial patterns, each column one of them with a sign of its own.

    Half the columns of a community move against the other half: what a graph without signs cannot say.
    """
    points, spatial = random_spatial_graph(n, generator)
    community = torch.arange(m) % N_COMMUNITIES
    sign = torch.where(torch.rand(m, generator=generator) < 0.5, -1.0, 1.0).double()
    base = torch.randn(n_signals, n, N_COMMUNITIES, generator=generator, dtype=torch.float64)
    clean = sign * (pseudo_inverse_root(spatial) @ base)[..., community]
    return _noisy(clean, points, spatial, None, community, snr_db, generator)


def posterior_mean(signals: SyntheticSignals, mask: Tensor) -> Tensor:
    """Return the expected matrix-normal signals on the true graphs: no method can come closer on average.

    The signals have no part in the null spaces of the two Laplacians. Solving (16) on the true graphs leaves those
    parts free, and is beaten by methods that shrink them; here they are zero, as drawn.

    Parameters
    ----------
    signals : SyntheticSignals
        From `matrix_normal_signals`.
    mask : Tensor, shape (n_signals, n, m)
        True where observed.
    """
    if signals.modality_laplacian is None:
        raise InputError("the posterior mean needs the true graphs", "no modality graph", "draw matrix-normal signals")
    spatial, modality = torch.linalg.pinv(signals.spatial_laplacian), torch.linalg.pinv(signals.modality_laplacian)
    scale = (signals.clean**2).sum((-2, -1)).mean() / (spatial.trace() * modality.trace())
    covariance = torch.kron(spatial, modality) * scale
    return torch.stack(
        [
            _conditional_mean(covariance, signals.observed[k], mask[k], signals.sigma**2)
            for k in range(len(signals.observed))
        ]
    )


def _conditional_mean(covariance: Tensor, observed: Tensor, mask: Tensor, noise: float) -> Tensor:
    known = mask.reshape(-1)
    rows = covariance[:, known]
    system = rows[known].clone()
    system.diagonal().add_(noise)
    factor = torch.linalg.cholesky(system)
    dual = torch.cholesky_solve(observed.reshape(-1)[known][:, None].to(system.dtype), factor)
    return (rows @ dual).reshape(observed.shape)


def _noisy(
    clean: Tensor,
    points: Tensor,
    spatial: Tensor,
    modality: Tensor | None,
    community: Tensor,
    snr_db: float,
    generator: Generator,
) -> SyntheticSignals:
    clean = clean / clean.std()
    sigma = 10 ** (-snr_db / 20) * float((clean**2).mean().sqrt())
    observed = clean + sigma * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    return SyntheticSignals(clean, observed, points, spatial, modality, community, sigma)


def mcar_mask(shape: tuple[int, ...], rate: float, generator: Generator) -> Tensor:
    """Return a mask, True where observed, with each cell hidden independently with probability ``rate``."""
    _check_rate(rate)
    return torch.rand(shape, generator=generator) >= rate


def outage_mask(n_times: int, n_stations: int, rate: float, length: int, generator: Generator) -> Tensor:
    """Return a mask ``(n_times, n_stations)``, True where observed, of outages that silence whole stations.

    In the paper's pattern (MRSO) a drawn share ``rate`` of the stations goes silent for ``length`` steps in each
    window; with ``n_times`` equal to the window that is this function. For longer records call it per window.
    """
    _check_rate(rate)
    if not 1 <= length <= n_times:
        raise InputError("an outage must fit into the record", f"length={length}, times={n_times}", "shorten it")
    mask = torch.ones(n_times, n_stations, dtype=torch.bool)
    silent = torch.randperm(n_stations, generator=generator)[: round(rate * n_stations)]
    start = torch.randint(0, n_times - length + 1, (len(silent),), generator=generator)
    for station, first in zip(silent.tolist(), start.tolist(), strict=True):
        mask[first : first + length, station] = False
    return mask


def _check_rate(rate: float) -> None:
    if not 0 <= rate < 1:
        raise InputError("a missing rate lies in [0, 1)", f"rate={rate}", "pass 0.3 for 30 %")
