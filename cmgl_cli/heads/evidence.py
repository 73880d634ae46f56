"""What a segmentation decoder is given: the inputs of a batch, and the graphs it may use.

Decoders differ in what they do with the class graphs; that they are offered the same graphs, and the same controls in
their place, is settled here.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from cmgl_cli.errors import InputError, UsageError, suggest
from cmgl_cli.heads.checks import Array, finite, positive_definite
from cmgl_cli.heads.controls import definite, random_graph, without_edges
from cmgl_cli.heads.patch_decoder import with_common

GRAPHS = ("per-class", "mixture", "common", "random", "diagonal", "none")
"""Which graphs a decoder uses; the last three are controls."""


class PatchInputs(NamedTuple):
    """A batch of B images as the frozen encoder and the frozen probes see them.

    Attributes
    ----------
    patches : Tensor, [B, N_p, d]
        Patch tokens, any float type.
    observations : Tensor, float32, [B, N_p, p]
        u, what the class graphs were estimated from, transformed as they were then.
    nodes : Tensor, float32, [B, p, d_k]
        Z, equation (2).
    attention : Tensor, [B, p, N_p]
        A, equation (1).
    grid : tuple of int
        (h, w), h * w = N_p, patches row by row.
    image : Tensor, float32, [B, 3, H, W], optional
        The images in 0..1, any size; only decoders with `needs_image` look at them.
    """

    patches: Tensor
    observations: Tensor
    nodes: Tensor
    attention: Tensor
    grid: tuple[int, int]
    image: Tensor | None = None


@dataclass(frozen=True)
class GraphEvidence:
    """The class graphs and the class moments that go with them.

    Attributes
    ----------
    precision : ndarray, [C, p, p]
        Omega_c = Theta + S_c, positive definite, in the units of the observations.
    common : ndarray, [p, p]
        Theta.
    means : ndarray, [C, p]
        Class means of the observations.
    priors : ndarray, [C]
        Share of the patches each class has, positive.
    scarce : tuple of int
        Classes with too few samples for a graph of their own; they take the common one.
    windows : tuple of int
        Surroundings of a patch that are part of its observation (`context.with_context`); the graphs then have
        (1 + len(windows)) p nodes, those of the patch first.
    seed : int
        Of the random graph.

    Raises
    ------
    InputError
        If shapes disagree, an entry is not finite or a precision is not positive definite.
    """

    precision: Array
    common: Array
    means: Array
    priors: Array
    scarce: tuple[int, ...] = ()
    windows: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        positive_definite("precision", self.precision)
        n_classes, n_nodes = self.precision.shape[:2]
        finite("common", self.common, (n_nodes, n_nodes))
        finite("means", self.means, (n_classes, n_nodes))
        finite("priors", self.priors, (n_classes,))
        if n_nodes % (1 + len(self.windows)):
            raise InputError(
                "graphs and windows do not fit each other",
                f"{n_nodes} nodes, {len(self.windows)} windows",
                "fit the graphs on observations with these windows",
            )
        if min(self.scarce, default=0) < 0 or max(self.scarce, default=0) >= n_classes:
            raise InputError(
                "a scarce class does not exist", f"{self.scarce} of {n_classes} classes", "number them from 0"
            )

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.precision)

    @property
    def n_nodes(self) -> int:
        """Number of nodes p, the windows' not counted."""
        return self.precision.shape[1] // (1 + len(self.windows))

    def select(self, graph: str) -> Array:
        """Return the precisions [C, q, q] that a choice of graph stands for, q = (1 + len(windows)) p.

        "per-class" and "mixture": Omega_c, the common graph where a class is scarce (mixing is the decoder's work).
        "common": Theta for every class, its edges weakened just enough to be positive definite. "random": the class
        graphs on shuffled nodes, each window's nodes shuffled alike. "diagonal": no edge, the marginal variances of
        each class. "none": the identity. Where edges go or move, marginal variances stay (`heads.controls`).

        Raises
        ------
        UsageError
            If there is no such choice.
        InputError
            If a graph of fewer than three nodes shall be shuffled.
        """
        if graph not in GRAPHS:
            raise UsageError("Unknown choice of graph.", f"graph = {graph!r}", suggest(graph, GRAPHS))
        shared = definite(np.asarray(self.common, dtype=np.float64))
        if graph == "common":
            return np.repeat(shared[None], self.n_classes, axis=0)
        if graph == "none":
            return np.repeat(np.eye(len(self.common))[None], self.n_classes, axis=0)
        own = with_common(self.precision, shared, self.scarce)
        if graph == "random":
            return random_graph(own, np.random.default_rng(self.seed), groups=1 + len(self.windows))
        return without_edges(own) if graph == "diagonal" else own
