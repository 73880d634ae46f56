"""How good label maps are: intersection over union, Dice, pixel accuracy, boundary F-score; image by image.

Conventions of the field: pixels whose truth is the ignore label count nowhere; intersections and unions are summed
over the data set before they are divided; a class that neither truth nor prediction holds anywhere is NaN and left
out of the mean, one that is predicted without being there counts as 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt

from cmgl_cli.errors import InputError
from cmgl_cli.heads.checks import Array

IGNORE = 255
BOUNDARY_TOLERANCE = 0.0075
"""Distance at which boundaries still match, as a share of the image diagonal (Csurka et al., 2013)."""


@dataclass(frozen=True)
class SegmentationReport:
    """Scores of a set of label maps, fractions in [0, 1].

    Attributes
    ----------
    mean_iou, mean_dice, pixel_accuracy, mean_class_accuracy : float
        Means run over the classes that are not NaN.
    image_dice : float
        Mean over images of the foreground's Dice, where there are two classes (background 0, foreground 1); an image
        without foreground in truth and prediction counts as 1. NaN for other numbers of classes.
    boundary_f1 : float
        Mean over classes of their mean over images; NaN unless boundaries were accumulated.
    iou, dice, class_accuracy, class_boundary_f1 : ndarray, [C]
        NaN where undefined.
    pixels : ndarray, int, [C]
        True pixels of each class.
    confusion : ndarray, int, [C, C]
        Rows are true classes, columns predicted ones.
    """

    mean_iou: float
    mean_dice: float
    pixel_accuracy: float
    mean_class_accuracy: float
    image_dice: float
    boundary_f1: float
    iou: Array
    dice: Array
    class_accuracy: Array
    class_boundary_f1: Array
    pixels: NDArray[np.int64]
    confusion: NDArray[np.int64]


class SegmentationScores:
    """Accumulates label maps and reports their scores.

    Parameters
    ----------
    n_classes : int
        C >= 2; labels are 0..C-1.
    ignore_label : int
        Label of the truth that counts nowhere; must lie outside 0..C-1.
    boundaries : bool
        Accumulate the boundary F-score too (a distance transform for each class of each image).

    Raises
    ------
    InputError
        If there are fewer than two classes or the ignore label is one of them.
    """

    def __init__(self, n_classes: int, ignore_label: int = IGNORE, *, boundaries: bool = False):
        if n_classes < 2:
            raise InputError("segmentation needs at least two classes", f"got {n_classes}", "add a background class")
        if 0 <= ignore_label < n_classes:
            raise InputError("the ignore label is a class", f"{ignore_label} of {n_classes}", "use 255 or -1")
        self.n_classes, self.ignore_label, self.boundaries = n_classes, ignore_label, boundaries
        self.confusion = np.zeros((n_classes, n_classes), np.int64)
        self._image_dice: list[float] = []
        self._overlaps: list[NDArray[np.int64]] = []
        self._boundary_sum = np.zeros(n_classes)
        self._boundary_count = np.zeros(n_classes, np.int64)

    def update(self, prediction: ArrayLike, truth: ArrayLike) -> None:
        """Add one image: label maps of one shape [H, W].

        Raises
        ------
        InputError
            If the shapes differ, or a counted pixel holds a label outside 0..C-1 (the label is named).
        """
        guess, target = np.asarray(prediction), np.asarray(truth)
        if guess.shape != target.shape or guess.ndim != 2:
            raise InputError(
                "prediction and truth differ in shape", f"{guess.shape} against {target.shape}", "resize the prediction"
            )
        valid = target != self.ignore_label
        for name, labels in (("truth", target[valid]), ("prediction", guess[valid])):
            outside = (labels < 0) | (labels >= self.n_classes)
            if outside.any():
                raise InputError(
                    f"the {name} holds a label outside 0..{self.n_classes - 1}",
                    f"label {labels[outside][0]}, {int(outside.sum())} pixels",
                    "check the number of classes, the ignore label and that the mask is a label map",
                )
        cells = target[valid].astype(np.int64) * self.n_classes + guess[valid].astype(np.int64)
        counts = np.bincount(cells, minlength=self.n_classes**2).reshape(self.n_classes, self.n_classes)
        self.confusion += counts
        both = np.diagonal(counts)
        self._overlaps.append(np.stack([both, counts.sum(0) + counts.sum(1) - both], axis=1))
        if self.n_classes == 2 and valid.any():
            both, either = counts[1, 1], counts[1].sum() + counts[:, 1].sum()
            self._image_dice.append(2 * both / either if either else 1.0)
        if self.boundaries:
            self._update_boundaries(guess, target, valid)

    def merge(self, other: "SegmentationScores") -> None:
        """Add what another accumulator of the same settings has seen."""
        mine = self.n_classes, self.ignore_label, self.boundaries
        theirs = other.n_classes, other.ignore_label, other.boundaries
        if mine != theirs:
            raise InputError("accumulators of different settings", f"{mine} against {theirs}", "use the same settings")
        self.confusion += other.confusion
        self._image_dice += other._image_dice
        self._overlaps += other._overlaps
        self._boundary_sum += other._boundary_sum
        self._boundary_count += other._boundary_count

    @property
    def overlaps(self) -> NDArray[np.int64]:
        """Intersection and union of every class in every image, in the order they came, [n, C, 2]."""
        return np.array(self._overlaps, dtype=np.int64).reshape(-1, self.n_classes, 2)

    def report(self) -> SegmentationReport:
        """Return the scores of everything added so far.

        Raises
        ------
        InputError
            If no counted pixel was added.
        """
        total = self.confusion.sum()
        if total == 0:
            raise InputError("there is nothing to score", "0 counted pixels", "check the masks and the ignore label")
        right = np.diagonal(self.confusion).astype(float)
        true, guessed = self.confusion.sum(1), self.confusion.sum(0)
        iou = _ratio(right, true + guessed - right)
        dice = _ratio(2 * right, true + guessed)
        accuracy = _ratio(right, true)
        boundary = _ratio(self._boundary_sum, self._boundary_count)
        return SegmentationReport(
            mean_iou=_mean(iou),
            mean_dice=_mean(dice),
            pixel_accuracy=float(right.sum() / total),
            mean_class_accuracy=_mean(accuracy),
            image_dice=_mean(np.array(self._image_dice)),
            boundary_f1=_mean(boundary),
            iou=iou,
            dice=dice,
            class_accuracy=accuracy,
            class_boundary_f1=boundary,
            pixels=true,
            confusion=self.confusion.copy(),
        )

    def _update_boundaries(self, guess: NDArray, target: NDArray, valid: NDArray) -> None:
        """Add the boundary F-score of every class that one of the maps has in this image."""
        for c in np.union1d(np.unique(guess[valid]), np.unique(target[valid])):
            score = boundary_f1(guess == c, target == c, valid)
            if not np.isnan(score):
                self._boundary_sum[c] += score
                self._boundary_count[c] += 1


def boundary_f1(
    prediction: NDArray, truth: NDArray, valid: NDArray | None = None, tolerance: float | None = None
) -> float:
    """Return the boundary F-score of two masks (Csurka et al., 2013).

    A boundary pixel belongs to the mask and has a 4-neighbour that does not, both of them valid: neither the image's
    border nor that of an ignored region is a boundary.

    Parameters
    ----------
    prediction, truth : ndarray, bool, [H, W]
    valid : ndarray, bool, [H, W], optional
        Pixels that count; all by default.
    tolerance : float, optional
        Distance in pixels at which boundaries still match; 0.75 % of the diagonal by default.

    Returns
    -------
    float
        NaN where neither mask has a boundary, 0 where one of them has none.

    Raises
    ------
    InputError
        If the masks differ in shape.
    """
    if prediction.shape != truth.shape:
        raise InputError("masks differ in shape", f"{prediction.shape} against {truth.shape}", "resize the prediction")
    counted = np.ones(truth.shape, bool) if valid is None else valid
    reach = BOUNDARY_TOLERANCE * float(np.hypot(*truth.shape)) if tolerance is None else tolerance
    edges = _boundary(prediction, counted), _boundary(truth, counted)
    if not edges[0].any() and not edges[1].any():
        return float("nan")
    if not edges[0].any() or not edges[1].any():
        return 0.0
    precision = (distance_transform_edt(~edges[1])[edges[0]] <= reach).mean()
    recall = (distance_transform_edt(~edges[0])[edges[1]] <= reach).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _boundary(mask: NDArray, valid: NDArray) -> NDArray:
    """Return the pixels of the mask beside a valid pixel that is not in it."""
    inside, outside = mask & valid, ~mask & valid
    beside = np.zeros(mask.shape, bool)
    beside[1:] |= outside[:-1]
    beside[:-1] |= outside[1:]
    beside[:, 1:] |= outside[:, :-1]
    beside[:, :-1] |= outside[:, 1:]
    return inside & beside


def _ratio(numerator: NDArray, denominator: NDArray) -> Array:
    """Return the quotient, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)


def _mean(values: Array) -> float:
    """Return the mean of the entries that are not NaN, NaN where there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
