"""What images look like around each cell of a grid finer than the patches: the nodes of a graph that see pixels.

A patch of 16 pixels is larger than a cell nucleus or a lamp post: no score of patches, however good, can draw them. So
every patch is cut into cells (`upscaling` along each side), each with nodes of its own for colour, contrast and edges,
and the class graphs tie these to the probes' nodes: how bright a nucleus is only means something beside how bright its
surroundings and its image are, and that is an edge.

All of it is relative to the image: the same scene at dusk, or exposed longer, has the same looks.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cmgl_cli.errors import InputError
from cmgl_cli.heads.context import with_context
from cmgl_cli.heads.evidence import PatchInputs

UPSCALING, MOST_CELLS = 4, 64
"""Cells a patch has along each side at most, and an image."""
APPEARANCE_NODES = 13
FLOOR, SPREAD_FLOOR = 0.05, 0.01
"""Added before the logarithm: about the noise of 8-bit photographs in the dark, and in even regions."""


def upscaling(grid: tuple[int, int]) -> int:
    """Return how many cells a patch has along each side: fewer where patches are small already."""
    return max(1, min(UPSCALING, MOST_CELLS // max(grid)))


def cell_grid(grid: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of the cells of a patch grid."""
    factor = upscaling(grid)
    return factor * grid[0], factor * grid[1]


def fine_grid(grid: tuple[int, int], picture: int) -> tuple[int, int]:
    """Return rows and columns of the cells that a network sees, a quarter of a patch each: at least `cell_grid`.

    Graphs are scored on at most `MOST_CELLS` cells a side, which costs much; what is trained on top of them may look
    closer, as far as the pictures, of `picture` rows and columns, have two pixels for a cell.
    """
    factor = min(UPSCALING, max(upscaling(grid), picture // (2 * max(grid))))
    return factor * grid[0], factor * grid[1]


def appearance(image: Tensor, cells: tuple[int, int]) -> Tensor:
    """Return the appearance nodes of each cell: images [B, 3, H, W] in 0..1 to [B, 13, *cells].

    Colour of the cell, of 3 x 3 and of 7 x 7 cells, relative to the image's mean; spread of the grey value within the
    cell, its mean difference to the next column and row, spread over 5 x 5 cells, relative to the image's mean grey.
    Logarithms of ratios: neither exposure nor the colour of the light changes them, but for the floors.
    """
    grey = image.mean(1, keepdim=True)
    colour, squares = _cells(image, cells), _cells(grey.square(), cells)
    spread = (squares - _cells(grey, cells).square()).clamp(min=0).sqrt()
    across = _cells(functional.pad(grey.diff(dim=3).abs(), (0, 1, 0, 0)), cells)
    down = _cells(functional.pad(grey.diff(dim=2).abs(), (0, 0, 0, 1)), cells)
    light, level = ((values.mean((2, 3), keepdim=True) + FLOOR).log() for values in (colour, grey))
    colours = [(maps + FLOOR).log() - light for maps in (colour, _blur(colour, 3), _blur(colour, 7))]
    spreads = [(maps + SPREAD_FLOOR).log() - level for maps in (spread, across, down, _blur(spread, 5))]
    return torch.cat(colours + spreads, 1)


def cell_observations(inputs: PatchInputs, windows: tuple[int, ...]) -> Tensor:
    """Return what class graphs with appearance nodes are estimated from, one observation a cell.

    Parameters
    ----------
    inputs : PatchInputs
        With images.
    windows : tuple of int
        Surroundings of the patch, see `context.with_context`.

    Returns
    -------
    Tensor, [B, n_cells, 13 + (1 + len(windows)) * p]
        Row by row of `cell_grid`: the cell's appearance, its patch's observations and their surroundings.

    Raises
    ------
    InputError
        If the images are missing.
    """
    cells = cell_grid(inputs.grid)
    looks = appearance(required_image(inputs), cells)
    joined = with_context(inputs.observations.float(), inputs.grid, windows).transpose(1, 2).unflatten(2, inputs.grid)
    factor = upscaling(inputs.grid)
    patches = joined.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    return torch.cat([looks, patches], 1).flatten(2).transpose(1, 2)


def required_image(inputs: PatchInputs) -> Tensor:
    """Return the images of a batch.

    Raises
    ------
    InputError
        If they are missing.
    """
    if inputs.image is None:
        raise InputError("this decoder needs the images", "image is None", "pass them, or decode patches alone")
    return inputs.image


def _cells(maps: Tensor, cells: tuple[int, int]) -> Tensor:
    return functional.interpolate(maps, size=cells, mode="area")


def _blur(maps: Tensor, window: int) -> Tensor:
    """Return box means over windows cut off at the border."""
    return functional.avg_pool2d(maps, window, stride=1, padding=window // 2, count_include_pad=False)
