"""Metrics: hand-counted cases, bins against a loop, classes nobody has or predicts."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from cmgl_cli.errors import InputError
from cmgl_cli.heads import classification_report, log_softmax, reliability_curve


def test_a_case_counted_by_hand() -> None:
    proba = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.25, 0.25]])
    report = classification_report([0, 1, 1, 0], np.log(proba))
    assert report.accuracy == 0.75
    np.testing.assert_array_equal(report.confusion, [[2, 0, 0], [1, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(report.precision, [2 / 3, 1, np.nan])
    np.testing.assert_allclose(report.recall, [1, 0.5, np.nan])
    np.testing.assert_allclose(report.f1, [0.8, 2 / 3, np.nan])
    assert report.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2), "class 2 is neither true nor predicted"
    np.testing.assert_array_equal(report.support, [2, 2, 0])
    assert report.nll == pytest.approx(log_loss([0, 1, 1, 0], proba, labels=[0, 1, 2]))
    squared = [0.04 + 0.01 + 0.01, 0.36 + 0.49 + 0.01, 0.04 + 0.09 + 0.01, 0.25 + 0.0625 * 2]
    assert report.brier == pytest.approx(np.mean(squared))
    assert report.ece == pytest.approx(np.mean([0.2, 0.6, 0.3, 0.5]))


def loop_ece(confidence: np.ndarray, right: np.ndarray, edges: np.ndarray) -> float:
    total = 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("n_classes", [2, 5, 200])
def test_equal_width_bins_match_a_loop(n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    log_p = log_softmax(rng.normal(size=(500, n_classes)) * 3)
    labels = rng.integers(0, n_classes, 500)
    confidence, right = np.exp(log_p.max(1)), log_p.argmax(1) == labels
    expected = loop_ece(confidence, right, np.linspace(0, 1, 16))
    report = classification_report(labels, log_p)
    assert report.ece == pytest.approx(expected)
    curve, filled = report.reliability, report.reliability.count > 0
    np.testing.assert_array_equal(curve.count, np.histogram(confidence, np.linspace(0, 1, 16))[0])
    assert ((curve.confidence >= curve.edges[:-1]) & (curve.confidence <= curve.edges[1:]))[filled].all()


def test_equal_mass_bins_hold_equally_many_and_stay_ordered() -> None:
    rng = np.random.default_rng(0)
    log_p = log_softmax(rng.normal(size=(300, 4)) * 3)
    curve = reliability_curve(rng.integers(0, 4, 300), log_p, bins="mass")
    assert set(curve.count) == {20}
    assert (np.diff(curve.confidence) >= 0).all()
    assert np.average(curve.confidence, weights=curve.count) == pytest.approx(np.exp(log_p.max(1)).mean())


def test_calibrated_probabilities_have_a_small_error_and_overconfident_ones_a_large_one() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 5)) * 1.5
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    assert classification_report(labels, log_softmax(logits)).ece < 0.015
    assert classification_report(labels, log_softmax(logits * 4)).ece > 0.1


def test_full_confidence_falls_into_the_last_bin_and_minus_infinity_is_a_zero() -> None:
    report = classification_report([0, 1], [[0.0, -np.inf], [-np.inf, 0.0]])
    assert report.reliability.count[-1] == 2
    assert report.nll == 0 and report.ece == 0


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: classification_report([], np.zeros((0, 3))), "0 samples"),
        (lambda: classification_report([0], [[0.0]]), "at least two classes"),
        (lambda: classification_report([0, 1], [[0.0, -np.inf], [0.0, 0.0]]), "row 1 sums to 2"),
        (lambda: classification_report([0], [[np.nan, 0.0]]), "row 0"),
        (lambda: classification_report([0, 1], [[0.0, -np.inf]]), "one label a sample"),
    ],
)
def test_refuses_bad_input_and_names_it(call, named: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert named in str(caught.value)
