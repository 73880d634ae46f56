"""``cmgl experiment nonparanormal``: normal scores, or values as they are (CM-GLasso, Table 5)."""

from matplotlib.figure import Figure

from cmgl_cli.artifacts import open_artifact
from cmgl_cli.errors import UsageError
from cmgl_cli.experiments.chain import Chain
from cmgl_cli.experiments.engine import Cell, Experiment, Request, Results
from cmgl_cli.experiments.measures import edge_counts, graph_scores
from cmgl_cli.reports.ablation_figures import DotPanel, dots_figure

POOLED = "one for all classes"
SCOPES = {"none": "none", POOLED: "pooled", "one a class": "class"}


def cells(request: Request) -> list[Cell]:
    """Return the grid: kinds of observation, transforms, seeds."""
    if request.data.kind == "region":
        raise UsageError(
            "transforms are compared on images of one class each, and these show several",
            "cmgl experiment nonparanormal",
            "regions of masks always have one transform for all classes; use another dataset",
        )
    kinds = ("image",) if request.quick else ("image", "patch")
    return [
        {"observations": kind, "transform": transform, "seed": seed}
        for kind in kinds
        for transform in SCOPES
        for seed in range(request.seeds)
    ]


def run(cell: Cell, chain: Chain) -> dict[str, float]:
    """Fit with one transform: accuracy, and the share of (class, node) pairs that pass Shapiro-Wilk held out."""
    kind, seed = str(cell["observations"]), int(cell["seed"])
    nodes = chain.nodes(seed)
    graphs = chain.graphs(kind, nodes, chain.prior(nodes), seed, scope=SCOPES[str(cell["transform"])])
    with open_artifact(graphs) as found:
        normality = {key: float(value) for key, value in found.group("normality").items()}
    passes = {f"pass {name}": normality[name] for name in ("before", "after") if name in normality}
    return {**graph_scores(chain, kind, nodes, graphs, seed), **passes, "edges": edge_counts(graphs)["precision"]}


def figure(results: Results) -> Figure:
    """Draw accuracy and the pass rate after the transform, one row of panels a kind of observation."""
    panels = [
        DotPanel(f"{kind} observations", metric, "transform", results.where(observations=kind))
        for kind in results.values("observations")
        for metric in ("accuracy", "pass after")
    ]
    return dots_figure(panels, first=POOLED, columns=2)


NONPARANORMAL = Experiment(
    name="nonparanormal",
    about="Normal scores for all classes, a class, or none: Shapiro-Wilk pass rate and accuracy (Table 5)",
    version=1,
    cells=cells,
    run=run,
    pages=("observations",),
    rows="transform",
    columns=(),
    metric="accuracy",
    reference=POOLED,
    figure=figure,
    needs="features",
    shown=("pass before", "pass after", "accuracy", "NLL", "edges"),
    gain="points",
)
