"""``cmgl classify``: graphs and nodes in, predictions and an honest comparison out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from matplotlib.figure import Figure

from cmgl_cli.artifacts import Artifact, ArtifactWriter, SampleTable
from cmgl_cli.artifacts.disk import publish_file
from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.graphs import Nonparanormal
from cmgl_cli.heads import (
    ClassificationReport,
    GraphDiscriminant,
    Row,
    ScoreCombination,
    Scored,
    Shares,
    Split,
    choose_shares,
    compare,
    graph_controls,
    log_softmax,
    row,
    shrink,
    validation_loss,
)
from cmgl_cli.heads.contributions import in_score_units
from cmgl_cli.observations import ImageScorer, PatchScorer
from cmgl_cli.pipeline import Job, Prepared
from cmgl_cli.reports import confusion_figure, png, reliability_figure
from cmgl_cli.settings import ClassifyConfig

Scores = dict[str, np.ndarray]
ROLES = {"image": "graphs", "patch": "patch_graphs"}


@dataclass(frozen=True)
class Rows:
    """Row numbers: to fit baselines, to choose, to report on (labelled), and to predict."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    predict: np.ndarray


@dataclass(frozen=True)
class View:
    """One kind of observation, scored: what validation chose, and the scores of it and of its controls."""

    name: str
    shares: Shares
    validation: Scores
    predict: Scores


def prepare(job: Job) -> Prepared:
    """Nothing beside artifacts is read."""
    return Prepared()


def compute(job: Job, state: None, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    """Score with every kind of graph there is, choose on the validation part, compare on the reported one."""
    config: ClassifyConfig = job.config
    nodes = inputs["nodes"]
    table = SampleTable.read(nodes, "image")
    rows = _rows(table, nodes["image/valid"], config.split, nodes.path)
    views = [_view(kind, job, inputs, table, rows) for kind in _kinds(config, inputs)]
    labels = table.label
    scored = _candidates(views, labels[rows.validation])
    best = min(scored, key=lambda item: validation_loss(item.validation, labels[rows.validation]))
    reported = np.isin(rows.predict, rows.test)
    lines = [_line(item, labels, rows, reported) for item in [*scored, *_controls(views)]] if len(rows.test) else []
    if config.baselines and len(rows.test):
        lines += _baselines(nodes, labels, rows, config.seed)
    _write(job, out, table, rows, best, lines, labels)


def _rows(table: SampleTable, valid: np.ndarray, split: str, path: Path) -> Rows:
    parts, single, part = table.parts, table.label >= 0, table.part_of(split)
    predict = np.flatnonzero(valid & (parts == part))
    if not len(predict):
        raise InputError(
            f"there are no images in the split {part!r}",
            f"{path} has: {', '.join(sorted(set(parts)))}",
            "choose one of these with --split",
        )
    train, validation = (np.flatnonzero(valid & single & (parts == name)) for name in ("train", "validation"))
    if not len(train) or not len(validation):
        raise InputError(
            "classify needs images of one class each for training and validation",
            f"{path}: {len(train)} for training, {len(validation)} for validation",
            "images that show several classes are for segmentation",
        )
    test = predict[single[predict]] if part not in {"train", "validation"} else np.array([], dtype=np.int64)
    return Rows(train, validation, test, predict)


def _kinds(config: ClassifyConfig, inputs: Mapping[str, Artifact]) -> list[str]:
    wanted = ["image", "patch"] if config.observations in {"auto", "both"} else [config.observations]
    there = [kind for kind in wanted if ROLES[kind] in inputs]
    if not there or (config.observations != "auto" and there != wanted):
        raise InputError(
            "the graphs to score with do not exist",
            f"missing: {', '.join(ROLES[kind] + '.h5' for kind in wanted if kind not in there)}",
            f"run: cmgl fit-graphs --observations {config.observations if config.observations != 'auto' else 'both'}",
        )
    return there


def _view(kind: str, job: Job, inputs: Mapping[str, Artifact], table: SampleTable, rows: Rows) -> View:
    graphs, config = inputs[ROLES[kind]], job.config
    if graphs["modality"][0] == "given":
        raise InputError(
            "graphs of given covariances cannot classify images",
            f"{graphs.path} was fitted with --covariance: it has no means and no transform",
            "run: cmgl fit-graphs on nodes, with another --output for the given covariances",
        )
    if graphs["modality"][0] != "image":
        raise InputError(
            "graphs of texts cannot classify images",
            f"{graphs.path} was fitted on the observations of rendered texts (direction image-to-text)",
            f"run: {job.command('prior')} --direction text-to-image, then fit-graphs again",
        )
    precision, common = in_score_units(graphs.finite("precision"), graphs.finite("common"), graphs["scale"])
    own, priors = graphs["means"], _class_priors(config, table, rows)
    given = (_share(config.shrinkage, "shrinkage"), _share(config.mean_shrinkage, "mean_shrinkage"))
    score = _scorers(kind, job, inputs, graphs, rows)

    def on_validation(matrices: np.ndarray, means: np.ndarray) -> np.ndarray:
        return score[0]({"": GraphDiscriminant(matrices, means, priors)})[""]

    shares = choose_shares(precision, own, on_validation, table.label[rows.validation], given)
    matrices, means = shrink(precision, weight=shares.graph), shrink(own, weight=shares.means)
    controls = graph_controls(matrices, common, means, priors, seed=config.seed)
    return View(kind, shares, score[0](controls), score[1](controls))


def _share(text: str, name: str) -> float | None:
    """Return the share that was given, None where it is to be chosen."""
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"cannot use this value for {name}", f"classify: {name} = {text!r}", "write auto, or 0 to 1")
    return value


def _class_priors(config: ClassifyConfig, table: SampleTable, rows: Rows) -> np.ndarray | None:
    if config.class_prior == "uniform":
        return None
    counts = np.bincount(table.label[rows.train], minlength=len(table.classes))
    return counts / counts.sum()


def _scorers(
    kind: str, job: Job, inputs: Mapping[str, Artifact], graphs: Artifact, rows: Rows
) -> list[Callable[[Mapping[str, GraphDiscriminant]], Scores]]:
    """Return what scores the validation rows, and what scores the rows to predict."""
    transform = Nonparanormal.from_arrays(graphs.group("transform"))
    n_classes = len(graphs["classes"])
    if kind == "patch":
        if "features" not in inputs:
            raise InputError(
                "patch graphs need the patch tokens", f"{job.output.parent}: no features.h5", "give --features FILE"
            )
        parts = (rows.validation, rows.predict)
        return [PatchScorer(inputs["nodes"], inputs["features"], transform, part, n_classes).scores for part in parts]
    return [ImageScorer(inputs["nodes"], transform, part, n_classes).scores for part in (rows.validation, rows.predict)]


def _candidates(views: list[View], labels: np.ndarray) -> list[Scored]:
    """Return our classifiers: one a kind of observation, and both combined."""
    made = [
        Scored(
            f"graph classifier ({view.name})",
            f"{view.name} observations",
            view.validation["graph"],
            view.predict["graph"],
            chosen={"shrinkage": view.shares.graph, "mean shrinkage": view.shares.means},
        )
        for view in views
    ]
    if len(views) == 2:
        combination = ScoreCombination.fit([view.validation["graph"] for view in views], labels)
        validation, predict = (
            combination.scores([part["graph"] for part in parts])
            for parts in ([view.validation for view in views], [view.predict for view in views])
        )
        weights: dict[str, float | int | str] = {
            f"weight {view.name}": float(weight) for view, weight in zip(views, combination.weights, strict=True)
        }
        made.append(
            Scored("graph classifier (both)", "image + patch observations", validation, predict, chosen=weights)
        )
    return made


def _controls(views: list[View]) -> list[Scored]:
    return [
        Scored(f"control: {name} ({view.name})", f"{view.name} observations", view.validation[name], scores)
        for view in views
        for name, scores in view.predict.items()
        if name != "graph"
    ]


def _line(item: Scored, labels: np.ndarray, rows: Rows, reported: np.ndarray) -> Row:
    test = np.asarray(item.test)[reported]
    only = Scored(item.method, item.inputs, item.validation, test, item.seconds, item.chosen)
    return row(only, labels[rows.validation], labels[rows.test])


def _baselines(nodes: Artifact, labels: np.ndarray, rows: Rows, seed: int) -> list[Row]:
    split = Split(rows.train, rows.validation, rows.test)
    pooled = {"mean-pooled patches": nodes.finite("image/pooled")}
    return compare(pooled, nodes["image/z"], labels, split, seed=seed, proxy_logits=nodes["image/proxy"])


def _write(
    job: Job, out: ArtifactWriter, table: SampleTable, rows: Rows, best: Scored, lines: list[Row], labels: np.ndarray
) -> None:
    ours = next((line for line in lines if line.method == best.method), None)
    from_validation = row(best_on_validation(best), labels[rows.validation], labels[rows.validation])
    probability = np.exp(log_softmax(best.test, float(from_validation.chosen["temperature"])))
    out.write("classes", table.classes)
    out.write("id", table.ids[rows.predict])
    out.write("split", table.splits[rows.predict])
    out.write("label", labels[rows.predict])
    out.write("prediction", probability.argmax(axis=1))
    out.write("probability", probability.astype(np.float32))
    out.write("score", np.asarray(best.test, dtype=np.float64))
    report = ours.report if ours else from_validation.report
    out.write("confusion", report.confusion)
    for name in ("precision", "recall", "f1", "support"):
        out.write(f"per_class/{name}", getattr(report, name))
    for name in ("edges", "confidence", "accuracy", "count"):
        out.write(f"reliability/{name}", getattr(report.reliability, name))
    out.write_group("table", _table_arrays(lines))
    # times differ from run to run, so they stay outside the content
    out.provenance.update(chosen=best.method, fit_seconds={line.method: round(line.seconds, 3) for line in lines})
    if job.config.figures:
        _figures(job, table.classes, report)


def best_on_validation(best: Scored) -> Scored:
    """Return the same classifier with the validation part in the place of the test part."""
    return Scored(best.method, best.inputs, best.validation, best.validation)


def _table_arrays(lines: list[Row]) -> dict[str, np.ndarray]:
    numbers = ("accuracy", "macro_f1", "nll", "brier", "ece", "validation_accuracy")
    arrays = {name: np.array([getattr(line, name) for line in lines], dtype=np.float64) for name in numbers}
    chosen = [", ".join(f"{key} {_short(value)}" for key, value in line.chosen.items()) for line in lines]
    texts = {"method": [line.method for line in lines], "inputs": [line.inputs for line in lines], "chosen": chosen}
    return {**arrays, **{name: np.array(values, dtype=object) for name, values in texts.items()}}


def _short(value: float | int | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _figures(job: Job, classes: np.ndarray, report: ClassificationReport) -> None:
    folder, stem, bins = job.output.parent, job.output.stem, report.reliability
    pictures = {
        "confusion": confusion_figure(report.confusion, list(classes)),
        "reliability": reliability_figure(bins.edges, bins.confidence, bins.accuracy, bins.count),
    }
    for name, picture in pictures.items():
        publish_file(folder / f"{stem}-{name}.png", partial(_write_png, picture))


def _write_png(picture: Figure, file: IO[bytes]) -> None:
    file.write(png(picture))


def summarize(artifact: Artifact, job: Job) -> None:
    """Print the comparison, best first, and where the chosen classifier stands."""
    chosen = artifact.provenance["chosen"]
    columns = artifact.group("table")
    if len(columns["method"]):
        order = np.argsort(-columns["accuracy"], kind="stable")
        names = ("accuracy", "macro_f1", "nll", "ece")
        lines = []
        for i in order:
            mark = " <- chosen" if columns["method"][i] == chosen else ""
            lines.append(
                (columns["method"][i] + mark, columns["inputs"][i], *(round(float(columns[n][i]), 4) for n in names))
            )
        job.console.table(
            f"classify: {', '.join(sorted(set(artifact['split'])))}",
            ("method", "inputs", "accuracy", "macro F1", "NLL", "ECE"),
            lines,
        )
    label, prediction = artifact["label"], artifact["prediction"]
    known = label >= 0
    values = {"chosen": chosen, "samples": len(label)}
    if known.any():
        values["accuracy"] = float((label[known] == prediction[known]).mean())
    if job.config.figures:
        values["figures"] = ", ".join(
            str(job.output.with_name(f"{job.output.stem}-{n}.png")) for n in ("confusion", "reliability")
        )
    job.console.fields("classify", {**values, "output": str(job.output)})
