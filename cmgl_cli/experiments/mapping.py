"""``cmgl experiment mapping``: from patches to nodes by principal components, a linear layer or cross-attention.

CM-GLasso, Tables 4 and 9.
"""

from matplotlib.figure import Figure

from cmgl_cli.experiments.chain import Chain
from cmgl_cli.experiments.engine import Cell, Experiment, Request, Results
from cmgl_cli.experiments.measures import graph_scores, selection_measures, unconfirmed_edges
from cmgl_cli.experiments.prior_direction import RULES
from cmgl_cli.reports.ablation_figures import DotPanel, dots_figure

OURS = "cross-attention"
MAPPINGS = ("pca", "linear", OURS)


def cells(request: Request) -> list[Cell]:
    """Return the grid: rules of choice, mappings, seeds."""
    rules = ("eBIC",) if request.quick else ("held-out", "eBIC")
    return [
        {"rule": rule, "mapping": mapping, "seed": seed}
        for rule in rules
        for mapping in MAPPINGS
        for seed in range(request.seeds)
    ]


def run(cell: Cell, chain: Chain) -> dict[str, float]:
    """Fit graphs on nodes of one mapping: accuracy, edges, edges that a disjoint half does not confirm, k*."""
    seed = int(cell["seed"])
    nodes = chain.nodes(seed, mapping=str(cell["mapping"]))
    graphs = chain.graphs(chain.kind, nodes, chain.prior(nodes), seed, **RULES[str(cell["rule"])])
    found = {**graph_scores(chain, chain.kind, nodes, graphs, seed), **selection_measures(graphs)}
    # halves of images are independent, halves of the patches of one image are not
    return found | (unconfirmed_edges(chain, nodes, graphs, seed) if chain.kind == "image" else {})


def figure(results: Results) -> Figure:
    """Draw accuracy, edges and unconfirmed edges, one row of panels a rule."""
    panels = [
        DotPanel(f"{rule}: {title}", metric, "mapping", results.where(rule=rule), beside)
        for rule in results.values("rule")
        for metric, title, beside in (
            ("accuracy", "accuracy", ""),
            ("edges", "edges a class", ""),
            ("unconfirmed", "edges the other half lacks", "by chance"),
        )
    ]
    return dots_figure(panels, first=OURS)


MAPPING = Experiment(
    name="mapping",
    about="Patches to nodes by PCA, a linear layer or cross-attention: accuracy, edges, unconfirmed edges (4, 9)",
    version=1,
    cells=cells,
    run=run,
    pages=("rule",),
    rows="mapping",
    columns=(),
    metric="accuracy",
    reference=OURS,
    figure=figure,
    needs="features",
    shown=("accuracy", "mIoU", "NLL", "edges", "unconfirmed", "by chance", "k*"),
    gain="points",
)
