"""What a user would pick instead, on station records: each takes a record with gaps and returns it filled.

All but the climatology work on anomalies from least-squares seasonal means, one spread a series.
"""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel
from sklearn.impute import KNNImputer

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.gaussian import conditional_means, em_covariance
from cmgl_cli.restoration.seasons import SeasonalBasis, seasonal_means

Array = NDArray[np.float64]
Standardised = tuple[Array, Array, Array]


def standardised_anomalies(values: Array, basis: SeasonalBasis) -> Standardised:
    """Return anomalies of unit spread, the seasonal means and the spreads ``(n_stations, n_variables)``."""
    mean = plain_climatology(values, basis)
    known = np.isfinite(values)
    square = np.where(known, (values - mean) ** 2, 0.0)
    pooled = square.sum(axis=(0, 1)) / np.maximum(known.sum(axis=(0, 1)), 1)
    count = known.sum(axis=0)
    spread = np.sqrt((square.sum(axis=0) + 3 * pooled) / (count + 3))
    spread = np.where(spread > 0, spread, 1.0)
    return (values - mean) / spread, mean, spread


def plain_climatology(values: Array, basis: SeasonalBasis) -> Array:
    """Return least-squares seasonal means with as many harmonics as a careful user would fit to the record.

    Two years carry the annual wave, five years three harmonics, nine years all: full monthly means of a short record
    would be noise, and no peer should lose for that.
    """
    orders = int(basis.order.max())
    if basis.years < 9:
        orders = min(orders, max(1, round(0.6 * basis.years)))
    kept = (basis.order <= orders) | basis.diurnal
    return seasonal_means(
        values, SeasonalBasis(basis.values[:, kept], basis.order[kept], basis.diurnal[kept], basis.years)
    )


def climatology(values: Array, basis: SeasonalBasis) -> Array:
    """Fill with the seasonal mean of the series."""
    return np.where(np.isnan(values), plain_climatology(values, basis), values)


def linear_in_time(values: Array, basis: SeasonalBasis) -> Array:
    """Fill anomalies by straight lines in time."""
    anomalies, mean, spread = standardised_anomalies(values, basis)
    series = anomalies.reshape(len(values), -1)
    times = np.arange(len(values))
    filled = series.copy()
    for column in filled.T:
        known = np.isfinite(column)
        column[~known] = np.interp(times[~known], times[known], column[known]) if known.any() else 0.0
    return _back(filled, values, mean, spread)


def knn(values: Array, basis: SeasonalBasis, *, n_neighbors: int = 5) -> Array:
    """Fill from the stations with the most similar anomalies, one variable at a time (scikit-learn)."""
    anomalies, mean, spread = standardised_anomalies(values, basis)
    filled = np.zeros_like(anomalies)
    for v in range(values.shape[2]):
        imputer = KNNImputer(n_neighbors=n_neighbors, weights="distance", keep_empty_features=True)
        filled[..., v] = imputer.fit_transform(anomalies[..., v].T).T
    return _back(filled.reshape(len(values), -1), values, mean, spread)


def soft_impute(values: Array, basis: SeasonalBasis, *, seed: int = 0) -> Array:
    """Fill by iterated singular value thresholding, the threshold by hold-out."""
    anomalies, mean, spread = standardised_anomalies(values, basis)
    return _back(low_rank_fill(anomalies.reshape(len(values), -1), seed=seed), values, mean, spread)


def low_rank_fill(rows: Array, *, seed: int = 0, n_iter: int = 15) -> Array:
    """Return rows with gaps filled by softImpute, the threshold chosen on a tenth of the observed cells."""
    observed = np.isfinite(rows)
    hidden = observed & (np.random.default_rng(seed).random(rows.shape) < 0.1)
    training = np.where(hidden, np.nan, rows)
    largest = float(np.linalg.norm(np.where(observed & ~hidden, rows, 0.0), 2))
    current = np.zeros_like(rows)
    best, chosen = float("inf"), largest
    for threshold in largest * np.geomspace(0.4, 0.01, 7):
        current = _soft_thresholded(training, current, threshold, n_iter)
        error = float(((current - rows)[hidden] ** 2).mean()) if hidden.any() else 0.0
        if error < best:
            best, chosen = error, threshold
    filled = np.zeros_like(rows)
    for threshold in largest * np.geomspace(0.4, chosen / largest, 3):
        filled = _soft_thresholded(rows, filled, threshold, n_iter)
    return np.where(observed, rows, filled)


def _soft_thresholded(rows: Array, start: Array, threshold: float, n_iter: int) -> Array:
    current = start
    for _ in range(n_iter):
        u, s, vt = np.linalg.svd(np.where(np.isfinite(rows), rows, current), full_matrices=False)
        updated = (u * np.maximum(s - threshold, 0.0)) @ vt
        change = np.linalg.norm(updated - current)
        current = updated
        if change < 3e-3 * max(float(np.linalg.norm(current)), 1e-12):
            break
    return current


def mvn_em(
    values: Array, basis: SeasonalBasis, *, ridges: tuple[float, ...] = (0.03, 0.1, 0.3), seed: int = 0
) -> Array:
    """Fill by a multivariate normal over (station, variable), its covariance by EM, the ridge by hold-out."""
    anomalies, mean, spread = standardised_anomalies(values, basis)
    rows = anomalies.reshape(len(values), -1)
    observed = np.isfinite(rows)
    hidden = observed & (np.random.default_rng(seed).random(rows.shape) < 0.05)
    training = np.where(hidden, np.nan, rows)
    errors = [((_em_fill(training, ridge) - rows)[hidden] ** 2).mean() if hidden.any() else 0.0 for ridge in ridges]
    return _back(_em_fill(rows, ridges[int(np.argmin(errors))]), values, mean, spread)


def _em_fill(rows: Array, ridge: float) -> Array:
    def regularize(covariance: Array) -> Array:
        return covariance + ridge * np.diag(np.maximum(np.diagonal(covariance), 1e-3))

    start = np.eye(rows.shape[1])
    return conditional_means(rows, em_covariance(rows, start, n_iter=12, tol=0.02, regularize=regularize)[0])


def mvn_em_shrunk(values: Array, basis: SeasonalBasis, coordinates: Array, *, share: float = 0.75) -> Array:
    """Fill by EM, each estimate shrunk by a fixed share to [coordinate kernel (x) modality covariance]."""
    anomalies, mean, spread = standardised_anomalies(values, basis)
    n_times, n_stations, n_variables = values.shape
    rows = anomalies.reshape(n_times, -1)
    kernel, noise = np.zeros((n_stations, n_stations)), np.zeros(n_variables)
    for v in range(n_variables):
        fitted, noise[v] = coordinate_kernel(anomalies[..., v], coordinates)
        kernel += fitted / n_variables
    filled = np.where(np.isfinite(anomalies), anomalies, 0.0).reshape(-1, n_variables)
    both = np.isfinite(anomalies).all(axis=2).reshape(-1)
    modality = np.corrcoef(filled[both].T).reshape(n_variables, n_variables) if both.sum() > 2 else np.eye(n_variables)
    scale = np.sqrt(np.maximum(1 - noise, 0.05))
    prior = np.kron(kernel, modality * np.outer(scale, scale)) + np.diag(np.tile(np.maximum(noise, 0.02), n_stations))

    def regularize(covariance: Array) -> Array:
        return (1 - share) * covariance + share * prior

    covariance, _ = em_covariance(rows, prior, n_iter=8, tol=0.01, regularize=regularize)
    return _back(conditional_means(rows, covariance), values, mean, spread)


def climatology_kriging(values: Array, basis: SeasonalBasis, coordinates: Array) -> Array:
    """Fill anomalies by simple kriging on position and elevation, one variable and time at a time."""
    anomalies, mean, spread = standardised_anomalies(values, basis)
    filled = np.zeros_like(anomalies)
    for v in range(values.shape[2]):
        kernel, noise = coordinate_kernel(anomalies[..., v], coordinates)
        covariance = (1 - noise) * kernel + noise * np.eye(len(kernel))
        filled[..., v] = conditional_means(anomalies[..., v], covariance)
    return _back(filled.reshape(len(values), -1), values, mean, spread)


def coordinate_kernel(anomalies: Array, coordinates: Array, *, n_fit: int = 25) -> tuple[Array, float]:
    """Return the Matern correlation between stations and the noise share, by maximum likelihood (scikit-learn).

    Parameters
    ----------
    anomalies : ndarray, shape (n_times, n_stations)
        One variable of unit spread, NaN where missing.
    coordinates : ndarray, shape (n_stations, n_coordinates)
        One length scale is fitted to each.
    n_fit : int
        Most complete times used for the fit.
    """
    if len(coordinates) < 3:
        return np.eye(len(coordinates)), 0.5
    known = np.isfinite(anomalies)
    fullest = np.argsort(-known.sum(axis=1), kind="stable")[: 4 * n_fit]
    times = np.sort(fullest)[:: max(1, len(fullest) // n_fit)][:n_fit]
    stations = np.flatnonzero(known[times].all(axis=0))
    if len(stations) < 10:
        stations = np.flatnonzero(known[times].mean(axis=0) > 0.5)
    spread = coordinates.std(axis=0)
    points = (coordinates - coordinates.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    kernel = 1.0 * Matern(np.full(points.shape[1], 0.7), (0.02, 50.0), nu=0.5) + WhiteKernel(0.2, (1e-3, 2.0))
    model = GaussianProcessRegressor(kernel, normalize_y=False)
    if len(stations) >= 5:
        with warnings.catch_warnings():
            # a length scale at its bound is a flat map: nothing a user can or need act on
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(points[stations], np.nan_to_num(anomalies[np.ix_(times, stations)]).T)
        kernel = model.kernel_
    total = float(kernel.k1.k1.constant_value + kernel.k2.noise_level)
    return kernel.k1.k2(points), float(kernel.k2.noise_level) / total


def _back(filled: Array, values: Array, mean: Array, spread: Array) -> Array:
    return np.where(np.isnan(values), filled.reshape(values.shape) * spread + mean, values)


Peer = Callable[..., Array]
PEERS: dict[str, Peer] = {
    "climatology": climatology,
    "linear": linear_in_time,
    "knn": knn,
    "soft-impute": soft_impute,
    "mvn-em": mvn_em,
    "mvn-em-shrunk": mvn_em_shrunk,
    "climatology-kriging": climatology_kriging,
}
NEEDS_COORDINATES = frozenset({"mvn-em-shrunk", "climatology-kriging"})


def fill_with_peer(name: str, values: Array, basis: SeasonalBasis, coordinates: Array | None = None) -> Array:
    """Fill a record with a peer by name.

    Parameters
    ----------
    name : str
        A key of `PEERS`.
    values : ndarray, shape (n_times, n_stations, n_variables)
        NaN where missing.
    basis : SeasonalBasis
        Seasonal regressors.
    coordinates : ndarray, shape (n_stations, n_coordinates), optional
        Position and elevation; two of the peers need them.
    """
    if name not in PEERS:
        raise InputError("unknown method", f"method={name!r}", f"known: {', '.join(sorted(PEERS))}")
    if name not in NEEDS_COORDINATES:
        return PEERS[name](values, basis)
    if coordinates is None:
        raise InputError("this method needs coordinates", f"method={name!r}", "give a station table")
    return PEERS[name](values, basis, coordinates)
