"""``cmgl experiment optimisation``: one joint problem, two stages, or every class alone (CM-GLasso, Table 6)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure

from cmgl_cli.experiments.chain import Chain
from cmgl_cli.experiments.engine import Cell, Experiment, Request, Results
from cmgl_cli.experiments.measures import edge_counts, graph_scores, training_accuracy
from cmgl_cli.reports.ablation_figures import DotPanel, dots_figure

JOINT = "joint"
METHODS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"independent": {"solver": "independent"}, "two-stage": {"solver": "two-stage"}, JOINT: {}}
)


def cells(request: Request) -> list[Cell]:
    """Return the grid: methods, seeds."""
    return [{"method": method, "seed": seed} for method in METHODS for seed in range(request.seeds)]


def run(cell: Cell, chain: Chain) -> dict[str, float]:
    """Fit graphs one way, penalties chosen as the settings say; classify the training and the reported part.

    ``common ratio`` is the share of the edges of Theta among those of Theta and S_c. ``gap`` is accuracy on the
    training part minus accuracy on the reported one, as a fraction.
    """
    seed = int(cell["seed"])
    nodes = chain.nodes(seed)
    graphs = chain.graphs(chain.kind, nodes, chain.prior(nodes), seed, **METHODS[str(cell["method"])])
    scores, edges = graph_scores(chain, chain.kind, nodes, graphs, seed), edge_counts(graphs)
    train = training_accuracy(chain, chain.kind, nodes, graphs, seed)
    both = edges["common"] + edges["specific"]
    return {
        **scores,
        "training accuracy": train,
        "gap": train - scores["accuracy"],
        "common ratio": edges["common"] / both if both else float("nan"),
        "edges": edges["precision"],
    }


def figure(results: Results) -> Figure:
    """Draw accuracy, generalisation gap and the share of common edges."""
    names = {"accuracy": "accuracy", "gap": "training minus test accuracy", "common ratio": "share of common edges"}
    panels = [DotPanel(title, metric, "method", results) for metric, title in names.items()]
    return dots_figure(panels, first=JOINT)


OPTIMISATION = Experiment(
    name="optimisation",
    about="Joint problem, two stages, or every class alone: common edges and generalisation gap (Table 6)",
    version=1,
    cells=cells,
    run=run,
    pages=(),
    rows="method",
    columns=(),
    metric="accuracy",
    reference=JOINT,
    figure=figure,
    needs="features",
    shown=("common ratio", "training accuracy", "accuracy", "mIoU", "gap", "NLL", "edges"),
    gain="points",
)
