"""Other looks at a training image: cut out, mirrored, in other light; its mask is cut and mirrored alike.

Drawn from a seed, the sample's id and the number of the copy alone, so that a copy stays the same whatever else a
dataset holds.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from cmgl_cli.datasets.splits import rank_key

LEAST_SIDE = 0.55
"""Shortest side of a cut, as a share of the image's."""
GAMMA, EXPOSURE, TINT, CONTRAST = 0.35, 0.2, 0.1, 0.15
"""Standard deviations of the logarithms of what light and camera change; tint is drawn for each channel."""


@dataclass(frozen=True)
class Augmentation:
    """One way to look at an image.

    Attributes
    ----------
    side : float
        Height and width of the cut, as a share of the image's.
    left, top : float
        Where the cut begins, as shares of the image's width and height; with `side` added at most 1.
    mirrored : bool
        Left and right exchanged.
    gamma, contrast : float
        Exponent of the values in 0..1; and what their distance to the mean is multiplied by, thereafter.
    gains : tuple of float
        Factor of each channel.
    """

    side: float = 1.0
    left: float = 0.0
    top: float = 0.0
    mirrored: bool = False
    gamma: float = 1.0
    contrast: float = 1.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @classmethod
    def drawn(cls, name: str, copy: int, seed: int) -> "Augmentation":
        """Return copy number `copy` of the sample called `name`."""
        rng = np.random.default_rng(np.frombuffer(rank_key(seed, f"{name}#{copy}"), dtype=np.uint32))
        side = rng.uniform(LEAST_SIDE, 1.0)
        left, top = rng.uniform(0.0, 1.0 - side, 2)
        mirrored = bool(rng.random() < 0.5)
        gamma, contrast, exposure = np.exp(rng.normal(0.0, (GAMMA, CONTRAST, EXPOSURE)))
        red, green, blue = (float(exposure * gain) for gain in np.exp(rng.normal(0.0, TINT, 3)))
        return cls(side, left, top, mirrored, float(gamma), float(contrast), (red, green, blue))

    def image(self, image: Image.Image) -> Image.Image:
        """Return an RGB image so seen."""
        values = self._cut(np.asarray(image, dtype=np.float32) / 255)
        values = values**self.gamma * np.asarray(self.gains, dtype=np.float32)
        mean = values.mean()
        values = mean + (values - mean) * self.contrast
        return Image.fromarray((255 * values.clip(0, 1)).round().astype(np.uint8))

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Return the mask [H, W] of an image so seen; light changes no label."""
        return self._cut(mask)

    def _cut(self, values: np.ndarray) -> np.ndarray:
        """Return the part of an array [H, W, ...] that is seen, one row and one column at least."""
        height, width = values.shape[:2]
        rows, columns = (
            _between(start, self.side, length) for start, length in ((self.top, height), (self.left, width))
        )
        part = values[rows, columns]
        return part[:, ::-1] if self.mirrored else part


def _between(start: float, side: float, length: int) -> slice:
    first = min(round(start * length), length - 1)
    return slice(first, max(first + 1, round((start + side) * length)))
