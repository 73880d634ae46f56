"""The joint fit against an independent convex solver and against its own certificate."""

import numpy as np
import pytest

from cmgl_cli.graphs import fit_joint

from .problems import covariances, random_weights, reference

# (classes, p, n, zero weights, rho, gamma, penalised diagonal, factors)
CASES = [
    (1, 5, 40, 0.0, 0.1, 0.2, False, 0),
    (1, 6, 4, 0.0, 0.3, 0.2, False, 0),
    (2, 5, 30, 0.0, 0.1, 0.1, False, 0),
    (2, 5, 30, 0.3, 0.1, 0.1, False, 0),
    (3, 6, 5, 0.0, 0.2, 0.1, False, 0),
    (3, 5, 30, 0.2, 0.05, 0.2, True, 0),
    (2, 6, 30, 0.0, 0.05, 0.05, True, 2),
    (5, 4, 30, 0.1, 0.1, 0.05, False, 0),
    (10, 4, 30, 0.0, 0.2, 0.05, False, 0),
    (10, 4, 30, 0.2, 0.6, 0.3, False, 2),
    (4, 5, 50, 0.0, 0.02, 0.01, False, 2),
    (3, 6, 50, 0.0, 0.0, 0.1, False, 0),
]


@pytest.mark.parametrize("case", CASES)
def test_matches_cvxpy(case, solver="auto"):
    n_classes, p, n, zeros, rho, gamma, diagonal, factors = case
    rng = np.random.default_rng(CASES.index(case))
    sigma, weights = covariances(rng, n_classes, p, n, factors), random_weights(rng, n_classes, p, zeros)
    if diagonal:
        weights[:, np.arange(p), np.arange(p)] = 0.5
    value, omega = reference(sigma, weights, rho, gamma, diagonal)
    fit = fit_joint(sigma, weights, rho, gamma, penalize_diagonal=diagonal, tol=1e-12, max_iter=5000, solver=solver)
    assert fit.converged
    assert abs(fit.objective - value) <= 1e-8 * max(1, abs(value))
    np.testing.assert_allclose(fit.precision, omega, atol=1e-5)
    np.testing.assert_array_equal(fit.common + fit.specific, fit.precision)


def test_gap_bounds_the_error_and_catches_a_perturbation():
    rng = np.random.default_rng(5)
    sigma, weights = covariances(rng, 3, 6, 30), random_weights(rng, 3, 6)
    best = fit_joint(sigma, weights, 0.1, 0.1, tol=1e-12, max_iter=50000)
    for limit in (1, 5, 20, 40):
        rough = fit_joint(sigma, weights, 0.1, 0.1, tol=1e-14, max_iter=limit, solver="admm")
        assert rough.objective - best.objective <= rough.duality_gap + 1e-10
    moved = best.precision + 0.05 * np.eye(6)
    caught = fit_joint(sigma, weights, 0.1, 0.1, initial=moved, max_iter=0)
    assert not caught.converged and caught.duality_gap > 1e-3


SIGMA = np.array([[1.0, 0.3], [0.3, 1.0]])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"covariances": np.array([[1.0, 2.0], [2.0, 1.0]])}, "positive semi-definite"),
        ({"covariances": np.array([[1.0, 0.3], [0.2, 1.0]])}, "not symmetric"),
        ({"covariances": np.array([[1.0, np.nan], [np.nan, 1.0]])}, "not finite"),
        ({"covariances": np.diag([1.0, 0.0])}, "no variance"),
        ({"weights": 1.5}, r"\[0, 1\]"),
        ({"weights": -0.1}, r"\[0, 1\]"),
        ({"weights": np.ones((3, 3))}, "do not fit"),
        ({"rho": -1.0}, "rho"),
        ({"gamma": np.nan}, "gamma"),
        ({"solver": "admmm"}, "did you mean 'admm'"),
        ({"initial": -np.eye(2)}, "warm start"),
    ],
)
def test_bad_input_is_named(change, match):
    arguments = {"covariances": SIGMA, "weights": 0.5, "rho": 0.1, "gamma": 0.1} | change
    with pytest.raises(ValueError, match=match):
        fit_joint(**arguments)


def test_unbounded_is_detected_and_its_mends_work():
    singular = np.ones((2, 3, 3)) * 0.5 + 0.5 * np.eye(3)
    singular[0] = 1.0
    with pytest.raises(ValueError, match="weight floor"):
        fit_joint(singular, 0.0, 0.0, 0.1)
    assert fit_joint(singular, 0.0, 0.1, 0.1, weight_floor=0.1).converged
    assert fit_joint(singular, 0.0, 0.1, 0.1, ridge=0.1).converged


def test_one_node_and_one_class():
    fit = fit_joint(np.array([[[2.0]], [[4.0]]]), 1.0, 0.1, 0.1)
    np.testing.assert_allclose(fit.precision.ravel(), [0.5, 0.25])
    assert fit.converged and fit.edges == (0, 0)
    alone = fit_joint(SIGMA, 1.0, 0.1, 0.2, tol=1e-10)
    np.testing.assert_allclose(np.linalg.inv(alone.precision[0])[0, 1], 0.3 - 0.1, atol=1e-5)


def test_not_converged_is_said():
    rng = np.random.default_rng(1)
    fit = fit_joint(covariances(rng, 2, 8, 20), 0.3, 0.02, 0.02, max_iter=2, tol=1e-9)
    assert not fit.converged and fit.relative_gap > 1e-9
    with pytest.raises(Exception, match="relative gap"):
        fit.raise_not_converged()


def test_kind_and_type_are_kept():
    import torch

    tensor = fit_joint(torch.tensor(SIGMA), 0.5, 0.1, 0.1)
    assert isinstance(tensor.precision, torch.Tensor) and tensor.precision.dtype == torch.float64
    single = fit_joint(SIGMA.astype(np.float32), 0.5, 0.1, 0.1, tol=1e-5)
    assert single.precision.dtype == np.float32 and single.converged
