"""Equation (18): against SciPy's densities, over patches against the direct sum, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from cmgl_cli.errors import InputError
from cmgl_cli.heads import GraphDiscriminant
from tests.heads.problems import draw, precisions


@pytest.fixture
def model() -> GraphDiscriminant:
    rng = np.random.default_rng(5)
    return GraphDiscriminant(precisions(3, 6), rng.normal(size=(3, 6)), priors=[0.5, 0.2, 0.3])


def test_scores_are_gaussian_log_densities_up_to_a_common_constant(model: GraphDiscriminant) -> None:
    z = np.random.default_rng(0).normal(size=(7, 6))
    expected = np.stack(
        [
            multivariate_normal(m, np.linalg.inv(omega)).logpdf(z) + np.log(prior)
            for m, omega, prior in zip(model.means, model.precision, [0.5, 0.2, 0.3], strict=True)
        ],
        axis=1,
    )
    np.testing.assert_allclose(model.scores(z) - expected, 3 * np.log(2 * np.pi), rtol=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(1, 8), st.integers(1, 6), st.integers(0, 10_000))
def test_moments_give_the_direct_sum_over_patches(n_classes: int, n_nodes: int, n_images: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    priors = rng.random(n_classes) + 0.1
    means = rng.normal(size=(n_classes, n_nodes))
    model = GraphDiscriminant(precisions(n_classes, n_nodes, seed), means, priors)
    flat = GraphDiscriminant(model.precision, model.means)
    images = [rng.normal(size=(rng.integers(1, 20), n_nodes)) * 3 + 1 for _ in range(n_images)]
    direct = np.stack([flat.scores(patches).sum(0) for patches in images]) + model.log_priors
    moments = model.scores_from_moments(
        [len(patches) for patches in images],
        np.stack([patches.sum(0) for patches in images]),
        np.stack([patches.T @ patches for patches in images]),
    )
    np.testing.assert_allclose(moments, direct, rtol=1e-9, atol=1e-8)


def test_moments_of_one_patch_are_its_scores_in_blocks_too(
    model: GraphDiscriminant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmgl_cli.heads.discriminant.BLOCK_ROWS", 4)
    z = np.random.default_rng(2).normal(size=(11, 6))
    moments = model.scores_from_moments(np.ones(11), z, z[:, :, None] * z[:, None, :])
    np.testing.assert_allclose(moments, model.scores(z), rtol=1e-10)


def test_class_transforms_need_one_vector_a_class_and_their_jacobian(model: GraphDiscriminant) -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(size=(5, 3, 6))
    jacobian = rng.normal(size=(5, 3))
    each = np.stack([model.scores(z[:, c])[:, c] for c in range(3)], axis=1)
    np.testing.assert_allclose(model.scores(z, jacobian), each + jacobian)


def test_jacobian_makes_scores_invariant_to_class_wise_scaling() -> None:
    """Rescaling class c by a_c (precision / a_c^2, mean * a_c) changes nothing once p log a_c is added."""
    rng = np.random.default_rng(4)
    omega, means, z = precisions(3, 4), rng.normal(size=(3, 4)), rng.normal(size=(6, 4))
    a = np.array([0.5, 2.0, 7.0])
    scaled = GraphDiscriminant(omega / a[:, None, None] ** 2, means * a[:, None])
    jacobian = np.tile(4 * np.log(a), (6, 1))
    np.testing.assert_allclose(
        scaled.scores(z[:, None] * a[:, None], jacobian), GraphDiscriminant(omega, means).scores(z)
    )


def test_predicts_the_generating_class_and_priors_move_the_decision() -> None:
    omega, means = precisions(2, 8, seed=1), np.zeros((2, 8))
    z, labels = draw(omega, means, 400)
    accuracy = (GraphDiscriminant(omega, means).predict(z) == labels).mean()
    assert accuracy > 0.7, "second order alone must tell two different graphs apart"
    lean = GraphDiscriminant(omega, means, priors=[0.999, 0.001]).predict(z)
    assert (lean == 0).sum() > (GraphDiscriminant(omega, means).predict(z) == 0).sum()


def test_probabilities_of_200_classes_are_distributions() -> None:
    rng = np.random.default_rng(6)
    model = GraphDiscriminant(precisions(200, 5), rng.normal(size=(200, 5)) * 30)
    proba = model.predict_proba(rng.normal(size=(9, 5)) * 30, temperature=2.0)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-12)
    z = rng.normal(size=(4, 5))
    np.testing.assert_allclose(np.exp(model.log_proba(z)), model.predict_proba(z))


def test_inputs_are_not_mutated_nor_aliased(model: GraphDiscriminant) -> None:
    omega, means = precisions(2, 3), np.zeros((2, 3))
    built = GraphDiscriminant(omega, means)
    before = built.scores(np.ones((1, 3)))
    omega[:] = 9
    means[:] = 9
    np.testing.assert_array_equal(built.scores(np.ones((1, 3))), before)


def test_from_covariances_inverts() -> None:
    omega = precisions(2, 4)
    built = GraphDiscriminant.from_covariances(np.linalg.inv(omega), np.zeros((2, 4)))
    np.testing.assert_allclose(built.precision, omega, atol=1e-10)


BAD_MEANS = np.zeros((2, 3))
BAD_MEANS[1, 2] = np.nan


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: GraphDiscriminant(precisions(1, 3), np.zeros((1, 3))), "got 1"),
        (lambda: GraphDiscriminant(precisions(2, 3), np.zeros((2, 4))), "(2, 4)"),
        (lambda: GraphDiscriminant(precisions(2, 3), BAD_MEANS), "row 1"),
        (lambda: GraphDiscriminant(-precisions(2, 3), np.zeros((2, 3))), "class 0, smallest eigenvalue"),
        (lambda: GraphDiscriminant(np.triu(precisions(2, 3)), np.zeros((2, 3))), "not symmetric"),
        (lambda: GraphDiscriminant(precisions(2, 3), np.zeros((2, 3)), priors=[1, 0]), "class 1 has 0"),
        (lambda: GraphDiscriminant(precisions(2, 3), np.zeros((2, 3))).scores([[0, 0, 0], [0, np.nan, 0]]), "row 1"),
        (lambda: GraphDiscriminant(precisions(2, 3), np.zeros((2, 3))).predict_proba(np.zeros((1, 3)), 0.0), "got 0.0"),
        (
            lambda: GraphDiscriminant(precisions(2, 3), np.zeros((2, 3))).scores_from_moments(
                [1, 1], np.zeros((2, 3)), np.array([np.eye(3), np.full((3, 3), np.nan)])
            ),
            "row 1",
        ),
        (
            lambda: GraphDiscriminant(precisions(2, 3), np.zeros((2, 3))).scores_from_moments(
                [1], np.zeros((1, 3)), np.zeros((1, 3))
            ),
            "second has the wrong shape",
        ),
    ],
)
def test_refuses_bad_input_and_names_it(build, named: str) -> None:
    with pytest.raises(InputError) as caught:
        build()
    assert named in str(caught.value)
