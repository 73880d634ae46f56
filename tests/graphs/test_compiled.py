"""The compiled parts against the torch reference: packed proximal problem, certificate, median, screening, checks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmgl_cli.graphs import fit_joint
from cmgl_cli.graphs.audit import audit, components, lifted_value, median
from cmgl_cli.graphs.certificate import certify
from cmgl_cli.graphs.inputs import make_problem
from cmgl_cli.graphs.kernels import prox_entry
from cmgl_cli.graphs.packed import pack, prox_packed, unpack
from cmgl_cli.graphs.penalty import Penalty, prox, split
from cmgl_cli.graphs.screening import screen
from cmgl_cli.graphs.splitting import Splitting, first_point

from .problems import covariances, random_weights


@given(st.integers(1, 7), st.integers(1, 300), st.integers(0, 10_000), st.floats(0, 2), st.floats(0.1, 5))
@settings(max_examples=40, deadline=None)
def test_packed_prox_is_the_entrywise_one(n_classes, size, seed, rho, mu):
    rng = np.random.default_rng(seed)
    v, w = rng.standard_normal((n_classes, size)), rng.uniform(0, 1, (n_classes, size))
    w[rng.uniform(size=w.shape) < 0.2] = 0.0
    out, common, expected = np.empty_like(v), rng.standard_normal(size), np.empty(n_classes)
    prox_packed(v, w, np.full(size, rho), 1 / mu, out, common)
    for k in range(size):
        column, bound = np.ascontiguousarray(v[:, k]), np.ascontiguousarray(w[:, k])
        t = prox_entry(column, np.full(n_classes, mu), bound, rho, expected)
        np.testing.assert_allclose(out[:, k], expected, atol=1e-12)
        assert n_classes == 1 or abs(t - common[k]) < 1e-12
    reference = prox(torch.tensor(v), Penalty(torch.tensor(w), torch.full((size,), rho, dtype=torch.float64)), mu)
    np.testing.assert_allclose(out, (reference[0] + reference[1]).numpy(), atol=1e-9)


@given(st.integers(1, 8), st.integers(0, 10_000), st.floats(0, 2))
@settings(max_examples=40, deadline=None)
def test_median_is_the_split_of_least_magnitude(n_classes, seed, rho):
    rng = np.random.default_rng(seed)
    v = rng.integers(-2, 3, (n_classes, 40)) * 0.5  # many ties and zeros
    w = rng.integers(0, 4, v.shape) * 0.25
    expected = split(torch.tensor(v), Penalty(torch.tensor(w), torch.full((40,), rho, dtype=torch.float64)))[0]
    np.testing.assert_array_equal(median(v, w, np.full(40, rho)), expected.numpy())


@pytest.mark.parametrize("diagonal", [False, True])
def test_compiled_certificate_and_screening_are_the_reference(diagonal):
    rng = np.random.default_rng(1)
    sigma, weights = covariances(rng, 3, 9, 40), random_weights(rng, 3, 9, 0.3)
    weights[:, np.arange(9), np.arange(9)] = 0.4
    alpha = [1.0, 2.0, 0.5]
    problem = make_problem(sigma, weights, 0.1, 0.3, diagonal, alpha)
    omega = fit_joint(sigma, weights, 0.1, 0.3, penalize_diagonal=diagonal, class_weights=alpha, tol=1e-3).precision
    expected = certify(torch.tensor(omega), problem)
    bound, rho = pack(problem.penalty.specific.numpy()), pack(problem.penalty.common.numpy()[None])[0]
    packed = pack(omega)
    got = audit(sigma, problem.alpha.numpy(), packed, bound, rho, median(packed, bound, rho))
    np.testing.assert_allclose(got, (expected.objective, expected.dual_objective, expected.kkt_residual), rtol=1e-9)
    again = np.empty((9, 9))
    unpack(packed[1], again)
    np.testing.assert_array_equal(again, omega[1])
    single = make_problem(torch.tensor(sigma, dtype=torch.float32), weights, 0.1, 0.3, diagonal, alpha)
    labels = components(sigma, problem.alpha.numpy(), problem.penalty.specific.numpy(), problem.penalty.common.numpy())
    np.testing.assert_array_equal(labels, screen(single))


def test_every_dual_point_of_the_splitting_is_a_bound():
    rng = np.random.default_rng(2)
    sigma, weights = covariances(rng, 4, 10, 40, factors=3, noise=0.3), random_weights(rng, 4, 10)
    weights *= 0.1
    rho = np.full((10, 10), 0.05) * (1 - np.eye(10))
    best = fit_joint(sigma, weights, 0.05, 1.0, tol=1e-11)
    start, dual = first_point(sigma, np.ones(4), pack(weights), pack(rho[None])[0])
    state = Splitting(sigma, weights, rho, np.ones(4), start, dual)
    reached = []
    for steps in range(5, 105, 5):
        state.advance(0.0, steps)
        value, bound = state.certificate()
        assert bound <= best.objective + 1e-9 * abs(best.objective) and value >= best.dual_objective - 1e-9
        packed = pack(weights)
        free = lifted_value(sigma, np.ones(4), pack(state.dual()), packed, pack(rho[None])[0])
        assert free == pytest.approx(bound, rel=1e-12) or bound == -np.inf
        reached.append(value - bound)
    assert reached[-1] < 1e-6 and state.state.counts[2] > state.state.counts[1]  # most steps were lazy
    np.testing.assert_allclose(state.precision(), best.precision, atol=1e-3)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("n_classes", [1, 3])
def test_solvers_agree_on_ill_conditioned_data(n_classes, diagonal):
    rng = np.random.default_rng(3)
    sigma, weights = covariances(rng, n_classes, 14, 60, factors=4, noise=0.1), random_weights(rng, n_classes, 14, 0.1)
    names = ["splitting", "admm"] if diagonal else ["splitting", "descent", "admm"]
    fits = [
        fit_joint(sigma, weights, 0.03, 0.05, penalize_diagonal=diagonal, solver=name, tol=1e-8, max_iter=20000)
        for name in names
    ]
    assert all(fit.converged for fit in fits) and [fit.solver for fit in fits] == names
    for fit in fits[1:]:
        assert abs(fit.objective - fits[0].objective) <= 2e-8 * max(1, abs(fit.objective))
        np.testing.assert_allclose(fit.precision, fits[0].precision, atol=1e-2 * np.abs(fit.precision).max())


def test_plain_and_careful_checks_make_the_same_problem():
    rng = np.random.default_rng(4)
    sigma, weights = covariances(rng, 2, 6, 30), random_weights(rng, 2, 6)
    plain = make_problem(sigma, weights, 0.1, [0.2, 0.3], ridge=0.01, weight_floor=0.3)
    careful = make_problem(torch.tensor(sigma), torch.tensor(weights), 0.1, [0.2, 0.3], ridge=0.01, weight_floor=0.3)
    assert plain.positive and not careful.positive
    for a, b in zip(
        (plain.covariance, plain.penalty.specific, plain.penalty.common, plain.alpha),
        (careful.covariance, careful.penalty.specific, careful.penalty.common, careful.alpha),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-15, atol=0)
