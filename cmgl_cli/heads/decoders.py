r"""Decoders: from what encoder and probes make of an image to class logits on a grid.

.. math:: X_{seg} = A^T H, \qquad Y = \mathrm{softmax}(X_{seg} W_{cls}) \qquad (21, 22)

Every decoder maps `PatchInputs` to logits [B, C, h', w'] at its own resolution, the patch grid or finer; `upsample`
takes them to pixels. The last linear layer commutes with A^T, so nodes are scored first ([p, C]) and projected then:
with one graph a class, class c reads its score off its own graph. Graphs, means and standardisation are buffers, so a
state dict holds a decoder entirely.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmgl_cli.errors import InputError
from cmgl_cli.heads.appearance import cell_grid
from cmgl_cli.heads.checks import Array
from cmgl_cli.heads.evidence import PatchInputs
from cmgl_cli.heads.frozen import FrozenScoring
from cmgl_cli.heads.generative import AppearanceHead, GenerativeHead, MixtureHead
from cmgl_cli.heads.message_passing import SignedGraphs, SignedMessagePassing, signed_graphs


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


class LinearDecoder(nn.Module):
    """A linear layer on the patches: what the graph has to beat.

    Parameters
    ----------
    width : int
        Width of the patch features.
    n_classes : int
    mean, scale : Tensor, [width], optional
        Training mean and standard deviation of the features, by which they are standardised.
    """

    needs_image = False
    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, n_classes: int, mean: Tensor | None = None, scale: Tensor | None = None):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width) if mean is None else mean.float())
        spread = torch.ones(width) if scale is None else scale.float()
        self.register_buffer("scale", torch.where(spread > 0, spread, torch.ones_like(spread)))
        self.classifier = nn.Linear(width, n_classes)

    def scores(self, inputs: PatchInputs) -> Tensor:
        """Return patch logits [B, N_p, C]."""
        return self.classifier((inputs.patches.float() - self.mean) / self.scale)

    def forward(self, inputs: PatchInputs) -> Tensor:
        """Return logits [B, C, h, w] on the patch grid."""
        return on_grid(self.scores(inputs), inputs.grid)


class GenerativeDecoder(FrozenScoring):
    """The class log-likelihoods (18) of patches, or of cells, with one strength and one offset a class to be learned.

    Untrained it is `patch_decoder.patch_scores`; training calibrates it, no more. With appearance nodes in the graphs
    it decodes cells: scores of patches, interpolated, plus those of what each cell looks
    like given its patch.

    Parameters
    ----------
    head : GenerativeHead or MixtureHead
    n_classes : int
    looks : AppearanceHead, optional
    """

    def __init__(self, head: GenerativeHead | MixtureHead, n_classes: int, looks: AppearanceHead | None = None):
        super().__init__()
        self.head, self.looks = head, looks
        self.needs_image = looks is not None
        self.strength = nn.Parameter(torch.tensor(1.0))
        self.offset = nn.Parameter(torch.zeros(n_classes))

    def likelihood(self, inputs: PatchInputs) -> Tensor:
        """Return the generative scores on the patch grid [B, C, h, w], or of cells [B, C, *cells]."""
        if self.looks is None:
            return on_grid(self.head(inputs.observations, inputs.grid), inputs.grid)
        return frozen_scores(self.head, self.looks, inputs)

    def forward(self, inputs: PatchInputs) -> Tensor:
        """Return logits [B, C, h, w] on the patch grid, or [B, C, *cells] with appearance."""
        return self.strength * self.frozen(inputs) + self.offset[:, None, None]


def frozen_scores(
    generative: GenerativeHead | MixtureHead, looks: AppearanceHead | None, inputs: PatchInputs
) -> Tensor:
    """Return the generative scores of the cells [B, C, *cells]: of patches, interpolated, plus of their looks."""
    patches = on_grid(generative(inputs.observations, inputs.grid), inputs.grid)
    scores = upsample(patches, cell_grid(inputs.grid))
    return scores if looks is None else scores + looks(inputs)


class PaperDecoder(nn.Module):
    """Equations (19) to (22) with the graphs built in.

    Parameters
    ----------
    decoder : GraphDecoder
    precision : ndarray, [G, p, p]
        One graph a class, or one for all.
    mixing : MixtureHead, optional
        Where given, every image gets one graph, mixed from those of the classes it shows.
    """

    needs_image = False
    positive: Tensor
    negative: Tensor

    def __init__(self, decoder: GraphDecoder, precision: Array, mixing: MixtureHead | None = None):
        super().__init__()
        self.decoder, self.mixing = decoder, mixing
        graphs = signed_graphs(torch.tensor(precision).float())
        self.register_buffer("positive", graphs.positive)
        self.register_buffer("negative", graphs.negative)

    def scores(self, inputs: PatchInputs) -> Tensor:
        """Return patch logits [B, N_p, C]."""
        graphs = SignedGraphs(self.positive, self.negative)
        if self.mixing is not None:
            p = inputs.nodes.shape[1]
            graphs = signed_graphs(self.mixing.mixed(inputs.observations, inputs.grid)[:, None, :p, :p])
        return self.decoder(inputs.nodes, inputs.attention, graphs)

    def forward(self, inputs: PatchInputs) -> Tensor:
        """Return logits [B, C, h, w] on the patch grid."""
        return on_grid(self.scores(inputs), inputs.grid)


class HybridDecoder(FrozenScoring):
    """Patches, generative scores and graph context together: the sum of their logits.

    logits = linear(patches) + s * generative + context, where s is learned, starts at `start` and shall tell how much
    the generative scores are worth.

    Parameters
    ----------
    linear : LinearDecoder
    generative : GenerativeHead or MixtureHead, optional
        Left out, there are no generative scores.
    context : PaperDecoder, optional
        Left out, there is no graph context.
    start : float
        First value of s.
    """

    needs_image = False

    def __init__(
        self,
        linear: LinearDecoder,
        generative: GenerativeHead | MixtureHead | None = None,
        context: PaperDecoder | None = None,
        *,
        start: float = 0.1,
    ):
        super().__init__()
        self.linear, self.generative, self.context = linear, generative, context
        self.strength = nn.Parameter(torch.tensor(float(start)))

    def likelihood(self, inputs: PatchInputs) -> Tensor:
        """Return the generative scores of the patches [B, N_p, C], with mean 0 over the classes."""
        if self.generative is None:
            raise TypeError("this decoder was built without generative scores")
        scores = self.generative(inputs.observations, inputs.grid)
        return scores - scores.mean(-1, keepdim=True)

    def scores(self, inputs: PatchInputs) -> Tensor:
        """Return patch logits [B, N_p, C]."""
        logits = self.linear.scores(inputs)
        if self.generative is not None:
            logits = logits + self.strength * self.frozen(inputs)
        return logits if self.context is None else logits + self.context.scores(inputs)

    def forward(self, inputs: PatchInputs) -> Tensor:
        """Return logits [B, C, h, w] on the patch grid."""
        return on_grid(self.scores(inputs), inputs.grid)


def on_grid(scores: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return maps [B, C, h, w] of patch scores [B, N_p, C], row by row.

    Raises
    ------
    InputError
        If the grid does not have N_p patches.
    """
    if grid[0] * grid[1] != scores.shape[1]:
        raise InputError(
            "grid and patches differ", f"{grid} for {scores.shape[1]} patches", "pass the encoder's patch grid"
        )
    return scores.transpose(1, 2).unflatten(2, grid)


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


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return pixel logits [B, C, H, W] of logits [B, C, h, w] by bilinear interpolation.

    Logits are interpolated, not probabilities, as usual in the field; the softmax comes after.
    """
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
