"""One class by active sets: its contract, against an independent solver, the other solvers and the general route."""

import numpy as np
import pytest
import torch

from cmgl_cli.graphs import fit_joint, one_class
from cmgl_cli.graphs.certificate import certify
from cmgl_cli.graphs.inputs import make_problem
from cmgl_cli.graphs.lapack import factor, invert
from cmgl_cli.graphs.one_class import near_independence

from .problems import covariances, random_weights, reference

# (p, n, zero weights, rho, gamma, penalised diagonal, factors)
CASES = {
    "plain": (6, 60, 0.0, 0.1, 0.2, False, 0),
    "fewer samples than nodes": (7, 5, 0.0, 0.3, 0.4, False, 0),
    "exact zeros": (6, 60, 0.4, 0.1, 0.2, False, 0),
    "penalised diagonal": (6, 40, 0.0, 0.1, 0.2, True, 0),
    "strong correlation": (7, 60, 0.2, 0.02, 0.05, False, 2),
    "nothing penalised": (5, 60, 0.0, 0.0, 0.3, False, 1),
    "everything penalised away": (5, 60, 0.0, 2.0, 30.0, False, 0),
}


def make(name):
    p, n, zeros, rho, gamma, diagonal, factors = CASES[name]
    rng = np.random.default_rng(list(CASES).index(name))
    sigma, weights = covariances(rng, 1, p, n, factors), random_weights(rng, 1, p, zeros)
    if diagonal:
        weights[:, np.arange(p), np.arange(p)] = 0.5
    return sigma, weights, rho, gamma, diagonal


@pytest.mark.parametrize("name", CASES)
def test_matches_cvxpy_and_every_other_solver(name):
    sigma, weights, rho, gamma, diagonal = make(name)
    value, omega = reference(sigma, weights, rho, gamma, diagonal)
    options = {"penalize_diagonal": diagonal, "tol": 1e-11}
    fit = fit_joint(sigma, weights, rho, gamma, solver="active-set", **options)
    assert fit.converged and fit.solver == "active-set"
    assert abs(fit.objective - value) <= 1e-8 * max(1, abs(value))
    np.testing.assert_allclose(fit.precision, omega, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(fit.common + fit.specific, fit.precision)
    for solver in ["splitting", "admm"] + ([] if diagonal else ["descent"]):
        other = fit_joint(sigma, weights, rho, gamma, solver=solver, max_iter=20000, **options)
        np.testing.assert_allclose(fit.precision, other.precision, atol=1e-4)
        np.testing.assert_allclose(fit.common, other.common, atol=1e-4)
        assert fit.edges == tuple(np.count_nonzero(np.triu(np.abs(other.precision) > 1e-7, 1), axis=(1, 2)))


@pytest.mark.parametrize("p", [1, 2, 17, 80])
def test_factor_and_inverse(p):
    x = np.random.default_rng(p).standard_normal((2 * p, p))
    matrix = x.T @ x
    work = matrix.copy()
    np.testing.assert_allclose(factor(work), np.linalg.slogdet(matrix)[1], rtol=1e-12)
    np.testing.assert_allclose(np.tril(work), np.linalg.cholesky(matrix), atol=1e-10)
    invert(work)
    np.testing.assert_allclose(work, np.linalg.inv(matrix), rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(work, work.T)
    assert np.isnan(factor(-matrix)) and factor(np.empty((0, 0))) == 0.0


def larger(seed=0, p=40, factors=0):
    rng = np.random.default_rng(seed)
    return covariances(rng, 1, p, 3 * p, factors), random_weights(rng, 1, p, 0.05)


@pytest.mark.parametrize("factors", [0, 3])
def test_the_certificate_is_the_independent_one_and_the_fit_optimal(factors):
    sigma, weights = larger(factors=factors)
    fit = fit_joint(sigma, weights, 0.3, 0.2, solver="active-set", tol=1e-10)
    found = certify(torch.tensor(fit.precision), make_problem(sigma, weights, 0.3, 0.2))
    for own, other in (
        (fit.objective, found.objective),
        (fit.dual_objective, found.dual_objective),
        (fit.kkt_residual, found.kkt_residual),
    ):
        assert own == pytest.approx(other, rel=1e-9, abs=1e-10)
    assert found.relative_gap <= 1e-10 and found.kkt_residual < 1e-6
    limit = np.minimum(0.2 * weights, 0.3) * (1 - np.eye(40))
    assert (np.abs(fit.dual) <= limit + 1e-12).all()
    settled = np.abs(fit.precision) > 1e-5
    signs = (np.sign(fit.precision) * limit)[settled]
    np.testing.assert_allclose((np.linalg.inv(fit.precision[0]) - sigma)[settled], signs, atol=1e-6)


def test_components_singletons_and_a_whole_are_the_same_problem():
    sigma, weights = larger(1, 30)
    mask = np.zeros((30, 30))
    for nodes in (slice(0, 12), slice(12, 22), slice(22, 24)):
        mask[nodes, nodes] = 1
    np.fill_diagonal(mask, 1)
    order = np.random.default_rng(2).permutation(30)
    apart = (sigma * mask)[:, order][:, :, order]
    fit = fit_joint(apart, weights, 1.0, 0.15, tol=1e-10)
    assert fit.solver == "active-set" and len(np.unique(fit.components)) >= 9 and fit.converged
    np.testing.assert_array_equal(fit.precision[0][fit.components[:, None] != fit.components], 0.0)
    found = certify(torch.tensor(fit.precision), make_problem(apart, weights, 1.0, 0.15))
    assert found.relative_gap <= 1e-9 and fit.objective == pytest.approx(found.objective, rel=1e-12)
    lifted = np.linalg.slogdet(apart[0] + fit.dual[0])[1] + 30
    assert lifted == pytest.approx(fit.dual_objective, rel=1e-12)
    again = fit_joint(apart, weights, 1.0, 0.15, tol=1e-10, initial=fit)
    assert again.n_iter == 0
    np.testing.assert_array_equal(again.precision, fit.precision)


def test_the_compiled_route_is_the_general_one():
    sigma, weights = larger(3, 30)
    kept = sigma.copy(), weights.copy()
    fast = fit_joint(sigma[0], weights[0], 0.1, np.array([0.2]), ridge=0.01, weight_floor=0.05, tol=1e-9)
    general = fit_joint(torch.tensor(sigma), torch.tensor(weights), 0.1, 0.2, ridge=0.01, weight_floor=0.05, tol=1e-9)
    doubled = fit_joint(sigma, weights, 0.2, 0.4, class_weights=[2.0], ridge=0.01, weight_floor=0.05, tol=1e-9)
    assert {fit.solver for fit in (fast, general, doubled)} == {"active-set"} and len(fast.history) == 1
    np.testing.assert_allclose(fast.precision, general.precision.numpy(), atol=1e-7)
    np.testing.assert_allclose(fast.common, general.common.numpy(), atol=1e-7)
    np.testing.assert_allclose(fast.precision, doubled.precision, atol=1e-6)
    np.testing.assert_array_equal(fast.components, general.components)
    np.testing.assert_array_equal(sigma, kept[0])
    np.testing.assert_array_equal(weights, kept[1])


def test_the_choice_of_a_solver_is_that_of_both_routes():
    for seed, p, factors in ((3, 30, 0), (3, 40, 0), (3, 40, 3), (3, 70, 1)):
        sigma, weights = larger(seed, p, factors)
        fits = [fit_joint(make(sigma), make(weights), 1.0, 0.02, tol=1e-7) for make in (np.array, torch.tensor)]
        assert fits[0].solver == fits[1].solver == ("active-set" if near_independence(sigma[0]) else "splitting")
        np.testing.assert_allclose(fits[0].precision, fits[1].precision.numpy(), atol=3e-3)
        assert fits[0].converged and fits[0].objective == pytest.approx(fits[1].objective, rel=2e-7)


def test_zero_weights_stay_and_everything_smaller_is_screened():
    sigma, weights = larger(4, 20)
    weights[:] = 1.0
    weights[0, 3, 7] = weights[0, 7, 3] = 0.0
    fit = fit_joint(sigma, weights, 5.0, 5.0, tol=1e-10)
    assert fit.edges == (1,) and fit.precision[0, 3, 7] != 0 and len(np.unique(fit.components)) == 19
    np.testing.assert_allclose(np.linalg.inv(fit.precision[0])[3, 7], sigma[0, 3, 7], atol=1e-9)


def test_every_step_descends_and_the_bound_holds():
    sigma, weights = larger(5, factors=3)
    best = fit_joint(sigma, weights, 0.1, 0.1, tol=1e-11)
    fits = [fit_joint(sigma, weights, 0.1, 0.1, solver="active-set", tol=1e-12, max_iter=n) for n in range(8)]
    values = [fit.objective for fit in fits]
    assert all(b <= a + 1e-12 for a, b in zip(values[1:], values[2:], strict=False)) and not fits[3].converged
    assert all(fit.dual_objective <= best.objective + 1e-9 for fit in fits)
    assert [fit.n_iter for fit in fits] == list(range(8))


def test_warm_starts_are_checked_and_save_steps():
    sigma, weights = larger(6, 30)
    first = fit_joint(sigma, weights, 1.0, 0.2)
    cold, warm = (fit_joint(sigma, weights, 1.0, 0.201, initial=start) for start in (None, first))
    assert warm.n_iter < cold.n_iter and warm.converged
    array = fit_joint(sigma, weights, 1.0, 0.2, initial=first.precision)
    np.testing.assert_array_equal(array.precision, first.precision)
    for bad in (-np.eye(30), np.eye(29)):
        with pytest.raises(ValueError, match="warm start"):
            fit_joint(sigma, weights, 1.0, 0.2, initial=bad)


def test_splitting_takes_over_where_steps_run_out(monkeypatch):
    sigma, weights = larger(7, factors=3)
    monkeypatch.setattr(one_class, "MAX_STEPS", 2)
    fit = fit_joint(sigma, weights, 0.05, 0.1, solver="active-set", tol=1e-9)
    assert fit.converged and fit.n_iter > 2


def test_what_it_cannot_do_is_said():
    sigma, weights = larger(8, 10)
    with pytest.raises(ValueError, match="one class"):
        fit_joint(np.concatenate([sigma, sigma]), 0.5, 0.1, 0.1, solver="active-set")
    with pytest.raises(ValueError, match="weight floor"):
        fit_joint(np.ones((3, 3)), 0.0, 1.0, 0.1, solver="active-set")
    with pytest.raises(ValueError, match="not symmetric"):
        fit_joint(sigma[0] + np.triu(np.ones((10, 10)), 1), 0.5, 0.1, 0.1)
    assert fit_joint(sigma[0].tolist(), 0.5, 0.1, 0.1).converged  # lists take the general route


def test_auto_takes_splitting_for_strong_correlation_and_the_same_certificate():
    sigma, weights = larger(9, factors=3)
    kept = sigma.copy()
    fit = fit_joint(sigma, weights, 0.3, 0.1)
    general = fit_joint(torch.tensor(sigma), torch.tensor(weights), 0.3, 0.1)
    assert fit.solver == general.solver == "splitting" and fit.converged and len(fit.history) > 0
    found = certify(torch.tensor(fit.precision), make_problem(sigma, weights, 0.3, 0.1))
    assert fit.objective == pytest.approx(found.objective, rel=1e-12)
    assert fit.kkt_residual == pytest.approx(found.kkt_residual, rel=1e-6)
    assert abs(fit.objective - general.objective) <= 2e-6 * max(1, abs(fit.objective))
    lifted = np.linalg.slogdet(sigma[0] + fit.dual[0])[1] + 40
    assert lifted == pytest.approx(fit.dual_objective, rel=1e-12)
    precise = fit_joint(sigma, weights, 0.3, 0.1, tol=1e-10)  # beyond what splitting alone reaches quickly
    assert precise.converged and precise.relative_gap <= 1e-10
    assert fit_joint(sigma, weights, 0.3, 0.1, max_iter=3, tol=1e-9).n_iter == 3
    again = fit_joint(sigma, weights, 0.3, 0.1)
    np.testing.assert_array_equal(again.precision, fit.precision)
    np.testing.assert_array_equal(sigma, kept)
