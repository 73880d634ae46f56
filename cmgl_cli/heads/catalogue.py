"""Every decoder by name, built from graphs: the one place that knows which parts go together."""

from collections.abc import Callable
from dataclasses import dataclass, replace

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
from cmgl_cli.heads.evidence import GRAPHS, GraphEvidence, marginal_precision
from cmgl_cli.heads.frozen import CrossFits, FrozenScoring
from cmgl_cli.heads.generative import AppearanceHead, GenerativeHead, MixtureHead
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
        graphs, first = self.graphs, self.graphs.appearance
        precision = marginal_precision(graphs.select(self.graph), first)
        evidence = (precision, graphs.means[:, first:], graphs.priors, graphs.windows)
        return MixtureHead(*evidence) if self.graph == "mixture" else GenerativeHead(*evidence)

    def looks(self) -> AppearanceHead | None:
        """Return the scores of what cells look like, if the graphs have appearance nodes."""
        graphs = self.graphs
        if not graphs.appearance:
            return None
        return AppearanceHead(graphs.select(self.graph), graphs.means, graphs.windows, graphs.appearance)

    def messages(self, options: DecoderOptions | None = None) -> PaperDecoder:
        """Return equations (19) to (22) on the chosen graphs.

        The nodes Z have no surroundings and no pixels: of graphs that have, the edges between a patch's own nodes are
        used, which is the precision given all else.
        """
        own = self.graphs.select(self.graph)
        first, p = self.graphs.appearance, self.graphs.n_nodes
        own = own[:, first : first + p, first : first + p]
        likelihood = self.likelihood() if self.graph == "mixture" else None
        mixing = likelihood if isinstance(likelihood, MixtureHead) else None
        return PaperDecoder(GraphDecoder(self.d_k, self.n_classes, options), own, mixing)

    def hybrid(self, *, context: bool = False) -> HybridDecoder:
        """Return the linear layer with the generative scores and, if wanted, the graph context.

        Without a graph ("none") neither is left: it is the linear layer.
        """
        if self.graph == "none":
            return HybridDecoder(self.linear())
        return HybridDecoder(self.linear(), self.likelihood(), self.messages() if context else None)

    def generative(self) -> GenerativeDecoder:
        """Return the generative scores alone, of cells where the graphs have appearance nodes."""
        return GenerativeDecoder(self.likelihood(), self.n_classes, self.looks())

    def refined(self) -> RefinedDecoder:
        """Return linear layer, generative scores and network on cells; without a graph ("none") no scores."""
        sizes = self.width, self.n_classes, (self.mean, self.scale)
        if self.graph == "none":
            return RefinedDecoder(*sizes)
        return RefinedDecoder(*sizes, generative=self.likelihood(), looks=self.looks())


def build_decoder(
    name: str,
    graphs: GraphEvidence,
    width: int,
    d_k: int,
    *,
    graph: str = "per-class",
    standardisation: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
    cross_fits: CrossFits | None = None,
) -> nn.Module:
    """Return a fresh decoder.

    Parameters
    ----------
    name : {"generative", "hybrid", "paper", "unet", "linear"}
        "generative": class log-likelihoods, calibrated. "hybrid": a linear layer on the patches plus these. "paper":
        equations (19) to (22) as printed. "unet": the linear layer and the scores, refined with the image
        (`refinement`). "linear": the linear layer alone, which no choice of graph changes.
    graphs : GraphEvidence
    width, d_k : int
        d and the width of the nodes.
    graph : str
        Which graphs, one of `evidence.GRAPHS`.
    standardisation : tuple of Tensor, [d] each, optional
        Training mean and standard deviation of the patch features.
    seed : int
        Of the initial weights; the global generator is left alone.
    cross_fits : CrossFits, optional
        Graphs without each fold of the training images, by which these are scored.

    Raises
    ------
    UsageError
        If there is no such decoder or no such choice of graph.
    """
    if name not in DECODERS:
        raise UsageError("unknown decoder", f"decoder = {name!r}", suggest(name, DECODERS))
    if graph not in GRAPHS:
        raise UsageError("unknown choice of graph", f"graph = {graph!r}", suggest(graph, GRAPHS))
    mean, scale = standardisation or (None, None)
    parts = DecoderParts(graphs, graphs.n_classes, width, d_k, graph, mean, scale)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = DECODERS[name](parts)
        if cross_fits is not None and graph != "none" and isinstance(decoder, FrozenScoring):
            others = [DECODERS[name](replace(parts, graphs=evidence)) for evidence in cross_fits.evidence]
            decoder.cross_fit([other for other in others if isinstance(other, FrozenScoring)], cross_fits.fold)
        return decoder


DECODERS: dict[str, Callable[[DecoderParts], nn.Module]] = {
    "generative": lambda parts: parts.generative(),
    "hybrid": lambda parts: parts.hybrid(),
    "paper": lambda parts: parts.messages(),
    "unet": lambda parts: parts.refined(),
    "linear": lambda parts: parts.linear(),
}
"""Decoders by name; all are trained by `segmentation_training`."""
