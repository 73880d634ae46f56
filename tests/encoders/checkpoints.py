"""Tiny random checkpoints of every family, written as the hub publishes them."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
)

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
TEXT = {
    **SMALL,
    "vocab_size": 50,
    "max_position_embeddings": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
IMAGE = 32
PATCH = 8
_SQUARE = {"do_resize": True, "size": {"height": IMAGE, "width": IMAGE}, "resample": 2, "do_rescale": True}
_NORMAL = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.5], "rescale_factor": 1 / 255}
_CROP = {
    "do_resize": True,
    "size": {"shortest_edge": IMAGE + 8},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": IMAGE, "width": IMAGE},
    "do_rescale": True,
}


def _vision(**more: Any) -> dict[str, Any]:
    return {**SMALL, "image_size": IMAGE, "patch_size": PATCH, **more}


def _siglip() -> tuple[torch.nn.Module, dict[str, Any]]:
    model = SiglipModel(SiglipConfig(text_config=dict(TEXT), vision_config=_vision()))
    return model, {"image_processor_type": "SiglipImageProcessor", **_SQUARE, **_NORMAL}


def _siglip2() -> tuple[torch.nn.Module, dict[str, Any]]:
    vision = {**SMALL, "patch_size": PATCH, "num_patches": (IMAGE // PATCH) ** 2}
    model = Siglip2Model(Siglip2Config(text_config=dict(TEXT), vision_config=vision))
    rule = {"do_resize": True, "resample": 2, "do_rescale": True, "patch_size": PATCH, "max_num_patches": 20}
    return model, {"image_processor_type": "Siglip2ImageProcessor", **rule, **_NORMAL}


def _clip() -> tuple[torch.nn.Module, dict[str, Any]]:
    model = CLIPModel(CLIPConfig(text_config=dict(TEXT), vision_config=_vision(), projection_dim=16))
    return model, {"image_processor_type": "CLIPImageProcessor", **_CROP, **_NORMAL}


def _dinov2() -> tuple[torch.nn.Module, dict[str, Any]]:
    # Published DINOv2 checkpoints were trained at 518 px and are used at another size.
    model = Dinov2Model(Dinov2Config(**{**_vision(), "image_size": 48}))
    return model, {"image_processor_type": "BitImageProcessor", **_CROP, **_NORMAL}


def _dinov2_registers() -> tuple[torch.nn.Module, dict[str, Any]]:
    model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**_vision(num_register_tokens=3)))
    return model, {"image_processor_type": "BitImageProcessor", **_CROP, **_NORMAL}


def _dinov3() -> tuple[torch.nn.Module, dict[str, Any]]:
    model = DINOv3ViTModel(DINOv3ViTConfig(**_vision(num_register_tokens=4)))
    return model, {"image_processor_type": "DINOv3ViTImageProcessorFast", **_SQUARE, **_NORMAL}


def _vit() -> tuple[torch.nn.Module, dict[str, Any]]:
    model = ViTForImageClassification(ViTConfig(**_vision(num_labels=3)))
    return model, {"feature_extractor_type": "ViTFeatureExtractor", **_SQUARE, **_NORMAL}


MAKERS = {
    "siglip": _siglip,
    "siglip2": _siglip2,
    "clip": _clip,
    "dinov2": _dinov2,
    "dinov2_with_registers": _dinov2_registers,
    "dinov3_vit": _dinov3,
    "vit": _vit,
}


def write_checkpoint(family: str, folder: Path) -> torch.nn.Module:
    """Write a random checkpoint (the full model, text tower and heads included); return the model."""
    torch.manual_seed(len(family))
    model, preprocessor = MAKERS[family]()
    with torch.no_grad():
        # The usual start leaves norms at 1 and 0, where a forgotten norm could not be seen.
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    model.eval().save_pretrained(folder)
    transformers.utils.logging.set_verbosity(level)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return model
