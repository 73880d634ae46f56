"""From patches to nodes: cross-attention of p learned probes over the patches of a sample.

With patches X [N_p, d], probes Q [p, d] and the attention width d_k::

    A = softmax(Q W_Q (X W_K)^T / sqrt(d_k))   [p, N_p]     (1)
    Z = A (X W_V)                              [p, d_k]     (2)
    z = Z W_out                                [p]          (3)

(Cross-Modal Graphical Lasso, eq. 1-3.) X enters standardised channel by channel, with the mean and the
scale of the training patches; both are part of the weights. ``wout="per_node"`` gives every node its own
row of W_out [p, d_k], ``"shared"`` is the paper's one vector [d_k].

Nothing of size N_p x d_k is ever formed. The scores are linear in X, so standardisation, W_K, W_Q and Q
fold into one [d, p] matrix and W_V, W_out into another: logits and patch observations of a batch are one
matrix product with 2p columns.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from cmgl_cli.errors import InputError, UsageError, suggest

WoutKind = Literal["per_node", "shared"]
WOUT_KINDS = ("per_node", "shared")
# Nearly even attention at first: probes then find their patches instead of defending the ones they were born with.
INITIAL_LOGIT_STD = 0.3


@dataclass(frozen=True)
class Distilled:
    """What the probes make of a batch of B samples.

    Attributes
    ----------
    attention : Tensor, [B, p, N_p]
        A of eq. (1); rows sum to one, padded patches have weight exactly zero.
    nodes : Tensor, [B, p, d_k]
        Z of eq. (2).
    z : Tensor, [B, p]
        z of eq. (3).
    """

    attention: Tensor
    nodes: Tensor
    z: Tensor


class Distiller(nn.Module):
    """The p probes and their projections, shared by all modalities.

    Parameters
    ----------
    width : int
        d, the width of a patch token.
    n_nodes : int
        p, the number of probes, which become the nodes of the graphs.
    d_k : int
        Attention width.
    wout : {"per_node", "shared"}
        Whether every node has its own output vector.
    seed : int
        Seed of the initial weights.

    Raises
    ------
    UsageError
        A size below one, or an unknown `wout`.
    """

    input_mean: Tensor
    input_scale: Tensor

    def __init__(self, width: int, n_nodes: int, d_k: int, *, wout: WoutKind = "per_node", seed: int = 0):
        super().__init__()
        _check_sizes(width, n_nodes, d_k, wout)
        self.width, self.n_nodes, self.d_k = width, n_nodes, d_k
        self.wout: WoutKind = wout
        generator = torch.Generator().manual_seed(seed)

        def normal(rows: int, columns: int, variance: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) * math.sqrt(variance))

        # Standardised patches then give keys and values of unit variance.
        self.query = normal(n_nodes, width, INITIAL_LOGIT_STD**2)
        self.w_query = normal(width, d_k, 1.0 / width)
        self.w_key = normal(width, d_k, 1.0 / width)
        self.w_value = normal(width, d_k, 1.0 / width)
        self.w_out = normal(n_nodes if wout == "per_node" else 1, d_k, 1.0 / d_k)
        self.register_buffer("input_mean", torch.zeros(width))
        self.register_buffer("input_scale", torch.ones(width))

    def forward(self, patches: Tensor, valid: Tensor | None = None) -> Distilled:
        """Return A, Z and z of a batch.

        Parameters
        ----------
        patches : Tensor, [B, N_p, d]
            Patch tokens of any float type; computed in the type of the weights.
        valid : Tensor of bool, [B, N_p], optional
            False for padded patches, whose content is ignored entirely.

        Raises
        ------
        InputError
            Patches of another width, or a sample without a valid patch.
        """
        patches = self._checked(patches, valid)
        logits, observations = self._project(patches)
        attention = _masked_softmax(logits, valid)
        pooled = (attention @ patches - self.input_mean) / self.input_scale
        return Distilled(attention, pooled @ self.w_value, _pool(attention, observations))

    def pool(self, patches: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return A [B, p, N_p] and z [B, p] without forming Z; arguments as in `forward`."""
        logits, observations = self._project(self._checked(patches, valid))
        attention = _masked_softmax(logits, valid)
        return attention, _pool(attention, observations)

    def patch_observations(self, patches: Tensor) -> Tensor:
        """Return u_ni = x_n W_V w_out,i, z before pooling: [B, N_p, p] with z_i = sum_n A_in u_ni."""
        return self._project(self._checked(patches, None))[1]

    def attention_logits(self, patches: Tensor) -> Tensor:
        """Return the argument of the softmax of eq. (1), [B, p, N_p]."""
        return self._project(self._checked(patches, None))[0].transpose(1, 2)

    def set_standardisation(self, mean: np.ndarray, scale: np.ndarray) -> None:
        """Set the channel means and scales [d] that patches are standardised with.

        Raises
        ------
        InputError
            Values that are not finite, or a scale that is not positive.
        """
        if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(scale)) and np.all(scale > 0)):
            raise InputError(
                "the features cannot be standardised: their mean or spread is not finite",
                f"{int(np.sum(~np.isfinite(mean) | ~np.isfinite(scale)))} of {len(mean)} channels",
                "look for NaN or infinity in the feature file and extract it again",
            )
        self.input_mean.copy_(torch.as_tensor(mean))
        self.input_scale.copy_(torch.as_tensor(scale))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all weights as arrays by name, for a file; the inverse of `from_arrays`."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.state_dict().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Distiller":
        """Rebuild a distiller from `to_arrays`; sizes and the kind of W_out are read from the shapes.

        Raises
        ------
        InputError
            An array is missing, or the shapes do not fit together.
        """
        names = ("query", "w_query", "w_key", "w_value", "w_out", "input_mean", "input_scale")
        missing = [name for name in names if name not in arrays]
        if missing:
            raise InputError(
                "the distiller's weights are incomplete", f"missing: {', '.join(missing)}", "distill again"
            )
        (n_nodes, width), d_k = arrays["query"].shape, arrays["w_query"].shape[1]
        wout: WoutKind = "per_node" if arrays["w_out"].shape[0] == n_nodes else "shared"
        distiller = cls(width, n_nodes, d_k, wout=wout).to(torch.as_tensor(arrays["query"]).dtype)
        try:
            distiller.load_state_dict({name: torch.as_tensor(np.array(arrays[name])) for name in names})
        except RuntimeError as error:
            raise InputError("the distiller's weights do not fit together", str(error), "distill again") from error
        return distiller

    def _checked(self, patches: Tensor, valid: Tensor | None) -> Tensor:
        if patches.ndim != 3 or patches.shape[2] != self.width:
            raise InputError(
                "the patches do not fit the distiller",
                f"shape {tuple(patches.shape)}, expected [batch, patches, {self.width}]",
                "use features of the encoder that the distiller was trained on, or distill again",
            )
        patches = patches.to(self.query.dtype)
        if valid is None:
            return patches
        if not bool(valid.any(dim=1).all()):
            row = int(torch.nonzero(~valid.any(dim=1))[0])
            raise InputError("a sample has no valid patch", f"row {row} of the batch", "extract its features again")
        # Padding may hold anything, NaN included, and zero times NaN is NaN.
        return torch.where(valid.unsqueeze(2), patches, torch.zeros((), dtype=patches.dtype, device=patches.device))

    def _project(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attention logits and the patch observations, each [B, N_p, p]."""
        keys = self.w_key @ (self.query @ self.w_query).T / math.sqrt(self.d_k)
        values = self.w_value @ self.w_out.expand(self.n_nodes, self.d_k).T
        weight = torch.cat([keys, values], dim=1) / self.input_scale.unsqueeze(1)
        projected = patches @ weight - self.input_mean @ weight
        return projected[..., : self.n_nodes], projected[..., self.n_nodes :]


def distill_batch(
    distiller: Distiller, patches: np.ndarray, valid: np.ndarray | None = None, *, nodes: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Apply frozen probes to arrays.

    Parameters
    ----------
    distiller : Distiller
        Trained weights, on the device to compute on.
    patches : ndarray, [B, N_p, d]
        Patch tokens.
    valid : ndarray of bool, [B, N_p], optional
        False for padded patches.
    nodes : bool
        Whether Z is wanted too.

    Returns
    -------
    attention : ndarray of float32, [B, p, N_p]
    z : ndarray of float32, [B, p]
    Z : ndarray of float32, [B, p, d_k], or None
    """
    device = distiller.query.device
    with torch.inference_mode():
        x = torch.from_numpy(patches).to(device)
        mask = None if valid is None else torch.from_numpy(valid).to(device, torch.bool)
        if nodes:
            out = distiller(x, mask)
            return out.attention.cpu().numpy(), out.z.cpu().numpy(), out.nodes.cpu().numpy()
        attention, z = distiller.pool(x, mask)
        return attention.cpu().numpy(), z.cpu().numpy(), None


def _masked_softmax(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Softmax over patches of logits [B, N_p, p], returned as [B, p, N_p]."""
    if valid is not None:
        logits = logits.masked_fill(~valid.unsqueeze(2), -math.inf)
    return torch.softmax(logits.transpose(1, 2), dim=2)


def _pool(attention: Tensor, observations: Tensor) -> Tensor:
    return (attention * observations.transpose(1, 2)).sum(dim=2)


def _check_sizes(width: int, n_nodes: int, d_k: int, wout: str) -> None:
    for name, value in (("width", width), ("n_nodes", n_nodes), ("d_k", d_k)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1", f"{name} = {value}", f"give a positive {name}")
    if wout not in WOUT_KINDS:
        raise UsageError("unknown kind of W_out", f"wout = {wout!r}", suggest(wout, WOUT_KINDS))
