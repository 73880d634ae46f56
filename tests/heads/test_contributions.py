"""Contributions add up to what they explain, and vanish where there is nothing to explain."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from cmgl_cli.errors import InputError
from cmgl_cli.heads import GraphDiscriminant
from cmgl_cli.heads.contributions import back_project, divergence, divergence_parts, in_score_units, ratio_parts


def model(seed: int, n_classes: int = 3, p: int = 5, priors=None) -> GraphDiscriminant:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n_classes, p, p))
    precision = root @ root.transpose(0, 2, 1) / p + 0.3 * np.eye(p)
    return GraphDiscriminant(precision, rng.normal(size=(n_classes, p)), priors)


def kl(a: np.ndarray, b: np.ndarray, means: np.ndarray) -> float:
    """KL(N(m_a, Omega_a^-1) || N(m_b, Omega_b^-1)) as the textbooks have it."""
    delta = means[1] - means[0]
    logdets = np.linalg.slogdet(a)[1] - np.linalg.slogdet(b)[1]
    return 0.5 * (np.trace(b @ np.linalg.inv(a)) + delta @ b @ delta - len(delta) + logdets)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), weighted=st.booleans(), per_class=st.booleans())
def test_nodes_and_constant_add_up_to_the_ratio(seed, weighted, per_class):
    rng = np.random.default_rng(seed)
    one = model(seed, priors=[0.2, 0.5, 0.3] if weighted else None)
    z = rng.normal(size=(7, 3, 5) if per_class else (7, 5))
    jacobian = rng.normal(size=(7, 3)) if per_class else None
    first, second = rng.integers(0, 3, 7), rng.integers(0, 3, 7)
    scores = one.scores(z, jacobian)
    parts = ratio_parts(one, z, first, second, jacobian)
    rows = np.arange(7)
    assert_allclose(parts.ratio, scores[rows, first] - scores[rows, second], rtol=1e-10, atol=1e-9)
    if not per_class:
        same = (first[:, None] == first) & (second[:, None] == second)
        assert_allclose(np.where(same, parts.constant[:, None] - parts.constant, 0), 0, atol=1e-12)


def test_a_node_without_edges_contributes_its_own_ratio():
    precision = np.stack([np.diag([2.0, 1.0]), np.diag([1.0, 1.0])])
    one = GraphDiscriminant(precision, [[1.0, 0.0], [0.0, 0.0]])
    parts = ratio_parts(one, [[0.5, 3.0]], [0], [1])
    assert_allclose(parts.nodes, [[0.5 * 0.25 - 0.5 * 2 * 0.25, 0.0]])
    assert_allclose(parts.constant, [0.5 * np.log(2)])


def test_swapping_the_classes_swaps_the_sign():
    one, z = model(1), np.random.default_rng(1).normal(size=(4, 5))
    forth, back = ratio_parts(one, z, [0] * 4, [2] * 4), ratio_parts(one, z, [2] * 4, [0] * 4)
    assert_allclose(forth.nodes, -back.nodes)
    assert_allclose(forth.constant, -back.constant)


def test_the_map_adds_up_to_the_nodes():
    rng = np.random.default_rng(0)
    attention = rng.dirichlet(np.ones(9), size=(4, 5))
    parts = rng.normal(size=(4, 5))
    maps = back_project(parts, attention)
    assert maps.shape == (4, 9)
    assert_allclose(maps.sum(axis=1), parts.sum(axis=1))
    assert_allclose(back_project([1.0, 0.0], np.eye(2)[:, [1, 0]]), [0.0, 1.0])
    with pytest.raises(InputError, match="different nodes"):
        back_project(parts, attention[:, :4])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), p=st.integers(1, 6))
def test_pairs_and_nodes_add_up_to_the_divergence(seed, p):
    one = model(seed, 2, p)
    parts = divergence_parts(one.precision, one.means)
    a, b = one.precision
    expected = kl(a, b, one.means) + kl(b, a, one.means[::-1])
    assert_allclose(parts.total, expected, rtol=1e-8, atol=1e-9)
    assert parts.total >= 0
    assert_allclose(parts.structure, parts.structure.T)
    assert_allclose(divergence(one.precision, one.means), [[0, expected], [expected, 0]], rtol=1e-8, atol=1e-9)


def test_divergence_is_the_mean_ratio_of_many_samples():
    one = model(4, 2, 3)
    rng = np.random.default_rng(0)
    total = 0.0
    for c, other in ((0, 1), (1, 0)):
        z = rng.multivariate_normal(one.means[c], np.linalg.inv(one.precision[c]), 200_000)
        scores = one.scores(z)
        total += float((scores[:, c] - scores[:, other]).mean())
    assert_allclose(total, divergence_parts(one.precision, one.means).total, rtol=0.02)


def test_equal_graphs_are_told_apart_by_means_alone():
    one = model(2, 2)
    precision = np.stack([one.precision[0]] * 2)
    parts = divergence_parts(precision, one.means)
    assert_allclose(parts.structure, 0, atol=1e-12)
    assert parts.total > 0
    assert_allclose(divergence_parts(precision, one.means[[0, 0]]).total, 0, atol=1e-12)


def test_divergence_wants_two_classes():
    with pytest.raises(InputError, match="two classes"):
        divergence_parts(model(0).precision, model(0).means)


def test_score_units_undo_the_scaling():
    rng = np.random.default_rng(0)
    one, scale = model(3), rng.uniform(0.5, 2, (3, 5))
    scaled = one.precision * scale[:, :, None] * scale[:, None, :]
    assert_allclose(in_score_units(scaled, np.eye(5), scale)[0], one.precision)
    assert_allclose(in_score_units(scaled, np.eye(5), np.full((3, 5), 2.0))[1], np.eye(5) / 4)
