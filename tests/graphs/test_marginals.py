"""Normal scores, priors, covariances and eBIC against closed forms."""

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from cmgl_cli.errors import InputError
from cmgl_cli.graphs import (
    Grid,
    Moments,
    Nonparanormal,
    attention_prior,
    class_covariances,
    correlation,
    ebic,
    fit_joint,
    penalty_scale,
    prior_weights,
    select_joint,
    shapiro_pass_rate,
    summarize_prior,
)

from .problems import covariances


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_scores_are_the_formula_with_average_ranks(rng):
    z = np.round(rng.gamma(2, size=(60, 3)), 1)
    expected = norm.ppf((np.stack([rankdata(column) for column in z.T], axis=1) - 0.5) / 60)
    np.testing.assert_allclose(Nonparanormal().fit(z).transform(z), expected, atol=1e-12)


def test_transform_is_monotone_and_clipped(rng):
    fitted = Nonparanormal().fit(rng.standard_normal((50, 1)))
    line = fitted.transform(np.linspace(-9, 9, 400)[:, None])[:, 0]
    assert (np.diff(line) >= 0).all()
    np.testing.assert_allclose(line[[0, -1]], norm.ppf([0.5 / 50, 1 - 0.5 / 50]))


def test_thinning_keeps_its_promise(rng):
    z = rng.standard_normal((20000, 1)) ** 3
    exact = Nonparanormal(max_knots=20000).fit(z).transform(z)
    thin = Nonparanormal(max_knots=257).fit(z)
    assert thin.knots_.shape[2] <= 257
    assert np.abs(thin.transform(z) - exact).max() <= 2 * norm.ppf(1 - 0.5 / 20000) / 256


def test_class_scope_gives_every_class_mean_zero(rng):
    z, labels = rng.standard_normal((90, 2)), np.repeat([0, 1, 2], [20, 30, 40])
    z += labels[:, None]
    fitted = Nonparanormal("class").fit(z, labels)
    for c in range(3):
        np.testing.assert_allclose(fitted.transform(z[labels == c], label=c).mean(0), 0, atol=1e-12)
    with pytest.raises(InputError, match="class scope"):
        fitted.transform(z)


def test_state_round_trip(rng):
    z = rng.standard_normal((40, 3))
    fitted = Nonparanormal().fit(z)
    again = Nonparanormal.from_arrays(fitted.to_arrays())
    np.testing.assert_array_equal(again.transform(z + 0.1), fitted.transform(z + 0.1))


def test_jacobian_of_gaussian_data_makes_a_density(rng):
    sigma = 3.0
    fitted = Nonparanormal().fit(sigma * rng.standard_normal((20000, 1)))
    x = np.linspace(-2 * sigma, 2 * sigma, 41)[:, None]
    density = norm.logpdf(fitted.transform(x))[:, 0] + fitted.log_jacobian(x)
    np.testing.assert_allclose(density, norm.logpdf(x[:, 0], scale=sigma), atol=0.25)
    assert abs(fitted.log_jacobian(2 * x) - fitted.log_jacobian(x)).max() > 0.1


def test_shapiro_improves_on_held_out_data(rng):
    train, test = rng.gamma(1, size=(800, 10)), rng.gamma(1, size=(200, 10))
    assert shapiro_pass_rate(test) < 0.2
    assert shapiro_pass_rate(Nonparanormal().fit(train).transform(test)) > 0.6


@pytest.mark.parametrize(
    ("values", "match"), [([[1.0, 2.0], [1.0, 3.0]], "node 0"), ([[np.nan, 1.0]], "node 0"), ([1.0], "shape")]
)
def test_bad_samples_are_named(values, match):
    with pytest.raises(InputError, match=match):
        Nonparanormal().fit(np.array(values))


def test_prior_is_the_cosine(rng):
    maps = rng.dirichlet(np.ones(9), size=(2, 4))
    prior = attention_prior(maps)
    a, b = maps[1, 0], maps[1, 3]
    assert prior[1, 0, 3] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    np.testing.assert_array_equal(np.einsum("cii->ci", prior), 1)
    assert not summarize_prior(attention_prior(np.ones((1, 4, 9)) + 1e-3 * maps[:1])).informative
    assert summarize_prior(attention_prior(np.eye(4, 9)[None] + 0.3 * maps[:1])).informative


def test_weights_are_equation_11(rng):
    prior = rng.uniform(size=(2, 3, 3))
    k = np.array([2.0, 30.0])
    expected = 1 - 1 / (1 + np.exp(-k[:, None, None] * (prior - 0.5)))
    np.testing.assert_allclose(prior_weights(prior, k), expected, atol=1e-14)
    assert (prior_weights(prior, 0.0) == 0.5).all()
    assert prior_weights(np.ones((2, 2)), 2000.0).min() == 0.0
    weights = prior_weights(prior, k)
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose((weights * penalty_scale(weights)[:, None, None])[:, off].mean(1), 1)


@pytest.mark.parametrize("centred", [True, False])
def test_moments_stream_exactly(rng, centred):
    z, labels = 1e6 + rng.standard_normal((500, 4)), rng.integers(0, 3, 500)
    whole = class_covariances(z, labels, 3, centred)
    parts = Moments(3, 4)
    for rows in np.array_split(np.arange(500), 7):
        parts.merge(Moments(3, 4).update(z[rows], labels[rows]))
    expected = np.array([np.cov(z[labels == c].T, bias=True) for c in range(3)])
    if not centred:
        expected = expected + np.einsum("ci,cj->cij", parts.means, parts.means)
    np.testing.assert_allclose(parts.covariances(centred), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whole, expected, rtol=1e-9, atol=1e-9)


def test_correlation(rng):
    sigma = np.cov(rng.standard_normal((4, 30)) * np.arange(1, 5)[:, None])
    np.testing.assert_allclose(correlation(sigma), sigma / np.sqrt(np.outer(np.diag(sigma), np.diag(sigma))))
    with pytest.raises(InputError, match="no variance"):
        correlation(np.diag([1.0, 0.0]))


def test_ebic_by_hand():
    omega, sigma = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, 0.2], [0.2, 1.5]])
    expected = 30 * ((2 + 0.2 + 1.5) - np.log(1.75)) + np.log(30) + 4 * 0.5 * np.log(2)
    assert ebic(omega, sigma, 30) == pytest.approx(expected, rel=1e-14)
    assert ebic(np.array([omega] * 2), np.array([sigma] * 2), [30, 30]) == pytest.approx(2 * expected)
    with pytest.raises(InputError, match="number of samples"):
        ebic(omega, sigma, 0)


def test_selection_resumes_and_reports_its_edge(rng):
    sigma, counts = covariances(rng, 2, 5, 60), [60, 60]
    grid = Grid(k=(0, 5, 20), rho=(0.05, 0.2), gamma=(0.05, 0.2), tol=1e-7)
    prior = np.clip(np.abs(sigma), 0, 1)
    seen = []
    first = select_joint(sigma, prior, counts, grid, on_cell=lambda cell, i, n: seen.append((i, n)))
    assert sorted(seen) == [(0, 4), (1, 4), (2, 4), (3, 4)]
    resumed = select_joint(
        sigma,
        prior,
        counts,
        grid,
        done={(c.rho, c.gamma): c for c in first.cells[:3]},
        on_cell=lambda *a: seen.append(a),
    )
    assert len(seen) == 5
    np.testing.assert_array_equal(resumed.result.precision, first.result.precision)
    assert first.best.score == max(c.score for c in first.cells)
    assert "rho" in first.at_edge and "gamma" in first.at_edge
    direct = fit_joint(sigma, prior_weights(prior, first.best.k), first.best.rho, first.best.gamma, tol=1e-9)
    np.testing.assert_allclose(first.result.precision, direct.precision, atol=1e-4)
    held_out = Grid(k=(0, 5), rho=(0.05,), gamma=(0.05, 0.2), criterion="heldout")
    assert select_joint(sigma, prior, counts, held_out, folds=[(sigma, sigma)]).best.gamma == 0.05
    scored = Grid(k=(0,), rho=(0.05,), gamma=(0.05, 0.2), criterion="score")
    assert select_joint(sigma, prior, counts, scored, score=lambda fit: -np.abs(fit.specific).sum()).best.gamma == 0.2


def test_weighted_moments_block_by_block_equal_those_of_everything_even_far_from_zero():
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(n, 4)) + 1e4 for n in (9, 16, 9)]
    labels = [rng.integers(0, 2, len(block)) for block in blocks]
    weights = [rng.uniform(0.1, 2, len(block)) for block in blocks]
    forward, backward = Moments(2, 4), Moments(2, 4)
    for order, moments in ((1, forward), (-1, backward)):
        for block in list(zip(blocks, labels, weights, strict=True))[::order]:
            moments.update(*block)
    values, label, weight = (np.concatenate(parts) for parts in (blocks, labels, weights))
    for c in range(2):
        own = label == c
        assert forward.counts[c] == pytest.approx(weight[own].sum())
        np.testing.assert_allclose(forward.means[c], np.average(values[own], axis=0, weights=weight[own]))
        expected = np.cov(values[own].T, aweights=weight[own], ddof=0)
        np.testing.assert_allclose(forward.covariances()[c], expected, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(forward.covariances(), backward.covariances(), rtol=1e-7, atol=1e-8)
    np.testing.assert_array_equal(forward.of([1]).covariances()[0], forward.covariances()[1])


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, np.nan]])
def test_weights_must_be_one_positive_number_an_observation(weights):
    with pytest.raises(InputError, match="weights must be"):
        Moments(1, 2).update(np.zeros((2, 2)), 0, weights)


def test_no_transform_leaves_values_and_densities_alone():
    z = np.random.default_rng(0).normal(3, 2, size=(30, 4))
    fitted = Nonparanormal("none").fit(z)
    again = Nonparanormal.from_arrays(fitted.to_arrays())
    for transform in (fitted, again):
        beyond = z + 100
        assert np.array_equal(transform.transform(beyond), beyond) and transform.scope == "none"
        assert not transform.log_jacobian(beyond).any()
