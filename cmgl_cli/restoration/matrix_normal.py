"""Signals of one twofold model, by maximum likelihood: covariance ``Sigma_m (x) Sigma_s`` plus noise, gaps and all.

The model is the paper's own (9) with the pseudo-inverses of the two Laplacians freed to be any covariances. It is
fitted by expectation-maximisation in whitened coordinates, where nothing is inverted. Posterior means are exact, one
batched conjugate-gradient solve a round. Posterior covariances need the inverse of a matrix over all cells of a signal:
they are drawn (Matheron's rule), and averaged over the rounds, for the draws have nothing to do with the data, and in
whitened coordinates they hardly change. The most likely covariances overfit badly: hidden cells choose how the
covariances are shrunk and after how many rounds to stop, and how much of the filled values comes from a normal over the
columns or the stations alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.gaussian import conditional_means, em_covariance
from cmgl_cli.restoration.shrinkage import shrunk_spectrum, shrunk_to_diagonal
from cmgl_cli.restoration.stacking import stacking_weights

Fill = Callable[[Tensor, Tensor], Tensor]

_ROUNDS = 24
_HIDDEN = 0.05
"""Share of the observed cells to judge by. The fits to be weighed lose with cells, and not equally: few are better."""
_HOPELESS = (8, 1.3)
"""A trial stops at this round where its error is still this many times the best of the others."""
_LOUD = 0.1
"""The other first noise level that is tried."""
_DRAWN_AFRESH = 3
"""Rounds, the first ones, whose draws are not averaged with earlier ones."""
_FORGETTING = 0.8
"""Power of the number of rounds with which older draws fade."""


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
    shrinkage : {"diagonal", "spectrum"}
        Whether each round's covariances go to their diagonals by the two shares, or have their eigenvalues corrected
        (`shrunk_spectrum`).
    spatial, modality : float
        Share of every round's covariance that goes to its diagonal.
    noise : float
        First noise variance, in units of the mean square. Where columns are nearly independent, noise and the floor of
        the spatial covariance can hardly be told apart, and where the rounds start decides where they end.
    rounds : int
        Of expectation and maximisation.
    """

    shrinkage: Literal["diagonal", "spectrum"] = "diagonal"
    spatial: float = 0.0
    modality: float = 0.0
    noise: float = 0.01
    rounds: int = _ROUNDS


CANDIDATES = (Settings("spectrum"), Settings("diagonal", 0.1, 0.5))
"""Correcting the spectra is far better where much is observed, and goes astray where half is missing."""


def restore_matrix_normal(observed: Tensor, mask: Tensor, *, seed: int = 0) -> Tensor:
    """Restore signals by a matrix-normal model whose settings are chosen on a twentieth of the observed cells.

    Gaps are filled by a weighted mean of this model, a normal over the columns alone and one over the stations alone,
    with the weights that are best on those cells (`stacking_weights`). Observed cells are the model's.

    Parameters
    ----------
    observed, mask : Tensor, shape (samples, n, m)
        Signals that share their covariances; cells outside the mask are never read.
    seed : int
        Of the hold-out and the posterior draws.

    Returns
    -------
    Tensor, shape (samples, n, m)
        In the dtype of ``observed``.
    """
    known = mask.to(torch.bool)
    drawn = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)) < _HIDDEN
    hidden = known & drawn.to(mask.device)
    settings, error = choose_settings(observed, known, hidden, seed=seed)
    others = [(fill(observed, known & ~hidden) - observed)[hidden] for fill in ONE_SIDED]
    weights = stacking_weights(torch.stack([error, *others], dim=1))
    restored = fit_matrix_normal(observed, mask, settings, seed=seed).posterior_mean(observed, mask)
    filled = weights[0] * restored
    for weight, fill in zip(weights[1:], ONE_SIDED, strict=True):
        if weight > 0:
            filled = filled + weight * fill(observed, known)
    return torch.where(known, restored, filled).to(observed.dtype)


def fill_columns(observed: Tensor, mask: Tensor) -> Tensor:
    """Fill signals ``(samples, n, m)`` by a normal over their columns.

    Every station is a row: the twofold model without dependence between stations.
    """
    rows = torch.where(mask, observed, torch.nan).reshape(-1, observed.shape[-1]).double().numpy()
    covariance, _ = em_covariance(rows, np.eye(rows.shape[1]), n_iter=30, regularize=_ridged)
    filled = np.where(np.isnan(rows), conditional_means(rows, covariance), rows)
    return torch.from_numpy(filled).reshape(observed.shape).to(observed.dtype)


def fill_stations(observed: Tensor, mask: Tensor) -> Tensor:
    """Fill signals by a normal over their stations, every column a row."""
    return fill_columns(observed.mT, mask.mT).mT


ONE_SIDED: tuple[Fill, ...] = (fill_columns, fill_stations)


def _ridged(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    return covariance + 0.01 * np.diag(np.diagonal(covariance))


def choose_settings(observed: Tensor, known: Tensor, hidden: Tensor, *, seed: int = 0) -> tuple[Settings, Tensor]:
    """Return the settings with the least squared error on hidden cells, and the error on each of them.

    They stop early only where that is better by more than a standard error of the difference: the error does not fall
    evenly, and fitted on fewer cells the model overfits earlier.

    Parameters
    ----------
    observed : Tensor, shape (samples, n, m)
        Signals that share their covariances.
    known, hidden : Tensor of bool, shape (samples, n, m)
        Observed cells, and those of them to judge by.
    seed : int
        Of the posterior draws.
    """

    def trial(settings: Settings, rival: float) -> tuple[Tensor, Settings]:
        errors: list[Tensor] = []
        for number, (_, restored) in enumerate(_rounds(observed, known & ~hidden, settings, seed)):
            errors.append((restored - observed)[hidden])
            if number == _HOPELESS[0] and _mean_square(errors[-1]) > _HOPELESS[1] * rival:
                break
        best = min(errors, key=_mean_square)
        stop = max(number for number, one in enumerate(errors) if not _clearly_less(best**2, one**2))
        return errors[stop], replace(settings, rounds=max(stop, 1))

    error, chosen = trial(CANDIDATES[0], torch.inf)
    for candidate in (*CANDIDATES[1:], None):
        settings = candidate or replace(chosen, noise=_LOUD, rounds=_ROUNDS)
        tried, settings = trial(settings, _mean_square(error))
        error, chosen = (tried, settings) if _mean_square(tried) < _mean_square(error) else (error, chosen)
    return chosen, error


def _mean_square(error: Tensor) -> float:
    return float((error**2).mean())


def _clearly_less(one: Tensor, other: Tensor) -> bool:
    """Return whether the mean is less by more than a standard error of the difference."""
    difference = other - one
    return len(difference) > 1 and float(difference.mean()) > float(difference.std()) / len(difference) ** 0.5


def fit_matrix_normal(
    observed: Tensor, mask: Tensor, settings: Settings = Settings(), *, seed: int = 0
) -> MatrixNormal:
    """Fit a matrix-normal model to signals with gaps.

    Parameters
    ----------
    observed : Tensor, shape (samples, n, m)
        Signals that share their covariances; cells outside the mask are never read.
    mask : Tensor, shape (samples, n, m)
        True or 1 where observed.
    settings : Settings
        Shrinkage, first noise level and rounds.
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
    *_, (model, _) = _rounds(observed, mask, settings, seed)
    return model


def _rounds(observed: Tensor, mask: Tensor, settings: Settings, seed: int) -> Iterator[tuple[MatrixNormal, Tensor]]:
    """Yield the model after each number of rounds, from none on, and the posterior mean of the signals under it."""
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
    spread: _Spread | None = None
    for number in range(settings.rounds + 1):
        roots = _root(model.spatial), _root(model.modality)
        white, drawn = _posterior(model, roots, data, weights, generator)
        yield model, mean + roots[0] @ white @ roots[1]
        spread = drawn if spread is None else spread.moved_to(drawn, number)
        model = _shrunk(_most_likely(model, roots, white, spread, data, weights), settings, data.shape)


@dataclass(frozen=True)
class _Spread:
    """Posterior second moments about the mean, in whitened coordinates: ``rows / m``, ``columns / n`` and noise."""

    rows: Tensor
    columns: Tensor
    seen: float

    def moved_to(self, drawn: "_Spread", number: int) -> "_Spread":
        step = max(number + 2 - _DRAWN_AFRESH, 1) ** -_FORGETTING
        return _Spread(
            self.rows + step * (drawn.rows - self.rows),
            self.columns + step * (drawn.columns - self.columns),
            self.seen + step * (drawn.seen - self.seen),
        )


def _posterior(
    model: MatrixNormal, roots: tuple[Tensor, Tensor], data: Tensor, weights: Tensor, generator: Generator
) -> tuple[Tensor, _Spread]:
    """Return the posterior mean of the whitened signals, and one draw of the moments about it for every signal.

    ``seen`` is the mean square of the signal's error on observed cells, in units of the noise.
    """
    left, right = roots
    n_samples, n, m = data.shape
    white = torch.randn(data.shape, generator=generator, dtype=data.dtype)
    noise = model.noise**0.5 * torch.randn(data.shape, generator=generator, dtype=data.dtype)
    imagined = weights * (left @ white @ right + noise)
    dual = _solve(model, torch.cat([data, imagined]), torch.cat([weights, weights]), 1e-3, 300)
    found = left @ dual @ right
    error = white - found[n_samples:]
    seen = float(((weights * (left @ error @ right)) ** 2).sum() / weights.sum()) / model.noise
    spread = _Spread((error @ error.mT).mean(0) / m, (error.mT @ error).mean(0) / n, seen)
    return found[:n_samples], spread


def _most_likely(
    model: MatrixNormal, roots: tuple[Tensor, Tensor], white: Tensor, spread: _Spread, data: Tensor, weights: Tensor
) -> MatrixNormal:
    """Return the model that is most likely given the posterior's moments."""
    left, right = roots
    n, m = white.shape[-2:]
    rows = (white @ white.mT).mean(0) / m + spread.rows
    columns = (white.mT @ white).mean(0) / n + spread.columns
    # both sides see the same total power: it is the columns' to keep
    spatial = left @ rows @ left
    scale = float(spatial.diagonal().mean())
    modality = right @ columns @ right * (scale / float(rows.diagonal().mean()))
    left_over = float(((weights * (data - left @ white @ right)) ** 2).sum() / weights.sum())
    noise = left_over + model.noise * spread.seen
    return MatrixNormal(spatial / scale, modality, max(noise, 1e-8 * float((data**2).mean())), model.column_mean)


def _shrunk(model: MatrixNormal, settings: Settings, shape: torch.Size) -> MatrixNormal:
    n_samples, n, m = shape
    if settings.shrinkage == "spectrum":
        spatial, modality = (
            shrunk_spectrum(model.spatial, n_samples * m),
            shrunk_spectrum(model.modality, n_samples * n),
        )
        spatial = spatial / spatial.diagonal().mean()
    else:
        spatial = shrunk_to_diagonal(model.spatial, settings.spatial)
        modality = shrunk_to_diagonal(model.modality, settings.modality)
    return replace(model, spatial=spatial, modality=modality)


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
    """Return the symmetric square root: it moves little where the covariance does."""
    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
