"""Patches as observations: one Gaussian graph a class over all patches of that class, and no head to train.

A patch belongs to a class by the share of its pixels that bear the label. Every patch is scored by equation (18) plus
the log of the class's frequency.
"""

import numpy as np
from numpy.typing import ArrayLike

from cmgl_cli.errors import InputError
from cmgl_cli.heads.checks import Array
from cmgl_cli.heads.discriminant import GraphDiscriminant
from cmgl_cli.heads.segmentation_metrics import IGNORE


def patch_membership(mask: ArrayLike, grid: tuple[int, int], n_classes: int, ignore_label: int = IGNORE) -> Array:
    """Return the share of each patch's pixels that bear each label, [N_p, C]; ignored pixels leave the sum below 1.

    Parameters
    ----------
    mask : array_like, int, [H, W]
        H and W need not be multiples of the grid: a pixel belongs to the patch its centre falls into.
    grid : tuple of int
        (h, w), h <= H and w <= W.
    n_classes : int
    ignore_label : int

    Raises
    ------
    InputError
        If the mask is smaller than the grid or holds a label outside 0..C-1.
    """
    labels = np.asarray(mask)
    if labels.ndim != 2 or labels.shape[0] < grid[0] or labels.shape[1] < grid[1]:
        raise InputError("the mask is smaller than the patch grid", f"{labels.shape} for {grid}", "use a larger mask")
    valid = labels != ignore_label
    outside = valid & ((labels < 0) | (labels >= n_classes))
    if outside.any():
        raise InputError(
            "a mask holds a label outside the classes", f"label {labels[outside][0]} of {n_classes}", "check the masks"
        )
    row, column = (
        ((np.arange(size) + 0.5) * cells / size).astype(np.int64)
        for size, cells in zip(labels.shape, grid, strict=True)
    )
    patch = row[:, None] * grid[1] + column
    n_patches = grid[0] * grid[1]
    cells = patch[valid] * n_classes + labels[valid].astype(np.int64)
    counts = np.bincount(cells, minlength=n_patches * n_classes).reshape(n_patches, n_classes)
    return counts / np.bincount(patch.ravel(), minlength=n_patches)[:, None]


def patch_scores(model: GraphDiscriminant, observations: ArrayLike) -> Array:
    """Return the score (18) of every class at every patch: observations [B, N_p, p] to logits [B, N_p, C].

    Raises
    ------
    InputError
        If the last axis is not p or a patch is not finite.
    """
    patches = np.asarray(observations)
    if patches.ndim != 3:
        raise InputError("observations must be [B, N_p, p]", f"got {patches.shape}", "add the missing axis")
    scores = model.scores(patches.reshape(-1, patches.shape[2]))
    return scores.reshape(*patches.shape[:2], -1)
