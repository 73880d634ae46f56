"""Climatology by random effects: every station's seasonal cycle, as far as its observations tell it from the others'.

A station's coefficients are normal about their regression on position and elevation, one variance a harmonic; the
variances, and that of what is left, are estimated by expectation maximisation (Laird and Ware, 1982). Where two years
of months leave a January open, the other eleven and the map decide, and the variance says how well.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmgl_cli.restoration.seasons import SeasonalBasis, seasonal_slopes

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ROUNDS, _STEPS = 4, 8


@dataclass(frozen=True)
class Climatology:
    """Seasonal means, and how well they are known.

    Attributes
    ----------
    mean, variance : ndarray, shape (n_times, n_stations, n_variables)
        Of every series at every time; the variance is that of the mean.
    """

    mean: Array
    variance: Array


def fit_climatology(values: Array, basis: SeasonalBasis, features: Array | None = None) -> Climatology:
    """Fit the seasonal means of a record, shrunk where it is short.

    Parameters
    ----------
    values : ndarray, shape (n_times, n_stations, n_variables)
        NaN where missing.
    basis : SeasonalBasis
        Regressors.
    features : ndarray, shape (n_stations, n_features), optional
        Position and elevation: coefficients are pulled towards their regression on these rather than the mean.
    """
    design = basis.values
    slopes = seasonal_slopes(values, design)
    variance = np.zeros_like(values)
    for v in range(values.shape[2]):
        if np.isfinite(values[..., v]).any(axis=0).sum() > 1:
            slopes[:, v], variance[..., v] = _random_effects(values[..., v], basis, slopes[:, v], features)
    return Climatology(np.einsum("tp,svp->tsv", design, slopes), variance)


def _random_effects(values: Array, basis: SeasonalBasis, slopes: Array, features: Array | None) -> tuple[Array, Array]:
    """Return the coefficients ``(n_stations, n_terms)`` of one variable and the variance of the means they give."""
    design, known = basis.values, np.isfinite(values)
    use: Mask = np.asarray(known.any(axis=0))
    gram = np.einsum("tp,tq,ts->spq", design, design, known.astype(float), optimize=True)
    centre = _regressed(slopes, use, features)
    rest, common = _without_weather(values - design @ slopes.T)
    noise = (rest**2).sum() / max(np.maximum(known.sum(axis=0) - len(basis.order), 0.25 * known.sum(axis=0)).sum(), 1)
    # half of a chi-square lies below 0.455: the median forgives the stations whose gaps leave a coefficient open
    between = _by_order(np.median((slopes - centre)[use] ** 2, axis=0) / 0.455, basis.order)
    # constants and records of a handful of cells leave nothing to estimate variances from
    least = 1e-9 * (float(np.var(values[known])) or 1.0)
    for _ in range(_ROUNDS):
        moment = np.where(known, values - common - design @ centre.T, 0.0).T @ design
        for _ in range(_STEPS):
            noise = max(noise, least)
            spread = np.linalg.inv(gram / noise + np.diag(1 / np.maximum(between, least)))
            effects = (spread @ moment[..., None])[..., 0] / noise
            between = _by_order((effects**2 + np.diagonal(spread, axis1=1, axis2=2))[use].mean(axis=0), basis.order)
        rest, common = _without_weather(values - design @ (centre + effects).T)
        noise = float(((rest**2).sum() + (gram * spread).sum()) / known.sum())
        slopes = centre + effects
        centre = _regressed(slopes, use, features)
    return slopes, np.einsum("tp,spq,tq->ts", design, spread, design, optimize=True)


def _by_order(square: Array, order: NDArray[np.int64]) -> Array:
    """Return each term's mean over the terms of its harmonic."""
    return np.array([square[order == k].mean() for k in order])


def _without_weather(rest: Array) -> tuple[Array, Array]:
    """Return what is left (0 in gaps) without the mean over stations at each time, and that mean."""
    known = np.isfinite(rest)
    common = np.where(known, rest, 0).sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    return np.where(known, rest - common, 0.0), common


def _regressed(slopes: Array, use: Mask, features: Array | None) -> Array:
    """Return what position and elevation say about each station's coefficients (their mean without features)."""
    columns = [np.ones(len(slopes))]
    if features is not None and use.sum() >= 4 * (features.shape[1] + 1):
        spread = features[use].std(axis=0)
        columns += list(((features - features[use].mean(axis=0)) / np.where(spread > 0, spread, 1.0)).T)
    design = np.stack(columns, axis=1)
    gram = design[use].T @ design[use] + 1e-3 * np.eye(design.shape[1])
    return design @ np.linalg.solve(gram, design[use].T @ slopes[use])
