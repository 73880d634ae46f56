"""Proximal points of the likelihood: the exact one is stationary, the expansion near it, a renewed one nearer."""

import numpy as np
import pytest

from cmgl_cli.graphs.expansion import LAZY, RENEWED, exact_step, lazy_step, new_reference
from cmgl_cli.graphs.packed import pack, unpack
from cmgl_cli.graphs.splitting import first_point

from .problems import covariances, random_weights

P, MU, ALPHA = 12, 0.3, 0.7


def proximal_point(sigma, target):
    values, vectors = np.linalg.eigh(target - ALPHA / MU * sigma)
    return (vectors * ((values + np.sqrt(values**2 + 4 * ALPHA / MU)) / 2)) @ vectors.T


def lower(matrix):
    return np.tril(matrix) + np.tril(matrix, -1).T


@pytest.fixture
def expanded():
    rng = np.random.default_rng(0)
    sigma = covariances(rng, 1, P, 40, factors=2, noise=0.4)[0]
    target = np.linalg.inv(sigma + 0.3 * np.eye(P))
    reference, double = new_reference(1, P), (np.empty((P, P)), np.empty((P, P)))
    exact_step(sigma, ALPHA, MU, (pack(target[None])[0], pack(target[None])[0]), double, reference, 0)
    single = (np.empty((P, P), np.float32), np.empty((P, P), np.float32))
    noise = rng.standard_normal((P, P))

    def step(size, last_residual):
        moved = target + size * (noise + noise.T)
        packed = pack(moved[None])[0]
        way = lazy_step(sigma, ALPHA, MU, (packed, packed), (double, single), reference, 0, last_residual)
        return way, lower(reference.point[0] + single[0]), proximal_point(sigma, moved)

    return sigma, target, reference, step


def test_the_exact_point_is_stationary(expanded):
    sigma, target, reference, _ = expanded
    point = lower(reference.point[0])
    np.testing.assert_allclose(point, proximal_point(sigma, target), atol=1e-12)
    gradient = ALPHA * (sigma - np.linalg.inv(point))
    np.testing.assert_allclose(gradient + MU * (point - target), 0.0, atol=1e-12)
    np.testing.assert_allclose(lower(reference.gradient[0]), gradient, atol=1e-12)


def test_an_expansion_is_near_and_a_renewed_one_nearer(expanded):
    _, _, reference, step = expanded
    way, near, exact = step(0.05, np.inf)
    assert way == LAZY
    coarse = np.abs(near - exact).max()
    way, nearer, exact = step(0.05, 3e-3)
    assert way == RENEWED and reference.coupling[0] > 1e-3
    assert np.abs(nearer - exact).max() < 0.2 * coarse < 1e-2


def test_what_cannot_be_trusted_is_refused(expanded):
    assert expanded[3](0.05, 1e-12)[0] == 0  # no residual this small is served by a stale basis
    assert expanded[3](50.0, np.inf)[0] == 0


@pytest.mark.parametrize("diagonal", [0.0, 0.2])
def test_the_first_point_descends_from_an_empty_graph(diagonal):
    rng = np.random.default_rng(1)
    sigma, weights = covariances(rng, 3, P, 30, factors=2, noise=0.3), 0.2 * random_weights(rng, 3, P)
    weights[:, np.arange(P), np.arange(P)] = diagonal
    rho = np.full((P, P), 0.3)
    rho[np.arange(P), np.arange(P)] = diagonal
    x, dual = first_point(sigma, np.ones(3), pack(weights), pack(rho[None])[0])
    for c in range(3):
        level = np.diag(sigma[c]) + min(diagonal, diagonal / 3)
        np.testing.assert_allclose(np.diag(x[c]), 1 / level, rtol=1e-12)
        np.testing.assert_allclose(dual[c], np.linalg.inv(x[c]) - sigma[c], atol=1e-9)
        off = 1 - np.eye(P)
        value = (sigma[c] * off * x[c]).sum() - np.linalg.slogdet(x[c])[1] + (weights[c] * np.abs(x[c]) * off).sum()
        assert value <= np.log(level).sum() + 1e-12 and np.count_nonzero(x[c] * off)
    out = np.empty((P, P))
    unpack(pack(x)[0], out)
    np.testing.assert_array_equal(out, x[0])
