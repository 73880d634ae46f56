"""``cmgl experiment prior-direction``: which priors are used, by which rule (CM-GLasso, Table 8).

The paper chooses k by eBIC and reads a k* above 0 as acceptance. Whether a rule rejects what says nothing shows on the
last row, ours: the text prior with its nodes shuffled, the same numbers on the wrong edges.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cmgl_cli.artifacts import open_artifact, publish_file
from cmgl_cli.experiments.chain import Chain
from cmgl_cli.experiments.engine import Cell, Experiment, Request, Results
from cmgl_cli.experiments.measures import graph_scores, selection_measures
from cmgl_cli.reports.ablation_figures import DotPanel, dots_figure

SHUFFLED, OF_TEXTS = "shuffled text", "image-to-text"
DIRECTIONS = ("text-to-image", OF_TEXTS, "self", "none", SHUFFLED)
# a class often has fewer texts than there are nodes: its covariance is singular, and sharp priors leave edges free
TEXT_RIDGE = 0.01
# the sharpness at equal total penalty is ours: without it a sharp prior is taken for the penalty that it relieves
RULES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "held-out": {"select": "held-out", "select_k": "held-out", "preserve_penalty": True},
        "eBIC": {"select": "ebic", "select_k": "ebic", "preserve_penalty": True},
        "eBIC as printed": {"select": "ebic", "select_k": "ebic", "preserve_penalty": False},
    }
)


def cells(request: Request) -> list[Cell]:
    """Return the grid: rules, directions, seeds."""
    rules = ("eBIC",) if request.quick else tuple(RULES)
    return [
        {"rule": rule, "direction": direction, "seed": seed}
        for rule in rules
        for direction in DIRECTIONS
        if direction != OF_TEXTS or request.data.kind == "image"  # regions are of images
        for seed in range(request.seeds)
    ]


def run(cell: Cell, chain: Chain) -> dict[str, float]:
    """Fit with one prior: what sharpness was chosen, what it is worth held out, and the accuracy of image graphs."""
    rule, direction, seed = str(cell["rule"]), str(cell["direction"]), int(cell["seed"])
    nodes, settings = chain.nodes(seed), dict(RULES[rule])
    if direction == OF_TEXTS and chain.setting("fit-graphs", "ridge") is None:
        settings["ridge"] = TEXT_RIDGE
    if direction == SHUFFLED:
        prior = shuffled(chain, chain.prior(nodes, direction="text-to-image"), seed)
        graphs = chain.graphs(chain.kind, nodes, None, seed, own_prior=prior, **settings)
    else:
        graphs = chain.graphs(chain.kind, nodes, chain.prior(nodes, direction=direction), seed, **settings)
    found = selection_measures(graphs)
    if direction != OF_TEXTS:  # its graphs are those of texts, which classify no images
        found |= graph_scores(chain, chain.kind, nodes, graphs, seed)
    return found


def shuffled(chain: Chain, prior: Path, seed: int) -> Path:
    """Write a prior with its nodes in another order, the same for all classes, among the cells; return the file."""
    output = chain.cells / f"{prior.stem}-shuffled{seed}.npz"
    with open_artifact(prior) as found:
        values, classes = found["prior"], found["classes"]
    order = np.random.default_rng(seed).permutation(values.shape[1])
    arrays = {"prior": values[:, order][:, :, order], "classes": classes.astype(str)}
    chain.cells.mkdir(parents=True, exist_ok=True)
    publish_file(output, lambda file: np.savez(file, allow_pickle=False, **arrays))
    return output


def figure(results: Results) -> Figure:
    """Draw k* and the share of classes that reject the prior, one row of panels a rule."""
    panels = [
        DotPanel(f"{rule}: {name}", metric, "direction", results.where(rule=rule))
        for rule in results.values("rule")
        for metric, name in (("k*", "sharpness chosen"), ("k* = 0", "classes that reject it"), ("accuracy", "accuracy"))
    ]
    return dots_figure(panels, first="text-to-image")


PRIOR_DIRECTION = Experiment(
    name="prior-direction",
    about="Which priors are used: text to image, image to text, self, none, shuffled; by eBIC and held out (Table 8)",
    version=1,
    cells=cells,
    run=run,
    pages=("rule",),
    rows="direction",
    columns=(),
    metric="accuracy",
    reference="",
    figure=figure,
    needs="features",
    shown=("k*", "k* = 0", "gain", "accuracy", "mIoU", "NLL", "edges"),
    gain="points",
)
