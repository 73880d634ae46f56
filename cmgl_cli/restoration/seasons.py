"""The seasonal cycle of station records with gaps: regressors, least-squares means, spreads."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

YEAR = 365.2425
_MONTHLY_ORDERS, _DAILY_ORDERS, _DIURNAL_ORDERS = 6, 4, 3


@dataclass(frozen=True)
class SeasonalBasis:
    """Regressors of the seasonal cycle.

    Attributes
    ----------
    values : ndarray, shape (n_times, n_terms)
        A constant, then sines and cosines of the year and, for sub-daily steps, of the day.
    order : ndarray of int, shape (n_terms,)
        0 for the constant, then the order of each harmonic (diurnal ones count on from the annual ones).
    diurnal : ndarray of bool, shape (n_terms,)
        Terms of the day rather than the year.
    years : float
        Length of the record.
    """

    values: Array
    order: NDArray[np.int64]
    diurnal: NDArray[np.bool_]
    years: float

    def low(self, orders: int) -> Array:
        """Return the terms up to an order, for quantities that vary smoothly, such as spreads."""
        return self.values[:, self.order <= orders]


def days_since_start(time: NDArray[np.datetime64]) -> Array:
    """Return the times in days after the first."""
    stamps = time.astype("datetime64[s]").astype(np.int64)
    return (stamps - stamps[0]) / 86400.0


def typical_step(time: NDArray[np.datetime64]) -> float:
    """Return the median step in days (one day for a single time)."""
    return float(np.median(np.diff(days_since_start(time)))) if len(time) > 1 else 1.0


def seasonal_basis(time: NDArray[np.datetime64]) -> SeasonalBasis:
    """Return as many harmonics as the record can carry: none of a year that it does not span."""
    days, step = days_since_start(time), typical_step(time)
    length = days[-1] + step
    columns, order = [np.ones(len(days))], [0]
    if length >= 0.95 * YEAR:
        start = time[0].astype("datetime64[Y]")
        months = time.astype("datetime64[M]").astype(np.int64) % 12
        offset = float((time[0].astype("datetime64[s]") - start.astype("datetime64[s]")).astype(np.int64)) / 86400
        phase = (days + offset) / YEAR if step < 27 else months / 12
        for k in range(1, (_MONTHLY_ORDERS if step >= 27 else _DAILY_ORDERS) + 1):
            _add_harmonic(columns, order, k * phase, k)
    annual = len(columns)
    if step <= 0.5 and length >= 3:
        for k in range(1, _DIURNAL_ORDERS + 1):
            if k * step < 0.5:
                _add_harmonic(columns, order, k * days, max(order) + 1)
    diurnal = np.arange(len(columns)) >= annual
    return SeasonalBasis(np.stack(columns, axis=1), np.array(order), diurnal, length / YEAR)


def _add_harmonic(columns: list[Array], order: list[int], cycles: Array, k: int) -> None:
    for wave in (np.cos, np.sin):
        column = wave(2 * np.pi * cycles)
        if np.abs(column).max() > 1e-6:
            columns.append(column)
            order.append(k)


def seasonal_means(values: Array, basis: SeasonalBasis) -> Array:
    """Return the least-squares climatology of every series at every time.

    Parameters
    ----------
    values : ndarray, shape (n_times, n_stations, n_variables)
        NaN where missing.
    basis : SeasonalBasis
        Regressors.

    Returns
    -------
    ndarray, shape (n_times, n_stations, n_variables)
        A series without data gets the mean over stations.
    """
    return np.einsum("tp,svp->tsv", basis.values, seasonal_slopes(values, basis.values))


def seasonal_slopes(values: Array, design: Array) -> Array:
    """Return least-squares coefficients, shape (n_stations, n_variables, n_terms).

    What a series' gaps leave open is taken from the mean over stations.

    Parameters
    ----------
    values : ndarray, shape (n_times, n_stations, n_variables)
        NaN where missing.
    design : ndarray, shape (n_times, n_terms)
        Regressors.
    """
    known = np.isfinite(values)
    gram = np.einsum("tp,tq,tsv->svpq", design, design, known.astype(float), optimize=True)
    start = _network_mean(values, design)
    moment = np.einsum("tp,tsv->svp", design, np.where(known, values, 0.0), optimize=True)
    moment -= np.einsum("svpq,vq->svp", gram, start)
    return start[None] + np.linalg.solve(gram + 1e-3 * np.eye(design.shape[1]), moment[..., None])[..., 0]


def _network_mean(values: Array, design: Array) -> Array:
    """Return coefficients ``(n_variables, n_terms)`` of all stations together, station means apart."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    station = np.where(count > 0, np.where(known, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan)
    centre = np.nansum(station, axis=0) / np.maximum((count > 0).sum(axis=0), 1)
    station = np.where(np.isfinite(station), station, centre)
    rest = np.where(known, values - station, 0.0).sum(axis=1)
    weight = known.sum(axis=1).astype(float)
    gram = np.einsum("tp,tq,tv->vpq", design, design, weight, optimize=True) + 1e-3 * np.eye(design.shape[1])
    slopes = np.linalg.solve(gram, np.einsum("tp,tv->vp", design, rest)[..., None])[..., 0]
    slopes[:, 0] += centre
    return slopes


def seasonal_spreads(anomalies: Array, basis: SeasonalBasis, prior_count: float = 12.0) -> Array:
    """Return the standard deviation of anomalies: a seasonal factor a variable times one number a series.

    Parameters
    ----------
    anomalies : ndarray, shape (n_times, n_stations, n_variables)
        NaN where missing.
    basis : SeasonalBasis
        Its first two harmonics carry the seasonal factor.
    prior_count : float
        Observations' worth of pull of a series' spread towards that of its variable.
    """
    known = np.isfinite(anomalies)
    square = np.where(known, anomalies**2, 0.0)
    design = basis.low(2)
    weight = known.sum(axis=1).astype(float)
    gram = np.einsum("tp,tq,tv->vpq", design, design, weight, optimize=True)
    overall = square.sum(axis=(0, 1)) / np.maximum(known.sum(axis=(0, 1)), 1)
    overall = np.where(overall > 0, overall, 1.0)
    gram += 1e-6 * np.maximum(weight.sum(axis=0), 1)[:, None, None] * np.eye(design.shape[1])
    slopes = np.linalg.solve(gram, np.einsum("tp,tsv->vp", design, square)[..., None])[..., 0]
    season = np.maximum(np.einsum("tp,vp->tv", design, slopes), 0.1 * overall)
    relative = np.where(known, square / season[:, None, :], 0.0).sum(axis=0)
    series = (relative + prior_count) / (known.sum(axis=0) + prior_count)
    return np.sqrt(season[:, None, :] * series[None])
