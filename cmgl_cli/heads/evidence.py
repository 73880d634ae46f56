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
from cmgl_cli.heads.controls import definite, derangement, shuffled_graph, without_edges

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
    rows : tuple of int, optional
        Which images these are, so that what training does not change is computed once (`frozen`).
    """

    patches: Tensor
    observations: Tensor
    nodes: Tensor
    attention: Tensor
    grid: tuple[int, int]
    image: Tensor | None = None
    rows: tuple[int, ...] | None = None

    def of(self, places: Tensor) -> "PatchInputs":
        """Return some images of the batch, int64 [b]."""
        patches, observations, nodes, attention = (tensor[places.to(tensor.device)] for tensor in self[:4])
        image = None if self.image is None else self.image[places.to(self.image.device)]
        rows = None if self.rows is None else tuple(self.rows[place] for place in places.tolist())
        return PatchInputs(patches, observations, nodes, attention, self.grid, image, rows)


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
    windows : tuple of int
        Surroundings of a patch that are part of its observation (`context.with_context`); the graphs then have
        (1 + len(windows)) p such nodes, those of the patch first.
    appearance : int
        Number of nodes that see pixels (`appearance.cell_observations`), 0 or 13; they come before all others.
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
    windows: tuple[int, ...] = ()
    appearance: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        positive_definite("precision", self.precision)
        n_classes, n_nodes = self.precision.shape[:2]
        finite("common", self.common, (n_nodes, n_nodes))
        finite("means", self.means, (n_classes, n_nodes))
        finite("priors", self.priors, (n_classes,))
        if (n_nodes - self.appearance) % (1 + len(self.windows)):
            raise InputError(
                "graphs and windows do not fit each other",
                f"{n_nodes} nodes, {self.appearance} of them appearance, {len(self.windows)} windows",
                "fit the graphs on observations with these windows",
            )

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.precision)

    @property
    def n_nodes(self) -> int:
        """Number of nodes p, those of windows and appearance not counted."""
        return (self.precision.shape[1] - self.appearance) // (1 + len(self.windows))

    def select(self, graph: str) -> Array:
        """Return the precisions [C, q, q] that a choice of graph stands for, over all q nodes.

        "per-class" and "mixture": Omega_c (mixing is the decoder's work).
        "common": Theta for every class, its edges weakened just enough to be positive definite. "random": the class
        graphs on shuffled nodes; each window's nodes are shuffled alike and stay a window's, so a node keeps its ties
        to itself at other scales. "diagonal": no edge, the marginal variances of each class. "none": the identity.
        Where edges go or move, marginal variances stay (`heads.controls`).

        Raises
        ------
        UsageError
            If there is no such choice.
        InputError
            If a graph of fewer than three nodes shall be shuffled.
        """
        if graph not in GRAPHS:
            raise UsageError("unknown choice of graph", f"graph = {graph!r}", suggest(graph, GRAPHS))
        shared = definite(np.asarray(self.common, dtype=np.float64))
        if graph == "common":
            return np.repeat(shared[None], self.n_classes, axis=0)
        if graph == "none":
            return np.repeat(np.eye(len(self.common))[None], self.n_classes, axis=0)
        own = np.asarray(self.precision, dtype=np.float64)
        if graph == "random":
            return shuffled_graph(own, self._shuffled_nodes())
        return without_edges(own) if graph == "diagonal" else own

    def _shuffled_nodes(self) -> np.ndarray:
        """Return an order of all nodes that moves every one of them within its own kind."""
        rng = np.random.default_rng(self.seed)
        order = derangement(self.n_nodes, rng)
        scales = [self.appearance + self.n_nodes * scale + order for scale in range(1 + len(self.windows))]
        looks = derangement(self.appearance, rng) if self.appearance else np.empty(0, np.int64)
        return np.concatenate([looks, *scales])


def marginal_precision(precision: Array, first: int) -> Array:
    """Return the precision of the nodes from `first` on, the others integrated out: [C, q, q] to [C, q - first, ...].

    It is the Schur complement of the block of the first nodes.
    """
    own, across = precision[:, :first, :first], precision[:, :first, first:]
    rest = precision[:, first:, first:] - across.transpose(0, 2, 1) @ np.linalg.solve(own, across)
    return (rest + rest.transpose(0, 2, 1)) / 2
