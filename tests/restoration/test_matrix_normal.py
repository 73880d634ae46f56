"""The matrix-normal model: its posterior mean against dense algebra, its fit against the truth."""

import pytest
import torch

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.matrix_normal import MatrixNormal, Settings, fit_matrix_normal, restore_matrix_normal
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
    signals = left @ torch.randn(4000, 4, 6, generator=generator, dtype=torch.float64) @ right.mT
    model = fit_matrix_normal(signals, torch.ones(4000, 4, 6), Settings(noise=0.001), rounds=12)
    found = torch.kron(model.spatial, model.modality) + model.noise * torch.eye(24)
    expected = torch.kron(spatial, modality)
    assert float((found - expected).norm() / expected.norm()) < 0.05


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
    assert float(((one - signals.clean)[~mask] ** 2).mean()) < 0.1


def test_unusable_signals_are_refused():
    with pytest.raises(InputError, match="samples"):
        fit_matrix_normal(torch.zeros(3, 4), torch.ones(3, 4))
    with pytest.raises(InputError):
        fit_matrix_normal(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4))
