"""A prior is used where held-out samples say so, and rejected where they do not."""

import numpy as np
import pytest

from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.graphs import (
    Grid,
    Moments,
    conditional_sample,
    resampled,
    select_joint,
    stars,
)
from cmgl_cli.graphs.judgement import judge

SHARE = np.full(4, 0.25)


def table(gain, noise=0.05, folds=5, cells=3, seed=0):
    """Held-out likelihoods [F, K, C] of some cells: `gain` at the second k in the second cell, worse elsewhere."""
    rng = np.random.default_rng(seed)
    found = [rng.normal(-0.3, noise, (folds, 3, 4)) for _ in range(cells)]
    found[0][:, 0] += 0.3
    found[1][:, 1] = found[0][:, 0] + np.asarray(gain) + rng.normal(0, noise, (folds, 4))
    return found


def test_a_useful_prior_is_taken_with_its_cell():
    found = judge(table(0.5), SHARE, 0)
    assert found.accepted and found.cell == 1 and found.k.tolist() == [1] * 4
    np.testing.assert_allclose(found.gain, 0.5, atol=0.1)
    assert judge(table(0.5), SHARE, 0, shared=True).k.tolist() == [1] * 4


def test_a_useless_prior_is_rejected_and_its_cell_with_it():
    rejected = [judge(table(-0.05, seed=seed), SHARE, 0) for seed in range(40)]
    assert np.mean([not found.accepted for found in rejected]) >= 0.95
    for found in rejected:
        if not found.accepted:
            assert found.cell == 0 and (found.k == 0).all()


def test_every_class_decides_for_itself():
    found = judge(table([1, 1, -1, 1]), SHARE, 0)
    assert found.k.tolist() == [1, 1, 0, 1] or found.k[2] != 1


def test_the_gain_is_measured_where_it_was_not_chosen():
    rng = np.random.default_rng(1)
    gains, naive = [], []
    for _ in range(200):
        noise = rng.normal(0, 1, (5, 12, 4))
        gains.append(judge([noise], SHARE, 0).total[0])
        naive.append((noise.mean(0).max(0) - noise.mean(0)[0]).mean())
    assert abs(np.mean(gains)) < 0.1 < 0.4 < np.mean(naive)


def test_random_priors_lose_by_held_out_likelihood():
    rng, p, n = np.random.default_rng(2), 15, 120
    truth = np.zeros((2, p, p))
    truth[0, np.arange(0, 14, 2), np.arange(1, 15, 2)] = truth[1, np.arange(1, 15, 2), np.arange(2, 16, 2) % p] = 1
    truth += truth.transpose(0, 2, 1)
    x = np.array([rng.multivariate_normal(np.zeros(p), np.linalg.inv(np.eye(p) + 0.49 * t), n) for t in truth])
    fold = np.arange(n) % 5

    def moments(rows):
        return np.array([block[rows].T @ block[rows] / rows.sum() for block in x])

    folds = [(moments(fold != f), moments(fold == f)) for f in range(5)]
    grid = Grid(k=(0, 5, 20), rho=(0.2, 0.4), gamma=(0.1, 0.2, 0.4), criterion="heldout", preserve_penalty=True)
    options = {"counts": [n, n], "grid": Grid(**{**vars(grid), "fit_options": {"weight_floor": 0.01}})}
    whole = moments(fold >= 0)
    assert (select_joint(whole, truth, **options, folds=folds).best.k > 0).any()
    for turn in range(3):
        order = np.random.default_rng(turn).permutation(p)
        shuffled = truth[:, order][:, :, order]
        assert (select_joint(whole, shuffled, **options, folds=folds).best.k == 0).all()
    crossed = [(train, test, truth) for train, test in folds]
    assert (select_joint(whole, shuffled, **options, folds=crossed).gain > 0).any()


def test_stability_chooses_by_stars():
    rng = np.random.default_rng(3)
    z, labels = rng.standard_normal((120, 6)), np.repeat([0, 1], 60)
    z[:, 1] += z[:, 0]
    sigmas = list(resampled(z, labels, 8))
    whole = next(resampled(z, labels, 1, fraction=1.0))
    grid = Grid(k=(0,), rho=(0.05, 0.3, 0.9), gamma=(0.05, 0.3, 0.9), criterion="stability", stars_threshold=0.1)
    found = select_joint(whole, np.full((6, 6), 0.5), [60, 60], grid, resamples=sigmas)
    order = sorted(found.cells, key=lambda cell: (cell.final_edges, -cell.rho, -cell.gamma))
    assert found.best is order[stars([cell.instability for cell in order], 0.1)]
    assert found.best.instability <= 0.1 < max(cell.instability for cell in found.cells)


def test_conditional_samples_have_the_covariance_and_its_law():
    rng = np.random.default_rng(4)
    sigma = np.cov(rng.standard_normal((5, 40)), bias=True)
    drawn = conditional_sample(sigma, 40, rng)
    np.testing.assert_allclose(drawn.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(drawn.T @ drawn / 40, sigma, atol=1e-12)
    # the half of n = 10 centred samples of covariance I has, as real ones do, a covariance of mean 8/9 of the whole's
    halves = [Moments(1, 2).update(conditional_sample(np.eye(2), 10, rng)[:5], 0).covariances()[0] for _ in range(2000)]
    np.testing.assert_allclose(np.mean(halves, axis=0), np.eye(2) * 8 / 9, atol=0.03)
    low = np.outer([1, 2, 3], [1, 2, 3]) + np.outer([0, 1, 0], [0, 1, 0])
    np.testing.assert_allclose(np.cov(conditional_sample(low, 3, rng).T, bias=True), low, atol=1e-12)
    with pytest.raises(InputError, match="so few samples"):
        conditional_sample(low, 2, rng)


def test_criteria_say_what_they_lack():
    sigma = np.eye(3)[None]
    for grid, message in (
        (Grid(k=(0,), criterion="heldout"), "folds"),
        (Grid(k=(0,), criterion="score"), "score"),
        (Grid(k=(0,), criterion="stability"), "resamples"),
        (Grid(k=(0, 1)), "number of samples"),
    ):
        with pytest.raises(UsageError, match=message):
            select_joint(sigma, np.ones((3, 3)), None, grid)
    with pytest.raises(UsageError, match="criterion"):
        Grid(criterion="aic")
    alone = select_joint(sigma, np.ones((3, 3)), None, Grid(k=(0,), rho=(0.1,), gamma=(0.1,)))
    np.testing.assert_allclose(alone.result.precision, sigma)
