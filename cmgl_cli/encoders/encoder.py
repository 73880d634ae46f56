"""The encoder itself: a frozen vision tower that turns images into patch tokens."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from cmgl_cli.encoders.compute import matmul_precision
from cmgl_cli.encoders.families import Family, pair
from cmgl_cli.encoders.preprocessing import Pixels, Preprocessor


@dataclass(frozen=True)
class Tokens:
    """Patch tokens of one batch.

    Attributes
    ----------
    values : ndarray (B, N_p, d), float32
        Tokens of the last layer after the last norm, rows of the grid first; zeros where padded.
    mask : ndarray (B, N_p), bool
        True where there is a patch (all True but for NaFlex).
    grids : ndarray (B, 2), int32
        Rows and columns of patches in each image.
    """

    values: np.ndarray
    mask: np.ndarray
    grids: np.ndarray


@dataclass(frozen=True)
class Arithmetic:
    """Where and how an encoder computes.

    Attributes
    ----------
    device : torch.device
        Where the weights lie.
    dtype : torch.dtype
        Of weights and activations.
    precision : str
        torch's ``float32_matmul_precision`` (``highest``, ``high`` or ``medium``); it acts on float32 only.
    attention : str
        ``sdpa`` (fused) or ``eager``.
    """

    device: torch.device
    dtype: torch.dtype
    precision: str = "highest"
    attention: str = "sdpa"


class Encoder:
    """A frozen vision tower with its preprocessing; made by `load_encoder`.

    Attributes
    ----------
    name : str
        The name it was loaded by.
    model_type : str
        transformers' name of the architecture.
    width : int
        Dimension d of a token.
    image_size : (int, int) or None
        Height and width of the input; None for NaFlex.
    patch_grid : (int, int) or None
        Rows and columns of patches; None when it varies by image (NaFlex).
    n_patches : int
        N_p; for NaFlex the most an image can have.
    weights_digest : str
        sha256 over names, dtypes, shapes and bytes of the weights as loaded in float32, so it is the same whatever
        dtype the encoder computes in.
    """

    def __init__(
        self, name: str, model: torch.nn.Module, family: Family, preprocessor: Preprocessor, arithmetic: Arithmetic
    ):
        config: Any = model.config
        self.name, self.family, self.preprocessor, self.arithmetic = name, family, preprocessor, arithmetic
        self.model_type: str = config.model_type
        self.width: int = config.hidden_size
        self.image_size = None if family.naflex else preprocessor.fixed_size(f"encoder: {name!r}")
        self.patch_grid = None if self.image_size is None else self._grid(self.image_size)
        self.n_patches = self._patch_count()
        self._dropped = family.dropped_tokens(config)
        self._interpolate = family.interpolates and self.image_size != pair(config.image_size)
        self.weights_digest = digest_weights(model.state_dict())
        self._model = model.to(device=arithmetic.device, dtype=arithmetic.dtype).eval().requires_grad_(False)

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        patch = self.preprocessor.patch
        return size[0] // patch[0], size[1] // patch[1]

    def _patch_count(self) -> int:
        if self.patch_grid is None:
            return int(self.preprocessor.processor.max_num_patches)
        return self.patch_grid[0] * self.patch_grid[1]

    @property
    def device(self) -> torch.device:
        """Where the encoder computes."""
        return self.arithmetic.device

    @property
    def dtype(self) -> str:
        """Name of the dtype it computes in, such as ``bfloat16``."""
        return str(self.arithmetic.dtype).removeprefix("torch.")

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but weights and images that the tokens depend on, as JSON types, for an artifact's identity."""
        return {
            "model_type": self.model_type,
            "dtype": self.dtype,
            "precision": self.arithmetic.precision if self.dtype == "float32" else None,
            "attention": self.arithmetic.attention,
            "width": self.width,
            "patch_size": list(self.preprocessor.patch),
            "patch_grid": None if self.patch_grid is None else list(self.patch_grid),
            "n_patches": self.n_patches,
            "dropped_tokens": self._dropped,
            "preprocessing": self.preprocessor.rule(),
        }

    def preprocess(self, image: Image.Image) -> Pixels:
        """Return the input for one RGB image, by the checkpoint's own rule; safe to call from worker threads."""
        return self.preprocessor(image)

    def encode(self, batch: Sequence[Pixels]) -> Tokens:
        """Return the patch tokens of a batch; class and register tokens are dropped.

        Raises
        ------
        torch.OutOfMemoryError, RuntimeError
            When the batch does not fit; `encode_stream` halves it then.
        """
        values = torch.from_numpy(np.stack([pixels.values for pixels in batch])).to(self.arithmetic.device)
        grids = np.array([pixels.grid for pixels in batch], dtype=np.int32)
        mask = np.arange(self.n_patches)[None] < (grids[:, 0] * grids[:, 1])[:, None]
        with torch.inference_mode(), matmul_precision(self.arithmetic.precision):
            tokens = self._forward(values.to(self.arithmetic.dtype), mask, grids).float().cpu().numpy()
        tokens = np.ascontiguousarray(tokens[:, self._dropped :])
        tokens[~mask] = 0.0
        return Tokens(tokens, mask, grids)

    def _forward(self, values: torch.Tensor, mask: np.ndarray, grids: np.ndarray) -> torch.Tensor:
        arguments: dict[str, Any] = {}
        if self.family.naflex:
            arguments["pixel_attention_mask"] = torch.from_numpy(mask).to(values.device)
            arguments["spatial_shapes"] = torch.from_numpy(grids.astype(np.int64))
        if self._interpolate:
            arguments["interpolate_pos_encoding"] = True
        hidden = self._model(pixel_values=values, **arguments).last_hidden_state
        if self.family.final_norm is not None:
            hidden = getattr(self._model, self.family.final_norm)(hidden)
        return hidden


def digest_weights(state: dict[str, torch.Tensor]) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes of a state dict, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
