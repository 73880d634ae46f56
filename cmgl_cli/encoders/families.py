"""Which transformers class a checkpoint's ``model_type`` asks for, and where its patch tokens lie."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cmgl_cli.errors import InputError


@dataclass(frozen=True)
class Family:
    """What differs between the vision towers.

    Attributes
    ----------
    model_class : str
        The transformers class of the vision tower alone.
    prefix_tokens : int
        Tokens before the patches (class token); register tokens are counted from the configuration.
    config_values : mapping
        Configuration values that switch off what is not used (pooling heads).
    model_arguments : mapping
        Constructor arguments that do the same.
    interpolates : bool
        Whether ``forward`` takes ``interpolate_pos_encoding`` (the others always fit the input's size).
    final_norm : str or None
        A norm that the tower applies to its class token only, and that we apply to the patches too.
    naflex : bool
        Whether the input is a padded sequence of patches with a grid of its own per image.
    """

    model_class: str
    prefix_tokens: int = 1
    config_values: Mapping[str, Any] = field(default_factory=dict)
    model_arguments: Mapping[str, Any] = field(default_factory=dict)
    interpolates: bool = False
    final_norm: str | None = None
    naflex: bool = False

    def dropped_tokens(self, config: Any) -> int:
        """Return how many leading tokens (class and register tokens) are no patches."""
        return self.prefix_tokens + (getattr(config, "num_register_tokens", 0) or 0)


_NO_HEAD = {"vision_use_head": False}
_SIGLIP = Family("SiglipVisionModel", prefix_tokens=0, config_values=_NO_HEAD, interpolates=True)
_SIGLIP2 = Family("Siglip2VisionModel", prefix_tokens=0, config_values=_NO_HEAD, naflex=True)
_CLIP = Family("CLIPVisionModel", interpolates=True, final_norm="post_layernorm")

FAMILIES: Mapping[str, Family] = {
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "siglip2": _SIGLIP2,
    "siglip2_vision_model": _SIGLIP2,
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "dinov2": Family("Dinov2Model"),
    "dinov2_with_registers": Family("Dinov2WithRegistersModel"),
    "dinov3_vit": Family("DINOv3ViTModel"),
    "vit": Family("ViTModel", model_arguments={"add_pooling_layer": False}, interpolates=True),
}


def family_of(model_type: str, where: str) -> Family:
    """Return the family of a configuration's ``model_type``.

    Raises
    ------
    InputError
        For a model type that is no supported vision tower.
    """
    if model_type not in FAMILIES:
        raise InputError(
            f"model_type {model_type!r} is not a vision encoder this toolkit can use",
            where,
            f"choose a checkpoint of one of: {', '.join(sorted(FAMILIES))}",
        )
    return FAMILIES[model_type]


def pair(value: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """Return (rows, columns) of a size that configurations write as one number or as two."""
    if isinstance(value, int):
        return value, value
    rows, columns = value
    return int(rows), int(columns)
