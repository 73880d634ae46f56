r"""Equation (18) on every patch, as torch modules: what `patch_decoder.patch_scores` computes, fast enough to decode.

With the Cholesky factors :math:`\Omega_c = L_c L_c^T` side by side, the whitened observations of all classes are one
matrix product:

.. math:: s_c(u) = \log\pi_c + \tfrac12\log\det\Omega_c - \tfrac12 \lVert L_c^T u - L_c^T m_c \rVert^2

L_c is lower triangular, and where an observation holds the mean over the whole image (`context`), that mean comes last:
its part of the product is the same for all patches and computed once an image. With K windows, the image among them,
a patch costs 2 C (K p)^2 operations (`generative_flops`). The scores are differences of large squares, so they are
computed as squares of whitened differences, never expanded.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmgl_cli.errors import InputError
from cmgl_cli.heads.appearance import appearance, cell_grid, required_image, upscaling
from cmgl_cli.heads.checks import Array
from cmgl_cli.heads.context import WHOLE_IMAGE, with_context
from cmgl_cli.heads.discriminant import GraphDiscriminant
from cmgl_cli.heads.evidence import PatchInputs

CLASSES_AT_ONCE = 8


class GenerativeHead(nn.Module):
    """Class log-likelihoods of patches under one Gaussian graph a class; nothing is trained.

    Parameters
    ----------
    precision : ndarray, [C, q, q]
    means : ndarray, [C, q]
    priors : ndarray, [C]
    windows : sequence of int
        Surroundings that are part of an observation; q = (1 + len(windows)) p.

    Raises
    ------
    InputError
        As `GraphDiscriminant`.
    """

    local: Tensor
    shared: Tensor
    offset: Tensor
    constant: Tensor

    def __init__(self, precision: Array, means: Array, priors: Array, windows: Sequence[int] = ()):
        super().__init__()
        model = GraphDiscriminant(precision, means, priors)
        factors = np.linalg.cholesky(model.precision)
        half_logdet = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)
        offset = np.einsum("cij,ci->cj", factors, model.means)
        self.windows = tuple(windows)
        self.n_nodes = model.n_nodes // (1 + len(self.windows))
        of_image = self.n_nodes if self.windows and self.windows[-1] == WHOLE_IMAGE else 0
        n_local = model.n_nodes - of_image
        rows = torch.tensor(factors).float().transpose(0, 1)
        self.register_buffer("local", rows[:n_local, :, :n_local].flatten(1).contiguous())
        self.register_buffer("shared", rows[n_local:].contiguous())
        self.register_buffer("offset", torch.tensor(offset).float())
        self.register_buffer("constant", torch.tensor(half_logdet + model.log_priors).float())

    def forward(self, observations: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return log-densities [B, N_p, C] of observations [B, N_p, p], up to a constant all classes share.

        Raises
        ------
        InputError
            If the observations have another number of nodes than the graphs, or another grid.
        """
        check_nodes(observations, self.n_nodes)
        joined = with_context(observations.float(), grid, self.windows)
        n_local = len(self.local)
        of_image = torch.einsum("bi,icj->bcj", joined[:, 0, n_local:], self.shared) - self.offset
        local, fixed = joined[..., :n_local].contiguous(), of_image[..., :n_local].flatten(1)[:, None]
        squares = local.new_empty(*local.shape[:2], len(self.constant))
        for some in in_parts(len(self.constant)):
            nodes = slice(some.start * n_local, some.stop * n_local)
            factors = self.local[:, nodes].expand(len(local), -1, -1)
            whitened = torch.baddbmm(fixed[..., nodes], local, factors).square_()
            squares[..., some] = whitened.unflatten(-1, (-1, n_local)).sum(-1)
        image_term = of_image[..., n_local:].square().sum(-1)
        return self.constant - (squares + image_term[:, None]) / 2


class MixtureHead(nn.Module):
    """Class log-likelihoods under one graph an image, the class graphs weighted by the classes the image shows.

    Which classes an image shows is read off the patches' class probabilities under `GenerativeHead`, averaged over the
    image.

    Parameters
    ----------
    precision, means, priors, windows
        As for `GenerativeHead`.
    """

    precision: Tensor
    means: Tensor
    log_priors: Tensor

    def __init__(self, precision: Array, means: Array, priors: Array, windows: Sequence[int] = ()):
        super().__init__()
        self.classes = GenerativeHead(precision, means, priors, windows)
        self.register_buffer("precision", torch.tensor(precision).float())
        self.register_buffer("means", torch.tensor(means).float())
        self.register_buffer("log_priors", torch.tensor(np.log(priors / np.sum(priors))).float())

    def mixed(self, observations: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the precision of each image, [B, q, q]."""
        presence = self.classes(observations, grid).softmax(-1).mean(1)
        return torch.einsum("bc,cij->bij", presence, self.precision)

    def forward(self, observations: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return log-densities [B, N_p, C] of observations [B, N_p, p]; what all classes share is left out."""
        slope = torch.einsum("bij,cj->bic", self.mixed(observations, grid), self.means)
        centre = torch.einsum("ci,bic->bc", self.means, slope) / 2
        joined = with_context(observations.float(), grid, self.classes.windows)
        return joined @ slope - centre[:, None] + self.log_priors


class AppearanceHead(nn.Module):
    r"""Class log-likelihoods of what cells look like, given what their patch and its surroundings mean.

    The second factor of the chain rule for graphs with appearance nodes f beside the others r, the first being
    `GenerativeHead` on r:

    .. math:: \log p_c(f \mid r) = \tfrac12\log\det\Omega_{ff}
              - \tfrac12 \lVert L^T (f - m_f) + L^{-1}\Omega_{fr} (r - m_r) \rVert^2, \quad \Omega_{ff} = L L^T

    The part in r is computed on patches and interpolated to cells.

    Parameters
    ----------
    precision : ndarray, [C, q, q]
        Appearance nodes first.
    means : ndarray, [C, q]
    windows : sequence of int
    appearance : int
        Number of appearance nodes.
    """

    own: Tensor
    link: Tensor
    offset: Tensor
    constant: Tensor

    def __init__(self, precision: Array, means: Array, windows: Sequence[int], appearance: int):
        super().__init__()
        self.windows = tuple(windows)
        factors = np.linalg.cholesky(precision[:, :appearance, :appearance])
        links = np.linalg.solve(factors, precision[:, :appearance, appearance:])
        offset = np.einsum("cij,ci->cj", factors, means[:, :appearance])
        offset = offset + np.einsum("cij,cj->ci", links, means[:, appearance:])
        half_logdet = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)
        self.register_buffer("own", torch.tensor(factors.transpose(1, 0, 2)).float().flatten(1))
        self.register_buffer("link", torch.tensor(links.transpose(2, 0, 1)).float().flatten(1))
        self.register_buffer("offset", torch.tensor(offset).float().flatten())
        self.register_buffer("constant", torch.tensor(half_logdet).float())

    @torch.no_grad()
    def forward(self, inputs: PatchInputs) -> Tensor:
        """Return log-densities [B, C, *cells], image by image: a patch has C times 16 numbers.

        Raises
        ------
        InputError
            If the images are missing.
        """
        cells = cell_grid(inputs.grid)
        looks = appearance(required_image(inputs), cells)
        joined = with_context(inputs.observations.float(), inputs.grid, self.windows)
        return torch.stack([self._image(look, patch, inputs.grid) for look, patch in zip(looks, joined, strict=True)])

    def _image(self, looks: Tensor, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        size, flat = looks.shape[1:], looks.flatten(1)
        linked = (patches @ self.link - self.offset).T.unflatten(1, grid)
        scores = looks.new_empty(len(self.constant), flat.shape[1])
        for some in in_parts(len(scores)):
            nodes = slice(some.start * len(looks), some.stop * len(looks))
            finer = functional.interpolate(linked[None, nodes], size=tuple(size), mode="bilinear", align_corners=False)
            whitened = torch.addmm(finer[0].flatten(1), self.own[:, nodes].T, flat).square_()
            scores[some] = whitened.unflatten(0, (-1, len(looks))).sum(1)
        return (self.constant[:, None] - scores / 2).unflatten(1, tuple(size))


def in_parts(n_classes: int) -> Iterator[slice]:
    """Yield a few classes at a time: what is computed of them stays in the cache, which triples the speed."""
    for start in range(0, n_classes, CLASSES_AT_ONCE):
        yield slice(start, min(start + CLASSES_AT_ONCE, n_classes))


def check_nodes(observations: Tensor, n_nodes: int) -> None:
    """Check that observations [..., p] have as many nodes as the graphs.

    Raises
    ------
    InputError
        If not.
    """
    if observations.shape[-1] != n_nodes:
        raise InputError(
            "observations and graphs do not fit each other",
            f"{observations.shape[-1]} nodes against {n_nodes}",
            "use graphs fitted on these nodes",
        )


def generative_flops(
    n_nodes: int, n_classes: int, n_patches: int, windows: Sequence[int] = (), appearance_nodes: int = 0
) -> int:
    """Return the operations of `GenerativeHead` and `AppearanceHead` on one image, a multiply-add counted as two.

    Parameters
    ----------
    n_nodes, n_classes, n_patches : int
        p, C, N_p.
    windows : sequence of int
        As for `GenerativeHead`.
    appearance_nodes : int
        0 without `AppearanceHead`.
    """
    of_image = n_nodes if windows and windows[-1] == WHOLE_IMAGE else 0
    n_local = n_nodes * (1 + len(windows)) - of_image
    once = 2 * n_classes * of_image * (n_local + of_image)
    patches = n_patches * n_classes * (2 * n_local**2 + 3 * n_local)
    link = 2 * n_patches * n_classes * appearance_nodes * (n_local + of_image)
    # Interpolation takes eight operations a number, the sum of squares three.
    side = math.isqrt(n_patches)
    cells = upscaling((side, side)) ** 2 * n_patches * n_classes * appearance_nodes * (2 * appearance_nodes + 11)
    return once + patches + link + cells
