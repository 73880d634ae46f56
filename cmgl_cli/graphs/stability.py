"""How often an edge returns when the samples change: subsampling, bootstrap, and the StARS choice of a penalty."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.graphs.covariance import class_covariances, correlation
from cmgl_cli.graphs.result import JointResult

Array = NDArray[np.float64]
Fit = Callable[[Array], JointResult]
SCHEMES = ("subsample", "bootstrap")


@dataclass(frozen=True)
class Stability:
    """Edge frequencies over resampled fits.

    Attributes
    ----------
    frequency : ndarray [C, p, p]
        Share of the fits in which the edge of the class was present; zero diagonal.
    common_frequency : ndarray [p, p]
        The same for the edges of Theta.
    n_resamples : int
    """

    frequency: Array
    common_frequency: Array
    n_resamples: int

    @property
    def instability(self) -> float:
        """Return the StARS total instability: the mean of 2 f (1 - f) over edges and classes (Liu et al. 2010)."""
        rows, columns = np.triu_indices(self.frequency.shape[1], 1)
        f = self.frequency[:, rows, columns]
        return float((2 * f * (1 - f)).mean()) if f.size else 0.0


def edge_stability(  # noqa: PLR0913
    z: ArrayLike,
    labels: ArrayLike,
    fit: Fit,
    n_resamples: int = 50,
    scheme: str = "subsample",
    fraction: float | None = None,
    seed: int = 0,
    on_resample: Callable[[int, int], None] | None = None,
) -> Stability:
    """Refit on resampled data and count the edges.

    Parameters
    ----------
    z : array [N, p]
        Normal scores.
    labels : array [N] of int in 0..C-1
        Resampling is within classes.
    fit : callable
        Correlations [C, p, p] in, `JointResult` out; holds weights and penalties.
    n_resamples : int
    scheme : {"subsample", "bootstrap"}
    fraction : float, optional
        Share of a class in a subsample; default 10 / sqrt(n_c) as in StARS, at most 0.8.
    seed : int
    on_resample : callable (index, total)
        Called after every fit.
    """
    matrices = resampled(z, labels, n_resamples, scheme, fraction, seed)
    return edge_frequencies(matrices, fit, None if on_resample is None else lambda i: on_resample(i, n_resamples))


def edge_frequencies(
    matrices: Iterable[Array], fit: Fit, on_resample: Callable[[int], None] | None = None
) -> Stability:
    """Fit the correlations [C, p, p] of every resample and count the edges.

    Parameters
    ----------
    matrices : iterable of ndarray [C, p, p]
        One a resample, at least one.
    fit : callable
        Correlations in, `JointResult` out.
    on_resample : callable (index)
        Called after every fit.
    """
    frequency: Any = 0.0
    common: Any = 0.0
    n_resamples = 0
    for sigma in matrices:
        result = fit(sigma)
        frequency = frequency + (np.asarray(result.precision) != 0)
        common = common + (np.asarray(result.common) != 0)
        if on_resample is not None:
            on_resample(n_resamples)
        n_resamples += 1
    diagonal = np.arange(common.shape[0])
    frequency[:, diagonal, diagonal] = 0.0
    common[diagonal, diagonal] = 0.0
    return Stability(frequency / n_resamples, common / n_resamples, n_resamples)


def resampled(  # noqa: PLR0913
    z: ArrayLike,
    labels: ArrayLike,
    n_resamples: int,
    scheme: str = "subsample",
    fraction: float | None = None,
    seed: int = 0,
) -> Iterator[Array]:
    """Yield the class correlations [C, p, p] of every resample; parameters as in `edge_stability`."""
    values, classes = np.asarray(z, dtype=np.float64), np.asarray(labels)
    n_classes = int(classes.max()) + 1
    for rows in draws(classes, n_resamples, scheme, fraction, seed):
        yield correlation(class_covariances(values[rows], classes[rows], n_classes))


def draws(
    labels: ArrayLike, n_resamples: int, scheme: str = "subsample", fraction: float | None = None, seed: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Yield the positions that every resample takes; parameters as in `edge_stability`."""
    if scheme not in SCHEMES:
        raise UsageError("unknown resampling scheme", f"scheme = {scheme!r}", f"use one of {SCHEMES}")
    if n_resamples < 1 or (fraction is not None and not 0 < fraction <= 1):
        raise UsageError(
            "resampling needs a positive number and a share in (0, 1]",
            f"n_resamples = {n_resamples}, fraction = {fraction}",
            "correct them",
        )
    classes = np.asarray(labels)
    rng, n_classes = np.random.default_rng(seed), int(classes.max()) + 1
    for _ in range(n_resamples):
        yield _resample(classes, n_classes, scheme, fraction, rng)


def stars(instabilities: Sequence[float], threshold: float = 0.05) -> int:
    """Return the index of the least penalty that StARS accepts.

    ``instabilities`` belong to penalties in descending order; they are made monotone as in the paper, and the last
    index whose running maximum is within ``threshold`` is returned.
    """
    if len(instabilities) == 0:
        raise InputError("StARS needs at least one penalty", "instabilities = []", "pass one value per penalty")
    monotone = np.maximum.accumulate(np.asarray(instabilities, dtype=np.float64))
    accepted = np.flatnonzero(monotone <= threshold)
    return int(accepted[-1]) if len(accepted) else 0


def _resample(
    classes: NDArray[Any], n_classes: int, scheme: str, fraction: float | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    rows = []
    for c in range(n_classes):
        members = np.flatnonzero(classes == c)
        if not len(members):
            continue
        if scheme == "bootstrap":
            rows.append(rng.choice(members, len(members)))
            continue
        share = fraction if fraction is not None else min(0.8, 10 / np.sqrt(len(members)))
        size = min(len(members), max(2, int(share * len(members))))
        rows.append(rng.choice(members, size, replace=False))
    return np.concatenate(rows)
