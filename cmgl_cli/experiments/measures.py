"""What ablations measure on the artifacts that a chain made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cmgl_cli.artifacts import Artifact, open_artifact
from cmgl_cli.console import Console
from cmgl_cli.experiments.chain import Chain
from cmgl_cli.graphs import Nonparanormal, class_covariances, correlation, fit_joint, penalty_scale
from cmgl_cli.sufficient import Study

HALVES_TOLERANCE = 1e-5
OURS = "graph classifier ({kind})"


def score_table(scores: Path) -> dict[str, dict[str, float]]:
    """Return the rows of a classification: method to accuracy, macro F1, NLL and ECE."""
    with open_artifact(scores) as found:
        columns = found.group("table")
    shown = {"accuracy": "accuracy", "macro F1": "macro_f1", "NLL": "nll", "ECE": "ece"}
    return {
        str(method): {name: float(columns[key][i]) for name, key in shown.items()}
        for i, method in enumerate(columns["method"])
    }


def graph_scores(chain: Chain, kind: str, nodes: Path, graphs: Path, seed: int) -> dict[str, float]:
    """Return accuracy, macro F1, NLL and ECE of the graph classifier on the part that `classify` reports.

    Of regions: the accuracy of pixels and the mean intersection over union, on the part that `segment` reports.
    """
    if kind == "region":
        return label_scores(chain.labels(nodes, graphs, seed))
    return score_table(chain.scores(kind, nodes, graphs, seed))[OURS.format(kind=kind)]


def training_accuracy(chain: Chain, kind: str, nodes: Path, graphs: Path, seed: int) -> float:
    """Return the accuracy of the same classifier on the images that it was fitted to."""
    if kind == "region":
        return label_scores(chain.labels(nodes, graphs, seed, split="train"))["accuracy"]
    with open_artifact(chain.scores(kind, nodes, graphs, seed, split="train")) as found:
        label, prediction = found["label"], found["prediction"]
    known = label >= 0
    return float((label[known] == prediction[known]).mean())


def label_scores(labels: Path) -> dict[str, float]:
    """Return the accuracy of pixels and the mean intersection over union of label maps."""
    with open_artifact(labels) as found:
        columns = found.group("table")
    return {"accuracy": float(columns["pixel_accuracy"][0]), "mIoU": float(columns["mean_iou"][0])}


def edge_counts(graphs: Path) -> dict[str, float]:
    """Return the mean number of edges of a class: of Omega, of the common Theta and of the class's own S."""
    with open_artifact(graphs) as found:
        arrays = {name: found[name] for name in ("precision", "common", "specific")}
    upper = np.triu_indices(arrays["common"].shape[0], 1)
    return {name: float((values[..., *upper] != 0).sum(axis=-1).mean()) for name, values in arrays.items()}


def selection_measures(graphs: Path) -> dict[str, float]:
    """Return what was chosen: edges a class, the mean sharpness k*, the share of classes at k* = 0, rho and gamma.

    ``gain`` is what the prior is worth on held-out samples, in nats a sample over the best fit without it; NaN where
    nothing was held out.
    """
    with open_artifact(graphs) as found:
        k, selection = found["k"], found.group("selection")
    gain = selection["gain"]
    return {
        "edges": edge_counts(graphs)["precision"],
        "k*": float(k.mean()),
        "k* = 0": float((k == 0).mean()),
        "gain": float(gain.mean()) if gain.size and np.isfinite(gain).all() else float("nan"),
        "rho": float(selection["chosen_rho"]),
        "gamma": float(selection["chosen_gamma"]),
    }


def unconfirmed_edges(chain: Chain, nodes: Path, graphs: Path, seed: int) -> dict[str, float]:
    """Refit image graphs on two disjoint halves of the training images; count edges that only one half has.

    Which edges of real data are spurious nobody knows; an edge that a second, independent half does not confirm is the
    best guess. Dense graphs agree by chance, so what random graphs of the same density would leave unconfirmed is
    given beside it.

    Returns
    -------
    dict of str to float
        ``unconfirmed``: the share of the edges of the halves that the other half lacks, over all classes.
        ``by chance``: one minus the density.
    """
    with open_artifact(nodes) as of_nodes, open_artifact(graphs) as fitted:
        values, labels = _training_scores(of_nodes, fitted, chain.setting("fit-graphs", "scope"))
        found = {name: fitted[name] for name in ("weights", "selection/chosen_rho", "selection/chosen_gamma")}
    one, two = (
        _edges(values[rows], labels[rows], found, chain.run.stages["fit-graphs"])
        for rows in _halves(labels, np.random.default_rng(seed))
    )
    total = one.sum() + two.sum()
    if not total:
        return {"unconfirmed": float("nan"), "by chance": float("nan")}
    return {"unconfirmed": float((one != two).sum() / total), "by chance": 1 - float(total / (one.size + two.size))}


def _training_scores(nodes: Artifact, graphs: Artifact, scope: str) -> tuple[np.ndarray, np.ndarray]:
    study = Study({"nodes": nodes}, "image", "image", scope, 0, Console(quiet=True))
    return study.training_scores(Nonparanormal.from_arrays(graphs.group("transform")))


def _halves(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return two disjoint sets of rows, each with half of every class."""
    halves: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        middle = len(rows) // 2
        halves[0].append(rows[:middle])
        halves[1].append(rows[middle : 2 * middle])
    return np.concatenate(halves[0]), np.concatenate(halves[1])


def _edges(values: np.ndarray, labels: np.ndarray, found: Mapping[str, np.ndarray], config: Any) -> np.ndarray:
    """Return which pairs [C, pairs] are edges of a fit to these samples at the penalties and weights found."""
    weights = found["weights"]
    level = float(found["selection/chosen_gamma"]) * (penalty_scale(weights) if config.preserve_penalty else 1.0)
    rho = float(found["selection/chosen_rho"]) * (len(weights) if config.scale_rho else 1)
    result = fit_joint(
        correlation(class_covariances(values, labels, len(weights))),
        weights,
        rho,
        level,
        tol=HALVES_TOLERANCE,
        ridge=config.ridge or 0.0,
        weight_floor=config.weight_floor,
    )
    precision = np.asarray(result.precision)
    return precision[:, *np.triu_indices(precision.shape[1], 1)] != 0
