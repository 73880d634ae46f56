"""Does the graph earn its keep: accuracy beside baselines and controls, with spread."""

from collections.abc import Sequence

import numpy as np

from cmgl_cli.artifacts import Artifact
from cmgl_cli.heads.uncertainty import accuracy_interval
from cmgl_cli.reports.classification_figures import confusion_figure, reliability_figure
from cmgl_cli.reports.material import Run
from cmgl_cli.reports.page import Figure, Section, Table
from cmgl_cli.reports.sections.comparison import (
    best_peer,
    chosen_table,
    comparisons,
    many_table,
    one_table,
    verdicts,
)
from cmgl_cli.reports.sections.parts import figure, first, shortened

CONTROLS = (
    "The controls keep the classifier and take its graph away, piece by piece: what they lose, the graph earned. A "
    "difference is called beyond chance when it exceeds 1.96 standard errors of two independent samples of this size."
)


def headline(runs: Sequence[Run]) -> str:
    """Return the result in one sentence; empty without a classification."""
    tables = comparisons(runs)
    if not tables:
        return ""
    table = tables[0]
    ours, peer = table.accuracy(table.chosen), best_peer(table)
    if ours is None:
        return ""
    line = f"The {table.chosen} reaches {ours:.1%} accuracy on {table.n_samples:,} test images"
    return f"{line}; the best baseline, {peer[0]}, {peer[1]:.1%}." if peer else line + "."


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return the comparison of all runs, and figures of the first."""
    run = first(runs, "classification")
    artifact = run.open("classification") if run else None
    if artifact is None:
        return []
    tables = comparisons(runs)
    with artifact:
        shown = [_per_class(artifact)]
        figures = _figures(artifact)
    if tables:
        shown = [one_table(tables[0]), *shown, chosen_table(tables[0])]
    if len(tables) > 1:
        shown.insert(0, many_table(tables))
    points = verdicts(tables[0]) if tables else []
    text = CONTROLS if tables else "No class of these images is known, so there is nothing to compare."
    return [Section("Does the graph earn its keep?", [text], shown, figures, points)]


def _per_class(artifact: Artifact) -> Table:
    """Return precision, recall with its interval and F1 of every class, the worst first."""
    names, own = artifact["classes"].tolist(), artifact.group("per_class")
    rows = [
        [
            names[i],
            str(int(own["support"][i])),
            f"{own['precision'][i]:.1%}",
            f"{own['recall'][i]:.1%}",
            "{:.1%} to {:.1%}".format(*accuracy_interval(float(own["recall"][i]), int(own["support"][i]))),
            f"{own['f1'][i]:.3f}",
        ]
        for i in np.argsort(own["f1"], kind="stable")
        if own["support"][i] > 0 and np.isfinite(own["recall"][i])
    ]
    columns = ("class", "images", "precision", "recall", "95 % interval", "F1")
    return shortened(Table(columns, rows, "Class by class, worst first", folded=True))


def _figures(artifact: Artifact) -> list[Figure]:
    bins, names = artifact.group("reliability"), artifact["classes"].tolist()
    if not artifact["confusion"].sum():
        return []
    reliability = reliability_figure(bins["edges"], bins["confidence"], bins["accuracy"], bins["count"])
    return [
        figure(
            "confusion",
            confusion_figure(artifact["confusion"], names),
            "Confusion matrix of the chosen classifier",
            "Rows are what an image is, columns what it was taken for: a flawless classifier fills the diagonal only, "
            "and a coloured cell off it names two classes that are mixed up.",
        ),
        figure(
            "reliability",
            reliability,
            "Accuracy against confidence of the chosen classifier",
            "Images are grouped by how sure the classifier says it is. Where a bar ends on the dashed line, a stated "
            "confidence of, say, 80 % is right eight times in ten; a bar below it means that it is too sure of itself.",
        ),
    ]
