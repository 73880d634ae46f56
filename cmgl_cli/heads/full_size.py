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
    height, width = size
    alive = possible_labels(logits)
    kind = np.uint8 if len(logits) <= 256 else np.int32
    names, logits = alive.astype(kind), logits[alive]
    rows, columns = (bilinear_matrix(inner, outer) for inner, outer in zip(logits.shape[1:], size, strict=True))
    wide = logits @ columns.T
    labels = np.empty(size, dtype=kind)
    step = max(1, STRIP_BYTES // (4 * len(logits) * width))
    for start in range(0, height, step):
        strip = np.einsum("rh,chw->crw", rows[start : start + step], wide, optimize=True)
        labels[start : start + step] = names[strip.argmax(axis=0)]
    return labels


def possible_labels(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the labels that may be largest somewhere after bilinear interpolation, ascending.

    Between four neighbours a class lies between its smallest and its largest value there; where its largest is below
    another's smallest it cannot win. Of many classes few are left in one image.
    """
    rows, columns = (np.minimum(np.arange(n) + 1, n - 1) for n in logits.shape[1:])
    corners = [logits, logits[:, rows], logits[:, :, columns], logits[:, rows][:, :, columns]]
    certain = np.minimum.reduce(corners).max(axis=0)
    return np.flatnonzero((np.maximum.reduce(corners) >= certain).any(axis=(1, 2)))


def bilinear_matrix(inner: int, outer: int) -> NDArray[np.float32]:
    """Return the matrix [outer, inner] that interpolates linearly between cell centres, constant beyond the ends."""
    places = np.clip((np.arange(outer) + 0.5) * inner / outer - 0.5, 0, inner - 1)
    lower = np.minimum(places.astype(np.int64), max(inner - 2, 0))
    share = (places - lower).astype(np.float32)
    matrix = np.zeros((outer, inner), dtype=np.float32)
    matrix[np.arange(outer), lower] = 1 - share
    if inner > 1:
        matrix[np.arange(outer), lower + 1] += share
    return matrix
