"""Steadier patches: an image and its mirror image encoded alike, and averaged patch by patch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from cmgl_cli.encoders.encoder import Encoder, Tokens
from cmgl_cli.encoders.preprocessing import Pixels
from cmgl_cli.encoders.tiling import TiledEncoder
from cmgl_cli.errors import UsageError


class MirroredEncoder:
    """An encoder that reads every image twice, the second time with left and right exchanged.

    A patch is the mean of what it is in both, so the tokens of a mirror image are those of the image, mirrored.

    Parameters
    ----------
    encoder : Encoder or TiledEncoder
        Of fixed resolution.

    Raises
    ------
    UsageError
        The encoder's patches vary in number.
    """

    def __init__(self, encoder: Encoder | TiledEncoder):
        if encoder.patch_grid is None:
            raise UsageError(
                "this encoder chooses its patches by the image, and cannot average mirror images",
                f"mirror: true, model_type: {encoder.settings['model_type']!r}",
                "leave --mirror out",
            )
        self.encoder, self.patch_grid, self.n_patches = encoder, encoder.patch_grid, encoder.n_patches
        self.device, self.dtype, self.width = encoder.device, encoder.dtype, encoder.width
        self.weights_digest = encoder.weights_digest

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but weights and images that the tokens depend on, as JSON types, for an artifact's identity."""
        return {**self.encoder.settings, "mirror": True}

    def preprocess(self, image: Image.Image) -> Pixels:
        """Return the input for one RGB image and its mirror image, [2, ...]; safe to call from threads."""
        seen = [self.encoder.preprocess(each) for each in (image, ImageOps.mirror(image))]
        return Pixels(np.stack([pixels.values for pixels in seen]), self.patch_grid)

    def encode(self, batch: Sequence[Pixels]) -> Tokens:
        """Return the patch tokens of a batch, those of an image in one grid, rows first."""
        own, other = (
            self.encoder.encode([Pixels(pixels.values[side], self.patch_grid) for pixels in batch]) for side in (0, 1)
        )
        mirrored = other.values.reshape(len(batch), *self.patch_grid, self.width)[:, :, ::-1]
        values = (own.values + mirrored.reshape(own.values.shape)) / 2
        return Tokens(values, own.mask, own.grids)


AnyEncoder = Encoder | TiledEncoder | MirroredEncoder
"""What images can be streamed through."""
