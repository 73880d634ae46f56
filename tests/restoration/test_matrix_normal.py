"""The matrix-normal model: its posterior mean against dense algebra, its fit against the truth."""

import pytest
import torch

from cmgl_cli.errors import InputError
from cmgl_cli.experiments.twofold_synthetic import restored_by
from cmgl_cli.restoration import TrainingBatch, matrix_normal
from cmgl_cli.restoration.matrix_normal import (
    MatrixNormal,
    Settings,
    choose_settings,
    fill_columns,
    fill_stations,
    fit_matrix_normal,
    restore_matrix_normal,
)
from cmgl_cli.restoration.synthetic import matrix_normal_signals, mcar_mask, piecewise_smooth_signals, posterior_mean


def spd(n, seed):
    root = torch.randn(n, 2 * n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.mT / (2 * n)


def test_posterior_mean_is_the_dense_one():
    generator = torch.Generator().manual_seed(0)
    model = MatrixNormal(spd(5, 1), spd(7, 2), 0.3, torch.arange(7.0, dtype=torch.float64))
    observed = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    mask = mcar_mask((3, 5, 7), 0.4, generator)
    found = model.posterior_mean(torch.where(mask, observed, torch.nan), mask, tol=1e-12)
    covariance = torch.kron(model.spatial, model.modality)
    for k in range(3):
        known = mask[k].reshape(-1)
        system = covariance[known][:, known] + 0.3 * torch.eye(int(known.sum()), dtype=torch.float64)
        data = (observed[k] - model.column_mean).reshape(-1)[known]
        expected = (covariance[:, known] @ torch.linalg.solve(system, data)).reshape(5, 7) + model.column_mean
        torch.testing.assert_close(found[k], expected, rtol=0, atol=1e-9)


def test_complete_signals_give_back_the_covariances():
    generator = torch.Generator().manual_seed(0)
    spatial, modality = spd(4, 3), spd(6, 4)
    left, right = torch.linalg.cholesky(spatial), torch.linalg.cholesky(modality)
    signals = left @ torch.randn(2000, 4, 6, generator=generator, dtype=torch.float64) @ right.mT
    model = fit_matrix_normal(signals, torch.ones(2000, 4, 6), Settings(noise=0.001, rounds=8))
    found = torch.kron(model.spatial, model.modality) + model.noise * torch.eye(24)
    expected = torch.kron(spatial, modality)
    assert float((found - expected).norm() / expected.norm()) < 0.05


def dense_round(model, observed, mask):
    """One step of expectation and maximisation from the posterior of all cells at once."""
    n, m = observed.shape[-2:]
    precision = torch.kron(torch.linalg.inv(model.spatial), torch.linalg.inv(model.modality))
    inner_s, inner_m = torch.linalg.inv(model.spatial), torch.linalg.inv(model.modality)
    spatial, modality = torch.zeros(n, n, dtype=torch.float64), torch.zeros(m, m, dtype=torch.float64)
    noise, cells = 0.0, int(mask.sum())
    for values, seen in zip(observed, mask, strict=True):
        flat = seen.reshape(-1)
        spread = torch.linalg.inv(precision + torch.diag(flat / model.noise))
        mean = spread @ (torch.where(flat, values.reshape(-1), 0) / model.noise)
        moment = (spread + mean[:, None] * mean).reshape(n, m, n, m)
        spatial += torch.einsum("imjk,km->ij", moment, inner_m) / (m * len(observed))
        modality += torch.einsum("imjk,ji->mk", moment, inner_s) / (n * len(observed))
        noise += float(((values.reshape(-1) - mean)[flat] ** 2).sum() + spread.diagonal()[flat].sum()) / cells
    return spatial, modality, noise


def test_a_round_has_the_exact_expectations_but_for_the_draws_of_the_spread():
    generator = torch.Generator().manual_seed(0)
    observed = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    mask = mcar_mask((3, 4, 5), 0.3, generator)
    mask[0, 0], mask[1, :, 0] = True, True
    start = Settings(noise=0.2, rounds=1)
    found = [fit_matrix_normal(observed, mask, start, seed=seed) for seed in range(400)]
    mean = torch.where(mask, observed, 0).sum((0, 1)) / mask.sum((0, 1))
    data = torch.where(mask, observed - mean, 0)
    power = float((data**2).sum() / mask.sum())
    first = MatrixNormal(torch.eye(4).double(), power * torch.eye(5).double(), 0.2 * power, mean)
    spatial, modality, noise = dense_round(first, data, mask)
    scale = spatial.diagonal().mean()
    assert sum(one.noise for one in found) / len(found) == pytest.approx(noise, rel=0.02)
    torch.testing.assert_close(torch.stack([f.spatial for f in found]).mean(0), spatial / scale, rtol=0, atol=0.02)
    torch.testing.assert_close(torch.stack([f.modality for f in found]).mean(0), modality, rtol=0, atol=0.04)


@pytest.mark.parametrize("make", [matrix_normal_signals, piecewise_smooth_signals])
@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_it_is_not_behind_a_normal_of_either_side_alone(make, rate):
    generator = torch.Generator().manual_seed(3)
    signals = make(generator, n=20, m=24, n_signals=12)
    batch = TrainingBatch(signals.observed, mcar_mask(tuple(signals.clean.shape), rate, generator), signals.clean)

    def error(method):
        return float(((restored_by(method, batch, [], 0) - batch.target)[~batch.mask] ** 2).mean())

    assert error("twofold normal") <= min(error("mvn-em over columns"), error("mvn-em over stations"))


def test_a_hopeless_model_leaves_the_gaps_to_the_better_side(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    signals = piecewise_smooth_signals(generator, n=12, m=18, n_signals=6)
    mask = mcar_mask(tuple(signals.clean.shape), 0.3, generator)
    gaps = torch.where(mask, signals.observed, torch.nan)
    monkeypatch.setattr(
        matrix_normal,
        "choose_settings",
        lambda o, k, hidden, seed: (Settings(rounds=1), 1e4 * torch.randn(int(hidden.sum()), generator=generator)),
    )
    torch.testing.assert_close(
        restore_matrix_normal(gaps, mask)[~mask], fill_columns(gaps, mask)[~mask], atol=2e-3, rtol=0
    )
    turned, sides = restore_matrix_normal(gaps.mT, mask.mT), fill_stations(gaps.mT, mask.mT)
    torch.testing.assert_close(turned[~mask.mT], sides[~mask.mT], atol=2e-3, rtol=0)


def test_it_comes_close_to_the_posterior_mean_on_the_true_graphs():
    generator = torch.Generator().manual_seed(0)
    signals = matrix_normal_signals(generator, n=20, m=24)
    mask = mcar_mask(tuple(signals.clean.shape), 0.3, generator)

    def error(restored):
        return float(((restored - signals.clean)[~mask] ** 2).mean())

    best = error(posterior_mean(signals, mask))
    assert best < error(restore_matrix_normal(signals.observed, mask)) < 1.35 * best


def test_restoring_is_deterministic_equivariant_and_leaves_its_input_alone():
    generator = torch.Generator().manual_seed(0)
    signals = piecewise_smooth_signals(generator, n=12, m=18, n_signals=6)
    mask = mcar_mask(tuple(signals.clean.shape), 0.3, generator)
    copy = signals.observed.clone()
    one, two = (restore_matrix_normal(signals.observed, mask) for _ in range(2))
    assert torch.equal(one, two) and torch.equal(copy, signals.observed)
    assert float(((one - signals.clean)[~mask] ** 2).mean()) < 0.11


def test_unusable_signals_are_refused():
    with pytest.raises(InputError, match="samples"):
        fit_matrix_normal(torch.zeros(3, 4), torch.ones(3, 4))
    with pytest.raises(InputError):
        fit_matrix_normal(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4))


def chosen(monkeypatch, courses):
    """Return the settings chosen where hidden cells err as `courses` says, by shrinkage and first noise level."""
    noise = torch.randn(200, generator=torch.Generator().manual_seed(0)).double()

    def rounds(observed, mask, settings, seed):
        for level in courses[settings.shrinkage, settings.noise]:
            yield None, (level + 0.1 * level * noise).reshape(1, 10, 20)

    monkeypatch.setattr(matrix_normal, "_rounds", rounds)
    zeros, known = torch.zeros(1, 10, 20), torch.ones(1, 10, 20, dtype=torch.bool)
    return choose_settings(zeros, known, known)[0]


def test_hidden_cells_choose_shrinkage_noise_and_the_last_round_before_it_gets_worse(monkeypatch):
    even, worse = [3.0, 2.0, *[1.0] * 23], [3.0, 2.0, 0.9, *[0.5] * 4, *[0.8] * 18]
    last = {("spectrum", 0.01): even, ("diagonal", 0.01): [4.0] * 25, ("spectrum", 0.1): [2.0] * 25}
    assert chosen(monkeypatch, last) == Settings("spectrum", rounds=24)
    early = {("spectrum", 0.01): even, ("diagonal", 0.01): worse, ("diagonal", 0.1): [2.0] * 25}
    assert chosen(monkeypatch, early) == Settings("diagonal", 0.1, 0.5, rounds=6)
    loud = {("spectrum", 0.01): even, ("diagonal", 0.01): [4.0] * 25, ("spectrum", 0.1): worse}
    assert chosen(monkeypatch, loud) == Settings("spectrum", noise=0.1, rounds=6)


def test_older_draws_fade_and_the_first_ones_do_not_count():
    one, other = (matrix_normal._Spread(torch.full((2, 2), x), torch.full((3, 3), x), x) for x in (0.0, 1.0))
    steps = [one.moved_to(other, number) for number in range(1, 20)]
    assert [step.seen for step in steps[:2]] == [1.0, 1.0]
    weights = [step.seen for step in steps[2:]]
    assert weights == sorted(weights, reverse=True) and 0.5 < weights[0] < 0.6 and weights[-1] < 0.12
    assert all(float(step.rows[0, 0]) == pytest.approx(step.seen) == float(step.columns[1, 2]) for step in steps)
