"""A station's own slow and fast departures from what its neighbours say, smoothed through its gaps.

Each series' leave-one-out residual is white noise plus a sum of Ornstein-Uhlenbeck processes whose time scales are
shared by the stations of a variable; a Kalman smoother in steady steps gives the departure at every time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]

_LAGS = (1, 2, 3, 4, 6, 8, 12, 18, 24, 36, 60, 90, 120, 180, 240, 360)
_SCALES = (1.0, 3.0, 10.0, 40.0, 160.0, 1000.0)


@dataclass(frozen=True)
class OffsetModel:
    """Departures of one variable.

    Attributes
    ----------
    scales : ndarray, shape (n_parts,)
        Time scales in steps.
    variances : ndarray, shape (n_parts,)
        Variances in units of the leave-one-out variance.
    noise : float
        Variance of the white rest in the same units.
    """

    scales: Array
    variances: Array
    noise: float


def fit_offsets(residual: Array) -> OffsetModel:
    """Fit time scales to the autocovariance of standardised residuals, pooled over series.

    Parameters
    ----------
    residual : ndarray, shape (n_times, n_series)
        NaN where missing.
    """
    known = np.isfinite(residual)
    data = np.where(known, residual, 0.0)
    lags = np.array([lag for lag in _LAGS if lag < len(residual) / 2])
    total = float((data**2).sum() / max(known.sum(), 1))
    if len(lags) == 0 or total == 0:
        return OffsetModel(np.array([1.0]), np.array([0.0]), max(total, 1e-12))
    count = np.array([(known[lag:] & known[:-lag]).sum() for lag in lags])
    moment = np.array([(data[lag:] * data[:-lag]).sum() for lag in lags]) / np.maximum(count, 1)
    weight = np.sqrt(count / max(count.max(), 1) / np.sqrt(lags))
    scales = np.array([scale for scale in _SCALES if scale <= 3 * len(residual)])
    design = np.exp(-lags[:, None] / scales[None])
    variances = nnls(design * weight[:, None], moment * weight)[0]
    variances *= min(1.0, 0.95 * total / max(float(variances.sum()), 1e-12))
    kept = variances > 1e-4 * total
    if not kept.any():
        return OffsetModel(np.array([1.0]), np.array([0.0]), total)
    return OffsetModel(scales[kept], variances[kept], total - float(variances[kept].sum()))


def smooth_offsets(residual: Array, relative_noise: Array, model: OffsetModel) -> tuple[Array, Array]:
    """Return the smoothed departure of every series at every time and its variance.

    Parameters
    ----------
    residual : ndarray, shape (n_times, n_series)
        Standardised leave-one-out residuals, NaN where missing.
    relative_noise : ndarray, shape (n_times, n_series)
        Factor on the white noise's variance of each cell.
    model : OffsetModel
        From `fit_offsets`.
    """
    if model.variances.sum() == 0:
        return np.zeros_like(residual), np.zeros_like(residual)
    n_times, n_series = residual.shape
    keep = np.exp(-1.0 / model.scales)
    drive = np.diag(model.variances * (1 - keep**2))
    decay = np.outer(keep, keep)
    state = np.zeros((n_series, len(keep)))
    spread = np.broadcast_to(np.diag(model.variances), (n_series, len(keep), len(keep)))
    known = np.isfinite(residual)
    data, noise = np.where(known, residual, 0.0), model.noise * relative_noise
    steps = []
    for t in range(n_times):
        if t:
            state, spread = state * keep, spread * decay + drive
        reach = spread.sum(axis=2)
        weight = known[t] / (reach.sum(axis=1) + noise[t])
        innovation = data[t] - state.sum(axis=1)
        steps.append((state, reach, weight, innovation))
        gain = reach * weight[:, None]
        state = state + gain * innovation[:, None]
        spread = spread - gain[:, :, None] * reach[:, None, :]
    return _smooth_backwards(steps, keep)


def _smooth_backwards(steps: Sequence[tuple[Array, Array, Array, Array]], keep: Array) -> tuple[Array, Array]:
    """Smooth by the modified Bryson-Frazier recursion, which inverts nothing.

    Each step is (predicted state, its covariance with the observed sum, the inverse variance of the innovation or 0,
    the innovation). With gradient r and information N of all later observations (Bierman, 1973), the smoothed sum is
    the predicted one plus ``reach^T r``, its variance the predicted one minus ``reach^T N reach``.
    """
    state, reach, _, _ = steps[0]
    mean, variance = np.empty((len(steps), len(state))), np.empty((len(steps), len(state)))
    gradient, information = np.zeros_like(state), np.zeros((*state.shape, len(keep)))
    decay = np.outer(keep, keep)
    for t in range(len(steps) - 1, -1, -1):
        state, reach, weight, innovation = steps[t]
        gain = reach * weight[:, None]
        # one step back through the update: (I - gain 1^T)^T r + 1 innovation * weight, and the same for N
        gradient = gradient + (weight * innovation - (gain * gradient).sum(axis=1))[:, None]
        pulled = np.matmul(information, gain[:, :, None])[:, :, 0]
        corner = (gain * pulled).sum(axis=1) + weight
        information = information - pulled[:, :, None] - pulled[:, None, :] + corner[:, None, None]
        mean[t] = state.sum(axis=1) + (reach * gradient).sum(axis=1)
        seen = np.matmul(information, reach[:, :, None])[:, :, 0]
        variance[t] = reach.sum(axis=1) - (reach * seen).sum(axis=1)
        gradient, information = gradient * keep, information * decay
    return mean, np.maximum(variance, 0.0)
