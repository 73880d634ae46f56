"""Finer patches: windows of an image, each encoded by itself, their patch grids put together again."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from cmgl_cli.encoders.encoder import Encoder, Tokens
from cmgl_cli.encoders.preprocessing import Pixels
from cmgl_cli.errors import UsageError


class TiledEncoder:
    """An encoder that reads an image through windows, ``tiles`` of which span it from side to side.

    A patch is then so many times smaller on each side. Windows follow each other by half their size, (2 tiles - 1)^2 in
    all, and a patch that several of them see is their mean, weighted by how far it lies from the border of each: what
    is at the border of one is within another, and no seams are left. A window knows nothing of the rest of the image.

    Parameters
    ----------
    encoder : Encoder
        Of fixed resolution, and without a crop.
    tiles : int
        Windows side by side that span an image.

    Raises
    ------
    UsageError
        The encoder's patches vary in number, or its preprocessing crops: windows would not join.
    """

    def __init__(self, encoder: Encoder, tiles: int):
        self.encoder, self.tiles = encoder, tiles
        if encoder.patch_grid is None:
            raise UsageError(
                "this encoder chooses its patches by the image, and cannot read it in tiles",
                f"tiles: {tiles}, model_type: {encoder.model_type!r}",
                "give it more patches instead: --max-patches",
            )
        if encoder.preprocessor.rule().get("do_center_crop"):
            raise UsageError(
                "the encoder's preprocessing cuts borders off, so tiles would not join",
                f"tiles: {tiles}, encoder: {encoder.name!r}",
                'set "do_center_crop": false and "size": {"height": ..., "width": ...} in its preprocessor_config.json',
            )
        self._rows, self._columns = encoder.patch_grid
        self.patch_grid = (tiles * self._rows, tiles * self._columns)
        self.n_patches = tiles**2 * encoder.n_patches
        self.device, self.dtype, self.width = encoder.device, encoder.dtype, encoder.width
        self.weights_digest = encoder.weights_digest
        self._places = [(i, j) for i in _starts(self._rows, tiles) for j in _starts(self._columns, tiles)]

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but weights and images that the tokens depend on, as JSON types, for an artifact's identity."""
        joined = {"patch_grid": list(self.patch_grid), "n_patches": self.n_patches, "tiles": self.tiles}
        return {**self.encoder.settings, **joined}

    def preprocess(self, image: Image.Image) -> Pixels:
        """Return the input for every window of one RGB image, [windows, 3, H, W]; safe to call from threads."""
        rows, columns = self.patch_grid
        parts = []
        for i, j in self._places:
            left, right = _pixels(j, self._columns, columns, image.width)
            top, bottom = _pixels(i, self._rows, rows, image.height)
            parts.append(self.encoder.preprocess(image.crop((left, top, right, bottom))).values)
        return Pixels(np.stack(parts), self.patch_grid)

    def encode(self, batch: Sequence[Pixels]) -> Tokens:
        """Return the patch tokens of a batch, those of an image in one grid, rows first."""
        h, w = self._rows, self._columns
        values = np.zeros((len(batch), *self.patch_grid, self.width), dtype=np.float32)
        seen = np.zeros((*self.patch_grid, 1), dtype=np.float32)
        weight = (_slope(h)[:, None] * _slope(w))[..., None]
        # the same window of all images at a time: all windows at once could outgrow memory even with one image
        for index, (i, j) in enumerate(self._places):
            windows = self.encoder.encode([Pixels(pixels.values[index], (h, w)) for pixels in batch])
            values[:, i : i + h, j : j + w] += weight * windows.values.reshape(len(batch), h, w, self.width)
            seen[i : i + h, j : j + w] += weight
        values /= seen
        mask = np.ones((len(batch), self.n_patches), dtype=bool)
        grids = np.tile(np.array(self.patch_grid, dtype=np.int32), (len(batch), 1))
        return Tokens(values.reshape(len(batch), self.n_patches, self.width), mask, grids)


def _starts(side: int, tiles: int) -> list[int]:
    """Return the first patch of every window along a side: whole windows side by side, and those half way between."""
    whole = [side * i for i in range(tiles)]
    return sorted({*whole, *(start + side // 2 for start in whole[:-1])})


def _slope(side: int) -> np.ndarray:
    """Return the weights of a window's patches along a side, falling from the middle to the border."""
    place = np.arange(side, dtype=np.float32)
    return np.minimum(place + 1, side - place)


def _pixels(start: int, side: int, patches: int, length: int) -> tuple[int, int]:
    """Return first and last pixel of a window of ``side`` patches, one pixel at least."""
    first = min(round(start * length / patches), length - 1)
    return first, max(round((start + side) * length / patches), first + 1)
