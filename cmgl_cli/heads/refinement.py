"""Finer than the patch grid: what a patch means, joined with what its pixels look like.

The paper suggests a U-Net decoder; the part of one that pays here is its skip connection from the image. Every term is
brought to the cells of `appearance.fine_grid` and added:

    linear(patch) + s * (log p_c(patch, surroundings) + log p_c(appearance | patch, surroundings)) + network(all of it)

The linear layers and the network's last layer start at zero. The decoder therefore starts as the generative classifier,
which needs no training, and training corrects it: with few images the graphs decide, with many the network may.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmgl_cli.heads.appearance import APPEARANCE_NODES, appearance, fine_grid, required_image
from cmgl_cli.heads.context import NEIGHBOURS, window_mean
from cmgl_cli.heads.decoders import LinearDecoder, frozen_scores, on_grid, upsample
from cmgl_cli.heads.evidence import PatchInputs
from cmgl_cli.heads.frozen import FrozenScoring
from cmgl_cli.heads.generative import AppearanceHead, GenerativeHead, MixtureHead

EMBEDDING, HIDDEN, DROPOUT = 32, 32, 0.2
"""Channels of the patch embedding and of the hidden layer; share of input channels dropped in training."""


class SurroundedDecoder(LinearDecoder):
    """A linear layer on a patch x, on what sets it apart from its image, and on the mean of its neighbours.

    scores = W_1 x + W_2 (x - mean of the image) + W_3 (mean of 3 x 3 patches) + b: what a patch is beside the rest of
    its image says more on images of another day or place than what it is by itself. Parameters are those
    of `LinearDecoder`.
    """

    def __init__(self, width: int, n_classes: int, mean: Tensor | None = None, scale: Tensor | None = None):
        super().__init__(width, n_classes, mean, scale)
        self.classifier = nn.Linear(3 * width, n_classes)

    def scores(self, inputs: PatchInputs) -> Tensor:
        """Return patch logits [B, N_p, C]."""
        patches = (inputs.patches.float() - self.mean) / self.scale
        own, relative, around = self.classifier.weight.split(patches.shape[2], dim=1)
        # means commute with linear maps: of C numbers a patch they cost less than of its features
        near = window_mean(on_grid(functional.linear(patches, around), inputs.grid), NEIGHBOURS)
        here = functional.linear(patches, own + relative, self.classifier.bias)
        of_image = functional.linear(patches.mean(1, keepdim=True), relative)
        return here - of_image + near.flatten(2).transpose(1, 2)


class RefinedDecoder(FrozenScoring):
    """Linear layer, generative scores and a network of two layers on looks and meaning, on the grid of cells.

    Parameters
    ----------
    width, n_classes : int
        d and C.
    standardisation : tuple of Tensor or None, [d] each
        Training mean and standard deviation of the patch features.
    generative : GenerativeHead or MixtureHead, optional
        Left out, there are no generative scores.
    looks : AppearanceHead, optional
        For graphs with appearance nodes.
    start : float
        First value of the strength s.
    """

    needs_image = True

    def __init__(
        self,
        width: int,
        n_classes: int,
        standardisation: tuple[Tensor | None, Tensor | None] = (None, None),
        *,
        generative: GenerativeHead | MixtureHead | None = None,
        looks: AppearanceHead | None = None,
        start: float = 0.2,
    ):
        super().__init__()
        self.generative, self.looks = generative, looks
        self.linear = SurroundedDecoder(width, n_classes, *standardisation)
        _silence(self.linear.classifier)
        self.embedding = SurroundedDecoder(width, EMBEDDING, *standardisation)
        # looks alone are seen with the neighbouring cells: all else is smooth at this distance
        self.normalise = nn.BatchNorm2d(APPEARANCE_NODES, affine=False)
        self.of_looks = nn.Conv2d(APPEARANCE_NODES, HIDDEN, 3, padding=1)
        self.of_meaning = nn.Conv2d(EMBEDDING, HIDDEN, 1, bias=False)
        if generative is not None:
            self.log_strength = nn.Parameter(torch.tensor(math.log(start)))
            self.normalise_scores = nn.BatchNorm2d(n_classes, affine=False)
            self.of_scores = nn.Conv2d(n_classes, HIDDEN, 1, bias=False)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.last = nn.Conv2d(HIDDEN, n_classes, 1)
        _silence(self.last)

    def likelihood(self, inputs: PatchInputs) -> Tensor:
        """Return the generative scores of the cells [B, C, *cells], with mean 0 over the classes."""
        if self.generative is None:
            raise TypeError("this decoder was built without generative scores")
        scores = frozen_scores(self.generative, self.looks, inputs)
        return scores - scores.mean(1, keepdim=True)

    def forward(self, inputs: PatchInputs) -> Tensor:
        """Return logits [B, C, *fine cells].

        Raises
        ------
        InputError
            If the images are missing.
        """
        image = required_image(inputs)
        cells = fine_grid(inputs.grid, image.shape[2])
        logits = upsample(self.linear(inputs), cells)
        hidden = self.of_looks(self.dropout(self.normalise(appearance(image, cells))))
        # layers of single cells commute with enlarging, and cost less before it
        hidden = hidden + upsample(self.of_meaning(self.dropout(self.embedding(inputs))), cells)
        if self.generative is not None:
            scores = self.frozen(inputs)
            logits = logits + self.log_strength.exp() * upsample(scores, cells)
            hidden = hidden + upsample(self.of_scores(self.dropout(self.normalise_scores(scores))), cells)
        return logits + self.last(functional.gelu(hidden))


def _silence(layer: nn.Module) -> None:
    """Set all weights of a layer to zero."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
