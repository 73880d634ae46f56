"""Signals of one twofold model, by maximum likelihood: covariance ``Sigma_m (x) Sigma_s`` plus noise, gaps and all.

The model is the paper's own (9) with the pseudo-inverses of the two Laplacians freed to be any covariances. It is
fitted by stochastic expectation-maximisation: each round draws every signal from its posterior (Matheron's rule, one
batched conjugate-gradient solve) and updates both covariances in whitened coordinates, where nothing is inverted. Where
the noise is low and the columns hardly depend on one another, the most likely covariances overfit badly; each is shrunk
to its diagonal as far as hidden cells ask for it.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from cmgl_cli.errors import InputError

_TRIAL_ROUNDS = 12
_MODALITY_SHARES = (0.0, 0.02, 0.1, 0.5)
_SPATIAL_SHARES = (0.0, 0.1, 0.25)
_NOISES = (0.1, 0.01)
_AVERAGED = 0.4
"""Share of the rounds, the last ones, whose covariances are averaged: single draws are noisy."""


@dataclass(frozen=True)
class MatrixNormal:
    """A matrix-normal model with white noise.

    Attributes
    ----------
    spatial : Tensor, shape (n, n)
        Sigma_s, of unit mean diagonal.
    modality : Tensor, shape (m, m)
        Sigma_m, which carries the scale.
    noise : float
        Variance of the noise.
    column_mean : Tensor, shape (m,)
        Mean of each column over samples and stations.
    """

    spatial: Tensor
    modality: Tensor
    noise: float
    column_mean: Tensor

    def posterior_mean(self, observed: Tensor, mask: Tensor, *, tol: float = 1e-6, max_iter: int = 1000) -> Tensor:
        """Return the expected signals given the observed cells.

        Parameters
        ----------
        observed, mask : Tensor, shape (samples, n, m)
            Cells outside the mask are never read.
        tol : float
            Relative residual at which the conjugate gradient stops.
        max_iter : int
            Its steps at most.
        """
        weights = mask.to(self.spatial.dtype)
        data = torch.where(mask.to(torch.bool), observed.to(self.spatial.dtype) - self.column_mean, 0)
        dual = _solve(self, data, weights, tol, max_iter)
        return self.column_mean + self.spatial @ dual @ self.modality


@dataclass(frozen=True)
class Settings:
    """What hold-out chooses.

    Attributes
    ----------
    spatial, modality : float
        Share of every round's covariance that goes to its diagonal.
    noise : float
        First noise variance, in units of the mean square. Where columns are nearly independent, noise and the floor of
        the spatial covariance can hardly be told apart, and where the rounds start decides where they end.
    """

    spatial: float = 0.0
    modality: float = 0.0
    noise: float = 0.1


def restore_matrix_normal(observed: Tensor, mask: Tensor, *, seed: int = 0) -> Tensor:
    """Restore signals by a matrix-normal model whose settings are chosen on a tenth of the observed cells.

    Parameters
    ----------
    observed, mask : Tensor, shape (samples, n, m)
        Signals that share their covariances; cells outside the mask are never read.
    seed : int
        Of the hold-out and the posterior draws.

    Returns
    -------
    Tensor, shape (samples, n, m)
        Posterior means, in the dtype of ``observed``.
    """
    known = mask.to(torch.bool)
    drawn = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)) < 0.1
    hidden = known & drawn.to(mask.device)

    def error(settings: Settings) -> float:
        model = fit_matrix_normal(observed, known & ~hidden, settings, rounds=_TRIAL_ROUNDS, seed=seed)
        restored = model.posterior_mean(observed, known & ~hidden, tol=1e-4)
        return float(((restored - observed)[hidden] ** 2).mean())

    columns = [Settings(0.02, share, _NOISES[0]) for share in _MODALITY_SHARES]
    modality = min(columns, key=error).modality
    rows = [Settings(share, modality, noise) for share in _SPATIAL_SHARES for noise in _NOISES]
    model = fit_matrix_normal(observed, known, min(rows, key=error), seed=seed)
    return model.posterior_mean(observed, known).to(observed.dtype)


def fit_matrix_normal(
    observed: Tensor, mask: Tensor, settings: Settings = Settings(), *, rounds: int = 25, seed: int = 0
) -> MatrixNormal:
    """Fit a matrix-normal model to signals with gaps.

    Parameters
    ----------
    observed : Tensor, shape (samples, n, m)
        Signals that share their covariances; cells outside the mask are never read.
    mask : Tensor, shape (samples, n, m)
        True or 1 where observed.
    settings : Settings
        Shrinkage and first noise level.
    rounds : int
        Of expectation and maximisation.
    seed : int
        Of the posterior draws.

    Returns
    -------
    MatrixNormal
        In float64.

    Raises
    ------
    InputError
        Where nothing is observed, or the signals are not a batch of matrices.
    """
    known = mask.to(torch.bool)
    if observed.ndim != 3 or not bool(known.any()):
        raise InputError(
            "signals are needed as (samples, stations, columns)", f"{tuple(observed.shape)}", "add an axis"
        )
    generator = torch.Generator().manual_seed(seed)
    weights = known.double()
    mean = torch.where(known, observed.double(), 0).sum((0, 1)) / weights.sum((0, 1)).clamp_min(1)
    data = torch.where(known, observed.double() - mean, 0)
    power = max(float((data**2).sum() / weights.sum()), torch.finfo(torch.float64).tiny)
    n, m = observed.shape[-2:]
    eye_n, eye_m = torch.eye(n, dtype=torch.float64), torch.eye(m, dtype=torch.float64)
    model = MatrixNormal(eye_n, power * eye_m, settings.noise * power, mean)
    kept: list[MatrixNormal] = []
    for number in range(rounds):
        model = _shrunk(_round(model, data, weights, generator), settings)
        if number >= (1 - _AVERAGED) * rounds:
            kept.append(model)
    return MatrixNormal(
        torch.stack([one.spatial for one in kept]).mean(0),
        torch.stack([one.modality for one in kept]).mean(0),
        sum(one.noise for one in kept) / len(kept),
        mean,
    )


def _shrunk(model: MatrixNormal, settings: Settings) -> MatrixNormal:
    def towards_diagonal(covariance: Tensor, share: float) -> Tensor:
        return (1 - share) * covariance + share * torch.diag(covariance.diagonal())

    spatial = towards_diagonal(model.spatial, settings.spatial)
    return MatrixNormal(spatial, towards_diagonal(model.modality, settings.modality), model.noise, model.column_mean)


def _round(model: MatrixNormal, data: Tensor, weights: Tensor, generator: Generator) -> MatrixNormal:
    """Draw every signal from its posterior and return the model that is most likely for the draws."""
    n_samples, n, m = data.shape
    left, right = _root(model.spatial), _root(model.modality)
    white = torch.randn(data.shape, generator=generator, dtype=data.dtype)
    noise = model.noise**0.5 * torch.randn(data.shape, generator=generator, dtype=data.dtype)
    imagined = weights * (left @ white @ right.mT + noise)
    dual = _solve(model, data - imagined, weights, 1e-4, 300)
    white = white + left.mT @ dual @ right
    signal = left @ white @ right.mT
    rows = (white @ white.mT).mean(0) / m
    columns = (white.mT @ white).mean(0) / n
    # both sides see the same total power: it is the columns' to keep
    spatial = left @ rows @ left.mT
    scale = float(spatial.diagonal().mean())
    modality = right @ columns @ right.mT * (scale / float(rows.diagonal().mean()))
    left_over = float(((weights * (data - signal)) ** 2).sum() / weights.sum())
    return MatrixNormal(spatial / scale, modality, max(left_over, 1e-8 * float((data**2).mean())), model.column_mean)


def _solve(model: MatrixNormal, data: Tensor, weights: Tensor, tol: float, max_iter: int) -> Tensor:
    """Solve ``M o (Sigma_s V Sigma_m) + noise V = data`` on the observed cells, all samples at once."""
    solution = torch.zeros_like(data)
    residual, direction = data, data
    power = (residual**2).sum((-2, -1), keepdim=True)
    goal = tol**2 * power
    tiny = torch.finfo(data.dtype).tiny
    for _ in range(max_iter):
        image = weights * (model.spatial @ direction @ model.modality) + model.noise * direction
        step = power / (direction * image).sum((-2, -1), keepdim=True).clamp_min(tiny)
        solution = solution + step * direction
        residual = residual - step * image
        power, before = (residual**2).sum((-2, -1), keepdim=True), power
        if bool((power <= goal).all()):
            break
        direction = residual + power / before.clamp_min(tiny) * direction
    return solution


def _root(covariance: Tensor) -> Tensor:
    """Return R with ``R R^T`` equal to the covariance, in the eigenvectors' order."""
    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
    return vectors * values.clamp_min(0).sqrt()
