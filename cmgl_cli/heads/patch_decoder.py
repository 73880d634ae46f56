"""Patches as observations: one Gaussian graph a class over all patches of that class, and no head to train.

A patch belongs to a class by the share of its pixels that bear the label; moments are weighted by these shares and
accumulated in one pass, so no patch matrix is stored. Every patch is then scored by equation (18) plus the log of the
class's frequency.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmgl_cli.errors import InputError
from cmgl_cli.heads.checks import Array, finite
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


class PatchMoments:
    """Weighted first and second moments of the patch observations of each class, accumulated image by image.

    Parameters
    ----------
    n_classes, n_nodes : int
        C and p.

    Attributes
    ----------
    weight : ndarray, [C]
        Patches of each class, in fractions.
    images : ndarray, int, [C]
        Images that hold the class.
    """

    def __init__(self, n_classes: int, n_nodes: int):
        self.weight: Array = np.zeros(n_classes)
        self.images: NDArray[np.int64] = np.zeros(n_classes, np.int64)
        self._mean: Array = np.zeros((n_classes, n_nodes))
        self._scatter: Array = np.zeros((n_classes, n_nodes, n_nodes))

    def update(self, observations: ArrayLike, membership: ArrayLike) -> None:
        """Add one image: observations [N_p, p] and the patches' shares of each class [N_p, C].

        Moments are merged around their means (Chan et al., 1983), so nothing is lost where means are large.

        Raises
        ------
        InputError
            If shapes disagree or a patch is not finite (its row is named).
        """
        n_classes, n_nodes = self._mean.shape
        patches = finite("observations", observations, (None, n_nodes))
        shares = finite("membership", membership, (len(patches), n_classes))
        weight = shares.sum(0)
        for c in np.flatnonzero(weight > 0):
            share = shares[:, c]
            mean = share @ patches / weight[c]
            centred = patches - mean
            scatter = (centred * share[:, None]).T @ centred
            total = self.weight[c] + weight[c]
            step = mean - self._mean[c]
            self._scatter[c] += scatter + np.outer(step, step) * self.weight[c] * weight[c] / total
            self._mean[c] += step * weight[c] / total
            self.weight[c] = total
            self.images[c] += 1

    @property
    def means(self) -> Array:
        """Class means [C, p]; the mean over all patches where a class has none."""
        overall = self.weight @ self._mean / max(float(self.weight.sum()), np.finfo(float).tiny)
        return np.where((self.weight > 0)[:, None], self._mean, overall)

    @property
    def covariances(self) -> Array:
        """Class covariances [C, p, p] around the class means; zero where a class has no patch."""
        return self._scatter / np.where(self.weight > 0, self.weight, 1.0)[:, None, None]

    @property
    def pooled(self) -> Array:
        """Within-class covariance [p, p] of all patches."""
        return self._scatter.sum(0) / max(float(self.weight.sum()), np.finfo(float).tiny)

    @property
    def priors(self) -> Array:
        """Class frequencies [C] with one pseudo-patch a class, so that none is impossible."""
        smoothed = self.weight + 1.0
        return smoothed / smoothed.sum()

    def scarce(self, least_images: int) -> list[int]:
        """Return the classes present in fewer images than asked for: they take the common graph."""
        return [int(c) for c in np.flatnonzero(self.images < least_images)]


def with_common(precision: ArrayLike, common: ArrayLike, classes: Sequence[int]) -> Array:
    """Return the precisions [C, p, p] with those of the named classes replaced by the common one [p, p]."""
    replaced = finite("precision", precision, (None, None, None)).copy()
    replaced[list(classes)] = finite("common", common, replaced.shape[1:])
    return replaced


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
