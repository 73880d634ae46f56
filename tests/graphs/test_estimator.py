"""The estimator under scikit-learn's checks; stability and export."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from cmgl_cli.errors import UsageError
from cmgl_cli.graphs import JointGraphicalLasso, edge_stability, edge_table, fit_joint, partial_correlation, stars

from .problems import covariances

# None is excepted at present; an entry here needs its reason.
EXCEPTED: dict[str, str] = {}


@parametrize_with_checks([JointGraphicalLasso()], expected_failed_checks=lambda estimator: EXCEPTED)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def _sample(rng, n=80, p=6):
    x = rng.standard_normal((3 * n, p))
    x[:, 1] += x[:, 0]
    x[:n, 3] += 1.5 * x[:n, 2]
    return x, np.repeat([0, 1, 2], n)


def test_estimator_is_the_engine():
    rng = np.random.default_rng(0)
    x, y = _sample(rng)
    names = np.array(["cat", "dog", "fox"])[y]
    model = JointGraphicalLasso(rho=0.2, gamma=0.1).fit(x, names)
    np.testing.assert_array_equal(model.precision_, fit_joint(model.covariance_, 1.0, 0.2, 0.1).precision)
    np.testing.assert_array_equal(model.common_ + model.specific_, model.precision_)
    assert model.classes_.tolist() == ["cat", "dog", "fox"]
    assert model.score(x, names) > model.score(x, np.roll(names, 80))
    assert np.isfinite(JointGraphicalLasso(nonparanormal=True).fit(x, names).score(x, names))


def test_score_is_the_gaussian_log_likelihood():
    from scipy.stats import multivariate_normal

    rng = np.random.default_rng(1)
    x = rng.standard_normal((50, 3)) * [1, 2, 3] + 1
    model = JointGraphicalLasso(rho=10, gamma=10).fit(x)
    expected = multivariate_normal(x.mean(0), np.diag(x.var(0))).logpdf(x).mean()
    assert model.score(x) == pytest.approx(expected, rel=1e-9)


def test_stability_separates_true_from_false_edges():
    x, y = _sample(np.random.default_rng(2))
    calls = []

    def fit(sigma):
        return fit_joint(sigma, 1.0, 0.4, 0.25)

    for scheme in ("subsample", "bootstrap"):
        found = edge_stability(
            x, y, fit, n_resamples=10, scheme=scheme, seed=1, on_resample=lambda i, n: calls.append(i)
        )
        assert found.frequency[:, 0, 1].min() == 1.0 and found.frequency[0, 2, 3] == 1.0
        assert found.frequency[:, 4, 5].max() < 0.6
        assert 0 <= found.instability <= 0.5
        again = edge_stability(x, y, fit, n_resamples=10, scheme=scheme, seed=1)
        np.testing.assert_array_equal(again.frequency, found.frequency)
    assert len(calls) == 20
    with pytest.raises(UsageError, match="scheme"):
        edge_stability(x, y, fit, scheme="jack")


def test_stars_takes_the_least_stable_penalty():
    assert stars([0.0, 0.01, 0.04, 0.03, 0.2, 0.01]) == 3
    assert stars([0.3, 0.2]) == 0


def test_edge_table_rebuilds_the_graph():
    sigma = covariances(np.random.default_rng(3), 2, 6, 40)
    fit = fit_joint(sigma, 0.5, 0.2, 0.3)
    table = edge_table(fit, stability=np.full((2, 6, 6), 0.5))
    rebuilt = np.zeros_like(fit.precision)
    rebuilt[table["class"], table["i"], table["j"]] = table["weight"]
    np.testing.assert_array_equal(rebuilt, np.triu(fit.precision, 1))
    assert sum(fit.edges) == len(table["i"]) > 0
    assert (table["stability"] == 0.5).all()
    np.testing.assert_allclose(table["common_share"] + table["specific_share"], 1)
    c, i, j = table["class"][0], table["i"][0], table["j"][0]
    omega = fit.precision[c]
    assert table["partial_correlation"][0] == pytest.approx(-omega[i, j] / np.sqrt(omega[i, i] * omega[j, j]))
    np.testing.assert_array_equal(np.diagonal(partial_correlation(fit.precision), axis1=1, axis2=2), 1)
