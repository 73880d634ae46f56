"""Why an image got its class: what every node, and every place, contributes to the log-likelihood ratio."""

from collections.abc import Sequence

import numpy as np

from cmgl_cli.artifacts import Artifact, SampleTable
from cmgl_cli.heads import GraphDiscriminant
from cmgl_cli.heads.contributions import back_project, ratio_parts
from cmgl_cli.reports.evidence_figures import Decision, evidence_figure
from cmgl_cli.reports.material import Run
from cmgl_cli.reports.page import Section
from cmgl_cli.reports.sections.attention import maps, picture_of
from cmgl_cli.reports.sections.model import View, view
from cmgl_cli.reports.sections.parts import figure, first

RIGHT, WRONG = 3, 3
MOST_SCORED = 2000
"""Test images among which the examples are sought."""

READING = (
    "The classifier compares how likely the nodes' values are under each class; the logarithm of that ratio is a sum "
    "over nodes (bars, in nats: +1 makes the predicted class 2.7 times likelier than the runner-up). Orange speaks for "
    "the predicted class, blue for the runner-up. Every node's bar is spread over the places it looks at, which gives "
    "the map; map and bars hold the same sum. Saturated places decided, grey ones did not matter."
)


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return examples of right and wrong decisions of the first run that has nodes and graphs of images."""
    run = first(runs, "nodes", "image graphs")
    seen = view(run, "image") if run else None
    nodes = run.open("nodes") if run else None
    if run is None or seen is None or nodes is None or seen.transform.scope == "class":
        return []
    with nodes:
        table = SampleTable.read(nodes, "image")
        rows = _test_rows(run, nodes, table)
        if len(rows) == 0:
            return []
        values = seen.transform.transform(nodes.stream("image/z")[rows].astype(np.float64))
        scores = seen.model.scores(values)
        chosen = _examples(scores, table.label[rows])
        decisions = _decisions(run, nodes, table, seen, rows[chosen], values[chosen], scores[chosen])
    text = (
        "Shown are test images that the graph of image observations got right by a typical margin, and those it got "
        "wrong with most conviction."
    )
    drawn = figure(
        "evidence",
        evidence_figure(decisions),
        "What speaks for the predicted class and what for the runner-up, over the image and node by node",
        READING + (PATCHES if len(decisions[0].maps) > 1 else ""),
        photo=True,
    )
    return [Section("Why this class?", [text], (), [drawn])]


PATCHES = (
    " The last map is of the classifier that takes every patch as an observation of its own: there each patch has its "
    "own ratio, and nothing has to be spread."
)


def _test_rows(run: Run, nodes: Artifact, table: SampleTable) -> np.ndarray:
    """Return rows that were classified and whose class is known, ascending; test images without a classification."""
    usable = nodes["image/valid"] & (table.label >= 0)
    artifact = run.open("classification")
    if artifact is None:
        wanted = table.parts == "test"
    else:
        with artifact:
            wanted = np.isin(table.ids, artifact["id"])
    rows = np.flatnonzero(usable & wanted)
    return (
        rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_SCORED)).astype(int))] if len(rows) else rows
    )


def _examples(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return typical right decisions of different classes, then the most convinced wrong ones."""
    ordered = np.sort(scores, axis=1)
    margin, guess = ordered[:, -1] - ordered[:, -2], scores.argmax(axis=1)
    right, wrong = np.flatnonzero(guess == labels), np.flatnonzero(guess != labels)
    typical: list[int] = []
    for label in dict.fromkeys(labels[right].tolist()):
        own = right[labels[right] == label]
        typical.append(int(own[np.argsort(margin[own], kind="stable")[len(own) // 2]]))
    spread = (
        [typical[i] for i in np.unique(np.linspace(0, len(typical) - 1, RIGHT).round().astype(int))] if typical else []
    )
    convinced = wrong[np.argsort(-margin[wrong], kind="stable")[:WRONG]]
    return np.array([*spread, *convinced.tolist()], dtype=np.int64)


def _decisions(
    run: Run,
    nodes: Artifact,
    table: SampleTable,
    seen: View,
    rows: np.ndarray,
    values: np.ndarray,
    scores: np.ndarray,
) -> list[Decision]:
    best, second = np.argsort(-scores, axis=1, kind="stable")[:, :2].T
    parts = ratio_parts(seen.model, values, best, second)
    patches = _patch_maps(run, nodes, rows, best, second)
    made = []
    for at, row in enumerate(rows):
        attention = maps(nodes, "image", int(row))
        height, width = attention.shape[1:]
        spread = back_project(parts.nodes[at], attention.reshape(len(attention), -1)).reshape(height, width)
        over = [("evidence of nodes", spread)]
        if patches is not None:
            over.append(("evidence of patches", patches[at].reshape(height, width)))
        truth, guess = seen.classes[table.label[row]], seen.classes[best[at]]
        title = f"{truth}, rightly" if truth == guess else f"{truth}, taken for {guess}"
        rivals = (guess, seen.classes[second[at]])
        picture = picture_of(run, str(table.ids[row]))
        made.append(Decision(title, picture, over, parts.nodes[at], float(parts.constant[at]), rivals))
    return made


def _patch_maps(
    run: Run, nodes: Artifact, rows: np.ndarray, best: np.ndarray, second: np.ndarray
) -> list[np.ndarray] | None:
    """Return every patch's own log-likelihood ratio of two classes, image by image; None without patch graphs."""
    seen, features = view(run, "patch"), run.open("image features")
    if seen is None or features is None or seen.transform.scope == "class":
        return None
    from cmgl_cli.observations import patch_observations

    # a class prior enters once an image, not once a patch
    model = GraphDiscriminant(seen.model.precision, seen.model.means)
    order = np.argsort(rows)
    found: dict[int, np.ndarray] = {}
    with features:
        for at, (_, observed) in zip(order, patch_observations(nodes, features, rows[order]), strict=True):
            scores = model.scores(seen.transform.transform(observed))
            found[int(at)] = scores[:, best[at]] - scores[:, second[at]]
    return [found[at] for at in range(len(rows))]
