"""Shrunk covariances: limits, invariances, and less error than the sample's."""

import pytest
import torch

from cmgl_cli.restoration.shrinkage import shrunk_spectrum, shrunk_to_diagonal


def sample(true, rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(rows, len(true), generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(true).mT
    return drawn.mT @ drawn / rows


def test_to_the_diagonal():
    covariance = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    assert torch.equal(shrunk_to_diagonal(covariance, 0.5), torch.tensor([[2.0, 0.5], [0.5, 3.0]]))
    assert torch.equal(shrunk_to_diagonal(covariance, 0.0), covariance)


def test_equal_eigenvalues_are_found_again():
    found = torch.linalg.eigvalsh(shrunk_spectrum(sample(torch.eye(60).double(), 1000), 1000))
    spread = torch.linalg.eigvalsh(sample(torch.eye(60).double(), 1000))
    assert float(spread[-1] - spread[0]) > 0.8 and float(found[-1] - found[0]) < 0.35
    assert float(found.mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "eigenvalues",
    [torch.ones(50), torch.linspace(0.3, 3, 50), torch.cat([torch.full((44,), 0.01), torch.full((6,), 9.0)])],
)
def test_it_is_nearer_to_the_truth_than_the_sample(eigenvalues):
    true = torch.diag(eigenvalues.double())
    for rows in (75, 400):
        drawn = sample(true, rows)
        assert (shrunk_spectrum(drawn, rows) - true).norm() <= 1.02 * (drawn - true).norm()
    spread = sample(true, 75)
    found = shrunk_spectrum(spread, 75)

    # Stein's loss, what a conditional mean pays
    def loss(a):
        return float((a @ torch.linalg.inv(true)).trace() + torch.linalg.slogdet(true)[1] - torch.linalg.slogdet(a)[1])

    assert loss(found) < loss(spread)


def test_an_eigenvalue_apart_stays():
    true = torch.diag(torch.cat([torch.tensor([1e-3]), torch.ones(58), torch.tensor([40.0])]).double())
    found = torch.linalg.eigvalsh(shrunk_spectrum(sample(true, 1000), 1000))
    assert float(found[0]) < 5e-3 and float(found[1]) > 0.7 and 30 < float(found[-1]) < 50


def test_many_rows_change_nothing_and_axes_and_units_do_not_matter():
    covariance = sample(torch.diag(torch.linspace(0.5, 2, 8).double()), 50)
    torch.testing.assert_close(shrunk_spectrum(covariance, 1e9), covariance, rtol=1e-3, atol=1e-4)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    turned = shrunk_spectrum(7 * turn @ covariance @ turn.mT, 50)
    torch.testing.assert_close(turned, 7 * turn @ shrunk_spectrum(covariance, 50) @ turn.mT)


def test_a_singular_covariance_stays_finite():
    root = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = shrunk_spectrum(root @ root.mT, 3)
    assert bool(torch.isfinite(found).all()) and float(torch.linalg.eigvalsh(found)[0]) > -1e-9
