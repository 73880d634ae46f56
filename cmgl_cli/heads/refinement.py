"""Finer than the patch grid: what a patch means, joined with what its pixels look like.

A patch of 16 pixels is larger than a cell nucleus or a lamp post: no score of patches, however good, can draw them. The
paper suggests a U-Net decoder for this; the part of one that pays here is its skip connection from the image. Scores
and an embedding of the patches are interpolated to `UPSCALING` times the patch grid and meet local colour, contrast and
edges of the image in a network of two layers, pixel by pixel.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmgl_cli.errors import InputError
from cmgl_cli.heads.decoders import HybridDecoder, LinearDecoder, on_grid, upsample
from cmgl_cli.heads.evidence import PatchInputs

UPSCALING = 4
"""Pixels of the output a patch has along each side."""
IMAGE_FEATURES = 12


class RefinedDecoder(nn.Module):
    """A decoder on patches, refined with the image.

    logits = upsampled(patch scores) + network(upsampled embedding of the patches, image features)

    Parameters
    ----------
    base : LinearDecoder or HybridDecoder
        Scores the patches; trained along.
    width, n_classes : int
        d and C.
    embedding, hidden : int
        Channels of the patch embedding and of the network's hidden layer.
    dropout : float
        Share of the network's input channels that are dropped while training.
    """

    needs_image = True

    def __init__(
        self,
        base: LinearDecoder | HybridDecoder,
        width: int,
        n_classes: int,
        *,
        embedding: int = 32,
        hidden: int = 64,
        dropout: float = 0.2,
    ):
        super().__init__()
        self.base = base
        linear = base if isinstance(base, LinearDecoder) else base.linear
        self.embedding = LinearDecoder(width, embedding, linear.mean, linear.scale)
        self.normalise = nn.BatchNorm2d(IMAGE_FEATURES, affine=False)
        self.network = nn.Sequential(
            nn.Dropout2d(dropout),
            nn.Conv2d(embedding + IMAGE_FEATURES, hidden, 1),
            nn.GELU(),
            nn.Conv2d(hidden, n_classes, 1),
        )

    def forward(self, inputs: PatchInputs) -> Tensor:
        """Return logits [B, C, 4 h, 4 w].

        Raises
        ------
        InputError
            If the images are missing.
        """
        if inputs.image is None:
            raise InputError("this decoder needs the images", "image is None", "pass them, or decode patches alone")
        size = (UPSCALING * inputs.grid[0], UPSCALING * inputs.grid[1])
        pixels = self.normalise(image_features(inputs.image, size))
        patches = upsample(self.embedding(inputs), size)
        scores = upsample(on_grid(self.base.scores(inputs), inputs.grid), size)
        return scores + self.network(torch.cat([patches, pixels], 1))


def image_features(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return what images look like around each point of a grid: [B, 3, H, W] in 0..1 to [B, 12, *size].

    Colour, colour of the wider surroundings (7 cells), difference from the close ones (3 cells), spread of the grey
    values within the cell, and the grey value's differences to the next column and row.
    """
    cells = functional.interpolate(image, size=size, mode="area")
    grey = cells.mean(1, keepdim=True)
    squares = functional.interpolate(image.mean(1, keepdim=True).square(), size=size, mode="area")
    spread = (squares - grey.square()).clamp(min=0).sqrt()
    across = functional.pad(grey.diff(dim=3), (0, 1, 0, 0)).abs()
    down = functional.pad(grey.diff(dim=2), (0, 0, 0, 1)).abs()
    return torch.cat([cells, _blur(cells, 7), cells - _blur(cells, 3), spread, across, down], 1)


def _blur(maps: Tensor, window: int) -> Tensor:
    """Return box means over windows cut off at the border."""
    return functional.avg_pool2d(maps, window, stride=1, padding=window // 2, count_include_pad=False)
