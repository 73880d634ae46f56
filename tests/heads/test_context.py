"""Patches with their surroundings: window means by hand, and the order of the variables."""

import pytest
import torch

from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.heads.context import WHOLE_IMAGE, with_context

GRID = (4, 5)


@pytest.mark.parametrize("window", [1, 3, 5])
def test_means_over_windows_match_a_loop(window: int) -> None:
    maps = torch.randn(2, *GRID, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    joined = with_context(maps.flatten(1, 2), GRID, (window,)).unflatten(1, GRID)
    reach = window // 2
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            rows = slice(max(0, row - reach), row + reach + 1)
            columns = slice(max(0, column - reach), column + reach + 1)
            torch.testing.assert_close(joined[:, row, column, 3:], maps[:, rows, columns].mean((1, 2)))


def test_the_patch_comes_first_and_the_image_is_the_same_everywhere() -> None:
    observations = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(1))
    joined = with_context(observations, GRID, (3, WHOLE_IMAGE))
    assert joined.shape == (2, 20, 9)
    assert torch.equal(joined[..., :3], observations)
    torch.testing.assert_close(joined[..., 6:], observations.mean(1, keepdim=True).expand(2, 20, 3))
    assert torch.equal(with_context(observations, GRID, ()), observations)


@pytest.mark.parametrize(
    ("windows", "grid", "error", "named"),
    [
        ((2,), GRID, UsageError, "window = 2"),
        ((-3,), GRID, UsageError, "window = -3"),
        ((3,), (4, 4), InputError, "(4, 4) for 20"),
    ],
)
def test_refuses_bad_input_and_names_it(windows, grid, error, named: str) -> None:
    with pytest.raises(error) as caught:
        with_context(torch.zeros(1, 20, 2), grid, windows)
    assert named in str(caught.value)
