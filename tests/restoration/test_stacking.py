"""Stacking weights: least squares over the simplex, against a general solver."""

import cvxpy
import pytest
import torch

from cmgl_cli.restoration.stacking import stacking_weights


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_stacking_weights_are_the_least_squares_ones(seed, unit):
    generator = torch.Generator().manual_seed(seed)
    errors = (
        torch.randn(200, 4, generator=generator, dtype=torch.float64)
        @ torch.rand(4, 4, generator=generator).double()
        * unit
    )
    weights = cvxpy.Variable(4, nonneg=True)
    cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(errors.numpy() / unit @ weights)), [cvxpy.sum(weights) == 1]).solve(
        solver=cvxpy.CLARABEL
    )
    found = stacking_weights(errors)
    assert found == pytest.approx(weights.value, abs=1e-5) and sum(found) == pytest.approx(1, abs=1e-12)


def test_stacking_takes_the_perfect_fit_the_better_of_two_that_err_alike_and_the_first_without_any_cell():
    error = torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
    assert stacking_weights(torch.cat([error, 0 * error], dim=1)) == pytest.approx([0, 1], abs=1e-12)
    assert stacking_weights(torch.cat([2 * error, error], dim=1)) == pytest.approx([0, 1], abs=1e-12)
    assert stacking_weights(torch.cat([error, -error], dim=1)) == pytest.approx([0.5, 0.5], abs=1e-12)
    assert stacking_weights(error[:0].expand(0, 3)) == [1, 0, 0]
