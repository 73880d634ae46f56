"""Among decoders that the validation part cannot tell apart, the simplest."""

import numpy as np
import pytest

from cmgl_cli.errors import InputError
from cmgl_cli.heads.choice import mean_iou, simplest_of_the_best
from cmgl_cli.heads.segmentation_metrics import SegmentationScores

IMAGES, CLASSES = 40, 3


def overlaps(rate: np.ndarray | float, rng: np.random.Generator, noise: float = 0.0) -> np.ndarray:
    """Return overlaps whose ratio is `rate` an image, give or take `noise`."""
    either = np.full((IMAGES, CLASSES), 1000)
    share = np.broadcast_to(np.asarray(rate), (IMAGES,))[:, None] + noise * rng.standard_normal((IMAGES, CLASSES))
    return np.stack([np.round(either * np.clip(share, 0, 1)), either], axis=2).astype(np.int64)


def test_clearly_better_is_taken_and_a_hair_is_not():
    rng = np.random.default_rng(0)
    simple, clearly, barely = (overlaps(rate, rng, 0.05) for rate in (0.7, 0.8, 0.7))
    # ahead by a thousandth, with differences of seven hundredths from image to image
    barely[..., 0] += int((simple.mean(axis=(0, 1)) - barely.mean(axis=(0, 1)))[0]) + 1
    assert 0 < mean_iou(barely.sum(axis=0)) - mean_iou(simple.sum(axis=0)) < 0.003
    assert simplest_of_the_best([simple, clearly]) == 1
    assert simplest_of_the_best([simple, barely]) == 0
    assert simplest_of_the_best([simple, barely, clearly]) == 2
    assert simplest_of_the_best([clearly, simple]) == 0


def test_it_is_the_difference_that_counts_not_how_images_differ():
    """Images from 0.3 to 0.9, one decoder ahead by 0.01 in each: the error of either alone is ten times that."""
    levels = np.linspace(0.3, 0.9, IMAGES)
    rng = np.random.default_rng(0)
    assert simplest_of_the_best([overlaps(levels, rng), overlaps(levels + 0.01, rng)]) == 1


def test_equal_decoders_and_single_images():
    rng = np.random.default_rng(0)
    one = overlaps(0.5, rng, 0.1)
    assert simplest_of_the_best([one, one.copy()]) == 0
    # one image says nothing of how images differ: the best is taken
    assert simplest_of_the_best([one[:1], np.minimum(one[:1] + [100, 0], one[:1, :, 1:])]) == 1


def test_the_mean_is_that_of_the_report():
    rng = np.random.default_rng(1)
    scores = SegmentationScores(4)
    for _ in range(5):
        truth = rng.integers(0, 3, (6, 7))
        truth[0] = 255
        scores.update(rng.integers(0, 3, (6, 7)), truth)
    assert scores.overlaps.shape == (5, 4, 2)
    assert mean_iou(scores.overlaps.sum(axis=0)) == pytest.approx(scores.report().mean_iou)


def test_other_images_are_refused():
    with pytest.raises(InputError, match="same images"):
        simplest_of_the_best([np.zeros((3, 2, 2)), np.zeros((4, 2, 2))])
    with pytest.raises(InputError, match="same images"):
        simplest_of_the_best([])
