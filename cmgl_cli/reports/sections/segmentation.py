"""Which pixel is what: label maps beside their images and masks, with scores and their spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cmgl_cli.artifacts import Artifact
from cmgl_cli.errors import InputError
from cmgl_cli.heads.uncertainty import bootstrap_interval, mean_iou
from cmgl_cli.reports.material import Run
from cmgl_cli.reports.page import Figure, Section, Table
from cmgl_cli.reports.sections.attention import picture_of
from cmgl_cli.reports.sections.parts import figure, first, shortened
from cmgl_cli.reports.segmentation_figures import overlay_figure
from cmgl_cli.reports.style import TINTS

SCORES = ("mean_iou", "mean_dice", "pixel_accuracy", "boundary_f1")
MOST_SCORED = 200
"""Images whose masks are read again: for the spread, and to find telling examples."""
UNCOLOURED = -1
SHOWN = (0.9, 0.5, 0.5, 0.05)
"""Which images are drawn: their places in the order of how well they were labelled."""
BESIDE = {
    "overlay": (
        "Images, true and predicted labels",
        "Each row is one image: as it is, as its mask says, as it was labelled.",
    ),
    "graphs": (
        "Graphs of the classes found in an image, drawn where their nodes look",
        "Dots are nodes, placed at the centre of what they attend to; lines are the strongest edges, orange for "
        "nodes that rise together and blue for nodes that move against each other.",
    ),
}


@dataclass(frozen=True)
class Scored:
    """An image with its labels and mask, and pixels counted by true and predicted class."""

    name: str
    labels: np.ndarray
    truth: np.ndarray
    confusion: np.ndarray

    @property
    def share(self) -> float:
        """Mean IoU of this image alone."""
        return mean_iou(self.confusion[None], [1])


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return the label maps of the first run that has some."""
    run = first(runs, "segmentation")
    artifact = run.open("segmentation") if run else None
    if run is None or artifact is None:
        return []
    with artifact:
        scored = _scored(run, artifact)
        tables = [table for table in (_comparison(artifact), _per_class(artifact)) if table.rows]
        paragraphs = [_summary(artifact, scored)]
        figures = [_triplets(run, artifact, scored)] if scored else _beside(run.folder, "overlay")
    return [Section("Which pixel is what?", paragraphs, tables, [*figures, *_beside(run.folder, "graphs")])]


def _scored(run: Run, artifact: Artifact) -> list[Scored]:
    """Return evenly drawn images that have masks, with their pixels counted."""
    if (
        run.dataset is None
        or not run.dataset.has_masks
        or list(run.dataset.mask_classes) != artifact["classes"].tolist()
    ):
        return []
    names, sizes, offsets = artifact["id"].tolist(), artifact["size"], artifact["map/offsets"]
    values = artifact.stream("map/values")
    found = []
    for at in np.unique(np.linspace(0, len(names) - 1, min(len(names), MOST_SCORED)).astype(int)):
        sample = run.samples.get(names[at])
        try:
            truth = run.dataset.mask(sample) if sample is not None else None
        except InputError:
            continue
        labels = values[offsets[at] : offsets[at + 1]].reshape(sizes[at]).astype(np.int64)
        if truth is not None and truth.shape == labels.shape:
            target = np.where(truth == run.dataset.ignore_label, UNCOLOURED, truth.astype(np.int64))
            found.append(Scored(names[at], labels, target, _counted(labels, target, len(artifact["classes"]))))
    return [one for one in found if one.confusion.any()]


def _counted(labels: np.ndarray, truth: np.ndarray, n_classes: int) -> np.ndarray:
    known = truth >= 0
    cells = truth[known] * n_classes + labels[known]
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def _summary(artifact: Artifact, scored: Sequence[Scored]) -> str:
    text = (
        f"{len(artifact['id']):,} images were labelled pixel by pixel. IoU is the overlap of true and predicted "
        "pixels of a class over their union: 1 is perfect, and half of the pixels right gives far less than 0.5."
    )
    if not scored:
        return text
    confusions = np.stack([one.confusion for one in scored])
    low, high = bootstrap_interval(lambda times: mean_iou(confusions, times), len(scored))
    value = mean_iou(confusions, np.ones(len(scored)))
    return (
        f"{text} On {len(scored)} images, evenly drawn, the mean IoU is {value:.3f}, with a 95 % bootstrap interval "
        f"over images of {low:.3f} to {high:.3f}."
    )


def _comparison(artifact: Artifact) -> Table:
    columns = artifact.group("table")
    order = np.argsort(-columns["mean_iou"], kind="stable").tolist() if columns else []
    rows = [
        [columns["method"][i], *("" if np.isnan(columns[n][i]) else f"{columns[n][i]:.3f}" for n in SCORES)]
        for i in order
    ]
    return Table(
        ("decoder", "mean IoU", "mean Dice", "pixel accuracy", "boundary F-score"),
        rows,
        "All images with masks, at their full size; the decoder in bold was chosen on the validation part.",
        [at for at, i in enumerate(order) if i == 0],
    )


def _per_class(artifact: Artifact) -> Table:
    own, names = artifact.group("per_class"), artifact["classes"].tolist()
    if not own:
        return Table((), ())
    total = max(int(own["pixels"].sum()), 1)
    rows = [
        [names[i], f"{own['iou'][i]:.3f}", f"{own['class_accuracy'][i]:.3f}", f"{own['pixels'][i] / total:.1%}"]
        for i in np.argsort(own["iou"], kind="stable")
        if np.isfinite(own["iou"][i])
    ]
    columns = ("class", "IoU", "share of its pixels found", "share of all pixels")
    return shortened(Table(columns, rows, "Class by class, worst first", folded=True))


def _triplets(run: Run, artifact: Artifact, scored: Sequence[Scored]) -> Figure:
    ordered = sorted(scored, key=lambda one: one.share)
    places = dict.fromkeys(
        min(len(ordered) - 1, int(share * len(ordered)) + shift) for shift, share in enumerate(SHOWN)
    )
    names = artifact["classes"].tolist()
    background = names[0] == "background"
    rows = []
    for place in places:
        one = ordered[place]
        picture = picture_of(run, one.name)
        if picture is not None:
            truth, labels = (_shown(maps, picture, background) for maps in (one.truth, one.labels))
            rows.append((picture, truth, labels))
    palette = (
        artifact["palette"].astype(np.uint8) if len(names) > len(TINTS) else np.array(TINTS[: len(names)], np.uint8)
    )
    return figure(
        "segmentation",
        overlay_figure(rows, palette, names, ignore_label=UNCOLOURED, grey=True, title=""),
        "Images, their true labels and the predicted ones: a well labelled one, two typical ones, a badly labelled one",
        "Each row is one image: as it is, as its mask says, as it was labelled. Colours name classes; what stays "
        "grey is background or has no true label.",
        photo=True,
    )


def _shown(labels: np.ndarray, picture: np.ndarray, background: bool) -> np.ndarray:
    """Return labels at the size of the picture, the background left out."""
    kept = np.where(labels == 0, UNCOLOURED, labels) if background else labels
    if kept.shape == picture.shape[:2]:
        return kept
    height, width = picture.shape[:2]
    small = Image.fromarray(kept.astype(np.int32)).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(small)


def _beside(folder: Path, name: str) -> list[Figure]:
    """Return a figure that the stage wrote beside its artifact, where it lies there still."""
    path = folder / f"segmentation-{name}.png"
    if not path.exists():
        return []
    caption, reading = BESIDE[name]
    return [Figure(f"segmentation-{name}", path.read_bytes(), f"{caption}. {reading}", caption + ".", reading, True)]
