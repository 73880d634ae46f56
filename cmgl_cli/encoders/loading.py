"""Load a vision tower from its checkpoint, and refuse one whose weights are not all there."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from cmgl_cli.encoders.compute import ATTENTION, PRECISIONS, check_choice, choose_device, choose_dtype
from cmgl_cli.encoders.encoder import Arithmetic, Encoder
from cmgl_cli.encoders.families import Family, family_of
from cmgl_cli.encoders.preprocessing import load_preprocessor
from cmgl_cli.encoders.sources import find_checkpoint, first_line
from cmgl_cli.errors import InputError

# Weights that published checkpoints carry and no forward pass at inference uses.
_UNUSED = re.compile(r"mask_token|position_ids")


def load_encoder(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    precision: str = "highest",
    attention: str = "sdpa",
    max_num_patches: int | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Encoder:
    """Load a frozen vision encoder.

    Parameters
    ----------
    name : str
        ``builtin:tiny``, a local checkpoint directory, or a hub id. Only safetensors weights are read and no code of a
        checkpoint is ever run.
    device : str
        ``auto`` (CUDA if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    dtype : str
        ``auto`` (bfloat16 on CUDA and on CPUs that multiply it, else float32), ``float32``, ``bfloat16``, ``float16``.
    precision : str
        For float32: ``highest``, or ``high`` / ``medium``, which let the products be rounded (TF32, bfloat16).
    attention : str
        ``sdpa`` (fused) or ``eager``.
    max_num_patches : int, optional
        For SigLIP 2 NaFlex: the most patches of an image, instead of the checkpoint's own number.
    revision : str, optional
        Branch, tag or commit on the hub.
    local_files_only : bool
        Do not ask the hub; use what is in its cache.

    Returns
    -------
    Encoder

    Raises
    ------
    UsageError
        For an unknown option value or a device that is not there.
    InputError
        For a checkpoint that cannot be had, is no supported vision tower, or lacks weights.
    """
    arithmetic = _arithmetic(device, dtype, precision, attention)
    folder = find_checkpoint(name, revision=revision, local_files_only=local_files_only)
    where = f"encoder: {name!r}"
    config, family = _load_config(folder, where)
    preprocessor = load_preprocessor(folder, family, config, max_num_patches)
    model = _load_model(folder, config, family, attention, where)
    return Encoder(name, model, family, preprocessor, arithmetic)


def _arithmetic(device: str, dtype: str, precision: str, attention: str) -> Arithmetic:
    check_choice("precision", precision, PRECISIONS)
    check_choice("attention", attention, ATTENTION)
    chosen = choose_device(device)
    return Arithmetic(chosen, choose_dtype(dtype, chosen), precision, attention)


def _load_config(folder: Path, where: str) -> tuple[Any, Family]:
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the checkpoint's config.json cannot be used ({first_line(error)})",
            where,
            "check that the folder is a transformers checkpoint of a vision encoder",
        ) from error
    family = family_of(config.model_type, where)
    config = getattr(config, "vision_config", config)
    for key, value in family.config_values.items():
        setattr(config, key, value)
    return config, family


def _load_model(folder: Path, config: Any, family: Family, attention: str, where: str) -> torch.nn.Module:
    model_class = getattr(transformers, family.model_class)
    try:
        with _quiet():
            model, report = model_class.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                attn_implementation=attention,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **family.model_arguments,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"the checkpoint's weights cannot be read ({first_line(error)})",
            where,
            "download or copy the checkpoint again",
        ) from error
    _check_weights(model, report, where)
    return model


def _check_weights(model: torch.nn.Module, report: dict[str, Any], where: str) -> None:
    own = {name for name, _ in model.named_children()}
    left_over = [key for key in report["unexpected_keys"] if _tower_part(key) in own and not _UNUSED.search(key)]
    problems = {
        "missing": sorted(key for key in report["missing_keys"] if not _UNUSED.search(key)),
        "of another shape": sorted(str(entry[0]) for entry in report["mismatched_keys"]),
        "not in the configuration": sorted(left_over),
    }
    found = [f"{kind}: {_some(keys)}" for kind, keys in problems.items() if keys]
    if found:
        raise InputError(
            "the checkpoint's weights do not fit its configuration: nothing is filled in at random",
            f"{where} ({'; '.join(found)})",
            "use the config.json that belongs to these weights, or another checkpoint",
        )


def _tower_part(key: str) -> str:
    """Return the first part of a weight's name below the prefix that full models put before the tower."""
    parts = key.split(".")
    if parts[0] in ("vision_model", "vit", "dinov2", "dinov2_with_registers", "dinov3_vit"):
        parts = parts[1:]
    return parts[0]


def _some(keys: list[str], most: int = 5) -> str:
    rest = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + rest


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' load report and progress bar away: the report is checked and told by us."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
