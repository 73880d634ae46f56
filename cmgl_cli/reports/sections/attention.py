"""Where the nodes look: attention over photographs and rendered texts, and the training that taught it."""

from collections.abc import Sequence

import numpy as np

from cmgl_cli.artifacts import Artifact, SampleTable
from cmgl_cli.errors import InputError
from cmgl_cli.reports.attention_figures import attention_figure
from cmgl_cli.reports.curve_figures import training_figure
from cmgl_cli.reports.material import Run
from cmgl_cli.reports.page import Section, Table
from cmgl_cli.reports.sections.model import describe_nodes
from cmgl_cli.reports.sections.parts import figure, first, shortened

NODES_DRAWN = 6
NODES_LISTED = 128
IMAGES_DRAWN = 3
TEXTS_DRAWN = 3
LONGEST_SIDE = 448
"""Pixels of a photograph in the report: more would weigh on the page and not be seen."""

Picture = tuple[str, np.ndarray, np.ndarray]


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return attention maps and training curves of the first run with nodes."""
    run = first(runs, "nodes")
    nodes = run.open("nodes") if run else None
    if run is None or nodes is None:
        return []
    with nodes:
        pictures = [*_image_pictures(run, nodes), *_text_pictures(run, nodes)]
        shown = telling_nodes(nodes)
        figures = []
        if pictures:
            figures.append(
                figure(
                    "attention",
                    attention_figure(pictures, shown),
                    "What some nodes attend to, over photographs and over rendered texts",
                    "Each row is one input, each column one node. Orange marks the patches that the node reads; the "
                    "rest of the input is grey. A node that marks the same kind of place in every row has found "
                    "something the inputs share; one that is orange all over reads an average.",
                    photo=True,
                )
            )
        figures.append(_training(nodes))
    text = (
        "A frozen encoder cuts every input into patches. Each node is a learnt weighted mean over these patches; the "
        "weights are its attention, and they add up to one. Texts are drawn as images and go through the same "
        "encoder and the same nodes. Shown are the nodes whose attention is most focused."
    )
    table = _node_table(run)
    return [Section("Where the nodes look", [text], [table] if table.rows else [], figures)]


def _node_table(run: Run) -> Table:
    """Return every node in words: its place on average over images, how focused it is, and which classes move it."""
    rows = [
        [str(at), node.place or "–", f"{node.focus:.2f}", node.highest or "–", node.lowest or "–"]
        for at, node in enumerate(describe_nodes(run))
    ]
    caption = (
        "Every node in words; focus is 1 for one patch and 0 for all alike, both on average over images, so that a "
        "node that follows things about has a place all over the image"
    )
    columns = ("node", "looks at", "focus", "highest for", "lowest for")
    return shortened(Table(columns, rows, caption, folded=True), NODES_LISTED)


def telling_nodes(nodes: Artifact) -> list[int]:
    """Return the most focused nodes, in order of index, judged by the entropy of their attention on some images."""
    attention = nodes.stream("image/attention")[:200].astype(np.float64)
    share = attention / np.maximum(attention.sum(axis=2, keepdims=True), 1e-12)
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(axis=2).mean(axis=0)
    return sorted(np.argsort(entropy, kind="stable")[:NODES_DRAWN].tolist())


def _training(nodes: Artifact):
    history = nodes.group("history")
    drawing = training_figure(
        {"training": history["train_loss"].tolist(), "validation": history["validation_loss"].tolist()},
        {"validation": history["validation_score"].tolist()},
        best_epoch=int(np.ravel(history["best_epoch"])[0]) + 1,
    )
    return figure(
        "training",
        drawing,
        "Loss and score of the task that the nodes were trained on, by epoch",
        "Loss should fall and score rise; where the validation curve turns, training was stopped and the weights of "
        "the dotted line were kept.",
    )


def _image_pictures(run: Run, nodes: Artifact) -> list[Picture]:
    table = SampleTable.read(nodes, "image")
    pictures = []
    for row in _first_of_classes(table, nodes["image/valid"], IMAGES_DRAWN):
        picture = picture_of(run, str(table.ids[row]))
        if picture is not None:
            pictures.append((f"image: {table.classes[table.label[row]]}", picture, maps(nodes, "image", row)))
    return pictures


def picture_of(run: Run, name: str) -> np.ndarray | None:
    """Return the image of a sample, at most `LONGEST_SIDE` pixels wide and high; None where it cannot be had."""
    sample = run.samples.get(name)
    if run.dataset is None or sample is None:
        return None
    try:
        image = run.dataset.image(sample)
    except InputError:
        return None
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return np.asarray(image)


def _text_pictures(run: Run, nodes: Artifact) -> list[Picture]:
    renders = run.open("renders")
    if renders is None or "text/attention" not in nodes:
        return []
    with renders:
        table = SampleTable.read(nodes, "text")
        rows = _first_of_classes(table, nodes["text/valid"], TEXTS_DRAWN)
        drawn = renders.stream("image")
        return [
            (f"text: {table.classes[table.label[row]]}", drawn[row], maps(nodes, "text", row))
            for row in rows
            if row < len(drawn)
        ]


def _first_of_classes(table: SampleTable, valid: np.ndarray, count: int) -> list[int]:
    wanted = [np.flatnonzero(valid & (table.label == label)) for label in range(min(count, len(table.classes)))]
    return [int(rows[0]) for rows in wanted if len(rows)]


def maps(nodes: Artifact, modality: str, row: int) -> np.ndarray:
    """Return the attention of one sample on its patch grid, [p, rows, columns]."""
    height, width = (int(n) for n in nodes.stream(f"{modality}/grid")[row])
    attention = nodes.stream(f"{modality}/attention")[row].astype(np.float64)
    return attention[:, : height * width].reshape(-1, height, width)
