"""The structured covariance: sums of [spatial kernel (x) signed modality matrix], fitted to station moments.

A single product makes every variable vary over the same distances. The sum over a short list of kernels (a linear
model of coregionalisation) keeps the twofold form of each term and lets rain be more local than pressure.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]

EARTH_RADIUS_KM = 6371.0088


@dataclass(frozen=True)
class TwofoldStructure:
    """A sum of twofold terms.

    Attributes
    ----------
    kernels : ndarray, shape (n_kernels, n_stations, n_stations)
        Spatial correlation kernels; the last is the identity (what a station does not share).
    modality : ndarray, shape (n_kernels, n_variables, n_variables)
        The signed positive semidefinite matrix of each kernel; the last one's diagonal holds the noise.
    """

    kernels: Array
    modality: Array

    def covariance(self) -> Array:
        """Return the matrix over (station, variable), stations slowest."""
        n, m = self.kernels.shape[1], self.modality.shape[1]
        return np.einsum("kij,kvw->ivjw", self.kernels, self.modality, optimize=True).reshape(n * m, n * m)

    def pooled_modality(self) -> Array:
        """Return the modality correlation summed over kernels."""
        total = self.modality.sum(axis=0)
        scale = np.sqrt(np.diagonal(total))
        return total / np.outer(scale, scale)


def horizontal_distances(latitude: Array, longitude: Array) -> Array:
    """Return great-circle distances in km."""
    lat, lon = np.radians(latitude), np.radians(longitude)
    half = np.sin((lat[:, None] - lat[None]) / 2) ** 2
    half += np.cos(lat)[:, None] * np.cos(lat)[None] * np.sin((lon[:, None] - lon[None]) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1)))


def spatial_kernels(distance: Array | None, elevation: Array | None, n_stations: int) -> Array:
    """Return exponential kernels over a ladder of distances, with and without elevation, a constant and the identity.

    Parameters
    ----------
    distance : ndarray, shape (n_stations, n_stations), or None
        In km; without it only the constant and the identity are left.
    elevation : ndarray, shape (n_stations,), or None
        In metres.
    n_stations : int
        Number of stations.
    """
    kernels = [np.ones((n_stations, n_stations))]
    if distance is not None and n_stations > 2:
        positive = distance[distance > 0]
        near, far = np.quantile(positive, 0.01), positive.max()
        climb = None if elevation is None else np.abs(elevation[:, None] - elevation[None])
        for length in np.geomspace(max(near, far / 500), far, 5):
            flat = np.exp(-distance / length)
            kernels.append(flat)
            if climb is not None and climb.max() > 0:
                kernels += [flat * np.exp(-climb / (scale * climb.std())) for scale in (0.5, 2.0)]
    kernels.append(np.eye(n_stations))
    return np.stack(kernels)


def fit_structure(rows: Array, n_variables: int, kernels: Array, noise_floor: float = 0.02) -> TwofoldStructure:
    """Fit the modality matrices to the pairwise second moments of rows with gaps.

    Parameters
    ----------
    rows : ndarray, shape (n_times, n_stations * n_variables)
        Standardised anomalies, NaN where missing.
    n_variables : int
        Variables, the fast index of the columns.
    kernels : ndarray, shape (n_kernels, n_stations, n_stations)
        From `spatial_kernels`; the last is the identity.
    noise_floor : float
        Least noise variance of a variable, as a share of its variance.
    """
    moment, count = pairwise_moments(rows)
    n = rows.shape[1] // n_variables
    moment = moment.reshape(n, n_variables, n, n_variables)
    count = count.reshape(n, n_variables, n, n_variables)
    modality = np.zeros((len(kernels), n_variables, n_variables))
    for v in range(n_variables):
        modality[:, v, v] = _fit_nonnegative(kernels, moment[:, v, :, v], count[:, v, :, v])
    for v in range(n_variables):
        for w in range(v):
            bound = np.sqrt(modality[:, v, v] * modality[:, w, w])
            fitted = _fit_bounded(kernels, moment[:, v, :, w], count[:, v, :, w], bound)
            modality[:, v, w] = modality[:, w, v] = fitted
    modality = np.stack([_positive_part(matrix) for matrix in modality])
    variance = modality.sum(axis=0).diagonal()
    floor = noise_floor * np.maximum(variance, 1e-3)
    modality[-1] += np.diag(np.maximum(floor - np.linalg.eigvalsh(modality[-1])[0], 0.0))
    return TwofoldStructure(kernels, modality)


def pairwise_moments(rows: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return mean products over the rows where both columns are observed, and how many those are."""
    known = np.isfinite(rows)
    data, weight = np.where(known, rows, 0.0), known.astype(float)
    count = np.rint(weight.T @ weight).astype(np.int64)
    return (data.T @ data) / np.maximum(count, 1), count


def _pair_weights(kernels: Array, count: NDArray[np.int64]) -> Array:
    """Weigh near pairs up: there are few of them and they decide the fill."""
    closeness = kernels[1:-1].mean(axis=0) if len(kernels) > 2 else np.ones(count.shape)
    return np.sqrt(np.maximum(count, 0) / max(count.max(), 1)) * (0.02 + closeness)


def _fit_nonnegative(kernels: Array, moment: Array, count: NDArray[np.int64]) -> Array:
    weight = _pair_weights(kernels, count)
    design = (kernels * weight).reshape(len(kernels), -1).T
    gram, right = design.T @ design, design.T @ (moment * weight).reshape(-1)
    return _nnls_gram(gram, right)


def _fit_bounded(kernels: Array, moment: Array, count: NDArray[np.int64], bound: Array) -> Array:
    """Fit a signed coefficient per kernel within ``|b| <= bound``: non-negative parts of either sign, then clipped."""
    used = bound > 0
    if not used.any():
        return np.zeros(len(kernels))
    weight = _pair_weights(kernels, count)
    design = (kernels[used] * weight * bound[used, None, None]).reshape(int(used.sum()), -1).T
    gram, right = design.T @ design, design.T @ (moment * weight).reshape(-1)
    both = np.block([[gram, -gram], [-gram, gram]])
    parts = _nnls_gram(both, np.concatenate([right, -right]))
    half = len(parts) // 2
    result = np.zeros(len(kernels))
    result[used] = bound[used] * np.clip(parts[:half] - parts[half:], -0.99, 0.99)
    return result


def _nnls_gram(gram: Array, right: Array) -> Array:
    """Solve non-negative least squares given its normal equations, with a small ridge."""
    scale = float(np.trace(gram)) / len(gram)
    if scale <= 0:
        return np.zeros(len(gram))
    root = np.linalg.cholesky(gram / scale + 1e-6 * np.eye(len(gram))).T
    return nnls(root, np.linalg.solve(root.T, right / scale))[0]


def _positive_part(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 0.0)) @ vectors.T
