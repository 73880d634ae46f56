r"""From nodes and patches to class scores of every patch, and from there to pixels.

.. math:: X_{seg} = A^T H, \qquad Y = \mathrm{softmax}(X_{seg} W_{cls}) \qquad (21, 22)

Every decoder returns logits on the patch grid, [B, N_p, C]; `upsample` takes them to pixels. The last linear layer
commutes with A^T, so nodes are scored first ([p, C]) and projected then: with one graph a class, class c reads its
score off its own graph.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmgl_cli.errors import InputError
from cmgl_cli.heads.message_passing import SignedGraphs, SignedMessagePassing


@dataclass(frozen=True)
class DecoderOptions:
    """What of the graph decoder is the paper's and what is ours; the defaults are the equations as printed.

    Attributes
    ----------
    residual : bool
        h_i + z_i in place of h_i.
    normalise_nodes : bool
        Divide each patch's attention by its sum over nodes, so that a patch is a mean of nodes, not a sum.
    bias : bool
        One bias a class.
    """

    residual: bool = False
    normalise_nodes: bool = False
    bias: bool = False


class GraphDecoder(nn.Module):
    """Equations (19) to (22) on one graph a class, or on one for all.

    Parameters
    ----------
    width : int
        d_k.
    n_classes : int
    options : DecoderOptions
    """

    def __init__(self, width: int, n_classes: int, options: DecoderOptions | None = None):
        super().__init__()
        self.options = options or DecoderOptions()
        self.message = SignedMessagePassing(width, residual=self.options.residual)
        self.classifier = nn.Linear(width, n_classes, bias=self.options.bias)

    def node_scores(self, nodes: Tensor, graphs: SignedGraphs) -> Tensor:
        """Return the score of every class at every node, [B, p, C].

        Raises
        ------
        InputError
            If there is neither one graph nor one a class, or graphs and nodes do not fit.
        """
        hidden = self.message(nodes, graphs)
        weight = self.classifier.weight
        if hidden.shape[1] == 1:
            return hidden[:, 0] @ weight.T
        if hidden.shape[1] != len(weight):
            raise InputError(
                "there must be one graph or one a class",
                f"{hidden.shape[1]} graphs for {len(weight)} classes",
                "give a class without a graph the common one",
            )
        return torch.einsum("bcpd,cd->bpc", hidden, weight)

    def forward(self, nodes: Tensor, attention: Tensor, graphs: SignedGraphs) -> Tensor:
        """Return patch logits [B, N_p, C] of nodes Z [B, p, d_k] and attention A [B, p, N_p]."""
        logits = project(self.node_scores(nodes, graphs), attention, normalise=self.options.normalise_nodes)
        return logits if self.classifier.bias is None else logits + self.classifier.bias


class LinearHead(nn.Module):
    """A linear layer on the patches: what the graph has to beat.

    Parameters
    ----------
    width : int
        Width of the patch features.
    n_classes : int
    mean, scale : Tensor, [width], optional
        Training mean and standard deviation of the features, by which they are standardised.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, n_classes: int, mean: Tensor | None = None, scale: Tensor | None = None):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width) if mean is None else mean.float())
        spread = torch.ones(width) if scale is None else scale.float()
        self.register_buffer("scale", torch.where(spread > 0, spread, torch.ones_like(spread)))
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, patches: Tensor) -> Tensor:
        """Return patch logits [B, N_p, C] of patch features [B, N_p, width]."""
        return self.classifier((patches.float() - self.mean) / self.scale)


class HybridHead(nn.Module):
    """Patches, graph context and generative scores together: the sum of three sets of logits.

    logits = linear(patches) + A^T scores(H) + s * generative, where s is learned, starts at `start` and shall tell
    how much the generative scores are worth.

    Parameters
    ----------
    linear : LinearHead
    decoder : GraphDecoder, optional
        Left out, there is no graph context.
    start : float
        First value of s.
    """

    def __init__(self, linear: LinearHead, decoder: GraphDecoder | None = None, *, start: float = 0.1):
        super().__init__()
        self.linear, self.decoder = linear, decoder
        self.strength = nn.Parameter(torch.tensor(float(start)))

    def forward(
        self,
        patches: Tensor,
        generative: Tensor,
        nodes: Tensor | None = None,
        attention: Tensor | None = None,
        graphs: SignedGraphs | None = None,
    ) -> Tensor:
        """Return patch logits [B, N_p, C].

        Parameters
        ----------
        patches : Tensor, [B, N_p, d]
        generative : Tensor, [B, N_p, C]
            Class log-likelihoods of the patches; centred over classes here.
        nodes, attention, graphs
            What `GraphDecoder` takes; needed where there is a decoder.

        Raises
        ------
        InputError
            If there is a decoder and one of its inputs is missing.
        """
        centred = generative - generative.mean(-1, keepdim=True)
        logits = self.linear(patches) + self.strength * centred
        if self.decoder is None:
            return logits
        if nodes is None or attention is None or graphs is None:
            raise InputError("the graph context lacks an input", "nodes, attention or graphs is None", "pass all three")
        return logits + self.decoder(nodes, attention, graphs)


def project(node_scores: Tensor, attention: Tensor, *, normalise: bool = False) -> Tensor:
    """Return A^T times the node scores: [B, p, C] and A [B, p, N_p] to [B, N_p, C].

    Raises
    ------
    InputError
        If the numbers of images or nodes differ.
    """
    if node_scores.shape[:2] != attention.shape[:2]:
        raise InputError(
            "attention and nodes do not fit each other",
            f"{tuple(attention.shape)} against {tuple(node_scores.shape)}",
            "use the attention that made these nodes",
        )
    weights = attention.to(node_scores.dtype)
    if normalise:
        weights = weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return weights.transpose(1, 2) @ node_scores


def upsample(logits: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Return pixel logits [B, C, H, W] of patch logits [B, N_p, C] by bilinear interpolation.

    Logits are interpolated, not probabilities, as usual in the field; the softmax comes after.

    Parameters
    ----------
    logits : Tensor, [B, N_p, C]
        Row by row, N_p = h * w.
    grid, size : tuple of int
        (h, w) of the patch grid and (H, W) of the image.

    Raises
    ------
    InputError
        If the grid does not have N_p patches.
    """
    if grid[0] * grid[1] != logits.shape[1]:
        raise InputError(
            "grid and patches differ", f"{grid} for {logits.shape[1]} patches", "pass the encoder's patch grid"
        )
    maps = logits.transpose(1, 2).reshape(len(logits), -1, *grid)
    return functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)
