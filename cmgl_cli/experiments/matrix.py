"""``cmgl experiment matrix``: which part of the precision matrix classifies (CM-GLasso, Table 7).

All rows are scored by `classify` itself: the graph as fitted, and its controls, which keep marginal variances.
"""

from collections.abc import Mapping
from types import MappingProxyType

from matplotlib.figure import Figure

from cmgl_cli.experiments.chain import Chain
from cmgl_cli.experiments.engine import Cell, Experiment, Request, Results
from cmgl_cli.experiments.measures import edge_counts, label_scores, score_table
from cmgl_cli.reports.ablation_figures import DotPanel, dots_figure

BOTH = "common + specific"
METHODS: Mapping[str, str] = MappingProxyType(
    {
        BOTH: "graph classifier ({kind})",
        "only common": "control: common only ({kind})",
        "only specific": "control: specific only ({kind})",
        "no edges": "control: diagonal ({kind})",
        "identity": "control: identity ({kind})",
        "random graph": "control: random graph ({kind})",
    }
)
# what segment calls them
REGION_METHODS: Mapping[str, str] = MappingProxyType(
    {BOTH: "per-class", "only common": "common", "no edges": "diagonal", "random graph": "random"}
)
# which matrix of the artifact holds the edges
EDGES: Mapping[str, str] = MappingProxyType(
    {BOTH: "precision", "random graph": "precision", "only common": "common", "only specific": "specific"}
)


def cells(request: Request) -> list[Cell]:
    """Return the grid: kinds of observation, matrices, seeds."""
    kinds = ("image",) if request.quick else ("image", "patch")
    if request.data.kind == "region":
        kinds = ("region",)
    return [
        {"observations": kind, "matrix": matrix, "seed": seed}
        for kind in kinds
        for matrix in (METHODS if kind != "region" else REGION_METHODS)
        for seed in range(request.seeds)
    ]


def run(cell: Cell, chain: Chain) -> dict[str, float]:
    """Score one matrix: accuracy and the rest on the reported part, and edges a class."""
    kind, matrix, seed = str(cell["observations"]), str(cell["matrix"]), int(cell["seed"])
    nodes = chain.nodes(seed)
    graphs = chain.graphs(kind, nodes, chain.prior(nodes), seed)
    edges = edge_counts(graphs)
    if kind == "region":
        row = label_scores(chain.labels(nodes, graphs, seed, REGION_METHODS[matrix]))
    else:
        row = score_table(chain.scores(kind, nodes, graphs, seed))[METHODS[matrix].format(kind=kind)]
    return {**row, "edges": edges[EDGES[matrix]] if matrix in EDGES else 0.0}


def figure(results: Results) -> Figure:
    """Draw the accuracy of every matrix, one panel a kind of observation."""
    panels = [
        DotPanel(f"{kind} observations", "accuracy", "matrix", results.where(observations=kind))
        for kind in results.values("observations")
    ]
    return dots_figure(panels, first=BOTH)


MATRIX = Experiment(
    name="matrix",
    about="Which matrix classifies: common + specific, either alone, no edges, identity, a random graph (Table 7)",
    version=1,
    cells=cells,
    run=run,
    pages=("observations",),
    rows="matrix",
    columns=(),
    metric="accuracy",
    reference=BOTH,
    figure=figure,
    needs="features",
    shown=("accuracy", "mIoU", "macro F1", "NLL", "edges"),
    gain="points",
)
