"""Controls keep what is not in question: scales, edge counts, definiteness."""

import numpy as np
import pytest

from cmgl_cli.errors import InputError
from cmgl_cli.heads import graph_controls, random_graph
from cmgl_cli.heads.controls import definite, variances, without_edges
from tests.heads.problems import draw, precisions

OMEGA = precisions(4, 9, seed=7)
MEANS = np.random.default_rng(7).normal(size=(4, 9))


def partials(precision: np.ndarray) -> np.ndarray:
    scale = 1 / np.sqrt(np.einsum("cii->ci", precision))
    upper = np.triu_indices(precision.shape[1], 1)
    return (precision * scale[:, :, None] * scale[:, None, :])[:, upper[0], upper[1]]


def test_random_graph_keeps_partial_correlations_variances_and_edge_counts() -> None:
    other = random_graph(OMEGA, np.random.default_rng(0))
    np.testing.assert_allclose(np.sort(partials(other)), np.sort(partials(OMEGA)), atol=1e-12)
    np.testing.assert_allclose(variances(other), variances(OMEGA), rtol=1e-10)
    assert (np.count_nonzero(other, axis=(1, 2)) == np.count_nonzero(OMEGA, axis=(1, 2))).all()
    assert np.linalg.eigvalsh(other).min() > 0
    assert np.abs(partials(other) - partials(OMEGA)).max() > 0.1, "the edges must have moved"


def test_random_graph_shares_one_permutation_unless_asked_otherwise() -> None:
    same = np.tile(OMEGA[:1], (3, 1, 1))
    shared = random_graph(same, np.random.default_rng(1))
    np.testing.assert_array_equal(shared[0], shared[2])
    each = random_graph(same, np.random.default_rng(1), each_class=True)
    assert np.abs(each[0] - each[2]).max() > 0.1
    with pytest.raises(InputError, match="p = 2"):
        random_graph(precisions(2, 2), np.random.default_rng(0))


def test_diagonal_control_is_the_maximum_likelihood_diagonal() -> None:
    diagonal = without_edges(OMEGA)
    np.testing.assert_allclose(np.einsum("cii->ci", np.linalg.inv(diagonal)), variances(OMEGA))
    assert np.count_nonzero(diagonal) == 4 * 9


def test_definite_leaves_definite_matrices_and_mends_others() -> None:
    np.testing.assert_array_equal(definite(OMEGA[0]), OMEGA[0])
    broken = np.array([[2.0, 3.0], [3.0, 2.0]])
    mended = definite(broken)
    np.testing.assert_allclose(np.diagonal(mended), 2.0)
    assert mended[0, 1] == pytest.approx(1.9)
    with pytest.raises(InputError, match="node 1"):
        definite(np.diag([1.0, 0.0]))


def test_controls_are_what_their_names_say() -> None:
    common = OMEGA.mean(0)
    models = graph_controls(OMEGA, common, MEANS, priors=[0.4, 0.3, 0.2, 0.1], seed=3)
    np.testing.assert_array_equal(models["graph"].precision, OMEGA)
    np.testing.assert_array_equal(models["identity"].precision[2], np.eye(9))
    np.testing.assert_allclose(models["common only"].precision[1], common)
    own = models["specific only"].precision
    np.testing.assert_allclose(variances(own), variances(OMEGA), rtol=1e-10)
    off = ~np.eye(9, dtype=bool)
    sign = np.sign(OMEGA - common)[:, off]
    np.testing.assert_array_equal(np.sign(own[:, off]), sign)
    ignored = models["graph, means ignored"].means
    np.testing.assert_allclose(ignored, np.tile([0.4, 0.3, 0.2, 0.1] @ MEANS, (4, 1)))


def test_the_true_graph_beats_every_control_on_its_own_data() -> None:
    z, labels = draw(OMEGA, MEANS * 0.3, 500)
    models = graph_controls(OMEGA, OMEGA.mean(0), MEANS * 0.3, seed=1)
    accuracy = {name: (model.predict(z) == labels).mean() for name, model in models.items()}
    best = accuracy.pop("graph")
    assert best > max(accuracy.values()) + 0.01, accuracy
