"""From an RGB photograph to the encoder's input, by the rule in the checkpoint's own preprocessor configuration."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cmgl_cli.encoders.families import Family, pair
from cmgl_cli.encoders.sources import first_line
from cmgl_cli.errors import InputError, UsageError

# The keys of a preprocessor configuration that change pixel values; they go into an artifact's identity.
_RULE = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "do_pad",
    "patch_size",
    "max_num_patches",
)


@dataclass(frozen=True)
class Pixels:
    """One image, ready to be encoded.

    Attributes
    ----------
    values : ndarray, float32
        (3, H, W); for NaFlex (max_num_patches, patch_size * patch_size * 3), padded with zeros.
    grid : (int, int)
        Rows and columns of patches.
    """

    values: np.ndarray
    grid: tuple[int, int]


class Preprocessor:
    """The resize, crop and normalisation rule of one checkpoint; safe to call from several threads.

    Parameters
    ----------
    processor : callable
        A transformers image processor (or `FloatResize`): ``processor(images=image, return_tensors="np")``.
    patch : (int, int)
        Rows and columns of pixels in a patch.
    naflex : bool
        Whether the processor returns a padded sequence of patches and its spatial shape.
    """

    def __init__(self, processor: Any, patch: tuple[int, int], naflex: bool):
        self.processor, self.patch, self.naflex = processor, patch, naflex
        self._levels = self._normalised_levels() if self._only_resizes() else None

    def _only_resizes(self) -> bool:
        """Return whether the rule is one resize to a fixed size and a map of pixel values, which has a short cut."""
        rule = self.rule()
        size = rule.get("size") or {}
        crops = rule.get("do_center_crop") or rule.get("do_pad")
        simple = set(size) == {"height", "width"} and rule.get("do_resize") and not crops
        return bool(simple) and not self.naflex and not isinstance(self.processor, FloatResize)

    def _normalised_levels(self) -> np.ndarray:
        """Return what the processor makes of each of the 256 levels, float32 [3, 256]."""
        ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(16, axis=0)).convert("RGB")
        return np.asarray(self.processor(images=ramp, do_resize=False, return_tensors="np")["pixel_values"][0])[:, 0]

    def __call__(self, image: Image.Image) -> Pixels:
        """Return the encoder's input for one RGB image.

        Raises
        ------
        InputError
            For an image that is not RGB (grey, palette, alpha, 16 bits): converting is the reader's decision.
        """
        if image.mode != "RGB":
            raise InputError(
                "the encoder takes RGB images", f"image mode: {image.mode!r}", "convert it first: image.convert('RGB')"
            )
        if self._levels is not None:
            return self._looked_up(image, self._levels)
        output = self.processor(images=image, return_tensors="np")
        values = np.asarray(output["pixel_values"][0], dtype=np.float32)
        if self.naflex:
            rows, columns = (int(n) for n in output["spatial_shapes"][0])
            return Pixels(values, (rows, columns))
        return Pixels(values, (values.shape[1] // self.patch[0], values.shape[2] // self.patch[1]))

    def _looked_up(self, image: Image.Image, levels: np.ndarray) -> Pixels:
        """Resize as the processor does, and look normalised values up: the same numbers in a fraction of the time."""
        height, width = self.processor.size["height"], self.processor.size["width"]
        pixels = np.asarray(image.resize((width, height), resample=Image.Resampling(int(self.processor.resample))))
        values = np.stack([level[pixels[..., channel]] for channel, level in enumerate(levels)])
        return Pixels(values.astype(np.float32, copy=False), (height // self.patch[0], width // self.patch[1]))

    def rule(self) -> dict[str, Any]:
        """Return the settings that change pixel values, as JSON types."""
        return {key: _plain(getattr(self.processor, key)) for key in _RULE if hasattr(self.processor, key)}

    def fixed_size(self, where: str) -> tuple[int, int]:
        """Return (height, width) of every output, measured on a wide and a tall image.

        Raises
        ------
        InputError
            When the two differ: the rule keeps the aspect ratio and crops nothing, so images make no batch.
        """
        wide, tall = (self(Image.new("RGB", size)).values.shape[1:] for size in ((64, 32), (32, 64)))
        if wide != tall:
            raise InputError(
                f"the preprocessor gives images of different sizes ({wide} and {tall}): they share no patch grid",
                where,
                'set "do_center_crop": true with a "crop_size", or "size": {"height": ..., "width": ...}, '
                "in its preprocessor_config.json",
            )
        return int(wide[0]), int(wide[1])


class FloatResize:
    """DINOv3's order of transforms (rescale, resize in floating point, normalise) without torchvision.

    transformers has it for torchvision only, where ``resize`` of a float tensor is
    ``torch.nn.functional.interpolate(antialias=True)``: that same function is called here.
    """

    def __init__(self, config: dict[str, Any]):
        self.size = config.get("size", {"height": 224, "width": 224})
        self.do_resize = config.get("do_resize", True)
        self.resample = config.get("resample", 2)
        self.rescale_factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
        normalize = config.get("do_normalize", True)
        self.image_mean = config.get("image_mean", [0.485, 0.456, 0.406]) if normalize else [0.0, 0.0, 0.0]
        self.image_std = config.get("image_std", [0.229, 0.224, 0.225]) if normalize else [1.0, 1.0, 1.0]

    def __call__(self, images: Image.Image, return_tensors: str) -> dict[str, np.ndarray]:
        """Return ``{"pixel_values": float32 (1, 3, H, W)}``; called like a transformers image processor."""
        pixels = torch.from_numpy(np.array(images)).permute(2, 0, 1)[None].float() * self.rescale_factor
        if self.do_resize:
            mode = {2: "bilinear", 3: "bicubic"}[self.resample]
            size = (self.size["height"], self.size["width"])
            pixels = torch.nn.functional.interpolate(pixels, size=size, mode=mode, antialias=True)
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (self.image_mean, self.image_std))
        return {"pixel_values": ((pixels - mean) / std).numpy()}


def load_preprocessor(folder: Path, family: Family, config: Any, max_num_patches: int | None) -> Preprocessor:
    """Return the preprocessor of a checkpoint folder.

    Raises
    ------
    InputError
        When the folder has no usable image processor configuration.
    UsageError
        When ``max_num_patches`` is given for an encoder of fixed resolution.
    """
    if max_num_patches is not None and not family.naflex:
        raise UsageError(
            "this encoder has a fixed number of patches",
            f"max_num_patches: {max_num_patches}, model_type: {config.model_type!r}",
            "leave max_num_patches out; only SigLIP 2 NaFlex checkpoints take it",
        )
    extra = {"max_num_patches": max_num_patches} if max_num_patches else {}
    return Preprocessor(_image_processor(folder, extra), pair(config.patch_size), family.naflex)


def _image_processor(folder: Path, extra: dict[str, Any]) -> Callable[..., Any]:
    from transformers import AutoImageProcessor
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        values, _ = ImageProcessingMixin.get_image_processor_dict(folder, local_files_only=True)
        if str(values.get("image_processor_type", "")).startswith("DINOv3ViTImageProcessor"):
            return FloatResize(values)
        return AutoImageProcessor.from_pretrained(
            folder, backend="pil", trust_remote_code=False, local_files_only=True, **extra
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise InputError(
            f"the checkpoint's image processor cannot be loaded ({first_line(error)})",
            f"folder: {folder}",
            "put the model's own preprocessor_config.json beside its config.json",
        ) from error


def _plain(value: Any) -> Any:
    """Turn transformers' size objects and enumerations into JSON types."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, int):
        return int(value)
    return float(value)
