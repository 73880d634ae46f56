"""A patch and its surroundings as one observation, so that class graphs hold edges between scales.

What a patch shows depends strongly on what is around it, and how it depends on it differs from class to class. The
observation of a patch is therefore its own node vector u followed by the mean of u over wider windows around it; with
K windows the graphs have (1 + K) p nodes, those of the patch first.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from cmgl_cli.errors import InputError, UsageError

WHOLE_IMAGE = 0
"""The window that takes in all patches."""
NEIGHBOURS = 3
"""The window of a patch and the eight next to it."""
WINDOWS = (NEIGHBOURS, WHOLE_IMAGE)
"""Default windows: the patch's neighbours, and the image."""


def with_context(observations: Tensor, grid: tuple[int, int], windows: Sequence[int] = WINDOWS) -> Tensor:
    """Return every patch's observations followed by their means over windows around it.

    Parameters
    ----------
    observations : Tensor, [B, N_p, p]
        Row by row of the grid.
    grid : tuple of int
        (h, w), h * w = N_p.
    windows : sequence of int
        Odd sides in patches, cut off at the border, or `WHOLE_IMAGE`, best last: it is then scored once an image.

    Returns
    -------
    Tensor, [B, N_p, (1 + len(windows)) * p]

    Raises
    ------
    InputError
        If the grid does not have N_p patches.
    UsageError
        If a window is negative or even.
    """
    if grid[0] * grid[1] != observations.shape[1]:
        raise InputError(
            "grid and patches differ", f"{grid} for {observations.shape[1]} patches", "pass the encoder's patch grid"
        )
    maps = observations.transpose(1, 2).unflatten(2, grid)
    around = [window_mean(maps, window).flatten(2).transpose(1, 2) for window in windows]
    return torch.cat([observations, *around], dim=2)


def window_mean(maps: Tensor, window: int) -> Tensor:
    """Return the mean of maps [B, K, h, w] over a window around every place, cut off at the border.

    Raises
    ------
    UsageError
        If the window is negative or even.
    """
    if window == WHOLE_IMAGE:
        return maps.mean((2, 3), keepdim=True).expand_as(maps)
    if window < 0 or window % 2 == 0:
        raise UsageError(
            "a window must have a middle", f"window = {window}", f"give an odd side, or {WHOLE_IMAGE} for the image"
        )
    return functional.avg_pool2d(maps, window, stride=1, padding=window // 2, count_include_pad=False)
