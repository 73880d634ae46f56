"""Finer than the patch grid: what a patch means, joined with what its pixels look like.

The paper suggests a U-Net decoder; the part of one that pays here is its skip connection from the image. Every term is
brought to the cells of `appearance` and added:

    linear(patch) + s * (log p_c(patch, surroundings) + log p_c(appearance | patch, surroundings)) + network(all of it)

The linear layer and the network's last layer start at zero. The decoder therefore starts as the generative classifier,
which needs no training, and training corrects it: with few images the graphs decide, with many the network may.
"""

import math

import torch
from torch import Tensor, nn

from cmgl_cli.heads.appearance import APPEARANCE_NODES, appearance, cell_grid, required_image
from cmgl_cli.heads.decoders import LinearDecoder, frozen_scores, upsample
from cmgl_cli.heads.evidence import PatchInputs
from cmgl_cli.heads.frozen import FrozenScoring
from cmgl_cli.heads.generative import AppearanceHead, GenerativeHead, MixtureHead

EMBEDDING, HIDDEN, DROPOUT = 32, 64, 0.2
"""Channels of the patch embedding and of the hidden layer; share of input channels dropped in training."""


class RefinedDecoder(FrozenScoring):
    """Linear layer, generative scores and a pixel-wise network of two layers, at four times the patch grid.

    Parameters
    ----------
    linear : LinearDecoder
    width, n_classes : int
        d and C.
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
        linear: LinearDecoder,
        width: int,
        n_classes: int,
        *,
        generative: GenerativeHead | MixtureHead | None = None,
        looks: AppearanceHead | None = None,
        start: float = 0.2,
    ):
        super().__init__()
        self.linear, self.generative, self.looks = linear, generative, looks
        _silence(linear.classifier)
        self.embedding = LinearDecoder(width, EMBEDDING, linear.mean, linear.scale)
        n_scores = 0 if generative is None else n_classes
        if generative is not None:
            self.log_strength = nn.Parameter(torch.tensor(math.log(start)))
        self.normalise = nn.BatchNorm2d(APPEARANCE_NODES + n_scores, affine=False)
        last = nn.Conv2d(HIDDEN, n_classes, 1)
        _silence(last)
        first = nn.Conv2d(EMBEDDING + APPEARANCE_NODES + n_scores, HIDDEN, 1)
        self.network = nn.Sequential(nn.Dropout2d(DROPOUT), first, nn.GELU(), last)

    def likelihood(self, inputs: PatchInputs) -> Tensor:
        """Return the generative scores of the cells [B, C, 4 h, 4 w], with mean 0 over the classes."""
        if self.generative is None:
            raise TypeError("this decoder was built without generative scores")
        scores = frozen_scores(self.generative, self.looks, inputs)
        return scores - scores.mean(1, keepdim=True)

    def forward(self, inputs: PatchInputs) -> Tensor:
        """Return logits [B, C, 4 h, 4 w].

        Raises
        ------
        InputError
            If the images are missing.
        """
        cells = cell_grid(inputs.grid)
        seen = [appearance(required_image(inputs), cells)]
        logits = upsample(self.linear(inputs), cells)
        if self.generative is not None:
            scores = self.frozen(inputs)
            logits = logits + self.log_strength.exp() * scores
            seen.append(scores)
        meaning = upsample(self.embedding(inputs), cells)
        return logits + self.network(torch.cat([meaning, self.normalise(torch.cat(seen, 1))], 1))


def _silence(layer: nn.Module) -> None:
    """Set all weights of a layer to zero."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
