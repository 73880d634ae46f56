"""Solver against solver, invariances, limits, screening, warm starts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import graphical_lasso

from cmgl_cli.graphs import fit_joint
from cmgl_cli.graphs.certificate import certify
from cmgl_cli.graphs.joint import make_problem
from cmgl_cli.graphs.kernels import dual_value, objective, prox_entry
from cmgl_cli.graphs.penalty import Penalty, project_dual, prox, split, value

from .problems import covariances, random_weights


def _close(a, b, atol=1e-4):
    np.testing.assert_allclose(a.precision, b.precision, atol=atol)


@pytest.mark.parametrize(("n_classes", "factors", "noise"), [(1, 0, 1), (1, 4, 0.3), (3, 0, 1), (4, 4, 0.3)])
def test_descent_agrees_with_admm(n_classes, factors, noise):
    rng = np.random.default_rng(n_classes)
    sigma, weights = covariances(rng, n_classes, 12, 40, factors, noise), random_weights(rng, n_classes, 12)
    fits = [fit_joint(sigma, weights, 0.05, 0.1, solver=s, tol=1e-11) for s in ("descent", "admm")]
    assert all(f.converged for f in fits)
    assert abs(fits[0].objective - fits[1].objective) <= 1e-8 * max(1, abs(fits[0].objective))
    _close(*fits)
    assert fits[0].kkt_residual < 1e-3


@given(st.integers(1, 5), st.integers(2, 7), st.integers(0, 10_000), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
@settings(max_examples=25, deadline=None)
def test_any_problem_converges_to_a_certified_positive_definite_solution(n_classes, p, seed, rho, gamma):
    rng = np.random.default_rng(seed)
    sigma, weights = covariances(rng, n_classes, p, 2 * p, factors=2), random_weights(rng, n_classes, p)
    fit = fit_joint(sigma, weights, rho, gamma, tol=1e-7)
    assert fit.converged and -1e-9 <= fit.duality_gap
    assert np.linalg.eigvalsh(fit.precision).min() > 0
    np.testing.assert_array_equal(fit.precision, fit.precision.transpose(0, 2, 1))
    np.testing.assert_array_equal(fit.common + fit.specific, fit.precision)


def test_one_class_is_the_graphical_lasso_of_scikit_learn():
    rng = np.random.default_rng(3)
    sigma = covariances(rng, 1, 10, 60)[0]
    _, expected = graphical_lasso(sigma, alpha=0.12, tol=1e-9, enet_tol=1e-9, max_iter=2000)
    for rho, gamma in ((0.12, 0.5), (0.5, 0.12)):  # the penalty of one class is min(rho, gamma W)
        fit = fit_joint(sigma, 1.0, rho, gamma, tol=1e-10)
        np.testing.assert_allclose(fit.precision[0], expected, atol=1e-5)


def test_permuting_classes_and_nodes_permutes_the_solution():
    rng = np.random.default_rng(4)
    sigma, weights = covariances(rng, 3, 8, 40), random_weights(rng, 3, 8)
    fit = fit_joint(sigma, weights, 0.1, 0.1, tol=1e-10)
    classes, nodes = rng.permutation(3), rng.permutation(8)
    grid = np.ix_(classes, nodes, nodes)
    again = fit_joint(sigma[grid], weights[grid], 0.1, 0.1, tol=1e-10)
    np.testing.assert_allclose(again.precision, fit.precision[grid], atol=1e-5)


def test_scaling():
    rng = np.random.default_rng(5)
    sigma, weights = covariances(rng, 2, 6, 40), random_weights(rng, 2, 6)
    fit = fit_joint(sigma, weights, 0.1, 0.1, tol=1e-10)
    scaled = fit_joint(4 * sigma, weights, 0.4, 0.4, tol=1e-10)
    np.testing.assert_allclose(scaled.precision, fit.precision / 4, atol=1e-6)
    doubled = fit_joint(sigma, weights, 0.2, 0.2, class_weights=[2.0, 2.0], tol=1e-10)
    np.testing.assert_allclose(doubled.precision, fit.precision, atol=1e-5)


def test_limits_are_the_independent_and_the_pooled_fit():
    rng = np.random.default_rng(6)
    sigma = covariances(rng, 3, 6, 40)
    apart = fit_joint(sigma, 1.0, 1e3, 0.1, tol=1e-10)
    for c in range(3):
        alone = fit_joint(sigma[c], 1.0, 0.1, 1e3, tol=1e-10)
        np.testing.assert_allclose(apart.precision[c], alone.precision[0], atol=1e-5)
    assert (apart.common[~np.eye(6, dtype=bool)] == 0).all()
    np.testing.assert_allclose(
        fit_joint(sigma, 1.0, 0.0, 0.1, solver="independent", tol=1e-10).precision, apart.precision, atol=1e-5
    )
    pooled = fit_joint(sigma, 1.0, 0.3, 1e3, tol=1e-10)
    off = ~np.eye(6, dtype=bool)
    np.testing.assert_allclose(np.ptp(pooled.precision[:, off], axis=0), 0, atol=1e-12)


def test_screening_changes_nothing_and_did_something():
    rng = np.random.default_rng(7)
    blocks = [covariances(rng, 2, 4, 60) for _ in range(3)]
    sigma = np.zeros((2, 13, 13))
    for k, block in enumerate(blocks):
        sigma[:, 4 * k : 4 * k + 4, 4 * k : 4 * k + 4] = block
    sigma[:, 12, 12] = 1.0
    whole = covariances(rng, 2, 13, 4000) * 0.02
    sigma = sigma + whole * (1 - np.eye(13))
    fit = fit_joint(sigma, 0.8, 0.15, 0.15, tol=1e-12)  # the inverse certifies less than the dual of the solver
    assert fit.converged and len(set(fit.components.tolist())) > 1
    problem = make_problem(sigma, 0.8, 0.15, 0.15)
    certificate = certify(torch.tensor(fit.precision), problem)  # of the whole problem, screening unknown to it
    assert certificate.relative_gap <= 1e-9 and certificate.kkt_residual < 1e-4
    diagonal = fit_joint(sigma, 0.8, 0.15, 0.15, penalize_diagonal=True, tol=1e-9)
    assert diagonal.converged and len(set(diagonal.components.tolist())) > 1


def test_warm_start_saves_work_and_changes_nothing():
    rng = np.random.default_rng(8)
    sigma = covariances(rng, 3, 15, 60, factors=3)
    first = fit_joint(sigma, 0.5, 0.1, 0.1)
    cold = fit_joint(sigma, 0.5, 0.1, 0.105, tol=1e-9)
    warm = fit_joint(sigma, 0.5, 0.1, 0.105, tol=1e-9, initial=first)
    assert warm.n_iter < cold.n_iter
    _close(warm, cold)
    assert fit_joint(sigma, 0.5, 0.1, 0.1, initial=first).n_iter == 0


def test_class_weights_enter_the_likelihood():
    rng = np.random.default_rng(9)
    sigma = covariances(rng, 2, 6, 40)
    heavy = fit_joint(sigma, 1.0, 0.2, 0.2, class_weights=[10.0, 1.0], tol=1e-9)
    light = fit_joint(sigma, 1.0, 0.2, 0.2, tol=1e-9)
    likelihood = [np.linalg.slogdet(f.precision[0])[1] - (sigma[0] * f.precision[0]).sum() for f in (heavy, light)]
    assert likelihood[0] > likelihood[1]
    _close(heavy, fit_joint(sigma, 1.0, 0.2, 0.2, class_weights=[10.0, 1.0], tol=1e-9, solver="admm"))


def test_ablations_never_beat_the_joint_fit_and_come_near_it():
    rng = np.random.default_rng(10)
    sigma = covariances(rng, 3, 8, 50)
    best = fit_joint(sigma, 0.5, 0.1, 0.1, tol=1e-9)
    paper = fit_joint(sigma, 0.5, 0.1, 0.1, solver="paper", tol=1e-12)
    assert paper.n_iter == 200 and best.objective - 1e-6 <= paper.objective < best.objective + 1
    stages = fit_joint(sigma, 0.5, 0.1, 0.1, solver="two-stage", tol=1e-8)
    assert stages.objective > best.objective
    assert stages.duality_gap >= stages.objective - best.objective - 1e-8


def test_single_precision_reaches_its_gap():
    rng = np.random.default_rng(11)
    sigma = covariances(rng, 3, 10, 60).astype(np.float32)
    fit = fit_joint(sigma, 0.5, 0.1, 0.1, tol=1e-5)
    assert fit.precision.dtype == np.float32 and fit.solver == "admm" and fit.converged


@given(st.integers(1, 6), st.integers(0, 10_000), st.floats(0, 2), st.floats(0.1, 5))
@settings(max_examples=60, deadline=None)
def test_prox_and_split_minimise(n_classes, seed, rho, curvature):
    rng = np.random.default_rng(seed)
    v, w = rng.standard_normal(n_classes), rng.uniform(0, 1, n_classes) * (rng.uniform(size=n_classes) > 0.2)
    penalty = Penalty(torch.tensor(w)[:, None], torch.tensor([rho], dtype=torch.float64))
    common, specific = prox(torch.tensor(v)[:, None], penalty, curvature)
    x, out = (common + specific)[:, 0].numpy(), np.empty(n_classes)
    t = prox_entry(v, np.full(n_classes, curvature), w, rho, out)
    np.testing.assert_allclose(out, x, atol=1e-9)

    def total(t, x):
        return rho * abs(t) + (w * np.abs(x - t)).sum() + curvature / 2 * ((x - v) ** 2).sum()

    for scale in (1e-3, 1e-1, 1.0):
        for _ in range(5):
            assert (
                total(t, out)
                <= total(t + scale * rng.standard_normal(), out + scale * rng.standard_normal(n_classes)) + 1e-12
            )
    common, specific = split(torch.tensor(v)[:, None], penalty)
    least = float(value(common, specific, penalty))
    candidates = [rho * abs(t) + (w * np.abs(v - t)).sum() for t in [0.0, *v]]
    assert least == pytest.approx(min(candidates), abs=1e-12)
    dual = project_dual(torch.tensor(v)[:, None], penalty)[:, 0].numpy()
    assert (np.abs(dual) <= w + 1e-15).all() and abs(dual.sum()) <= rho + 1e-12
    assert (dual * x).sum() <= rho * abs(t) + (w * np.abs(x - t)).sum() + 1e-9  # support function


def test_compiled_certificate_is_the_independent_one():
    rng = np.random.default_rng(12)
    sigma, weights = covariances(rng, 3, 9, 40), random_weights(rng, 3, 9)
    problem = make_problem(sigma, weights, 0.1, 0.1, class_weights=[1.0, 2.0, 0.5])
    omega = fit_joint(sigma, weights, 0.1, 0.1, class_weights=[1.0, 2.0, 0.5], tol=1e-3).precision
    common = split(torch.tensor(omega), problem.penalty)[0].numpy().copy()
    np.fill_diagonal(common, 0)
    w, alpha = problem.penalty.specific.numpy(), problem.alpha.numpy()
    certificate = certify(torch.tensor(omega), problem)
    assert objective(sigma, omega, common, w, 0.1, alpha) == pytest.approx(certificate.objective, rel=1e-12)
    assert dual_value(sigma, np.linalg.inv(omega), w, 0.1, alpha) == pytest.approx(certificate.dual_objective, rel=1e-9)


def test_same_input_same_bits():
    rng = np.random.default_rng(13)
    sigma = covariances(rng, 3, 12, 40, factors=3)
    kept = sigma.copy()
    a, b = (fit_joint(sigma, 0.5, 0.1, 0.1) for _ in range(2))
    np.testing.assert_array_equal(a.precision, b.precision)
    np.testing.assert_array_equal(sigma, kept)
