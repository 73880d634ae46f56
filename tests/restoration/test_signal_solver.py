"""The signal equation (16) against direct solvers, and the cells it leaves undetermined."""

import numpy as np
import pytest
import torch

from cmgl_cli.errors import InputError
from cmgl_cli.restoration import solve_signal, undetermined_cells
from cmgl_cli.restoration.linear_operators import laplacian_of
from cmgl_cli.restoration.synthetic import mcar_mask, random_modality_graph, random_spatial_graph


def problem(n=9, m=7, rate=0.4, seed=0, samples=None):
    generator = torch.Generator().manual_seed(seed)
    _, spatial = random_spatial_graph(n, generator, n_neighbors=3)
    modality, _ = random_modality_graph(m, generator)
    shape = (n, m) if samples is None else (samples, n, m)
    observed = torch.randn(shape, generator=generator, dtype=torch.float64)
    return observed, mcar_mask(shape, rate, generator), spatial, modality


def system(mask, spatial, modality, mu):
    return mu * torch.kron(modality, spatial) + torch.diag(mask.T.reshape(-1).double())


def test_agrees_with_the_direct_solution():
    observed, mask, spatial, modality = problem()
    result = solve_signal(observed, mask, spatial, modality, 0.3, tol=1e-12)
    data = torch.where(mask, observed, 0).T.reshape(-1)
    expected = torch.linalg.lstsq(system(mask, spatial, modality, 0.3), data[:, None], driver="gelsd").solution
    torch.testing.assert_close(result.signal.T.reshape(-1), expected[:, 0], rtol=0, atol=1e-8)
    assert result.converged


def test_full_mask_has_the_sylvester_closed_form():
    observed, _, spatial, modality = problem()
    result = solve_signal(observed, torch.ones(9, 7), spatial, modality, 0.5, tol=1e-12)
    (a, u), (b, v) = torch.linalg.eigh(spatial), torch.linalg.eigh(modality)
    expected = u @ ((u.T @ observed @ v) / (1 + 0.5 * a[:, None] * b[None, :])) @ v.T
    torch.testing.assert_close(result.signal, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_undetermined_cells_are_those_of_the_null_space(seed):
    observed, mask, spatial, modality = problem(rate=0.8, seed=seed)
    if seed % 2:
        mask[2], mask[:, 3] = False, False
    if seed == 2:
        modality = modality + 0.1 * torch.eye(7, dtype=torch.float64)
    if seed == 3:
        spatial = spatial + 0.1 * torch.eye(9, dtype=torch.float64)
    if seed == 4:
        spatial = torch.block_diag(
            spatial[:0, :0],
            laplacian_of(torch.ones(4, 4) - torch.eye(4)).double(),
            laplacian_of(torch.ones(5, 5) - torch.eye(5)).double(),
        )
    values, vectors = torch.linalg.eigh(system(mask, spatial, modality, 1.0))
    null = vectors[:, values < 1e-10]
    expected = (null**2).sum(1).reshape(7, 9).T > 1e-10
    assert torch.equal(undetermined_cells(mask, spatial, modality), expected)


def test_null_part_of_the_start_stays_and_zero_start_has_least_norm():
    observed, mask, spatial, modality = problem()
    mask[4] = False
    zero = solve_signal(observed, mask, spatial, modality, 0.3, tol=1e-12)
    start = torch.randn(9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    moved = solve_signal(observed, mask, spatial, modality, 0.3, initial=start, tol=1e-12)
    determined = ~zero.undetermined
    torch.testing.assert_close(zero.signal[determined], moved.signal[determined], rtol=0, atol=1e-7)
    assert zero.undetermined[4].all()
    assert torch.linalg.norm(zero.signal) <= torch.linalg.norm(moved.signal) + 1e-9


def test_sparse_equals_dense_also_in_batches():
    observed, mask, spatial, modality = problem(samples=3)
    dense = solve_signal(observed, mask, spatial, modality, 0.3, tol=1e-11)
    sparse = solve_signal(observed, mask, spatial.to_sparse_csr(), modality.to_sparse_csr(), 0.3, tol=1e-11)
    torch.testing.assert_close(sparse.signal, dense.signal, rtol=0, atol=1e-8)
    assert torch.equal(sparse.undetermined, dense.undetermined)


def test_batch_equals_loop_permutes_with_stations_and_leaves_inputs():
    observed, mask, spatial, modality = problem(samples=2)
    observed[~mask] = float("nan")
    copies = [x.clone() for x in (observed, mask, spatial, modality)]
    batch = solve_signal(observed, mask, spatial, modality, 0.3, tol=1e-12)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    for i in range(2):
        alone = solve_signal(observed[i][order], mask[i][order], spatial[order][:, order], modality, 0.3, tol=1e-12)
        torch.testing.assert_close(alone.signal, batch.signal[i][order], rtol=0, atol=1e-8)
    for now, before in zip((observed, mask, spatial, modality), copies, strict=True):
        torch.testing.assert_close(now, before, rtol=0, atol=0, equal_nan=True)


def test_float32_is_kept():
    observed, mask, spatial, modality = problem()
    result = solve_signal(observed.float(), mask, spatial.float(), modality.float(), 0.3, tol=1e-5)
    assert result.signal.dtype == torch.float32 and result.converged


def test_bad_input_is_refused():
    observed, mask, spatial, modality = problem()
    with pytest.raises(ValueError):
        solve_signal(observed, mask, spatial, modality, 0.0)
    with pytest.raises(ValueError):
        solve_signal(observed, mask, spatial[:5, :5], modality, 1.0)
    observed[0, 0], mask[0, 0] = np.inf, True
    with pytest.raises(InputError):
        solve_signal(observed, mask, spatial, modality, 1.0)
