"""Prediction of ``cmgl segment``: label maps at the size of the images, scored where there are masks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from cmgl_cli.artifacts import Artifact, ArtifactWriter, SampleTable
from cmgl_cli.artifacts.disk import publish_file
from cmgl_cli.datasets import Dataset, MaskValues, Sample, open_dataset
from cmgl_cli.datasets.files import checked_name
from cmgl_cli.encoders.compute import choose_device
from cmgl_cli.errors import InputError, UsageError, suggest
from cmgl_cli.heads.catalogue import build_decoder
from cmgl_cli.heads.evidence import GraphEvidence, PatchInputs
from cmgl_cli.heads.full_size import full_size_labels
from cmgl_cli.heads.segmentation_metrics import SegmentationReport, SegmentationScores
from cmgl_cli.pipeline import Job, Prepared
from cmgl_cli.reports import attention_grid_figure, graph_on_image_figure, overlay_figure, png
from cmgl_cli.segmentation.label_maps import require_one_grid
from cmgl_cli.segmentation.pictures import samples_by_id, small_picture
from cmgl_cli.segmentation.views import PatchView
from cmgl_cli.settings import SegmentConfig

# version of segment (train) since which networks look at cells finer than those of the graphs
FINE = 6
SHOWN_IMAGES = 6
MOST_GRAPHS = 4
NO_TRUTH = -1
BINARY = 2


@dataclass(frozen=True)
class Decoders:
    """The decoders of an artifact, ready to use: the chosen one first."""

    view: PatchView
    modules: Mapping[str, nn.Module]
    evidence: GraphEvidence
    picture_size: int


def prepare(job: Job) -> Prepared:
    """Open the images; where they have masks, these decide the scores."""
    folder = job.options.get("images")
    if folder is not None:
        dataset = open_dataset("images", folder)
    elif job.run.dataset:
        dataset = open_dataset(job.run.dataset, job.run.root, **job.run.dataset_options)
    else:
        raise UsageError(
            "the images are needed beside their features", "cmgl segment", "give --dataset NAME, or --images FOLDER"
        )
    samples = dataset.samples()
    digest = dataset.mask_fingerprint(samples) if dataset.has_masks else dataset.fingerprint(samples)
    extras = {"label maps as PNG": job.config.png, "pictures of these images": job.config.explain}
    wanted = ", ".join(f"{what} asked for" for what, value in extras.items() if value)
    return Prepared({"dataset": digest}, dataset, wanted)


def compute(job: Job, state: Dataset, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    """Label every image of the split; score all decoders where there are masks."""
    config: SegmentConfig = job.config
    decoder, features = inputs["model"], inputs["features"]
    table = SampleTable.read(features)
    _require_same_grid(decoder, features)
    rows = _rows(table, features["valid"], "all" if job.options.get("images") else config.split, features.path)
    samples = samples_by_id(state, table.ids[rows].tolist())
    loaded = _load(decoder, choose_device(config.device), config)
    known = _same_classes(state, decoder)
    scores = _Scores(list(loaded.modules), len(decoder["classes"]), known)
    gallery = _Gallery(job, decoder, loaded.evidence)
    offsets, sizes = [0], []
    with job.console.progress(job.step.label, len(rows), "images") as ticker:
        for sample, picture, seen, logits in _decoded(loaded, features, rows, state, samples):
            size = (picture.shape[0], picture.shape[1])
            truth = scores.truth(state, sample)
            maps = {name: full_size_labels(logits[name], size) for name in scores.needed(truth)}
            chosen = maps[scores.chosen]
            scores.update(maps, truth, state.ignore_label)
            out.append("map/values", chosen.ravel())
            offsets.append(offsets[-1] + chosen.size)
            sizes.append(size)
            if config.probabilities:
                out.append("probability", _softmax(logits[scores.chosen])[None].astype(np.float16))
            if config.png is not None:
                _write_mask(config.png, sample, chosen, state if known else None, decoder["palette"])
            gallery.add(sample, picture, truth, chosen, seen, state.ignore_label)
            ticker.advance()
    for name, values in {
        "classes": decoder["classes"],
        "palette": decoder["palette"],
        "id": table.ids[rows],
        "split": table.splits[rows],
        "size": np.array(sizes, dtype=np.int64),
        "map/offsets": np.array(offsets, dtype=np.int64),
    }.items():
        out.write(name, values)
    scores.write(out)
    gallery.publish()
    if scores.problems:
        job.console.warn(
            f"{len(scores.problems)} masks could not be read; their images are labelled and not scored: "
            f"{scores.problems[0]}"
        )


def _require_same_grid(decoder: Artifact, features: Artifact) -> None:
    grid, wanted = require_one_grid(features), tuple(decoder["grid"].tolist())
    width = len(decoder["weights/input_mean"])
    if grid != wanted or features.stream("features").shape[2] != width:
        raise InputError(
            "the decoder was learned on features of another encoder",
            f"{features.path}: grid {grid}, width {features.stream('features').shape[2]}; {decoder.path}: {wanted}, "
            f"{width}",
            "encode these images with the encoder of the training images",
        )


def _rows(table: SampleTable, valid: np.ndarray, split: str, path: Path) -> np.ndarray:
    parts, part = table.parts, table.part_of(split)
    rows = np.flatnonzero(valid if split == "all" else valid & (parts == part))
    if not len(rows):
        raise InputError(
            f"there are no readable images in the split {part!r}",
            f"{path} has: {', '.join(sorted(set(parts)))}",
            "choose one of these with --split, or all",
        )
    return rows


def _load(artifact: Artifact, device: torch.device, config: SegmentConfig) -> Decoders:
    """Rebuild the decoders, the chosen one first; the others only where they are compared."""
    if artifact.identity.stage_version < FINE:
        raise InputError(
            "this decoder is of an earlier cmgl, which saw patches otherwise",
            f"{artifact.path}: segment (train) version {artifact.identity.stage_version}",
            "learn it again: cmgl segment --mode train",
        )
    grid = tuple(int(n) for n in artifact["grid"])
    view = PatchView.of(artifact.group("weights"), artifact.group("transform"), (grid[0], grid[1]), device)
    graphs = artifact.group("graphs")
    evidence = GraphEvidence(
        graphs["precision"],
        graphs["common"],
        graphs["means"],
        graphs["priors"],
        windows=tuple(graphs["windows"].tolist()),
        appearance=int(graphs["appearance"]),
        seed=artifact.config["seed"],
    )
    columns, chosen = artifact.group("table"), artifact["chosen"][0]
    modules: dict[str, nn.Module] = {}
    order = sorted(range(len(columns["method"])), key=lambda i: columns["method"][i] != chosen)
    for index in order if config.baselines else order[:1]:
        module = build_decoder(
            str(columns["decoder"][index]),
            evidence,
            view.distiller.width,
            view.distiller.d_k,
            graph=str(columns["graph"][index]),
        )
        state = {name: torch.from_numpy(values) for name, values in artifact.group(f"decoders/{index}").items()}
        module.load_state_dict(state)
        modules[str(columns["method"][index])] = module.to(device).eval()
    return Decoders(view, modules, evidence, int(artifact["picture_size"][0]))


def _same_classes(dataset: Dataset, decoder: Artifact) -> bool:
    """Return whether the dataset has masks that can be held against the labels.

    Raises
    ------
    InputError
        It has masks of other classes.
    """
    if not dataset.has_masks:
        return False
    names = decoder["classes"].tolist()
    if list(dataset.mask_classes) != names:
        raise InputError(
            "the decoder's classes are not those of the dataset's masks",
            f"{decoder.path}: {', '.join(names[:5])}...; {dataset.name}: {', '.join(dataset.mask_classes[:5])}...",
            "learn a decoder on this dataset: cmgl segment --mode train",
        )
    return True


@torch.no_grad()
def _decoded(
    loaded: Decoders, features: Artifact, rows: np.ndarray, dataset: Dataset, samples: list[Sample]
) -> Iterator[tuple[Sample, np.ndarray, PatchInputs, dict[str, np.ndarray]]]:
    """Yield each image with its pixels, what decoders saw of it, and every decoder's logits [C, h, w].

    One image at a time: it is opened once, however large, and no other is held.
    """
    source = features.stream("features")
    looks = any(module.needs_image for module in loaded.modules.values())
    for row, sample in zip(rows, samples, strict=True):
        image = dataset.image(sample)
        images = small_picture(image, loaded.picture_size)[None] if looks else None
        seen = loaded.view.inputs(source[row : row + 1], images)
        logits = {name: module(seen)[0].float().cpu().numpy() for name, module in loaded.modules.items()}
        yield sample, np.asarray(image), seen, logits


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=0))
    return shifted / shifted.sum(axis=0)


class _Scores:
    """Scores of every decoder on the images that have masks; boundaries of the chosen one only, they take long."""

    def __init__(self, names: list[str], n_classes: int, known: bool):
        self.chosen, self._names, self._known, self._count = names[0], names, known, 0
        self.problems: list[str] = []
        self._scores = {
            name: SegmentationScores(n_classes, NO_TRUTH, boundaries=name == self.chosen) for name in names if known
        }

    def truth(self, dataset: Dataset, sample: Sample) -> np.ndarray | None:
        """Return the mask of an image; None where there is none, or none that can be read (kept in `problems`)."""
        if not self._known:
            return None
        try:
            mask = dataset.mask(sample)
        except InputError as error:
            self.problems.append(f"{sample.id}: {' '.join(str(error).split())}")
            return None
        return None if mask is None else mask.astype(np.int32)

    def needed(self, truth: np.ndarray | None) -> list[str]:
        """Return the decoders whose labels of an image are wanted."""
        return self._names if truth is not None else [self.chosen]

    def update(self, maps: Mapping[str, np.ndarray], truth: np.ndarray | None, ignored: int | None) -> None:
        """Take the labels of an image."""
        if truth is None:
            return
        target = truth if ignored is None else np.where(truth == ignored, NO_TRUTH, truth)
        for name, labels in maps.items():
            self._scores[name].update(labels, target)
        self._count += 1

    def write(self, out: ArtifactWriter) -> None:
        """Write the comparison, and the chosen decoder's scores class by class."""
        if not self._count:
            return
        reports: dict[str, SegmentationReport] = {name: scores.report() for name, scores in self._scores.items()}
        numbers = ("mean_iou", "mean_dice", "pixel_accuracy", "mean_class_accuracy", "image_dice", "boundary_f1")
        columns = {key: np.array([getattr(report, key) for report in reports.values()]) for key in numbers}
        out.write_group("table", {**columns, "method": np.array(list(reports), dtype=object)})
        best = reports[self.chosen]
        out.write("confusion", best.confusion)
        for name in ("iou", "dice", "class_accuracy", "class_boundary_f1", "pixels"):
            out.write(f"per_class/{name}", getattr(best, name))


class _Gallery:
    """Pictures of the first images, or of those that were asked for."""

    def __init__(self, job: Job, decoder: Artifact, evidence: GraphEvidence):
        self._job, self._evidence, self._fitted = job, evidence, decoder["graphs/fitted"]
        self._names, self._palette = decoder["classes"].tolist(), decoder["palette"].astype(np.uint8)
        self._wanted = tuple(job.config.explain)
        self._rows: list[tuple[np.ndarray, np.ndarray | None, np.ndarray]] = []
        self._explained: list[str] = []
        self._seen: list[str] = []

    def add(  # noqa: PLR0913 (all there is to an image)
        self,
        sample: Sample,
        picture: np.ndarray,
        truth: np.ndarray | None,
        labels: np.ndarray,
        inputs: PatchInputs,
        ignored: int | None,
    ) -> None:
        """Take an image if it is to be shown."""
        self._seen.append(sample.id)
        if not self._job.config.figures:
            return
        if len(self._rows) < SHOWN_IMAGES:
            shown = None if truth is None or ignored is None else np.where(truth == ignored, NO_TRUTH, truth)
            self._rows.append((picture, truth if shown is None else shown, labels))
        if sample.id in self._wanted or (not self._wanted and not self._explained):
            self._explain(sample, picture, labels, inputs)

    def publish(self) -> None:
        """Write the sheet of examples.

        Raises
        ------
        UsageError
            An image that was to be explained is not among the images.
        """
        unknown = [name for name in self._wanted if name not in self._seen]
        if unknown:
            raise UsageError("no such image to explain", f"explain = {unknown[0]}", suggest(unknown[0], self._seen))
        if self._rows:
            sheet = overlay_figure(self._rows, self._palette, self._names, ignore_label=NO_TRUTH, title="Segmentation")
            self._write("overlay", sheet)

    def _explain(self, sample: Sample, picture: np.ndarray, labels: np.ndarray, inputs: PatchInputs) -> None:
        self._explained.append(sample.id)
        maps = inputs.attention[0].float().cpu().numpy().reshape(-1, *inputs.grid)
        present = np.bincount(labels.ravel(), minlength=len(self._names))
        classes = [int(c) for c in np.argsort(-present, kind="stable")[:MOST_GRAPHS] if present[c]]
        # the nodes of a patch's surroundings have no place of their own: edges given these are drawn
        own = slice(self._evidence.appearance, self._evidence.appearance + self._evidence.n_nodes)
        graphs = [(self._names[c], partial_correlations(self._fitted[c][own, own])) for c in classes]
        suffix = "" if not self._wanted else "-" + sample.id.replace("/", "-")
        self._write("attention" + suffix, attention_grid_figure(picture, maps))
        self._write("graphs" + suffix, graph_on_image_figure(picture, maps, graphs))

    def _write(self, name: str, picture: Figure) -> None:
        path = self._job.output.with_name(f"{self._job.output.stem}-{name}.png")
        publish_file(path, lambda file: file.write(png(picture)))


def partial_correlations(precision: np.ndarray) -> np.ndarray:
    """Return -Omega_ij / sqrt(Omega_ii Omega_jj), zero on the diagonal."""
    scale = np.sqrt(np.diagonal(precision))
    values = -precision / np.outer(scale, scale)
    np.fill_diagonal(values, 0.0)
    return values


def _write_mask(folder: Path, sample: Sample, labels: np.ndarray, dataset: Dataset | None, palette: np.ndarray) -> None:
    """Write a label map as the dataset writes its own masks, or with the palette of the classes."""
    values = dataset.mask_values if dataset is not None else MaskValues.identity(len(palette), colours=_full(palette))
    if values.colours is None and values.threshold is None:
        values = MaskValues(values.stored, values.ignored, _full(palette)) if len(palette) <= 256 else values
    parts = PurePosixPath(sample.id).parts
    inner = PurePosixPath(*(parts[1:] if len(parts) > 1 else parts))
    image = values.encode(labels)
    checked_name(str(inner), "the samples' ids")
    publish_file(folder / inner.with_suffix(".png"), partial(_save_png, image))


def _full(palette: np.ndarray) -> np.ndarray:
    return palette.astype(np.uint8)


def _save_png(image: Image.Image, file: IO[bytes]) -> None:
    image.save(file, format="PNG")


def summarize(artifact: Artifact, job: Job) -> None:
    """Print the comparison, best first, and where the pictures are."""
    columns = artifact.group("table")
    values: dict[str, Any] = {"images": len(artifact["id"])}
    if columns:
        binary = len(artifact["classes"]) == BINARY
        key, title = ("image_dice", "Dice") if binary else ("mean_iou", "mIoU")
        order = np.argsort(-columns[key], kind="stable")
        chosen = columns["method"][0]
        lines = [
            (
                columns["method"][i] + (" <- chosen" if columns["method"][i] == chosen else ""),
                *(round(float(columns[name][i]), 4) for name in dict.fromkeys((key, "mean_iou", "pixel_accuracy"))),
            )
            for i in order
        ]
        heads = ("decoder", *dict.fromkeys((title, "mIoU", "pixel accuracy")))
        job.console.table(f"segment: {', '.join(sorted(set(artifact['split'])))}", heads, lines)
        values[title] = round(float(columns[key][0]), 4)
        values["boundary F-score"] = round(float(columns["boundary_f1"][0]), 4)
        per_class = dict(zip(artifact["classes"].tolist(), artifact["per_class/iou"].tolist(), strict=True))
        job.console.table("IoU of every class", ("class", "IoU"), [(n, round(v, 4)) for n, v in per_class.items()])
    if job.config.figures:
        stem = job.output.stem
        values["figures"] = str(job.output.with_name(f"{stem}-overlay.png"))
    job.console.fields(job.step.label, {**values, "output": str(job.output)})
