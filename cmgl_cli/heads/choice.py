"""Which of several decoders to take: the simplest that the validation part cannot tell from the best.

The rule of one standard error (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3), with the
error of the *difference* of two decoders on the same images. A trained decoder that is ahead by less than that has been
fitted to the like of the validation part, and is the first to fall behind elsewhere.
"""

from collections.abc import Sequence

import numpy as np

from cmgl_cli.errors import InputError
from cmgl_cli.heads.checks import Array

DRAWS = 500


def simplest_of_the_best(overlaps: Sequence[Array], seed: int = 0) -> int:
    """Return which decoder to take.

    Parameters
    ----------
    overlaps : sequence of ndarray, [n, C, 2]
        Intersection and union of every class in every image of the validation part, one array a decoder, the simplest
        decoder first.
    seed : int
        Of the bootstrap.

    Returns
    -------
    int
        The first that is behind the best by at most one standard error of the difference.

    Raises
    ------
    InputError
        There is no decoder, or they were scored on other images.
    """
    if not len(overlaps) or len({np.shape(one) for one in overlaps}) != 1:
        raise InputError(
            "decoders must be scored on the same images",
            f"shapes {[np.shape(one) for one in overlaps]}",
            "score all of them on the validation part",
        )
    stacked = np.stack([np.asarray(one, dtype=np.float64) for one in overlaps])
    means = mean_iou(stacked.sum(axis=1))
    best = int(means.argmax())
    draws = np.random.default_rng(seed).multinomial(
        stacked.shape[1], np.full(stacked.shape[1], 1 / stacked.shape[1]), DRAWS
    )
    resampled = np.stack([mean_iou(np.einsum("dn,ncq->dcq", draws, one)) for one in stacked])
    behind = means[best] - means
    error = (resampled[best] - resampled).std(axis=1)
    return int(np.flatnonzero(behind <= error)[0])


def mean_iou(overlaps: Array) -> Array:
    """Return the mean IoU [...] of intersections and unions [..., C, 2]; classes that occur nowhere are left out."""
    both, either = overlaps[..., 0], overlaps[..., 1]
    there = either > 0
    ratios = np.divide(both, either, out=np.zeros(both.shape), where=there)
    found: Array = ratios.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)
    return found
