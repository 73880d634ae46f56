"""Baselines and the comparison table: sane ranking, tuning that matters, awkward splits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from cmgl_cli.errors import InputError
from cmgl_cli.heads import Scored, Split, compare, pool_patches, row
from cmgl_cli.heads.baselines import LOGISTIC_C, Parts, logistic_regression, nearest_neighbours

DIGITS, TARGETS = load_digits(return_X_y=True)


def digits_split(n: int = 600) -> Split:
    order = np.random.default_rng(0).permutation(len(TARGETS))
    return Split(order[:n], order[n : n + 300], order[n + 300 : n + 800])


def test_compare_on_digits_gives_sensible_rows() -> None:
    z = DIGITS[:, 16:48]
    logits = np.eye(10)[TARGETS] * 3
    rows = compare({"pixels": DIGITS}, z, TARGETS, digits_split(), proxy_logits=logits)
    table = {(line.method, line.inputs): line for line in rows}
    assert set(table) == {
        ("logistic regression", "pixels"),
        ("kNN", "pixels"),
        ("nearest class mean", "pixels"),
        ("logistic regression", "z"),
        ("LDA", "z"),
        ("QDA", "z"),
        ("proxy head", "Z"),
    }
    assert table["proxy head", "Z"].accuracy == 1
    assert table["logistic regression", "pixels"].accuracy > 0.93
    assert table["kNN", "pixels"].accuracy > 0.95
    assert table["nearest class mean", "pixels"].accuracy > 0.85
    assert table["QDA", "z"].accuracy > table["LDA", "z"].accuracy > 0.8
    for line in rows:
        assert 0 <= line.ece < 0.1 and line.nll < 1 and "temperature" in line.chosen
        assert line.accuracy == line.report.accuracy


def test_compare_is_deterministic_and_leaves_its_inputs_alone() -> None:
    features = DIGITS[:400].copy()
    split = Split(np.arange(200), np.arange(200, 300), np.arange(300, 400))
    runs = [compare({"x": features}, features[:, 20:30], TARGETS[:400], split, seed=3) for _ in range(2)]
    np.testing.assert_array_equal(features, DIGITS[:400])
    for one, two in zip(*runs, strict=True):
        assert (one.chosen, one.nll) == (two.chosen, two.nll)


def as_parts(split: Split) -> Parts:
    cut = (DIGITS[rows] for rows in (split.train, split.validation, split.test))
    return Parts(*cut, TARGETS[split.train], TARGETS[split.validation], 10)


def test_logistic_path_is_no_worse_than_any_single_penalty() -> None:
    split = digits_split(200)
    parts = as_parts(split)
    chosen = logistic_regression(parts, 0)
    ours = (chosen.test.argmax(1) == TARGETS[split.test]).mean()
    scaled = [
        (part - parts.train.mean(0)) / np.where(parts.train.std(0) > 0, parts.train.std(0), 1) for part in parts[:3]
    ]
    singles = [
        LogisticRegression(C=c, max_iter=1000).fit(scaled[0], parts.train_labels).score(scaled[2], TARGETS[split.test])
        for c in (1e-4, 1e-2, 1.0, 100.0)
    ]
    assert ours >= max(singles) - 0.02 and ours > min(singles)
    assert LOGISTIC_C[0] < chosen.chosen["C"] < LOGISTIC_C[-1], "the optimum must lie inside the grid"


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_plain_votes_are_those_of_scikit_learn_and_one_spread_over_all(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmgl_cli.heads.baselines.NEIGHBOURS", (5,))
    monkeypatch.setattr("cmgl_cli.heads.baselines.SHARPNESS", (0.0,))
    monkeypatch.setattr("cmgl_cli.heads.baselines.METRICS", (metric,))
    split = digits_split()
    fitted = nearest_neighbours(as_parts(split), 0)
    peer = KNeighborsClassifier(5, metric=metric, algorithm="brute").fit(DIGITS[split.train], TARGETS[split.train])
    np.testing.assert_allclose(np.exp(fitted.test), (5 * peer.predict_proba(DIGITS[split.test]) + 0.1) / 6)


def test_sharp_votes_follow_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmgl_cli.heads.baselines.NEIGHBOURS", (20,))
    monkeypatch.setattr("cmgl_cli.heads.baselines.SHARPNESS", (1e6,))
    split = digits_split()
    fitted = nearest_neighbours(as_parts(split), 0)
    peer = KNeighborsClassifier(1, metric=fitted.chosen["metric"]).fit(DIGITS[split.train], TARGETS[split.train])
    np.testing.assert_array_equal(fitted.test.argmax(1), peer.predict(DIGITS[split.test]))


def test_unseen_class_and_class_without_validation_samples() -> None:
    """Class 9 is missing from training, class 8 from validation, class 7 has fewer samples than p."""
    everything = digits_split(900)
    train = everything.train[TARGETS[everything.train] != 9]
    few = train[TARGETS[train] == 7][:2]
    train = np.concatenate([train[TARGETS[train] != 7], few])
    validation = everything.validation[TARGETS[everything.validation] != 8]
    rows = compare({"pixels": DIGITS}, DIGITS[:, 16:48], TARGETS, Split(train, validation, everything.test))
    for line in rows:
        assert np.isfinite([line.accuracy, line.nll, line.ece]).all()
        assert line.report.support[9] > 0
        if line.method != "nearest class mean":
            assert 0.7 < line.accuracy < 0.95


def test_two_classes() -> None:
    rows_of = np.flatnonzero(TARGETS < 2)
    split = Split(rows_of[:60], rows_of[60:100], rows_of[100:200])
    binary = np.minimum(TARGETS, 1)
    for line in compare({"pixels": DIGITS}, DIGITS[:, 16:48], binary, split):
        assert line.accuracy > 0.9


def test_only_restricts_the_methods() -> None:
    rows = compare({"a": DIGITS, "b": DIGITS}, DIGITS[:, :9], TARGETS, digits_split(), only=["nearest class mean"])
    assert [line.inputs for line in rows] == ["a", "b"]


def test_row_takes_its_temperature_from_validation_only() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(200, 3)) * 10
    labels = (scores / 10 + rng.gumbel(size=scores.shape)).argmax(1)
    line = row(Scored("ours", "z", scores[:100], scores[100:]), labels[:100], labels[100:])
    again = row(Scored("ours", "z", scores[:100], scores[100:]), labels[:100], 2 - labels[100:])
    assert line.chosen == again.chosen and line.nll < again.nll


def test_pooling_respects_the_mask_and_blocks() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.normal(size=(7, 5, 3)).astype(np.float16)
    mask = rng.random((7, 5)) < 0.6
    mask[:, 0] = True
    mean, spread = pool_patches(tokens, mask, block=3)
    for i in range(7):
        real = tokens[i][mask[i]].astype(float)
        np.testing.assert_allclose(mean[i], real.mean(0), atol=1e-12)
        np.testing.assert_allclose(spread[i], real.std(0), atol=1e-12)
    mask[4] = False
    with pytest.raises(InputError, match="row 4"):
        pool_patches(tokens, mask, block=3)


NAN = DIGITS.copy()
NAN[11, 3] = np.nan


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: compare({"x": NAN}, DIGITS, TARGETS, digits_split()), "row 11"),
        (lambda: compare({"x": DIGITS}, DIGITS, np.zeros(len(TARGETS), int), digits_split()), "at least two classes"),
        (lambda: compare({"x": DIGITS[:9]}, DIGITS, TARGETS, digits_split()), "wrong shape"),
        (lambda: Split([], [1], [2]), "train: 0 samples"),
        (lambda: Split([0, 1], [1], [2]), "row 1"),
        (
            lambda: compare(
                {"x": DIGITS},
                DIGITS,
                TARGETS,
                Split(*(np.flatnonzero(TARGETS == 0)[:20], np.arange(1, 9), np.arange(11, 19))),
            ),
            "one class",
        ),
    ],
)
def test_refuses_bad_input_and_names_it(call, named: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert named in str(caught.value)
