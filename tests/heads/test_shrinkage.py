"""Shrinkage toward the common precision: its ends, its choice, and what happens on the way."""

import numpy as np
import pytest

from cmgl_cli.errors import InputError
from cmgl_cli.heads import GraphDiscriminant, Shares, choose_shares, choose_shrinkage, class_moments, shrink
from tests.heads.problems import draw, precisions


def test_ends_and_middle() -> None:
    omega = precisions(3, 4)
    common = np.eye(4)
    np.testing.assert_array_equal(shrink(omega, common, 0.0), omega)
    np.testing.assert_array_equal(shrink(omega, common, 1.0), np.tile(common, (3, 1, 1)))
    np.testing.assert_allclose(shrink(omega, weight=0.5), (omega + omega.mean(0)) / 2)


def test_means_keep_their_centre_and_lose_what_tells_them_apart() -> None:
    means = np.random.default_rng(0).standard_normal((4, 5))
    np.testing.assert_array_equal(shrink(means, weight=0.0), means)
    np.testing.assert_allclose(shrink(means, weight=1.0), np.tile(means.mean(0), (4, 1)))
    half = shrink(means, weight=0.5)
    np.testing.assert_allclose(half.mean(0), means.mean(0))
    np.testing.assert_allclose(half[1] - half[2], (means[1] - means[2]) / 2)
    turned = np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0]
    np.testing.assert_allclose(shrink(means @ turned + 3, weight=0.3), shrink(means, weight=0.3) @ turned + 3)
    np.testing.assert_allclose(shrink(means[[2, 0, 3, 1]], weight=0.3), shrink(means, weight=0.3)[[2, 0, 3, 1]])
    with pytest.raises(InputError, match="the class means"):
        shrink(np.full((2, 3), np.nan))


def chosen(omega, means, n_each, given=(None, None)):
    """Shares chosen for the true graphs and the estimated means of so many samples, and accuracies on new samples."""
    estimate = class_moments(*draw(omega, means, n_each), len(omega)).means
    z, labels = draw(omega, means, 200, seed=9)
    new, truth = draw(omega, means, 500, seed=10)
    shares = choose_shares(omega, estimate, lambda a, b: GraphDiscriminant(a, b).scores(z), labels, given)

    def accuracy(shares):
        model = GraphDiscriminant(shrink(omega, weight=shares.graph), shrink(estimate, weight=shares.means))
        return float((model.scores(new).argmax(1) == truth).mean())

    return shares, accuracy(shares), accuracy(Shares(shares.graph, 0.0))


def test_classes_that_share_their_mean_choose_the_common_one_and_gain() -> None:
    omega = precisions(3, 12, seed=2)
    shares, accuracy, own = chosen(omega, np.zeros((3, 12)), 10)
    assert shares.means >= 0.75 and shares.graph <= 0.1 and accuracy > own + 0.02


def test_classes_that_differ_in_their_means_keep_them() -> None:
    means = 0.7 * np.random.default_rng(0).standard_normal((3, 12))
    omega = np.tile(precisions(1, 12), (3, 1, 1))
    shares, accuracy, own = chosen(omega, means, 200)
    assert shares.means <= 0.1 and accuracy >= own - 0.005


def test_shares_that_are_given_are_not_chosen() -> None:
    omega, means = precisions(3, 6), np.zeros((3, 6))
    assert chosen(omega, means, 20, (0.3, 0.7))[0] == Shares(0.3, 0.7)
    assert chosen(omega, means, 20, (0.3, None))[0].graph == 0.3
    assert chosen(omega, means, 20, (None, 0.7))[0].means == 0.7


def noisy_problem(n_each: int):
    """Two classes whose graphs are equal, estimated from `n_each` samples; and a validation part."""
    omega = np.tile(precisions(1, 10), (2, 1, 1))
    means = np.stack([np.zeros(10), np.full(10, 0.4)])
    moments = class_moments(*draw(omega, means, n_each), 2)
    estimate = np.linalg.inv(moments.covariances)
    validation, labels = draw(omega, means, 400, seed=9)
    return (estimate + estimate.transpose(0, 2, 1)) / 2, moments.means, validation, labels


def test_equal_graphs_from_few_samples_choose_the_common_one() -> None:
    estimate, means, z, labels = noisy_problem(25)
    choice = choose_shrinkage(estimate, lambda omega: GraphDiscriminant(omega, means).scores(z), labels)
    assert choice.weight >= 0.9
    assert choice.losses[choice.weight] == min(choice.losses.values())
    np.testing.assert_allclose(choice.matrices, shrink(estimate, weight=choice.weight))


def test_different_graphs_from_many_samples_keep_their_own() -> None:
    omega, means = precisions(2, 10, seed=3), np.zeros((2, 10))
    z, labels = draw(omega, means, 400)
    choice = choose_shrinkage(omega, lambda matrices: GraphDiscriminant(matrices, means).scores(z), labels)
    assert choice.weight <= 0.1


def test_indefinite_combinations_are_left_out_and_all_indefinite_is_an_error() -> None:
    omega, means = precisions(2, 4), np.zeros((2, 4))
    z, labels = draw(omega, means, 20)

    def score(matrices: np.ndarray) -> np.ndarray:
        return GraphDiscriminant(matrices, means).scores(z)

    bad = -10 * np.eye(4)
    choice = choose_shrinkage(omega, score, labels, common=bad, weights=(0.0, 1.0))
    assert set(choice.losses) == {0.0}
    with pytest.raises(InputError, match="not positive definite"):
        choose_shrinkage(omega, score, labels, common=bad, weights=(1.0,))
    with pytest.raises(InputError, match="no shrinkage weight"):
        choose_shrinkage(omega, score, labels, weights=())


@pytest.mark.parametrize("weight", [-0.1, 1.1, np.nan])
def test_refuses_a_weight_outside_the_unit_interval(weight: float) -> None:
    with pytest.raises(InputError, match="0, 1"):
        shrink(precisions(2, 3), weight=weight)


def test_graphs_are_chosen_again_where_the_means_have_moved() -> None:
    """Scores are best at half of the common mean, and there at other graphs than at the classes' own means."""
    labels = np.arange(400) % 2
    noise = np.random.default_rng(0).standard_normal(400)

    def score(matrices, means):
        graph, moved = 1 - np.ptp(matrices) / 2, 1 - np.ptp(means) / 2
        best = 0.5 if moved > 0 else 0.1
        margin = 3 / (1 + 10 * (graph - best) ** 2) / (1 + 10 * (moved - 0.5) ** 2)
        return np.outer(margin * (2 * labels - 1) + noise, [-0.5, 0.5])

    own = np.array([[[1.0]], [[3.0]]])
    assert choose_shares(own, np.array([[0.0], [2.0]]), score, labels) == Shares(0.5, 0.5)
    assert choose_shares(own, np.array([[0.0], [2.0]]), score, labels, (None, 0.0)) == Shares(0.1, 0.0)
