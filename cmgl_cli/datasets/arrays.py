"""The base of the datasets whose images are held in arrays."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from cmgl_cli.datasets.images import to_rgb
from cmgl_cli.datasets.records import Dataset, Sample
from cmgl_cli.errors import UsageError


class ArrayDataset(Dataset):
    """A dataset whose images are rows of arrays.

    Subclasses yield samples from ``_list`` and call ``_hold`` for each.
    """

    def __init__(self) -> None:
        self._images: dict[str, np.ndarray] = {}
        self._masks: dict[str, np.ndarray] = {}

    def _hold(self, sample: Sample, image: np.ndarray, mask: np.ndarray | None = None) -> Sample:
        self._images[sample.id] = image
        if mask is not None:
            self._masks[sample.id] = mask
        return sample

    def _row(self, sample: Sample) -> np.ndarray:
        self.samples()
        if sample.id not in self._images:
            raise UsageError(
                f"the sample is not in the dataset {self.name}", sample.id, "take samples from this dataset"
            )
        return self._images[sample.id]

    def image(self, sample: Sample) -> Image.Image:
        """Return the image of a sample as RGB (see `Dataset.image`)."""
        return to_rgb(Image.fromarray(np.ascontiguousarray(self._row(sample))))

    @property
    def has_masks(self) -> bool:
        """Whether any sample has a mask."""
        self.samples()
        return bool(self._masks)

    def mask(self, sample: Sample) -> np.ndarray | None:
        """Return the mask of a sample (see `Dataset.mask`)."""
        self._row(sample)
        values = self._masks.get(sample.id)
        return None if values is None else self.mask_values.decode(values)

    def _pixels(self, sample: Sample) -> Iterator[bytes]:
        pixels = self._row(sample)
        yield repr((pixels.shape, pixels.dtype.str)).encode()
        yield pixels.tobytes()
