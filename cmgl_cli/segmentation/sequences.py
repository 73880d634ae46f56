"""Which images belong together, as the frames of one drive do, so that what is held out is new.

Frames of a video resemble each other. Held-out frames whose neighbours were learned from say nothing about a video that
was not, so folds keep sequences whole.
"""

import re
from pathlib import PurePosixPath

import numpy as np

LARGEST_SHARE = 0.75
"""A sequence with more of the images than this leaves too few to learn from when it is held out."""
_NUMBER = re.compile(r"[\d]+$")


def sequences(ids: np.ndarray) -> np.ndarray:
    """Return the sequence of every image, int64 [n]: names alike but for the number they end with are one sequence.

    Parameters
    ----------
    ids : ndarray of str, [n]
        Paths or names; folders count, suffixes do not.
    """
    stems = [_NUMBER.sub("", str(PurePosixPath(name).with_suffix("")) if name else name) for name in ids.tolist()]
    return np.unique(np.array(stems, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)


def sequence_folds(ids: np.ndarray, n_folds: int) -> np.ndarray:
    """Return the fold of every image, int64 [n], numbered from 0.

    Where names tell of two sequences at least, none of them most of the images and most of several images, a sequence
    stays whole: the largest first, each into the smallest fold. Else a fold is a run of neighbours in the order of
    names, whose numbers usually follow the camera.

    Parameters
    ----------
    ids : ndarray of str, [n]
    n_folds : int
        At most; fewer where there are fewer sequences, or images.
    """
    n = len(ids)
    group = sequences(ids)
    sizes = np.bincount(group, minlength=1)
    if len(sizes) < 2 or sizes.max() > LARGEST_SHARE * n or 2 * len(sizes) > n:
        runs = np.empty(n, dtype=np.int64)
        runs[np.argsort(ids, kind="stable")] = np.arange(n) * min(n_folds, n) // max(1, n)
        return runs
    fill, fold = np.zeros(min(n_folds, len(sizes)), dtype=np.int64), np.empty(len(sizes), dtype=np.int64)
    for sequence in np.argsort(-sizes, kind="stable"):
        fold[sequence] = fill.argmin()
        fill[fold[sequence]] += sizes[sequence]
    return fold[group]
