"""Shrinkage toward the common precision: its ends, its choice, and what happens on the way."""

import numpy as np
import pytest

from cmgl_cli.errors import InputError
from cmgl_cli.heads import GraphDiscriminant, choose_shrinkage, class_moments, shrink
from tests.heads.problems import draw, precisions


def test_ends_and_middle() -> None:
    omega = precisions(3, 4)
    common = np.eye(4)
    np.testing.assert_array_equal(shrink(omega, common, 0.0), omega)
    np.testing.assert_array_equal(shrink(omega, common, 1.0), np.tile(common, (3, 1, 1)))
    np.testing.assert_allclose(shrink(omega, weight=0.5), (omega + omega.mean(0)) / 2)


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
