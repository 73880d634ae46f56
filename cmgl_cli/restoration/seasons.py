"""Climatology: seasonal means and spreads of station records with gaps, shrunk where the record is short."""

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


def seasonal_means(values: Array, basis: SeasonalBasis, *, shrink: bool = True, features: Array | None = None) -> Array:
    """Return the climatology of every series at every time.

    Parameters
    ----------
    values : ndarray, shape (n_times, n_stations, n_variables)
        NaN where missing.
    basis : SeasonalBasis
        Regressors.
    shrink : bool
        Pull each station's coefficients towards the mean over stations as far as their spread is noise
        (empirical Bayes, one factor a variable, station and harmonic). Without it: least squares alone.
    features : ndarray, shape (n_stations, n_features), optional
        Position and elevation: coefficients are pulled towards their regression on these rather than the mean.

    Returns
    -------
    ndarray, shape (n_times, n_stations, n_variables)
        A series without data gets the mean over stations.
    """
    n_times, n_stations, n_variables = values.shape
    design = basis.values
    known = np.isfinite(values)
    data = np.where(known, values, 0.0)
    gram = np.einsum("tp,tq,tsv->svpq", design, design, known.astype(float), optimize=True)
    start = _network_mean(values, design)
    moment = np.einsum("tp,tsv->svp", design, data, optimize=True)
    ridge = 1e-3 * np.eye(design.shape[1])
    slopes = (
        start[None]
        + np.linalg.solve(gram + ridge, (moment - np.einsum("svpq,vq->svp", gram, start))[..., None])[..., 0]
    )
    if not shrink:
        return np.einsum("tp,svp->tsv", design, slopes)
    for v in range(n_variables):
        use = np.asarray(known[..., v].any(axis=0))
        if use.sum() > 1:
            slopes[:, v] = _random_effects(values[..., v], design, basis.order, slopes[:, v], gram[:, v], features)
    return np.einsum("tp,svp->tsv", design, slopes)


def _random_effects(values, design, order, slopes, gram, features):
    known = np.isfinite(values)
    use = known.any(axis=0)
    n_terms = design.shape[1]
    centre = _regressed(slopes, use, features)
    rest = values - design @ slopes.T
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    common = np.where(known, rest, 0).sum(axis=1, keepdims=True) / count
    free = np.maximum(known.sum(axis=0) - n_terms, 0.25 * known.sum(axis=0)).sum()
    noise = np.where(known, (rest - common) ** 2, 0).sum() / max(free, 1)
    between = np.array([np.median((slopes - centre)[use][:, order == k] ** 2) / 0.455 for k in range(order.max() + 1)])
    effects = np.zeros_like(slopes)
    for _ in range(OUTER):
        data = np.where(known, values - common - design @ centre.T, 0.0)
        moment = data.T @ design
        for _ in range(INNER):
            prior = np.maximum(between, 1e-9 * max(between.max(), noise))[order]
            spread = noise * np.linalg.inv(gram + noise * np.diag(1 / prior))
            effects = np.einsum("spq,sq->sp", spread, moment) / max(noise, 1e-300)
            square = (effects**2 + np.diagonal(spread, axis1=1, axis2=2))[use]
            between = np.array([square[:, order == k].mean() for k in range(order.max() + 1)])
        rest = values - design @ (centre + effects).T
        common = np.where(known, rest, 0).sum(axis=1, keepdims=True) / count
        doubt = np.einsum("tp,spq,tq->ts", design, spread, design, optimize=True)
        noise = np.where(known, (rest - common) ** 2 + doubt, 0).sum() / known.sum()
        slopes = centre + np.where(use[:, None], effects, 0.0)
        centre = _regressed(slopes, use, features)
    return slopes

OUTER, INNER = 4, 8

def _regressed(slopes: Array, use: NDArray[np.bool_], features: Array | None) -> Array:
    """Return what position and elevation say about each station's coefficients (their mean without features)."""
    columns = [np.ones(len(slopes))]
    if features is not None and use.sum() >= 4 * (features.shape[1] + 1):
        spread = features[use].std(axis=0)
        columns += list(((features - features[use].mean(axis=0)) / np.where(spread > 0, spread, 1.0)).T)
    design = np.stack(columns, axis=1)
    gram = design[use].T @ design[use] + 1e-3 * np.eye(design.shape[1])
    return design @ np.linalg.solve(gram, design[use].T @ slopes[use])


def _network_mean(values: Array, design: Array) -> Array:
    """Return coefficients ``(n_variables, n_terms)`` of all stations together, station means apart."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    station = np.where(count > 0, np.where(known, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan)
    centre = np.nan_to_num(np.nanmean(station, axis=0)) if (count > 0).any() else np.zeros(values.shape[2])
    station = np.where(np.isfinite(station), station, centre)
    rest = np.where(known, values - station, 0.0).sum(axis=1)
    weight = known.sum(axis=1).astype(float)
    gram = np.einsum("tp,tq,tv->vpq", design, design, weight, optimize=True) + 1e-3 * np.eye(design.shape[1])
    slopes = np.linalg.solve(gram, np.einsum("tp,tv->vp", design, rest)[..., None])[..., 0]
    slopes[:, 0] += centre
    return slopes


def _local_noise(values: Array, mean: Array, n_terms: int) -> Array:
    """Return each variable's variance about the seasonal mean and the network's common anomaly.

    Every series has spent a degree of freedom on each of its coefficients: half of them all, in two years of months.
    """
    rest = values - mean
    known = np.isfinite(rest)
    common = np.where(known, rest, 0).sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    square = np.where(known, (rest - common) ** 2, 0)
    free = np.maximum(known.sum(axis=0) - n_terms, 0.25 * known.sum(axis=0)).sum(axis=0)
    return square.sum(axis=(0, 1)) / np.maximum(free, 1)


def _shrunk(deviation: Array, variance: Array, order: NDArray[np.int64], use: NDArray[np.bool_]) -> Array:
    result = np.zeros_like(deviation)
    for k in np.unique(order):
        terms = order == k
        noise = variance[use][:, terms]
        # a station whose gaps leave a coefficient open says nothing of the spread, however large its own error
        weight = 1 / np.maximum(noise + np.median(noise), 1e-100) ** 2
        between = max(0.0, float(np.average(deviation[use][:, terms] ** 2 - noise, weights=weight)))
        total = between + variance[:, terms]
        result[:, terms] = deviation[:, terms] * np.divide(between, total, out=np.zeros_like(total), where=total > 0)
    result[~use] = 0.0
    return result


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
