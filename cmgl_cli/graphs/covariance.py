"""Class covariances, in one pass over data that need not fit into memory."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmgl_cli.errors import InputError

Array = NDArray[np.float64]
RANK_TOLERANCE = 1e-10


class Moments:
    """Counts, means and scatter of every class, accumulated block by block and merged exactly (Chan et al. 1983).

    Parameters
    ----------
    n_classes : int
        Number of classes C.
    p : int
        Number of nodes.

    Attributes
    ----------
    counts : ndarray [C], float64
        Observations, or the sum of their weights.
    means : ndarray [C, p], float64
    scatter : ndarray [C, p, p], float64
        Sum of (x - mean)(x - mean)^T of each class.
    """

    def __init__(self, n_classes: int, p: int):
        if n_classes < 1 or p < 1:
            raise InputError("moments need classes and nodes", f"C = {n_classes}, p = {p}", "use positive numbers")
        self.counts = np.zeros(n_classes)
        self.means = np.zeros((n_classes, p))
        self.scatter = np.zeros((n_classes, p, p))

    def update(self, observations: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> "Moments":
        """Add ``observations`` [n, p] with ``labels`` [n], or one label for the whole block; weighted where given.

        ``weights`` [n] are positive: an observation of weight two counts as two equal ones.
        """
        block = np.asarray(observations, dtype=np.float64)
        classes = np.broadcast_to(np.asarray(labels), block.shape[:1])
        if block.ndim != 2 or block.shape[1] != self.means.shape[1]:
            raise InputError(
                "observations do not fit the accumulator", f"shape {block.shape}", f"pass [n, {self.means.shape[1]}]"
            )
        if not np.isfinite(block).all():
            raise InputError(
                "observations are not finite",
                f"row {int(np.argwhere(~np.isfinite(block))[0][0])} of the block",
                "remove or impute it",
            )
        if classes.size and (classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= len(self.counts)):
            raise InputError(
                "label out of range",
                f"labels in {classes.min()}..{classes.max()}",
                f"use integers 0..{len(self.counts) - 1}",
            )
        each = _checked_weights(weights, len(block))
        for label in np.unique(classes):
            chosen = classes == label
            rows = block if chosen.all() else block[chosen]
            if each is None:
                mean = rows.mean(axis=0)
                centred = rows - mean
                self._add(int(label), len(rows), mean, centred.T @ centred)
                continue
            share = each[chosen]
            mean = share @ rows / share.sum()
            centred = rows - mean
            self._add(int(label), float(share.sum()), mean, (centred * share[:, None]).T @ centred)
        return self

    def merge(self, other: "Moments") -> "Moments":
        """Add what another accumulator of the same shape has seen."""
        if other.means.shape != self.means.shape:
            raise InputError(
                "accumulators differ in shape", f"{other.means.shape} and {self.means.shape}", "use equal C and p"
            )
        for label in np.flatnonzero(other.counts):
            self._add(int(label), float(other.counts[label]), other.means[label], other.scatter[label])
        return self

    def of(self, classes: ArrayLike) -> "Moments":
        """Return a copy with the named classes only, in that order."""
        chosen = np.asarray(classes)
        part = Moments(len(chosen), self.means.shape[1])
        part.counts, part.means = self.counts[chosen], self.means[chosen]
        part.scatter = self.scatter[chosen]
        return part

    def _add(self, label: int, count: float, mean: Array, scatter: Array) -> None:
        total = self.counts[label] + count
        shift = mean - self.means[label]
        self.scatter[label] += scatter + np.outer(shift, shift) * (self.counts[label] * count / total)
        self.means[label] += shift * (count / total)
        self.counts[label] = total

    def covariances(self, centred: bool = True) -> Array:
        """Return the covariance of each class [C, p, p], divided by n_c; about zero if not ``centred``.

        Raises
        ------
        InputError
            If a class has no observations.
        """
        if (self.counts == 0).any():
            raise InputError(
                "a class has no observations", f"class {int(np.argmin(self.counts))}", "drop the class or add samples"
            )
        result = self.scatter / self.counts[:, None, None]
        if not centred:
            result = result + self.means[:, :, None] * self.means[:, None, :]
        return (result + result.transpose(0, 2, 1)) / 2


def _checked_weights(weights: ArrayLike | None, rows: int) -> Array | None:
    if weights is None:
        return None
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (rows,) or not (np.isfinite(values).all() and (values > 0).all()):
        raise InputError(
            "weights must be one positive number an observation",
            f"shape {values.shape} for {rows} rows",
            "correct them",
        )
    return values


def class_covariances(z: ArrayLike, labels: ArrayLike, n_classes: int | None = None, centred: bool = True) -> Array:
    """Return the covariance of each class [C, p, p] from ``z`` [N, p] and ``labels`` [N], divided by n_c."""
    values, classes = np.asarray(z, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2:
        raise InputError("expected a matrix of samples by nodes", f"shape {values.shape}", "pass an array [N, p]")
    number = int(classes.max()) + 1 if n_classes is None else n_classes
    return Moments(number, values.shape[1]).update(values, classes).covariances(centred)


def correlation(covariance: ArrayLike) -> Array:
    """Rescale covariances [..., p, p] to unit diagonal.

    Raises
    ------
    InputError
        If a variance is zero, negative or not finite; the class and node are named.
    """
    values = np.asarray(covariance, dtype=np.float64)
    variance = np.diagonal(values, axis1=-2, axis2=-1)
    if not (np.isfinite(variance).all() and (variance > 0).all()):
        where = np.argwhere(~(variance > 0))[0]
        raise InputError(
            "a node has no variance",
            f"index {tuple(int(i) for i in where)} (class, node)",
            "drop the node or the class",
        )
    scale = 1.0 / np.sqrt(variance)
    result = values * scale[..., :, None] * scale[..., None, :]
    np.einsum("...ii->...i", result)[...] = 1.0
    return (result + np.swapaxes(result, -1, -2)) / 2


def conditional_sample(covariance: ArrayLike, n: int, rng: np.random.Generator) -> Array:
    """Draw ``n`` samples from their distribution given that their covariance is ``covariance``.

    Mean and covariance are sufficient for a Gaussian, so the samples given both have a known law, whatever the true
    parameters: sqrt(n) Q L^(1/2) V^T with V L V^T the covariance and Q uniform among orthonormal columns that sum to
    zero. What needs samples (folds, subsamples) can so be had from a covariance alone.

    Parameters
    ----------
    covariance : array [p, p]
        Divided by n.
    n : int
        More than the rank of ``covariance``.
    rng : numpy Generator

    Returns
    -------
    ndarray [n, p], float64
        Mean zero, covariance (divided by n) as given.

    Raises
    ------
    InputError
        If n samples cannot have a covariance of that rank.
    """
    sigma = np.asarray(covariance, dtype=np.float64)
    values, vectors = np.linalg.eigh(sigma)
    used = values > RANK_TOLERANCE * values[-1]
    if n <= used.sum():
        raise InputError(
            "so few samples cannot have such a covariance",
            f"n = {n}, rank {int(used.sum())}",
            "pass the number of samples behind the covariance",
        )
    noise = rng.standard_normal((n, int(used.sum())))
    frame, _ = np.linalg.qr(noise - noise.mean(axis=0))
    return np.sqrt(n) * (frame * np.sqrt(values[used])) @ vectors[:, used].T
