"""Segmentation scores against scikit-learn on random masks, and the conventions at the edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, recall_score

from cmgl_cli.errors import InputError
from cmgl_cli.heads.segmentation_metrics import SegmentationScores, boundary_f1


def scored(pairs, n_classes: int, ignore: int = 255):
    scores = SegmentationScores(n_classes, ignore)
    for guess, truth in pairs:
        scores.update(guess, truth)
    return scores.report()


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(1, 4), st.sampled_from([255, -1]), st.integers(0, 10_000))
def test_agrees_with_scikit_learn(n_classes: int, n_images: int, ignore: int, seed: int) -> None:
    """Random masks with ignored pixels; with few colours drawn, classes are empty in truth, prediction or both."""
    rng = np.random.default_rng(seed)
    colours = [rng.choice(n_classes, rng.integers(1, n_classes + 1), replace=False) for _ in range(2)]
    pairs = []
    for _ in range(n_images):
        guess, truth = (rng.choice(palette, (7, 5)) for palette in colours)
        truth = np.where(rng.random((7, 5)) < 0.2, ignore, truth)
        truth[0, 0] = colours[1][0]
        pairs.append((guess, truth))
    report = scored(pairs, n_classes, ignore)
    guess = np.concatenate([g[t != ignore] for g, t in pairs])
    truth = np.concatenate([t[t != ignore] for _, t in pairs])
    labels = np.arange(n_classes)
    present = np.union1d(guess, truth)
    absent = np.setdiff1d(labels, present)
    np.testing.assert_array_equal(report.confusion, confusion_matrix(truth, guess, labels=labels))
    for ours, theirs in ((report.iou, jaccard_score), (report.dice, f1_score)):
        np.testing.assert_allclose(ours[present], theirs(truth, guess, labels=present, average=None, zero_division=0))
        assert np.isnan(ours[absent]).all()
    assert report.mean_iou == pytest.approx(jaccard_score(truth, guess, average="macro", zero_division=0))
    assert report.mean_dice == pytest.approx(f1_score(truth, guess, average="macro", zero_division=0))
    assert report.pixel_accuracy == pytest.approx(accuracy_score(truth, guess))
    true = np.unique(truth)
    recall = recall_score(truth, guess, labels=true, average=None)
    np.testing.assert_allclose(report.class_accuracy[true], recall)
    assert report.mean_class_accuracy == pytest.approx(recall.mean())


def test_predicted_but_absent_counts_as_zero_and_absent_everywhere_not_at_all() -> None:
    report = scored([(np.array([[0, 1]]), np.array([[0, 0]]))], 3)
    np.testing.assert_allclose(report.iou, [0.5, 0.0, np.nan])
    assert report.mean_iou == 0.25


def test_predictions_under_ignored_pixels_do_not_matter() -> None:
    truth = np.array([[0, 255, 1]])
    reports = [scored([(np.array([[0, under, 1]]), truth)], 2) for under in (0, 1, 77)]
    assert all(report.mean_iou == 1 for report in reports)


def test_image_dice_is_a_mean_over_images() -> None:
    full, empty = np.ones((2, 2), int), np.zeros((2, 2), int)
    half = np.array([[1, 1], [0, 0]])
    report = scored([(full, full), (half, full), (empty, empty), (empty, full)], 2)
    assert report.image_dice == pytest.approx((1 + 2 * 2 / 6 + 1 + 0) / 4)
    assert np.isnan(scored([(full, full)], 3).image_dice)


def test_merging_equals_one_pass() -> None:
    rng = np.random.default_rng(0)
    pairs = [rng.integers(0, 2, (2, 9, 9)) for _ in range(6)]
    whole, left, right = (SegmentationScores(2, boundaries=True) for _ in range(3))
    for index, (guess, truth) in enumerate(pairs):
        whole.update(guess, truth)
        (left if index < 3 else right).update(guess, truth)
    left.merge(right)
    one, two = whole.report(), left.report()
    np.testing.assert_array_equal(one.confusion, two.confusion)
    assert one.boundary_f1 == pytest.approx(two.boundary_f1) and one.image_dice == pytest.approx(two.image_dice)


def loop_boundary_f1(guess: np.ndarray, truth: np.ndarray, valid: np.ndarray, reach: float) -> float:
    """The definition, pixel by pixel."""

    def boundary(mask: np.ndarray) -> list[tuple[int, int]]:
        found = []
        for i, j in np.argwhere(mask & valid):
            for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= a < mask.shape[0] and 0 <= b < mask.shape[1] and valid[a, b] and not mask[a, b]:
                    found.append((i, j))
                    break
        return found

    ours, theirs = boundary(guess), boundary(truth)
    if not ours and not theirs:
        return float("nan")
    if not ours or not theirs:
        return 0.0
    near = [[np.hypot(a - c, b - d) <= reach for c, d in theirs] for a, b in ours]
    precision, recall = np.any(near, 1).mean(), np.any(near, 0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0, 1.5, 2.3]))
def test_boundary_score_matches_its_definition(seed: int, reach: float) -> None:
    rng = np.random.default_rng(seed)
    guess, truth = rng.random((2, 9, 11)) < rng.random((2, 1, 1))
    valid = rng.random((9, 11)) < 0.9
    expected = loop_boundary_f1(guess, truth, valid, reach)
    assert boundary_f1(guess, truth, valid, reach) == pytest.approx(expected, nan_ok=True)


def test_image_border_is_no_boundary_and_a_shift_within_the_tolerance_is_forgiven() -> None:
    full = np.ones((20, 20), bool)
    assert np.isnan(boundary_f1(full, full))
    square = np.zeros((40, 40), bool)
    square[10:30, 10:30] = True
    shifted = np.roll(square, 1, axis=1)
    assert boundary_f1(shifted, square, tolerance=1.0) == 1
    assert boundary_f1(shifted, square, tolerance=0.5) < 1
    assert boundary_f1(np.zeros_like(square), square) == 0
    with pytest.raises(InputError, match="20, 20"):
        boundary_f1(full, square)


def test_class_boundaries_average_over_images_that_have_the_class() -> None:
    scores = SegmentationScores(3, boundaries=True)
    square = np.zeros((40, 40), int)
    square[10:30, 10:30] = 1
    scores.update(square, square)
    scores.update(np.zeros_like(square), square)
    report = scores.report()
    np.testing.assert_allclose(report.class_boundary_f1, [0.5, 0.5, np.nan])
    assert report.boundary_f1 == 0.5


OK = np.zeros((2, 2), int)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: SegmentationScores(1), "got 1"),
        (lambda: SegmentationScores(300), "255 of 300"),
        (lambda: scored([(OK, np.zeros((3, 2), int))], 2), "differ in shape"),
        (lambda: scored([(OK, OK + 4)], 3), "truth holds a label outside 0..2"),
        (lambda: scored([(OK - 1, OK)], 3), "label -1, 4 pixels"),
        (lambda: scored([(OK, OK + 255)], 3), "0 counted pixels"),
        (lambda: SegmentationScores(2).merge(SegmentationScores(3)), "different settings"),
    ],
)
def test_refuses_bad_input_and_names_it(call, named: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert named in str(caught.value)
