"""Intervals: the closed form equals drawing, and weighted images give the scores of their copies."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cmgl_cli.errors import InputError
from cmgl_cli.heads.uncertainty import accuracy_interval, bootstrap_interval, mean_iou


def test_the_closed_form_is_what_drawing_gives():
    right = np.array([1] * 80 + [0] * 20)
    drawn = bootstrap_interval(lambda times: float((times * right).sum() / times.sum()), 100, draws=20_000)
    assert_allclose(accuracy_interval(0.8, 100), drawn, atol=0.011)


def test_ends_of_the_scale():
    assert accuracy_interval(1.0, 10) == (1.0, 1.0)
    assert accuracy_interval(0.0, 10) == (0.0, 0.0)
    for accuracy, n in ((0.5, 0), (1.5, 3)):
        with pytest.raises(InputError, match="samples"):
            accuracy_interval(accuracy, n)
    with pytest.raises(InputError, match="samples"):
        bootstrap_interval(lambda times: 0.0, 0)
    with pytest.raises(InputError, match="not defined"):
        bootstrap_interval(lambda times: float("nan"), 3, draws=5)


def test_it_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for share in rng.binomial(200, 0.7, 400) / 200:
        low, high = accuracy_interval(share, 200)
        inside += low <= 0.7 <= high
    assert 0.91 <= inside / 400 <= 0.98


def test_same_seed_same_interval():
    score = lambda times: float(times[0])  # noqa: E731
    assert bootstrap_interval(score, 5, seed=1) == bootstrap_interval(score, 5, seed=1)


def test_mean_iou_of_counted_images():
    confusions = np.random.default_rng(0).integers(0, 9, (3, 4, 4))
    copies = confusions[[0, 0, 2]].sum(axis=0)
    both = np.diagonal(copies)
    expected = (both / (copies.sum(0) + copies.sum(1) - both)).mean()
    assert_allclose(mean_iou(confusions, [2, 0, 1]), expected)
    assert mean_iou(np.diag([5, 0])[None], [1]) == 1.0
    assert np.isnan(mean_iou(np.zeros((1, 2, 2)), [1]))
