"""What a segmentation decoder sees of stored patch tokens: the frozen probes and the transform applied to them.

Everything a decoder is given follows from the tokens, so predicting needs the encoder's features and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cmgl_cli.errors import InputError
from cmgl_cli.graphs import Nonparanormal
from cmgl_cli.heads.evidence import PatchInputs
from cmgl_cli.nodes.distillation import Distiller


@dataclass(frozen=True)
class PatchView:
    """The frozen way from patch tokens to the inputs of a decoder.

    Attributes
    ----------
    distiller : Distiller
    transform : Nonparanormal
        Of the observations, pooled over classes.
    grid : tuple of int
    device : torch.device
    """

    distiller: Distiller
    transform: Nonparanormal
    grid: tuple[int, int]
    device: torch.device

    @classmethod
    def of(
        cls,
        weights: Mapping[str, np.ndarray],
        transform: Mapping[str, np.ndarray],
        grid: tuple[int, int],
        device: torch.device,
    ) -> "PatchView":
        """Rebuild it from the arrays of artifacts.

        Raises
        ------
        InputError
            The observations were transformed class by class: a patch of unknown class has no such transform.
        """
        fitted = Nonparanormal.from_arrays(dict(transform))
        if fitted.scope != "pooled":
            raise InputError(
                "these graphs cannot label pixels: their observations were transformed class by class",
                f"scope {fitted.scope}",
                "run: cmgl fit-graphs --observations region --scope pooled",
            )
        probes = {key: value for key, value in weights.items() if not key.startswith("proxy/")}
        return cls(Distiller.from_arrays(probes).to(device).eval(), fitted, grid, device)

    def inputs(
        self, tokens: np.ndarray, images: np.ndarray | None = None, rows: np.ndarray | None = None
    ) -> PatchInputs:
        """Return what decoders take.

        Parameters
        ----------
        tokens : ndarray, [B, N_p, d]
        images : ndarray of uint8, [B, r, r, 3], optional
        rows : ndarray of int, [B], optional
            Which images these are, where they come again.
        """
        patches = torch.from_numpy(np.ascontiguousarray(tokens)).to(self.device).float()
        with torch.no_grad():
            out = self.distiller(patches)
            observed = self.distiller.patch_observations(patches).cpu().numpy()
        flat = self.transform.transform(observed.reshape(-1, observed.shape[-1]).astype(np.float64))
        values = torch.from_numpy(flat.reshape(observed.shape)).to(self.device, torch.float32)
        picture = None if images is None else _as_tensor(images, self.device)
        which = None if rows is None else tuple(rows.tolist())
        return PatchInputs(patches, values, out.nodes, out.attention, self.grid, picture, which)


def _as_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    """Return images uint8 [B, r, r, 3] as float32 [B, 3, r, r] in 0..1."""
    return torch.tensor(images, device=device).permute(0, 3, 1, 2).float() / 255
