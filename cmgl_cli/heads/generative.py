r"""Equation (18) on every patch, as a torch module: what `patch_decoder.patch_scores` computes, fast enough to decode.

With the Cholesky factors :math:`\Omega_c = L_c L_c^T` side by side in one [p, C p] matrix, the whitened observations
of all classes are one matrix product:

.. math:: s_c(u) = \log\pi_c + \tfrac12\log\det\Omega_c - \tfrac12 \lVert L_c^T u - L_c^T m_c \rVert^2

which costs 2 C p^2 operations a patch (`generative_flops`). The scores are differences of large squares, so they are
computed as squares of whitened differences, never expanded.
"""

import numpy as np
import torch
from torch import Tensor, nn

from cmgl_cli.errors import InputError
from cmgl_cli.heads.checks import Array
from cmgl_cli.heads.discriminant import GraphDiscriminant


class GenerativeHead(nn.Module):
    """Class log-likelihoods of patches under one Gaussian graph a class; nothing is trained.

    Parameters
    ----------
    precision : ndarray, [C, p, p]
    means : ndarray, [C, p]
    priors : ndarray, [C]

    Raises
    ------
    InputError
        As `GraphDiscriminant`.
    """

    factor: Tensor
    offset: Tensor
    constant: Tensor

    def __init__(self, precision: Array, means: Array, priors: Array):
        super().__init__()
        model = GraphDiscriminant(precision, means, priors)
        factors = np.linalg.cholesky(model.precision)
        half_logdet = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)
        offset = np.einsum("cij,ci->cj", factors, model.means)
        self.register_buffer("factor", torch.tensor(factors.transpose(1, 0, 2).reshape(model.n_nodes, -1)).float())
        self.register_buffer("offset", torch.tensor(offset).float().flatten())
        self.register_buffer("constant", torch.tensor(half_logdet + model.log_priors).float())

    def forward(self, observations: Tensor) -> Tensor:
        """Return log-densities [B, N_p, C] of observations [B, N_p, p], up to a constant all classes share.

        Raises
        ------
        InputError
            If the observations have another number of nodes than the graphs.
        """
        if observations.shape[-1] != len(self.factor):
            raise InputError(
                "observations and graphs do not fit each other",
                f"{observations.shape[-1]} nodes against {len(self.factor)}",
                "use graphs fitted on these nodes",
            )
        whitened = observations.float() @ self.factor - self.offset
        return self.constant - whitened.unflatten(-1, (len(self.constant), -1)).square().sum(-1) / 2


class MixtureHead(nn.Module):
    """Class log-likelihoods under one graph an image, the class graphs weighted by the classes the image shows.

    Which classes an image shows is read off the patches' class probabilities under `GenerativeHead`, averaged over the
    image.

    Parameters
    ----------
    precision, means, priors
        As for `GenerativeHead`.
    """

    precision: Tensor
    means: Tensor
    log_priors: Tensor

    def __init__(self, precision: Array, means: Array, priors: Array):
        super().__init__()
        self.classes = GenerativeHead(precision, means, priors)
        self.register_buffer("precision", torch.tensor(precision).float())
        self.register_buffer("means", torch.tensor(means).float())
        self.register_buffer("log_priors", torch.tensor(np.log(priors / np.sum(priors))).float())

    def mixed(self, observations: Tensor) -> Tensor:
        """Return the precision of each image, [B, p, p]."""
        presence = self.classes(observations).softmax(-1).mean(1)
        return torch.einsum("bc,cij->bij", presence, self.precision)

    def forward(self, observations: Tensor) -> Tensor:
        """Return log-densities [B, N_p, C] of observations [B, N_p, p]; what all classes share is left out."""
        slope = torch.einsum("bij,cj->bic", self.mixed(observations), self.means)
        centre = torch.einsum("ci,bic->bc", self.means, slope) / 2
        return observations.float() @ slope - centre[:, None] + self.log_priors


def generative_flops(n_nodes: int, n_classes: int, n_patches: int) -> int:
    """Return the operations of `GenerativeHead` on one image, a multiply-add counted as two.

    Parameters
    ----------
    n_nodes, n_classes, n_patches : int
        p, C, N_p.
    """
    return n_patches * n_classes * (2 * n_nodes**2 + 3 * n_nodes)
