"""Other ways from patches to nodes, to compare cross-attention with: a linear layer, and principal components.

Both are the `Distiller` with attention switched off: with Q = 0 every patch weighs the same, so that z_i = mean_n u_ni
with u_ni = x_n W_V w_out,i, a linear function of the mean patch. ``linear`` learns W_V and W_out on the proxy task like
cross-attention; ``pca`` takes the p leading principal components of the standardised patches for them and learns the
proxy's head only.

Neither has attention, hence no prior of its own. So that graphs can be fitted all the same, where a node *looks* is
taken to be where its response is large: a softmax over the patches of u, brought to mean 0 and variance 1 within the
image (ours; the paper does not say what it did).
"""

import numpy as np
import torch
from torch import Tensor

from cmgl_cli.errors import InputError
from cmgl_cli.nodes.distillation import Distiller
from cmgl_cli.nodes.reader import BlockShuffledReader
from cmgl_cli.nodes.training import STANDARDISATION_SAMPLES, patch_statistics


def without_attention(distiller: Distiller) -> Distiller:
    """Switch the attention of a distiller off for good, in place: Q = 0 and not trained; return it."""
    with torch.no_grad():
        distiller.query.zero_()
    for parameter in (distiller.query, distiller.w_query, distiller.w_key):
        parameter.requires_grad_(False)
    return distiller


def principal_components(distiller: Distiller, reader: BlockShuffledReader) -> Distiller:
    """Set W_V and W_out to the leading principal components of the standardised training patches, in place.

    Parameters
    ----------
    distiller : Distiller
        With d_k = p and an output vector a node.
    reader : BlockShuffledReader
        Training patches; those of the first 1,024 samples of epoch 0 count, as for the standardisation.

    Returns
    -------
    Distiller
        The same, without attention, nothing in it to be trained. The largest loading of a component is positive.

    Raises
    ------
    InputError
        More nodes than channels, or d_k is not p.
    """
    if distiller.n_nodes > distiller.width or distiller.d_k != distiller.n_nodes or distiller.wout != "per_node":
        raise InputError(
            "there are not as many principal components",
            f"p = {distiller.n_nodes}, d_k = {distiller.d_k}, width of a patch = {distiller.width}",
            "use fewer --nodes",
        )
    components = _leading(_correlation(reader), distiller.n_nodes)
    without_attention(distiller)
    with torch.no_grad():
        distiller.w_value.copy_(torch.as_tensor(components))
        distiller.w_out.copy_(torch.eye(distiller.n_nodes))
    for parameter in (distiller.w_value, distiller.w_out):
        parameter.requires_grad_(False)
    return distiller


def _correlation(reader: BlockShuffledReader) -> np.ndarray:
    """Return the second moments [d, d] of the standardised valid patches."""
    mean, scale = patch_statistics(reader, STANDARDISATION_SAMPLES)
    total, count, samples = np.zeros((len(mean), len(mean))), 0, 0
    for batch in reader.epoch(0):
        valid = batch.aligned.get("valid")
        patches = batch.patches[valid.astype(bool)] if valid is not None else batch.patches
        standard = (patches.reshape(-1, len(mean)).astype(np.float64) - mean) / scale
        total += standard.T @ standard
        count, samples = count + len(standard), samples + len(batch.indices)
        if samples >= STANDARDISATION_SAMPLES:
            break
    return total / count


def _leading(moments: np.ndarray, number: int) -> np.ndarray:
    """Return the leading eigenvectors [d, number], the entry of largest magnitude positive."""
    vectors = np.linalg.eigh(moments)[1][:, ::-1][:, :number]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(number)]
    return vectors * np.sign(largest)


def response_attention(distiller: Distiller, patches: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Return where nodes without attention respond: softmax over patches of the standardised response.

    Parameters
    ----------
    distiller : Distiller
    patches : ndarray, [B, N_p, d]
    valid : ndarray of bool, [B, N_p], optional
        False for padding, which gets weight zero.

    Returns
    -------
    ndarray of float32, [B, p, N_p]
        Rows sum to one.
    """
    device = distiller.query.device
    with torch.inference_mode():
        x = torch.from_numpy(patches).to(device)
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=device)
        if valid is not None:
            mask = torch.from_numpy(valid).to(device, torch.bool)
            x = torch.where(mask.unsqueeze(2), x, torch.zeros((), dtype=x.dtype, device=device))
        return _contrast(distiller.patch_observations(x).transpose(1, 2), mask.unsqueeze(1)).cpu().numpy()


def _contrast(responses: Tensor, mask: Tensor) -> Tensor:
    count = mask.sum(dim=2, keepdim=True)
    mean = (responses * mask).sum(dim=2, keepdim=True) / count
    centred = (responses - mean) * mask
    spread = ((centred**2).sum(dim=2, keepdim=True) / count).sqrt().clamp_min(1e-12)
    return torch.softmax((centred / spread).masked_fill(~mask, -torch.inf), dim=2).float()
