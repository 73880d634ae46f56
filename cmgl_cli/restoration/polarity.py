"""The signs of the modality graph from an eigenspace of its kernel (20), (24)."""

from typing import Literal

import torch
from torch import Tensor

from cmgl_cli.errors import InputError

End = Literal["leading", "trailing"]


def signed_polarity(kernel: Tensor, rank: int, end: End = "leading") -> Tensor:
    """Return C, the cosine similarity of the nodes' coordinates in an eigenspace of the kernel (24).

    Parameters
    ----------
    kernel : Tensor, shape (..., m, m)
        Symmetric; pool it over samples first: from a single sample the signs are noise. It is scaled to a
        correlation, so that loud columns do not own the eigenspace.
    rank : int
        Dimension r of the eigenspace, the number of latent patterns; choose it by hold-out.
        At r = m the result is the identity and no edge is left.
    end : {"leading", "trailing"}
        The paper's leading eigenvectors, or the trailing ones: under the matrix-normal model (9) the kernel is
        proportional to the pseudo-inverse of the signed Laplacian, whose polarity is in the trailing one once the
        null direction dominates.

    Returns
    -------
    Tensor, shape (..., m, m)
        In [-1, 1] with unit diagonal. A column without variation gets no edge.

    Raises
    ------
    InputError
        Where ``rank`` is not in 1..m or ``end`` is unknown.
    """
    m = kernel.shape[-1]
    if not 1 <= rank <= m:
        raise InputError(
            "the polarity rank must lie between 1 and the number of columns", f"rank={rank}, m={m}", f"use 1 to {m}"
        )
    if end not in ("leading", "trailing"):
        raise InputError("unknown end of the spectrum", f"end={end!r}", "use 'leading' or 'trailing'")
    correlation, alive = _correlation(kernel)
    vectors = torch.linalg.eigh(correlation).eigenvectors
    chosen = vectors[..., -rank:] if end == "leading" else vectors[..., :rank]
    length = torch.linalg.vector_norm(chosen, dim=-1, keepdim=True)
    floor = torch.finfo(kernel.dtype).eps
    unit = torch.where((length > floor) & alive[..., None], chosen / length.clamp_min(floor), 0)
    similarity = (unit @ unit.mT).clamp(-1, 1)
    eye = torch.eye(m, dtype=kernel.dtype, device=kernel.device)
    return similarity * (1 - eye) + eye


def signed_laplacian(polarity: Tensor, laplacian: Tensor) -> Tensor:
    """Return ``C o L`` (20), positive semidefinite for C in [-1, 1] with unit diagonal."""
    return polarity * laplacian


def _correlation(kernel: Tensor) -> tuple[Tensor, Tensor]:
    kernel = (kernel + kernel.mT) / 2
    diagonal = kernel.diagonal(dim1=-2, dim2=-1)
    alive = diagonal > torch.finfo(kernel.dtype).eps * diagonal.amax(-1, keepdim=True).clamp_min(0)
    scale = torch.where(alive, diagonal.clamp_min(torch.finfo(kernel.dtype).tiny).rsqrt(), 0)
    return kernel * scale[..., :, None] * scale[..., None, :], alive
