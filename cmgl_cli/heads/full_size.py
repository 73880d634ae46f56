"""Logits to label maps at the size of the image, strip by strip: an image of any size in bounded memory."""

import numpy as np
from numpy.typing import NDArray

from cmgl_cli.errors import InputError

STRIP_BYTES = 2**26
"""Logits held at a time, whatever the size of the image."""


def full_size_labels(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8] | NDArray[np.int32]:
    """Return the label of every pixel: bilinear interpolation of the logits, then the largest.

    The same numbers as ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``, which would hold
    all C x H x W of them at once.

    Parameters
    ----------
    logits : ndarray, float32, [C, h, w]
    size : tuple of int
        (H, W) of the image.

    Returns
    -------
    ndarray of uint8 (int32 beyond 256 classes), [H, W]

    Raises
    ------
    InputError
        If an axis is empty.
    """
    if logits.ndim != 3 or min(*logits.shape, *size) < 1:
        raise InputError("logits must be [C, h, w]", f"{logits.shape} to {size}", "pass the maps of one image")
    kind = np.uint8 if len(logits) <= 256 else np.int32
    possible = possible_labels(logits)
    alive = np.flatnonzero(possible.any(axis=1))
    names, possible = alive.astype(kind), possible[alive]
    wide = logits[alive] @ bilinear_matrix(logits.shape[2], size[1]).T
    lower, share = _places(logits.shape[1], size[0])
    labels = np.empty(size, dtype=kind)
    for band in np.unique(lower):
        # between two rows of logits few classes are left, and they stay in the processor's cache
        few = np.flatnonzero(possible[:, band])
        above, below = wide[few, band], wide[few, min(band + 1, logits.shape[1] - 1)]
        start, stop = np.searchsorted(lower, (band, band + 1))
        step = max(1, STRIP_BYTES // (4 * len(few) * size[1]))
        for first in range(start, stop, step):
            weight = share[first : min(first + step, stop), None]
            labels[first : first + len(weight)] = names[few[_largest(above, below, weight)]]
    return labels


def _largest(above: NDArray[np.float32], below: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return which class [r, W] is largest between rows [C, W] of logits, at weights [r, 1] of the lower one."""
    best = (1 - weight) * above[0] + weight * below[0]
    winner = np.zeros(best.shape, dtype=np.intp)
    for place in range(1, len(above)):
        values = (1 - weight) * above[place] + weight * below[place]
        np.copyto(winner, place, where=values > best)
        np.maximum(best, values, out=best)
    return winner


def possible_labels(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return whether a label [C] may be largest, after bilinear interpolation, between a row and the next, [C, h].

    Between four neighbours a class lies between its smallest and its largest value there; where its largest is below
    another's smallest it cannot win. Of many classes few are left in one image.
    """

    def of_squares(extreme: np.ufunc) -> NDArray[np.float32]:
        pairs = logits.copy()
        extreme(logits[:, :-1], logits[:, 1:], out=pairs[:, :-1])
        squares = pairs.copy()
        extreme(pairs[:, :, :-1], pairs[:, :, 1:], out=squares[:, :, :-1])
        return squares

    certain = of_squares(np.minimum).max(axis=0)
    possible: NDArray[np.bool_] = (of_squares(np.maximum) >= certain).any(axis=2)
    return possible


def bilinear_matrix(inner: int, outer: int) -> NDArray[np.float32]:
    """Return the matrix [outer, inner] that interpolates linearly between cell centres, constant beyond the ends."""
    lower, share = _places(inner, outer)
    matrix = np.zeros((outer, inner), dtype=np.float32)
    matrix[np.arange(outer), lower] = 1 - share
    if inner > 1:
        matrix[np.arange(outer), lower + 1] += share
    return matrix


def _places(inner: int, outer: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the cell below every place [outer] and how far it is to the next, in 0..1."""
    places = np.clip((np.arange(outer) + 0.5) * inner / outer - 0.5, 0, inner - 1)
    lower = np.minimum(places.astype(np.int64), max(inner - 2, 0))
    return lower, (places - lower).astype(np.float32)
