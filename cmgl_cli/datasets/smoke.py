"""Generated images for smoke tests: bright discs and striped squares on noisy ground, in a second's work."""

from collections.abc import Iterable

import numpy as np

from cmgl_cli.datasets.arrays import ArrayDataset
from cmgl_cli.datasets.records import Sample
from cmgl_cli.datasets.splits import proportional
from cmgl_cli.errors import UsageError

_TEXTS = {
    "disc": (
        "A bright round disc on a dark, grainy ground.",
        "One filled circle of warm colour, with a smooth closed rim.",
        "A round spot like a full moon, no corners anywhere.",
        "A ball shape, equally wide in every direction.",
    ),
    "stripes": (
        "A square patch of parallel stripes, light and dark in turn.",
        "Straight bars side by side, like a zebra crossing.",
        "A striped square with sharp corners and repeated lines.",
        "Cool coloured bands that run in one direction.",
    ),
}
_SHARES = {"train": 0.5, "val": 0.25, "test": 0.25}


class SmokeDataset(ArrayDataset):
    """Deterministic images of two classes with masks and texts; never evidence of anything but running code.

    Parameters
    ----------
    images : int
        How many, half of each class; half are train, a quarter each val and test.
    size : int
        Side in pixels.
    """

    name = "smoke"
    classes = tuple(_TEXTS)
    mask_offset = 1
    texts = _TEXTS

    def __init__(self, *, images: int = 16, size: int = 64):
        super().__init__()
        if images < 2 or size < 8:
            raise UsageError(
                "the smoke set is too small", f"images = {images}, size = {size}", "take images >= 2 and size >= 8"
            )
        self._count, self._size = images, size

    def _list(self) -> Iterable[Sample]:
        counts = proportional(_SHARES, self._count)
        splits = [split for split, count in counts.items() for _ in range(count)]
        for number, split in enumerate(splits):
            label = number % len(self.classes)
            pixels, mask = _draw(label, self._size, number)
            yield self._hold(Sample(f"{split}/{number:04d}", split, (label,)), pixels, mask)


def _draw(label: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image, uint8 [size, size, 3], and its mask, uint8 [size, size]."""
    random = np.random.default_rng([2026, seed])
    y, x = np.mgrid[:size, :size] / size
    row, column, radius = random.uniform(0.35, 0.65, 2).tolist() + [random.uniform(0.18, 0.3)]
    if label == 0:
        inside = (y - row) ** 2 + (x - column) ** 2 < radius**2
        brightness, colour = np.ones_like(x), np.array([1.0, 0.8, 0.3])
    else:
        inside = np.maximum(abs(y - row), abs(x - column)) < radius
        angle = random.uniform(0, np.pi)
        brightness = np.sin(2 * np.pi * 8 * (x * np.cos(angle) + y * np.sin(angle))) > 0
        colour = np.array([0.4, 0.7, 1.0])
    ground = random.uniform(0.05, 0.25) + random.normal(0, 0.04, (size, size))
    values = np.where(inside[..., None], brightness[..., None] * colour, ground[..., None])
    return np.round(255 * values.clip(0, 1)).astype(np.uint8), (inside * (1 + label)).astype(np.uint8)
