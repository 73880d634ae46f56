"""The classifier as it scored, rebuilt from artifacts; and what its nodes are: where they look, what moves them."""

import re
from dataclasses import dataclass

import numpy as np

from cmgl_cli.artifacts import Artifact
from cmgl_cli.graphs import Nonparanormal
from cmgl_cli.heads import GraphDiscriminant, Shares, shrink
from cmgl_cli.heads.contributions import in_score_units
from cmgl_cli.reports.graph_figures import node_order
from cmgl_cli.reports.material import Run
from cmgl_cli.reports.segmentation_figures import attention_centres

SPREAD_OUT = 0.05
"""Focus below which a node's attention, averaged over images, has no place worth naming."""
ROWS = ("upper", "middle", "lower")
COLUMNS = ("left", "centre", "right")


@dataclass(frozen=True)
class View:
    """One kind of observation with the classifier that scores it.

    Attributes
    ----------
    kind : str
        "image" or "patch".
    classes : list of str
    model : GraphDiscriminant
        With the precisions that scored: in the units of the observations, shrunk as the validation part chose.
    transform : Nonparanormal
    shares : Shares
        Of the mean graph in every graph, of the common mean in every mean.
    """

    kind: str
    classes: list[str]
    model: GraphDiscriminant
    transform: Nonparanormal
    shares: Shares


def view(run: Run, kind: str) -> View | None:
    """Return the classifier of a kind of observation, or None where a run has none of images."""
    graphs = run.open(f"{kind} graphs")
    if graphs is None:
        return None
    with graphs:
        if "means" not in graphs or graphs["modality"][0] != "image":
            return None
        shares, priors = _as_scored(run, kind, len(graphs["classes"]))
        precision, _ = in_score_units(graphs.finite("precision"), graphs.finite("common"), graphs["scale"])
        matrices, means = shrink(precision, weight=shares.graph), shrink(graphs["means"], weight=shares.means)
        model = GraphDiscriminant(matrices, means, priors)
        transform = Nonparanormal.from_arrays(graphs.group("transform"))
        return View(kind, graphs["classes"].tolist(), model, transform, shares)


def _as_scored(run: Run, kind: str, n_classes: int) -> tuple[Shares, np.ndarray | None]:
    """Return shares and class priors of the classification; none of either without it."""
    artifact = run.open("classification")
    if artifact is None:
        return Shares(0.0, 0.0), None
    with artifact:
        config, columns = artifact.config, artifact.group("table")
        methods = columns["method"].tolist()
    name = f"graph classifier ({kind})"
    words = columns["chosen"][methods.index(name)] if name in methods else ""

    def share(key: str) -> float:
        if config.get(key, "auto") != "auto":
            return float(config[key])
        found = re.search(rf"(?:^|, ){key.replace('_', ' ')} ([\d.e-]+)", words)
        return float(found.group(1)) if found else 0.0

    priors = None
    if config["class_prior"] != "uniform":
        graphs = run.open(f"{kind} graphs")
        if graphs is not None:
            with graphs:
                counts = graphs["counts"].astype(np.float64)
            priors = counts / counts.sum() if len(counts) == n_classes and counts.all() else None
    return Shares(share("shrinkage"), share("mean_shrinkage")), priors


def order_of(artifact: Artifact) -> np.ndarray:
    """Return the order in which the nodes of a graph are drawn, clustered by how strong its edges are in any class."""
    precision = artifact["precision"]
    scale = np.sqrt(np.einsum("cii->ci", precision))
    return node_order(np.abs(precision / (scale[:, :, None] * scale[:, None, :])).mean(axis=0))


@dataclass(frozen=True)
class Node:
    """What is known of a node.

    Attributes
    ----------
    place : str
        Where it looks on average over images.
    focus : float
        1 for one patch, 0 for all alike.
    highest, lowest : str
        Classes in which its mean is highest and lowest.
    """

    place: str
    focus: float
    highest: str
    lowest: str

    @property
    def words(self) -> str:
        """Place and class in brackets-free words."""
        return ", ".join(part for part in (self.place, self.highest and f"highest for {self.highest}") if part)


def describe_nodes(run: Run) -> list[Node]:
    """Return what is known of every node; without prior and means, only that there are so many."""
    places = _places(run)
    graphs = run.open("image graphs") or run.open("patch graphs")
    if graphs is None:
        return [Node(place, focus, "", "") for place, focus in places]
    with graphs:
        p, names = graphs["common"].shape[0], graphs["classes"].tolist()
        places = places if len(places) == p else [("", 0.0)] * p
        if "means" not in graphs:
            return [Node(place, focus, "", "") for place, focus in places]
        means = graphs["means"]
    return [
        Node(place, focus, names[int(column.argmax())], names[int(column.argmin())])
        for (place, focus), column in zip(places, means.T, strict=True)
    ]


def _places(run: Run) -> list[tuple[str, float]]:
    prior, nodes = run.open("prior"), run.open("nodes")
    if prior is None or nodes is None:
        return []
    with prior, nodes:
        maps = np.average(prior["image/attention"], axis=0, weights=np.maximum(prior["image/count"], 1))
        rows, columns = (int(n) for n in np.median(nodes["image/grid"], axis=0).round())
    if rows * columns != maps.shape[1]:
        return []
    centres, focus = attention_centres(maps.reshape(-1, rows, columns), (rows, columns))
    return [(_place(x / columns, y / rows, f), float(f)) for (x, y), f in zip(centres, focus, strict=True)]


def _place(x: float, y: float, focus: float) -> str:
    """Return the ninth of the image that holds a point, x and y in 0..1."""
    if focus < SPREAD_OUT:
        return "all over the image"
    row, column = ROWS[min(2, int(3 * max(y, 0)))], COLUMNS[min(2, int(3 * max(x, 0)))]
    if row == "middle":
        return "the centre" if column == "centre" else f"the {column}"
    return f"the {row} {'part' if column == 'centre' else column}"
