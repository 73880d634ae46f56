"""Signs: the trace identity (20), recovery under the models, and scale invariance."""

import pytest
import torch

from cmgl_cli.errors import InputError
from cmgl_cli.restoration import signed_laplacian, signed_polarity
from cmgl_cli.restoration.linear_operators import laplacian_of
from cmgl_cli.restoration.synthetic import pseudo_inverse_root, random_modality_graph


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_weights(n):
    weights = torch.rand(n, n, generator=generator(), dtype=torch.float64)
    weights = torch.triu(weights, 1)
    return weights + weights.mT


def test_trace_identity():
    laplacian = laplacian_of(random_weights(7))
    factor = torch.randn(7, 9, generator=generator(1), dtype=torch.float64)
    kernel = factor @ factor.mT
    polarity = signed_polarity(kernel, 3)
    left = torch.trace(signed_laplacian(polarity, laplacian) @ kernel)
    right = torch.trace(laplacian @ (polarity * kernel))
    assert float(left) == pytest.approx(float(right), rel=1e-12)


def test_rank_one_gives_the_signs_of_the_eigenvector():
    sign = torch.tensor([1.0, -1, -1, 1, -1], dtype=torch.float64)
    kernel = torch.outer(sign, sign) + 0.1 * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(signed_polarity(kernel, 1), torch.outer(sign, sign))


def test_full_rank_leaves_no_edge():
    factor = torch.randn(6, 9, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(signed_polarity(factor @ factor.mT, 6), torch.eye(6, dtype=torch.float64))


def test_matrix_normal_polarity_sits_at_the_trailing_end_of_the_precision_and_not_in_the_bulk():
    """The signed Laplacian's null vector is the polarity: leading for its pseudo-inverse plus that direction."""
    laplacian, _ = random_modality_graph(24, generator(3))
    truth = torch.sign(torch.linalg.eigh(laplacian).eigenvectors[:, 0])
    expected = torch.outer(truth, truth)
    root = pseudo_inverse_root(laplacian)
    agreement = {
        end: (torch.sign(signed_polarity(root @ root, 1, end)) == expected).double().mean()
        for end in ("leading", "trailing")
    }
    assert agreement["trailing"] == 1.0
    assert agreement["leading"] < 0.8


def test_scale_of_columns_does_not_matter_and_input_stays():
    factor = torch.randn(2, 6, 30, generator=generator(), dtype=torch.float64)
    kernel = factor @ factor.mT
    before = kernel.clone()
    scale = torch.tensor([1, 10, 0.1, 3, 7, 1e-3], dtype=torch.float64)
    scaled = kernel * scale[:, None] * scale[None, :]
    torch.testing.assert_close(signed_polarity(kernel, 2), signed_polarity(scaled, 2))
    assert torch.equal(kernel, before)


def test_dead_column_gets_no_edge():
    kernel = torch.ones(3, 3, dtype=torch.float64)
    kernel[2] = kernel[:, 2] = 0
    expected = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(signed_polarity(kernel, 1), expected)


@pytest.mark.parametrize("rank, end", [(0, "leading"), (4, "leading"), (1, "middle")])
def test_bad_input_is_refused(rank, end):
    with pytest.raises(InputError):
        signed_polarity(torch.eye(3), rank, end)
