"""Does the graph earn its keep: accuracy beside baselines and controls, with spread."""

from collections.abc import Sequence

import numpy as np

from cmgl_cli.artifacts import Artifact
from cmgl_cli.reports.classification_figures import confusion_figure, reliability_figure
from cmgl_cli.reports.material import Run
from cmgl_cli.reports.page import Figure, Section, Table
from cmgl_cli.reports.sections.parts import figure, first

OURS = "graph classifier"
CONTROL = "control"


def headline(runs: Sequence[Run]) -> str:
    """Return the result in one sentence; empty without a classification."""
    run = first(runs, "classification")
    artifact = run.open("classification") if run else None
    if artifact is None:
        return ""
    with artifact:
        columns, chosen = artifact.group("table"), artifact.provenance["chosen"]
    if not len(columns["method"]):
        return f"Predictions by the {chosen}."
    at = columns["method"].tolist().index(chosen)
    others = [i for i, text in enumerate(columns["method"]) if not text.startswith((OURS, CONTROL))]
    line = f"The {chosen} reaches {columns['accuracy'][at]:.1%} accuracy"
    if not others:
        return line + "."
    best = max(others, key=lambda i: columns["accuracy"][i])
    name = f"{columns['method'][best]} on {columns['inputs'][best]}"
    return f"{line}; the best baseline, {name}, {columns['accuracy'][best]:.1%}."


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return the comparison of the first run with a classification."""
    run = first(runs, "classification")
    artifact = run.open("classification") if run else None
    if artifact is None:
        return []
    with artifact:
        tables = [table for table in (_comparison(artifact),) if table.rows]
        figures = _figures(artifact)
    text = "The controls keep the classifier and take its graph away, piece by piece: what they lose, the graph earned."
    return [Section("Does the graph earn its keep?", [text], tables, figures)]


def _comparison(artifact: Artifact) -> Table:
    columns = artifact.group("table")
    order = np.argsort(-columns["accuracy"], kind="stable")
    chosen = [i for i, at in enumerate(order) if columns["method"][at] == artifact.provenance["chosen"]]
    rows = [
        [columns["method"][i], columns["inputs"][i]]
        + [f"{columns[name][i]:.4f}" for name in ("accuracy", "macro_f1", "nll", "ece")]
        + [columns["chosen"][i]]
        for i in order
    ]
    return Table(
        ("method", "inputs", "accuracy", "macro F1", "NLL", "ECE", "chosen on the validation part"),
        rows,
        "All methods saw the same frozen features; every choice was made on the validation part.",
        chosen,
    )


def _figures(artifact: Artifact) -> list[Figure]:
    bins, names = artifact.group("reliability"), artifact["classes"].tolist()
    reliability = reliability_figure(bins["edges"], bins["confidence"], bins["accuracy"], bins["count"])
    return [
        figure(
            "confusion",
            confusion_figure(artifact["confusion"], names),
            "Confusion matrix of the chosen classifier",
            "Rows are what a sample is, columns what it was taken for; a flawless classifier fills the diagonal only.",
        ),
        figure(
            "reliability",
            reliability,
            "Accuracy against confidence of the chosen classifier",
            "Bars on the dashed line mean that a stated confidence of, say, 80 % is right eight times in ten.",
        ),
    ]
