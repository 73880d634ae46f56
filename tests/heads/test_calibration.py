"""Temperature and score combination: optimality, known answers, invariances, degenerate validation parts."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import log_softmax as scipy_log_softmax

from cmgl_cli.errors import InputError
from cmgl_cli.heads import ScoreCombination, fit_temperature, log_softmax
from cmgl_cli.heads.calibration import _pseudo_nll


def sample(logits: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draw a label from softmax(logits) for every row."""
    rng = np.random.default_rng(seed)
    return (logits + rng.gumbel(size=logits.shape)).argmax(1)


def pseudo_nll(temperature: float, scores: np.ndarray, labels: np.ndarray) -> float:
    """The documented criterion, written out: n samples and one pseudo-sample that is of any class equally."""
    log_p = scipy_log_softmax(scores / temperature, axis=1)
    n = len(labels)
    own = log_p[np.arange(n), labels].mean()
    return -(n * own + log_p.mean()) / (n + 1)


def test_recovers_the_temperature_labels_were_drawn_with() -> None:
    logits = np.random.default_rng(1).normal(size=(20_000, 6)) * 2
    assert fit_temperature(logits * 5, sample(logits)) == pytest.approx(5, rel=0.03)


def test_is_the_minimiser_on_a_fine_grid() -> None:
    logits = np.random.default_rng(2).normal(size=(60, 4)) * 30
    labels = sample(logits / 20)
    best = fit_temperature(logits, labels)
    for factor in (0.9, 0.99, 0.999, 1.001, 1.01, 1.1):
        assert pseudo_nll(best, logits, labels) <= pseudo_nll(best * factor, logits, labels)


def test_gradient_matches_finite_differences() -> None:
    rng = np.random.default_rng(8)
    stack, labels = rng.normal(size=(3, 12, 4)), rng.integers(0, 4, 12)
    weights = np.array([0.3, 1.2, 0.0])
    gradient = approx_fprime(weights, lambda w: _pseudo_nll(w, stack, labels)[0], 1e-7)
    np.testing.assert_allclose(_pseudo_nll(weights, stack, labels)[1], gradient, atol=1e-6)


def test_scales_with_the_scores_and_ignores_row_shifts() -> None:
    logits = np.random.default_rng(3).normal(size=(200, 5))
    labels = sample(logits)
    base = fit_temperature(logits, labels)
    assert fit_temperature(logits * 1e6, labels) == pytest.approx(base * 1e6, rel=1e-4)
    assert fit_temperature(logits + np.arange(200)[:, None] * 1e3, labels) == pytest.approx(base, rel=1e-4)


def test_a_flawless_validation_part_gives_a_finite_temperature() -> None:
    labels = np.arange(30) % 3
    temperature = fit_temperature(np.eye(3)[labels] * 8, labels)
    top = np.exp(log_softmax(np.eye(3)[labels] * 8, temperature)).max()
    # n right ones and one pseudo-sample a third of which is right: (30 + 1/3) / 31.
    assert top == pytest.approx((30 + 1 / 3) / 31, rel=1e-4)


def test_useless_scores_become_uniform_and_constant_ones_are_left() -> None:
    labels = np.arange(300) % 3
    wrong = -np.eye(3)[labels]
    proba = np.exp(log_softmax(wrong, fit_temperature(wrong, labels)))
    np.testing.assert_allclose(proba, 1 / 3, atol=1e-4)
    assert np.isfinite(fit_temperature(np.ones((300, 3)), labels))


def test_combination_recovers_the_weights_of_the_truth() -> None:
    rng = np.random.default_rng(4)
    one, two, noise = rng.normal(size=(3, 20_000, 5))
    labels = sample(1.5 * one + 0.5 * two)
    weights = ScoreCombination.fit([one, 10 * two, noise], labels).weights
    np.testing.assert_allclose(weights, [1.5, 0.05, 0.0], atol=0.05)


def test_combination_is_no_worse_than_its_best_member() -> None:
    rng = np.random.default_rng(5)
    sets = [rng.normal(size=(300, 4)) * scale for scale in (1, 100)]
    labels = sample(sets[0] + sets[1] / 50)
    combined = ScoreCombination.fit(sets, labels).scores(sets)
    alone = [pseudo_nll(fit_temperature(scores, labels), scores, labels) for scores in sets]
    assert pseudo_nll(1.0, combined, labels) <= min(alone) + 1e-9


def test_combination_log_proba_is_a_distribution_and_fit_is_deterministic() -> None:
    rng = np.random.default_rng(6)
    sets = [rng.normal(size=(50, 200)), rng.normal(size=(50, 200))]
    labels = rng.integers(0, 200, 50)
    fit = ScoreCombination.fit(sets, labels)
    np.testing.assert_array_equal(fit.weights, ScoreCombination.fit(sets, labels).weights)
    np.testing.assert_allclose(np.exp(fit.log_proba(sets)).sum(1), 1)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: fit_temperature(np.zeros((0, 3)), []), "validation part is empty"),
        (lambda: fit_temperature([[1.0], [2.0]], [0, 0]), "at least two classes"),
        (lambda: fit_temperature([[1.0, 2], [np.nan, 0]], [0, 1]), "row 1"),
        (lambda: fit_temperature([[1.0, 2], [1, 0]], [0, 2]), "row 1 is"),
        (lambda: fit_temperature([[1.0, 2], [1, 0]], [0, 0.5]), "row 1 is"),
        (lambda: ScoreCombination.fit([], [0]), "0 score sets"),
        (lambda: ScoreCombination.fit([np.zeros((2, 2)), np.zeros((3, 2))], [0, 1]), "wrong shape"),
        (lambda: ScoreCombination(np.ones(2)).scores([np.zeros((1, 2))]), "1 for 2 weights"),
    ],
)
def test_refuses_bad_input_and_names_it(call, named: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert named in str(caught.value)
