"""How far a score measured on so many samples can be trusted: percentile bootstrap over the test samples."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom

from cmgl_cli.errors import InputError

LEVEL = 0.95
DRAWS = 1000


def accuracy_interval(accuracy: float, n_samples: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile bootstrap interval of an accuracy, without drawing.

    Samples drawn with replacement are right a binomial number of times, so the bootstrap distribution is known.

    Parameters
    ----------
    accuracy : float
        Share of right predictions, in [0, 1].
    n_samples : int
    level : float

    Raises
    ------
    InputError
        If there is no sample or the accuracy is no share.
    """
    if n_samples < 1 or not 0 <= accuracy <= 1:
        raise InputError("an interval needs samples and a share", f"{accuracy} of {n_samples}", "pass both")
    low, high = binom.ppf([(1 - level) / 2, (1 + level) / 2], n_samples, accuracy) / n_samples
    return float(low), float(high)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    n_samples: int,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of any score of samples.

    Parameters
    ----------
    statistic : callable
        From how often each sample is drawn, int [N], to the score; NaN draws are left out.
    n_samples : int
    level : float
    draws, seed : int

    Raises
    ------
    InputError
        If there is no sample, or no draw had a score.
    """
    if n_samples < 1:
        raise InputError("an interval needs samples", "got 0", "pass the samples that were scored")
    rng = np.random.default_rng(seed)
    times = (np.bincount(rng.integers(0, n_samples, n_samples), minlength=n_samples) for _ in range(draws))
    values = np.array([statistic(one) for one in times])
    values = values[np.isfinite(values)]
    if not len(values):
        raise InputError("the score is not defined on any draw", f"{draws} draws", "leave the interval out")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_iou(confusions: ArrayLike, times: ArrayLike) -> float:
    """Return the mean IoU of images counted so many times.

    Parameters
    ----------
    confusions : array_like, [N, C, C]
        Pixels of each image: rows true classes, columns predicted ones.
    times : array_like, [N]

    Returns
    -------
    float
        Mean over the classes that truth or prediction hold; NaN where none does.
    """
    total = np.tensordot(np.asarray(times, dtype=np.float64), np.asarray(confusions), axes=1)
    both = np.diagonal(total)
    either = total.sum(axis=0) + total.sum(axis=1) - both
    there = either > 0
    return float((both[there] / either[there]).mean()) if there.any() else float("nan")
