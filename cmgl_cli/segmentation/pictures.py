"""The images of a dataset by row of an artifact: small ones for decoders that look at them, whole ones for figures."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from cmgl_cli.datasets import Dataset, Sample
from cmgl_cli.errors import InputError


class Pictures:
    """Images of the samples of an artifact, by row.

    Parameters
    ----------
    dataset : Dataset
    ids : sequence of str
        The artifact's samples.
    size : int
        Rows and columns of the small images.
    memory_bytes : int
        Small images kept in memory.

    Raises
    ------
    InputError
        The dataset lacks one of the samples.
    """

    def __init__(self, dataset: Dataset, ids: Sequence[str], size: int, memory_bytes: int):
        self._dataset, self._size = dataset, size
        self._samples = samples_by_id(dataset, ids)
        self._room = memory_bytes // (3 * size * size)
        self._kept: dict[int, np.ndarray] = {}

    def __call__(self, row: int) -> np.ndarray:
        """Return the image of a row, uint8 [size, size, 3]."""
        if row in self._kept:
            return self._kept[row]
        small = small_picture(self._dataset.image(self._samples[row]), self._size)
        if len(self._kept) < self._room:
            self._kept[row] = small
        return small


def small_picture(image: Image.Image, size: int) -> np.ndarray:
    """Return an image as decoders look at it, uint8 [size, size, 3]: each pixel the mean of its part of the image."""
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


def samples_by_id(dataset: Dataset, ids: Sequence[str]) -> list[Sample]:
    """Return the samples of that order.

    Raises
    ------
    InputError
        The dataset lacks one of them.
    """
    known = {sample.id: sample for sample in dataset.samples()}
    missing = [name for name in ids if name not in known]
    if missing:
        raise InputError(
            f"the dataset lacks {len(missing)} of the {len(ids)} encoded images",
            f"{dataset.name}: for example {missing[0]}",
            "give the --dataset and --root that were encoded, or run cmgl extract again",
        )
    return [known[name] for name in ids]
