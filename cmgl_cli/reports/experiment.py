"""The report of one experiment: what was run, what came out, and the pictures to judge it by.

Reads the artifacts in a folder; whatever is not there yet is left out.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from matplotlib.figure import Figure as Drawing

from cmgl_cli.artifacts import Artifact, SampleTable, open_artifact
from cmgl_cli.artifacts.disk import publish_file
from cmgl_cli.config import RunConfig
from cmgl_cli.datasets import Dataset, open_dataset
from cmgl_cli.errors import CmglError
from cmgl_cli.reports.attention_figures import attention_figure
from cmgl_cli.reports.classification_figures import confusion_figure, reliability_figure
from cmgl_cli.reports.curve_figures import convergence_figure, selection_figure, training_figure
from cmgl_cli.reports.graph_figures import circle_figure, matrix_figure, prior_figure
from cmgl_cli.reports.page import Figure, Section, Table, build_page
from cmgl_cli.reports.style import png

FIGURES = "report-figures"
CLASSES_DRAWN = 5
NODES_DRAWN = 6


def write_report(run: RunConfig) -> tuple[Path, Path]:
    """Write ``report.html``, ``report.md`` and the twin's pictures into the experiment's folder; return both paths."""
    folder = run.folder
    sections = [section for make in _SECTIONS for section in make(run)]
    facts = _facts(folder)
    html, markdown = build_page(
        f"cmgl: {run.name}", sections, subtitle=_headline(folder), facts=facts, figure_folder=FIGURES
    )
    for section in sections:
        for figure in section.figures:
            publish_file(folder / FIGURES / f"{figure.name}.png", partial(_write, figure.png))
    page, twin = folder / "report.html", folder / "report.md"
    publish_file(page, partial(_write, html.encode()))
    publish_file(twin, partial(_write, markdown.encode()))
    return page, twin


def _write(data: bytes, file: IO[bytes]) -> None:
    file.write(data)


def _open(run: RunConfig, name: str, schema: str) -> Artifact | None:
    path = run.folder / name
    return open_artifact(path, schema) if path.exists() else None


def _headline(folder: Path) -> str:
    path = folder / "classification.h5"
    if not path.exists():
        return ""
    with open_artifact(path, "classification") as artifact:
        columns, chosen = artifact.group("table"), artifact.provenance["chosen"]
    if not len(columns["method"]):
        return f"Predictions by the {chosen}."
    at = columns["method"].tolist().index(chosen)
    others = [i for i, text in enumerate(columns["method"]) if not text.startswith(("graph classifier", "control"))]
    line = f"The {chosen} reaches {columns['accuracy'][at]:.1%} accuracy"
    if not others:
        return line + "."
    best = max(others, key=lambda i: columns["accuracy"][i])
    name = f"{columns['method'][best]} on {columns['inputs'][best]}"
    return f"{line}; the best baseline, {name}, {columns['accuracy'][best]:.1%}."


def _facts(folder: Path) -> dict[str, str]:
    facts = {}
    for path in sorted(folder.glob("*.h5")):
        if ".partial" in path.name or ".shard-" in path.name:
            continue
        with open_artifact(path) as artifact:
            made = artifact.provenance.get("written", "")
            facts[path.name] = f"{artifact.stage}, {artifact.digest[:19]}, {made}"
    return facts


def _results(run: RunConfig) -> list[Section]:
    artifact = _open(run, "classification.h5", "classification")
    if artifact is None:
        return []
    with artifact:
        columns, names = artifact.group("table"), artifact["classes"].tolist()
        order = np.argsort(-columns["accuracy"], kind="stable")
        chosen = [i for i, at in enumerate(order) if columns["method"][at] == artifact.provenance["chosen"]]
        rows = [
            [columns["method"][i], columns["inputs"][i]]
            + [f"{columns[name][i]:.4f}" for name in ("accuracy", "macro_f1", "nll", "ece")]
            + [columns["chosen"][i]]
            for i in order
        ]
        table = Table(
            ("method", "inputs", "accuracy", "macro F1", "NLL", "ECE", "chosen on the validation part"),
            rows,
            "All methods saw the same frozen features; every choice was made on the validation part.",
            chosen,
        )
        bins = artifact.group("reliability")
        reliability = reliability_figure(bins["edges"], bins["confidence"], bins["accuracy"], bins["count"])
        figures = [
            _figure(
                "confusion", confusion_figure(artifact["confusion"], names), "Confusion matrix of the chosen classifier"
            ),
            _figure("reliability", reliability, "Accuracy against confidence of the chosen classifier"),
        ]
    text = "The controls keep the classifier and take its graph away, piece by piece: what they lose, the graph earned."
    return [Section("Does the graph earn its keep?", [text], [table] if rows else [], figures)]


def _segmentation(run: RunConfig) -> list[Section]:
    artifact = _open(run, "segmentation.h5", "segmentation")
    if artifact is None:
        return []
    with artifact:
        columns, count = artifact.group("table"), len(artifact["id"])
        names = ("mean_iou", "mean_dice", "pixel_accuracy", "boundary_f1")
        order = np.argsort(-columns["mean_iou"], kind="stable").tolist() if columns else []
        rows = [
            [columns["method"][i], *("" if np.isnan(columns[n][i]) else f"{columns[n][i]:.4f}" for n in names)]
            for i in order
        ]
        table = Table(
            ("decoder", "mean IoU", "mean Dice", "pixel accuracy", "boundary F-score"),
            rows,
            "Label maps at the size of the images; the decoder in bold was chosen on the validation part.",
            [at for at, i in enumerate(order) if i == 0],
        )
    captions = {
        "overlay": "Images, true and predicted labels",
        "graphs": "Graphs of the classes found in an image, drawn where their nodes look",
    }
    figures = [
        Figure(f"segmentation-{name}", path.read_bytes(), caption, caption)
        for name, caption in captions.items()
        for path in [run.folder / f"segmentation-{name}.png"]
        if path.exists()
    ]
    text = f"{count} images were labelled pixel by pixel with the class graphs of what masks show."
    return [Section("Which pixel is what?", [text], [table] if rows else [], figures)]


def _attention(run: RunConfig) -> list[Section]:
    nodes = _open(run, "nodes.h5", "nodes")
    if nodes is None:
        return []
    with nodes:
        pictures = [*_image_pictures(run, nodes), *_text_pictures(run, nodes)]
        history = nodes.group("history")
        training = training_figure(
            {"training": history["train_loss"].tolist(), "validation": history["validation_loss"].tolist()},
            {"validation": history["validation_score"].tolist()},
            best_epoch=int(history["best_epoch"]) + 1,
        )
        figures = [_figure("training", training, "Loss and score of the proxy task by epoch")]
        if pictures:
            drawn = attention_figure(pictures, list(range(min(NODES_DRAWN, nodes.stream("image/z").shape[1]))))
            figures.insert(0, _figure("attention", drawn, "Attention maps of the first nodes over images and texts"))
    return [
        Section(
            "Where the nodes look", ["Each column is one node; bright patches are those it attends to."], (), figures
        )
    ]


def _image_pictures(run: RunConfig, nodes: Artifact) -> list[tuple[str, np.ndarray, np.ndarray]]:
    try:
        dataset: Dataset | None = open_dataset(run.dataset, run.root, **run.dataset_options) if run.dataset else None
    except CmglError:
        dataset = None  # the report outlives the dataset's folder
    if dataset is None:
        return []
    table = SampleTable.read(nodes, "image")
    known = {sample.id: sample for sample in dataset.samples()}
    pictures = []
    for row in _first_of_classes(table, nodes["image/valid"], 2):
        sample = known.get(str(table.ids[row]))
        if sample is not None:
            label = str(table.classes[table.label[row]])
            pictures.append((f"image: {label}", np.asarray(dataset.image(sample)), _maps(nodes, "image", row)))
    return pictures


def _text_pictures(run: RunConfig, nodes: Artifact) -> list[tuple[str, np.ndarray, np.ndarray]]:
    renders = _open(run, "renders.h5", "renders")
    if renders is None or "text/attention" not in nodes:
        return []
    with renders:
        rows = _first_of_classes(SampleTable.read(nodes, "text"), nodes["text/valid"], 1)
        return [
            (
                f"text: {nodes['classes'][nodes['text/label'][row]]}",
                renders.stream("image")[row],
                _maps(nodes, "text", row),
            )
            for row in rows
            if row < len(renders.stream("image"))
        ]


def _first_of_classes(table: SampleTable, valid: np.ndarray, count: int) -> list[int]:
    wanted = [np.flatnonzero(valid & (table.label == label)) for label in range(min(count, len(table.classes)))]
    return [int(rows[0]) for rows in wanted if len(rows)]


def _maps(nodes: Artifact, modality: str, row: int) -> np.ndarray:
    height, width = (int(n) for n in nodes.stream(f"{modality}/grid")[row])
    attention = nodes.stream(f"{modality}/attention")[row].astype(np.float64)
    return attention[:, : height * width].reshape(-1, height, width)


def _prior(run: RunConfig) -> list[Section]:
    artifact = _open(run, "prior.h5", "prior")
    if artifact is None:
        return []
    with artifact:
        direction = artifact.config["direction"]
        figures = [
            _figure(
                "prior",
                prior_figure(artifact["prior"], artifact["classes"].tolist()),
                "Prior heat maps of some classes",
            )
        ]
    text = f"Direction: {direction}. Nodes whose footprints overlap are taken to be linked, and penalised less."
    return [] if direction == "none" else [Section("The prior", [text], (), figures)]


def _graphs(run: RunConfig) -> list[Section]:
    sections = []
    for kind, name in (("image", "graphs.h5"), ("patch", "patch_graphs.h5")):
        artifact = _open(run, name, "graphs")
        if artifact is not None:
            with artifact:
                sections.append(_graph_section(kind, artifact))
    return sections


def _graph_section(kind: str, artifact: Artifact) -> Section:
    names, precision = artifact["classes"].tolist(), artifact["precision"]
    graphs = {"common": _partial_correlation(artifact["common"], precision)}
    for label, own in list(enumerate(artifact["specific"]))[:CLASSES_DRAWN]:
        graphs[f"specific to {names[label]}"] = _partial_correlation(own, precision[label : label + 1])
    selection, history = artifact.group("selection"), artifact.group("history")
    figures = [
        _figure(f"{kind}-graphs", circle_figure(graphs), f"Common and class-specific graphs of {kind} observations"),
        _figure(f"{kind}-matrices", matrix_figure(graphs), "The same graphs as matrices"),
    ]
    chosen = (selection["rho"] == selection["chosen_rho"]) & (selection["gamma"] == selection["chosen_gamma"])
    best = int(np.argmax(chosen))
    if len(selection["sharpness"]) > 1:
        quantity, loss = _criterion_of_k(selection, best)
        curve = selection_figure(selection["sharpness"], loss, names, chosen=artifact["k"], quantity=quantity)
        figures.append(_figure(f"{kind}-selection", curve, f"{quantity} against the sharpness of the prior"))
    if len(history["iteration"]) > 1:
        scale = max(1.0, abs(float(history["objective"][-1])))
        drawn = convergence_figure(history["objective"], history["gap"] / scale, iterations=history["iteration"])
        figures.append(_figure(f"{kind}-convergence", drawn, "Objective and certified duality gap by iteration"))
    return Section(f"Graphs of {kind} observations", [], [_edge_table(artifact, names)], figures)


def _criterion_of_k(selection: Mapping[str, np.ndarray], cell: int) -> tuple[str, np.ndarray]:
    """Return name and values [C, K] of what chose k: loss on held-out samples, or eBIC."""
    if "k_criterion" in selection and selection["k_criterion"][0] == "held-out":
        return "Held-out loss", -selection["heldout"][cell].mean(axis=0).T
    return "eBIC", selection["ebic_of_k"][cell].T


def _partial_correlation(part: np.ndarray, precision: np.ndarray) -> np.ndarray:
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
    caption = f"Edges of {len(upper[0])} possible; the common graph has {common}."
    return Table(("class", "observations", "edges", "class-specific", "k"), rows, caption)


def _figure(name: str, drawing: Drawing, alt: str) -> Figure:
    return Figure(name, png(drawing), alt, alt + ".")


_SECTIONS = (_results, _segmentation, _attention, _prior, _graphs)
