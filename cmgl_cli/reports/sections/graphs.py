"""The graphs: common and class-specific edges as networks and as matrices, and how they were chosen and solved."""

from collections.abc import Mapping, Sequence

import numpy as np

from cmgl_cli.artifacts import Artifact
from cmgl_cli.reports.curve_figures import convergence_figure, selection_figure
from cmgl_cli.reports.graph_figures import circle_figure, matrix_figure
from cmgl_cli.reports.material import Run
from cmgl_cli.reports.page import Figure, Section, Table
from cmgl_cli.reports.sections.model import order_of
from cmgl_cli.reports.sections.parts import CLASSES_DRAWN, drawn_classes, figure, first, shortened

KINDS = {"image graphs": "image", "patch graphs": "patch", "region graphs": "region", "given graphs": "given"}
WORDS = {
    "image": "One observation is one image: the values of its nodes.",
    "patch": "One observation is one patch of an image: how much each node would draw from it.",
    "region": "One observation is a small part of an image; it belongs to the classes its pixels show.",
    "given": "The covariances were given.",
}
K_READING = (
    "The prior says which edges are likely; k is how loudly. At k = 0 it is silent. Each curve is a class, lower is "
    "better, and the triangle is the k that was chosen: a curve that is lowest at 0 means that the prior did not help."
)
GAP_READING = (
    "Blue: how far the objective still is above its last value. Orange: the duality gap, a proven bound of how far "
    "it is from the best value possible, whatever the solver did. Both should fall steeply; where the orange curve "
    "ends is how exact the graph is."
)
ORDER = (
    "The nodes stand in one order in all pictures of these graphs, found by clustering: strongly linked nodes stand "
    "beside each other."
)


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return a section for each kind of graphs, of the first run that has it."""
    made = []
    for kind, word in KINDS.items():
        run = first(runs, kind)
        artifact = run.open(kind) if run else None
        if artifact is not None:
            with artifact:
                made.append(_section(word, artifact))
    return made


def _section(word: str, artifact: Artifact) -> Section:
    names = artifact["classes"].tolist()
    figures = [*_networks(word, artifact, names), *_choices(word, artifact, names)]
    return Section(f"Graphs of {word} observations", [WORDS[word]], [_edge_table(artifact, names)], figures)


def _networks(word: str, artifact: Artifact, names: Sequence[str]) -> list[Figure]:
    precision = artifact["precision"]
    graphs = {"common": partial_correlation(artifact["common"], precision)}
    specific = artifact["specific"]
    for label in drawn_classes(np.abs(specific).sum(axis=(1, 2))):
        graphs[f"specific to {names[label]}"] = partial_correlation(specific[label], precision[label : label + 1])
    order = order_of(artifact)
    return [
        figure(
            f"{word}-graphs",
            circle_figure(graphs, order=order, title=""),
            f"Common and class-specific graphs of {word} observations as networks",
            "Dots are nodes. Two nodes are joined when one tells something of the other that no third node does: solid "
            "orange, they rise together; dashed blue, they move against each other; wide, strongly so. The first "
            "graph is what all classes share, the others what each adds to it or takes from it" + _drawn(names) + ORDER,
        ),
        figure(
            f"{word}-matrices",
            matrix_figure(graphs, order=order, title=""),
            "The same graphs as matrices",
            "A cell is a pair of nodes: orange, they rise together; blue, they move against each other; no colour, no "
            "edge. Blocks beside the diagonal are groups of nodes that belong together. " + ORDER,
        ),
    ]


def _drawn(names: Sequence[str]) -> str:
    return "; drawn are the classes that add most. " if len(names) > CLASSES_DRAWN else ". "


def _choices(word: str, artifact: Artifact, names: Sequence[str]) -> list[Figure]:
    selection, history = artifact.group("selection"), artifact.group("history")
    figures = []
    chosen = (selection["rho"] == selection["chosen_rho"]) & (selection["gamma"] == selection["chosen_gamma"])
    best = int(np.argmax(chosen))
    if len(selection["sharpness"]) > 1:
        quantity, loss = _criterion_of_k(selection, best)
        curve = selection_figure(selection["sharpness"], loss, names, chosen=artifact["k"], quantity=quantity)
        figures.append(
            figure(f"{word}-selection", curve, f"{quantity} against the sharpness k of the prior", K_READING)
        )
    if len(history["iteration"]) > 1:
        scale = max(1.0, abs(float(history["objective"][-1])))
        drawn = convergence_figure(history["objective"], history["gap"] / scale, iterations=history["iteration"])
        figures.append(figure(f"{word}-convergence", drawn, "Objective and certificate by iteration", GAP_READING))
    return figures


def _criterion_of_k(selection: Mapping[str, np.ndarray], cell: int) -> tuple[str, np.ndarray]:
    """Return name and values [C, K] of what chose k: loss on held-out samples, or eBIC."""
    if "k_criterion" in selection and selection["k_criterion"][0] == "held-out":
        return "Held-out loss", -selection["heldout"][cell].mean(axis=0).T
    return "eBIC", selection["ebic_of_k"][cell].T


def partial_correlation(part: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Return the share of a part of Omega in the partial correlations, -part_ij / sqrt(Omega_ii Omega_jj)."""
    diagonal = np.sqrt(np.einsum("cii->ci", precision).mean(axis=0))
    edges = -part / np.outer(diagonal, diagonal)
    np.fill_diagonal(edges, 0)
    return edges


def _edge_table(artifact: Artifact, names: Sequence[str]) -> Table:
    upper = np.triu_indices(artifact["common"].shape[0], 1)
    precision, specific, k = artifact["precision"], artifact["specific"], artifact["k"]
    rows = [
        [name, str(int(count)), str(int((o[upper] != 0).sum())), str(int((s[upper] != 0).sum())), f"{value:g}"]
        for name, count, o, s, value in zip(names, artifact["counts"], precision, specific, k, strict=True)
    ]
    common = int((artifact["common"][upper] != 0).sum())
    solver = artifact.provenance.get("solver")
    caption = f"Edges of {len(upper[0])} possible; the common graph has {common}."
    caption += f" Fitted by the solver {solver}." if isinstance(solver, str) else ""
    return shortened(Table(("class", "observations", "edges", "class-specific", "k"), rows, caption))
