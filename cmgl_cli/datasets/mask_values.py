"""How a dataset writes classes into mask files, and how to read and write them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cmgl_cli.errors import InputError

HIDDEN = 255
"""The ``ignore_label`` of datasets whose own value for it lies among the classes."""


@dataclass(frozen=True, eq=False)
class MaskValues:
    """The convention of a dataset's mask files.

    Parameters
    ----------
    stored : tuple of int
        Value in the file of each mask class.
    ignored : int or None
        Value in the file of pixels without truth.
    colours : ndarray of uint8, shape [values, 3], or None
        The colour of each value in the file: the palette written, and how RGB masks are read.
    threshold : int or None
        Where given, file values above it are class 1 and all others class 0, whatever ``stored`` says.
    """

    stored: tuple[int, ...]
    ignored: int | None = None
    colours: np.ndarray | None = None
    threshold: int | None = None

    @classmethod
    def identity(cls, count: int, ignored: int | None = None, colours: np.ndarray | None = None) -> "MaskValues":
        """Return the convention in which file values are class indices."""
        return cls(tuple(range(count)), ignored, colours)

    @property
    def ignore_label(self) -> int | None:
        """The value of pixels without truth in decoded masks: the file's own, or 255 if that is a class index."""
        return HIDDEN if self.ignored is not None and self.ignored < len(self.stored) else self.ignored

    @property
    def palette(self) -> np.ndarray | None:
        """The colour of each mask class, uint8 [classes, 3]."""
        return None if self.colours is None else self.colours[list(self.stored)]

    def decode(self, values: np.ndarray) -> np.ndarray:
        """Turn file values into class indices.

        Parameters
        ----------
        values : ndarray of integers, shape [height, width]
            As stored.

        Returns
        -------
        ndarray of uint8 or int32, shape [height, width]
            Class indices, and ``ignore_label``.

        Raises
        ------
        InputError
            If a value stands for no class.
        """
        if self.threshold is not None:
            return (values > self.threshold).astype(np.uint8)
        table = np.full(max(*self.stored, self.ignored or 0, int(values.max(initial=0))) + 1, -1, dtype=np.int32)
        table[list(self.stored)] = np.arange(len(self.stored))
        if self.ignored is not None and self.ignore_label is not None:
            table[self.ignored] = self.ignore_label
        if values.min(initial=0) < 0 or (table[values] < 0).any():
            raise self._unknown(np.unique(values), table)
        return table[values].astype(np.uint8 if table.max() < 256 else np.int32)

    def _unknown(self, present: np.ndarray, table: np.ndarray) -> InputError:
        odd = [int(value) for value in present if value < 0 or table[value] < 0]
        ignored = "" if self.ignored is None else f", or {self.ignored} to ignore"
        return InputError(
            "a mask has values that stand for no class",
            f"values {_listed(odd)}; expected {_listed(self.stored)}{ignored}",
            "correct the mask, or the list of classes",
        )

    def encode(self, mask: np.ndarray) -> Image.Image:
        """Turn class indices into a mask image as the dataset's own files are.

        Parameters
        ----------
        mask : ndarray of integers, shape [height, width]
            Class indices, and ``ignore_label``.

        Returns
        -------
        PIL.Image.Image
            A palette image where there are colours, else grey; 16 bit grey where values exceed 255.
        """
        table = np.zeros(max(len(self.stored), self.ignore_label or 0) + 1, dtype=np.uint16)
        table[: len(self.stored)] = self.stored
        if self.ignored is not None and self.ignore_label is not None:
            table[self.ignore_label] = self.ignored
        values = table[mask]
        if values.max(initial=0) > 255:
            return Image.fromarray(values)
        image = Image.fromarray(values.astype(np.uint8))
        if self.colours is not None:
            image.putpalette(self.colours.astype(np.uint8).tobytes())
        return image


def _listed(values: Sequence[int]) -> str:
    if len(values) > 3 and list(values) == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(str(value) for value in values[:10]) + (", ..." if len(values) > 10 else "")
