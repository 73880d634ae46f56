"""From an image file to RGB, by one written policy; hostile and broken files end in an `InputError`.

The policy of `to_rgb`:

* the first frame of an animation, the first page of a TIFF;
* EXIF orientation is applied: images come as they are displayed;
* transparency is composited on white, like ink on paper;
* grey, palette, CMYK, YCbCr and HSV are converted by Pillow, colour profiles are ignored;
* 16 bit grey is divided by 257 and rounded (never clipped); 32 bit integers are taken as 16 bit where they
  fit and refused elsewhere; floats must lie in [0, 1];
* a side of one pixel is fine; more than 89 million pixels are refused before decoding.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from cmgl_cli.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm"})
# by content, not by name: PostScript named .png would be handed to an interpreter
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 89_478_485
"""Pixels above which a file is refused: a quarter GiB of RGB, Pillow's own warning level."""

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Decoded = TypeVar("Decoded")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any image Pillow opens to RGB by the policy of this module.

    Parameters
    ----------
    image : PIL.Image.Image
        Of any mode.

    Returns
    -------
    PIL.Image.Image
        A new RGB image.

    Raises
    ------
    InputError
        If values cannot be brought to 8 bit without guessing.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bit(np.asarray(image)))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        paper = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(paper, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bit(values: np.ndarray) -> np.ndarray:
    """Bring 16 bit integers or floats in [0, 1] to uint8."""
    low, high = values.min(initial=0), values.max(initial=0)
    if values.dtype.kind == "f":
        if not (low >= 0 and high <= 1):
            raise _no_eight_bit(f"floats from {low} to {high}, expected [0, 1]")
        return np.round(values * 255).astype(np.uint8)
    if low < 0 or high > 65535:
        raise _no_eight_bit(f"integers from {low} to {high}, expected 0 to 65535")
    return np.round(values / 257).astype(np.uint8)


def _no_eight_bit(found: str) -> InputError:
    return InputError("the image has no defined conversion to 8 bit", found, "rescale it to 8 or 16 bit and save again")


def load_image(path: Path) -> Image.Image:
    """Decode one file to RGB in displayed orientation.

    Raises
    ------
    InputError
        If it is missing, not an image, truncated, or larger than `MAX_PIXELS`.
    """
    return _decoded(path, to_rgb)


def load_mask(path: Path, colours: np.ndarray | None = None, *, grey: bool = False) -> np.ndarray:
    """Decode a mask file to its stored values: palette indices or grey levels, in stored orientation.

    Parameters
    ----------
    path : Path
        A palette or grey image, or an RGB one whose colours are all among ``colours`` (all grey, without).
    colours : ndarray of uint8, shape [values, 3], optional
        The colour of each mask value, used for RGB masks.
    grey : bool
        Take any colours as shades of grey: for masks that are compared with a threshold.

    Returns
    -------
    ndarray of uint8 or int32, shape [height, width]
        The stored values.

    Raises
    ------
    InputError
        If it is unreadable, or in colours that do not stand for classes.
    """

    def values(image: Image.Image) -> np.ndarray:
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8)
        if image.mode in ("P", "L"):
            return np.array(image)
        if image.mode.startswith("I"):
            return np.asarray(image).astype(np.int32)
        if grey:
            return np.array(image.convert("L"))
        return _colours_to_values(np.asarray(image.convert("RGB")), colours)

    return _decoded(path, values)


def _colours_to_values(rgb: np.ndarray, colours: np.ndarray | None) -> np.ndarray:
    if colours is None and (rgb == rgb[..., :1]).all():
        return rgb[..., 0].copy()
    if colours is None:
        raise InputError(
            "a mask is an RGB image where class values are expected",
            "no palette to read it by",
            "save masks as palette or grey PNG with one value a class, or give the palette in classes.json",
        )
    codes = rgb.astype(np.int64) @ (65536, 256, 1)
    known = colours.astype(np.int64) @ (65536, 256, 1)
    order = np.argsort(known, kind="stable")
    place = np.searchsorted(known[order], codes).clip(max=len(known) - 1)
    unknown = known[order][place] != codes
    if unknown.any():
        raise InputError(
            "an RGB mask has colours that are not in the dataset's palette",
            f"{int(unknown.sum())} pixels, the first {tuple(int(v) for v in rgb[unknown][0])}",
            "save masks without compression loss or smoothing, in the palette's colours",
        )
    return order[place].astype(np.int32)


def orientation_of(path: Path) -> tuple[tuple[int, int], int]:
    """Read the stored (height, width) of an image and its EXIF orientation (1 to 8) from the header."""

    def header(image: Image.Image) -> tuple[tuple[int, int], int]:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        return (image.height, image.width), orientation if orientation in _TRANSPOSE else 1

    return _decoded(path, header)


def align_mask(mask: np.ndarray, image_path: Path, mask_path: Path | str) -> np.ndarray:
    """Turn a mask the way its image is displayed, and check that the sizes agree.

    A mask that has the displayed size is left alone; one that has the size of a photograph stored on its
    side is turned with it.

    Raises
    ------
    InputError
        If the sizes differ.
    """
    stored, orientation = orientation_of(image_path)
    displayed = stored[::-1] if orientation >= 5 else stored
    if mask.shape == displayed:
        return mask
    if mask.shape == stored:
        return np.asarray(Image.fromarray(mask).transpose(_TRANSPOSE[orientation]))
    raise InputError(
        "a mask has another size than its image",
        f"{mask_path}: {mask.shape[1]} x {mask.shape[0]}, image {image_path.name}: {displayed[1]} x {displayed[0]}",
        "export the mask at the size of the image",
    )


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Return those of the formats that this build of Pillow decodes."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decoded(path: Path, convert: Callable[[Image.Image], Decoded]) -> Decoded:
    """Open a file, refuse bombs before decoding, and name the file in whatever goes wrong."""
    try:
        with Image.open(path, formats=_formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            return convert(image)
    except InputError as error:
        raise InputError(error.what, f"{path}: {error.where}", error.fix) from error
    except FileNotFoundError as error:
        raise InputError(
            "an image file is missing", str(path), "restore the file, or remove it from the list"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(
            "an image is too large to decode safely", f"{path}: {error}", f"shrink it below {MAX_PIXELS:,} pixels"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise almost anything on hostile bytes
        raise InputError(
            "an image cannot be read",
            f"{path}: {error or type(error).__name__}",
            "replace the file, or remove it from the dataset",
        ) from error
