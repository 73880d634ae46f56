"""``cmgl experiment sensitivity``: accuracy over the penalties rho and gamma (CM-GLasso, Table 10)."""

from matplotlib.figure import Figure

from cmgl_cli.experiments.chain import Chain
from cmgl_cli.experiments.engine import Cell, Experiment, Request, Results
from cmgl_cli.experiments.measures import graph_scores, selection_measures
from cmgl_cli.reports.ablation_figures import map_figure
from cmgl_cli.settings import GRID


def cells(request: Request) -> list[Cell]:
    """Return the grid: the paper's penalties, seeds."""
    values = GRID[1:3] if request.quick else GRID
    return [
        {"rho": rho, "gamma": gamma, "seed": seed}
        for rho in values
        for gamma in values
        for seed in range(request.seeds)
    ]


def run(cell: Cell, chain: Chain) -> dict[str, float]:
    """Fit graphs at one pair of penalties; k is chosen as the user's settings say."""
    seed, pair = int(cell["seed"]), {"rho": (float(cell["rho"]),), "gamma": (float(cell["gamma"]),)}
    nodes = chain.nodes(seed)
    graphs = chain.graphs(chain.kind, nodes, chain.prior(nodes), seed, **pair)
    found = selection_measures(graphs)
    return {**graph_scores(chain, chain.kind, nodes, graphs, seed), **{name: found[name] for name in ("edges", "k*")}}


def figure(results: Results) -> Figure:
    """Draw accuracy and edges as maps over both penalties."""
    return map_figure([("accuracy", results, "accuracy"), ("edges a class", results, "edges")], "gamma", "rho")


SENSITIVITY = Experiment(
    name="sensitivity",
    about="Accuracy over the penalties rho and gamma (Table 10)",
    version=1,
    cells=cells,
    run=run,
    pages=(),
    rows="rho",
    columns=("gamma",),
    metric="accuracy",
    reference="",
    figure=figure,
    needs="features",
    gain="points",
)
