"""The bundled dataset: scikit-learn's handwritten digits with ink masks and written class texts.

1,797 grey images of 8 x 8 pixels (the test part of Alpaydin and Kaynak, Optical Recognition of Handwritten
Digits, UCI, 1998), enlarged bicubically and shown as dark ink on white paper. The writers are not recorded, so
the split is by image: per digit 60 % train, 15 % val, 25 % test, seeded with 0. A mask is the ink, every pixel
whose enlarged intensity is at least half the scale, as the class of the digit.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cmgl_cli.datasets.arrays import ArrayDataset
from cmgl_cli.datasets.records import Sample
from cmgl_cli.datasets.splits import DEFAULT_FRACTIONS, assign_splits
from cmgl_cli.datasets.texts import read_texts
from cmgl_cli.errors import UsageError

_SCALE = 16
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class DigitsDataset(ArrayDataset):
    """Handwritten digits 0 to 9.

    Parameters
    ----------
    size : int
        Side of the enlarged images, in pixels.
    """

    name = "digits"
    task = "classification"
    classes = _NAMES
    mask_offset = 1

    def __init__(self, *, size: int = 112):
        super().__init__()
        if size < 8:
            raise UsageError(
                "the digits are 8 pixels wide and cannot be made smaller", f"size = {size}", "take 8 or more"
            )
        self._size = size
        self.texts = read_texts(Path(__file__).with_name("digits_texts.json"))

    @property
    def has_masks(self) -> bool:
        """Every digit has a mask of its ink."""
        return True

    def _list(self) -> Iterable[Sample]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        labels = [int(label) for label in digits.target]
        splits = assign_splits({f"{i:04d}": label for i, label in enumerate(labels)}, DEFAULT_FRACTIONS, seed=0)
        intensities = digits.images.astype(np.uint8)
        for (name, split), label, pixels in zip(sorted(splits.items()), labels, intensities, strict=True):
            yield self._hold(Sample(f"{split}/{name}", split, (label,)), pixels)

    def _enlarged(self, sample: Sample) -> np.ndarray:
        """Return ink intensities from 0 to 1, float32 [size, size]."""
        ink = self._row(sample).astype(np.float32) / _SCALE
        enlarged = Image.fromarray(ink).resize((self._size, self._size), Image.Resampling.BICUBIC)
        return np.asarray(enlarged).clip(0, 1)

    def image(self, sample: Sample) -> Image.Image:
        """Return a digit as dark ink on white paper, RGB [size, size]."""
        grey = np.round(255 * (1 - self._enlarged(sample))).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")

    def mask(self, sample: Sample) -> np.ndarray:
        """Return the ink of a digit: 1 + digit where the intensity is at least one half, else 0; uint8."""
        return ((self._enlarged(sample) >= 0.5) * (1 + sample.labels[0])).astype(np.uint8)

    def _pixels(self, sample: Sample) -> Iterator[bytes]:
        yield self._size.to_bytes(4, "little")
        yield from super()._pixels(sample)
