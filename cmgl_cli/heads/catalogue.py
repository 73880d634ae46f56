"""Every decoder by name, built from graphs: the one place that knows which parts go together."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cmgl_cli.errors import UsageError, suggest
from cmgl_cli.heads.decoders import (
    DecoderOptions,
    GenerativeDecoder,
    GraphDecoder,
    HybridDecoder,
    LinearDecoder,
    PaperDecoder,
)
from cmgl_cli.heads.evidence import GRAPHS, GraphEvidence
from cmgl_cli.heads.generative import GenerativeHead, MixtureHead
from cmgl_cli.heads.refinement import RefinedDecoder


@dataclass(frozen=True)
class DecoderParts:
    """Sizes and frozen constants decoders are built from.

    Attributes
    ----------
    graphs : GraphEvidence
    n_classes, width, d_k : int
        C, d and the width of the nodes.
    graph : str
        Which graphs, one of `evidence.GRAPHS`.
    mean, scale : Tensor, [d], optional
        Training mean and standard deviation of the patch features.
    """

    graphs: GraphEvidence
    n_classes: int
    width: int
    d_k: int
    graph: str = "per-class"
    mean: Tensor | None = None
    scale: Tensor | None = None

    def linear(self) -> LinearDecoder:
        """Return a fresh linear layer on the patches."""
        return LinearDecoder(self.width, self.n_classes, self.mean, self.scale)

    def likelihood(self) -> GenerativeHead | MixtureHead:
        """Return the generative scores under the chosen graphs."""
        graphs = self.graphs
        evidence = (graphs.select(self.graph), graphs.means, graphs.priors, graphs.windows)
        return MixtureHead(*evidence) if self.graph == "mixture" else GenerativeHead(*evidence)

    def messages(self, options: DecoderOptions | None = None) -> PaperDecoder:
        """Return equations (19) to (22) on the chosen graphs.

        The nodes Z have no surroundings: of graphs with windows, the edges between a patch's own nodes are used, which
        is the precision given the surroundings.
        """
        p = self.graphs.n_nodes
        own = self.graphs.select(self.graph)[:, :p, :p]
        likelihood = self.likelihood()
        mixing = likelihood if isinstance(likelihood, MixtureHead) else None
        return PaperDecoder(GraphDecoder(self.d_k, self.n_classes, options), own, mixing)

    def hybrid(self, *, context: bool = False) -> HybridDecoder:
        """Return the linear layer with the generative scores and, if wanted, the graph context.

        Without a graph ("none") neither is left: it is the linear layer.
        """
        if self.graph == "none":
            return HybridDecoder(self.linear())
        return HybridDecoder(self.linear(), self.likelihood(), self.messages() if context else None)


def build_decoder(
    name: str,
    graphs: GraphEvidence,
    n_classes: int,
    width: int,
    d_k: int,
    *,
    graph: str = "per-class",
    standardisation: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Return a fresh decoder.

    Parameters
    ----------
    name : {"generative", "hybrid", "paper", "unet", "linear"}
        "generative": class log-likelihoods of the patches, calibrated. "hybrid": a linear layer on the patches plus
        these. "paper": equations (19) to (22) as printed. "unet": hybrid, refined with the image. "linear": the linear
        layer alone, which no choice of graph changes.
    graphs : GraphEvidence
    n_classes, width, d_k : int
        C, d and the width of the nodes.
    graph : str
        Which graphs, one of `evidence.GRAPHS`.
    standardisation : tuple of Tensor, [d] each, optional
        Training mean and standard deviation of the patch features.
    seed : int
        Of the initial weights; the global generator is left alone.

    Raises
    ------
    UsageError
        If there is no such decoder or no such choice of graph.
    """
    if name not in DECODERS:
        raise UsageError("Unknown decoder.", f"decoder = {name!r}", suggest(name, DECODERS))
    if graph not in GRAPHS:
        raise UsageError("Unknown choice of graph.", f"graph = {graph!r}", suggest(graph, GRAPHS))
    mean, scale = standardisation or (None, None)
    parts = DecoderParts(graphs, n_classes, width, d_k, graph, mean, scale)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DECODERS[name](parts)


DECODERS: dict[str, Callable[[DecoderParts], nn.Module]] = {
    "generative": lambda parts: GenerativeDecoder(parts.likelihood(), parts.n_classes),
    "hybrid": lambda parts: parts.hybrid(),
    "paper": lambda parts: parts.messages(),
    "unet": lambda parts: RefinedDecoder(parts.hybrid(), parts.width, parts.n_classes),
    "linear": lambda parts: parts.linear(),
}
"""Decoders by name; all are trained by `segmentation_training`."""
