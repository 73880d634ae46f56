"""``cmgl render-text``: class texts in, black-on-white pages out."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmgl_cli.artifacts import Artifact, ArtifactWriter, SampleTable
from cmgl_cli.artifacts.disk import publish_file
from cmgl_cli.datasets import Dataset, open_dataset
from cmgl_cli.datasets.texts import read_text_table
from cmgl_cli.errors import InputError, suggest
from cmgl_cli.nodes.fonts import Font, load_font
from cmgl_cli.nodes.preview import contact_sheet
from cmgl_cli.nodes.rendering import DEFAULT_TEMPLATES, Canvas, class_templates, render
from cmgl_cli.pipeline import Job, Prepared
from cmgl_cli.settings import RenderTextConfig

PREVIEW_PAGES = 48


@dataclass(frozen=True)
class Texts:
    """The texts to draw: (class index, text) in order, the class names, the font, and where the texts come from."""

    entries: tuple[tuple[int, str], ...]
    classes: tuple[str, ...]
    font: Font
    origin: str


def prepare(job: Job) -> Prepared:
    """Read the texts and the font; their content decides the output, not their paths."""
    config: RenderTextConfig = job.config
    dataset = open_dataset(job.run.dataset, job.run.root, **job.run.dataset_options) if job.run.dataset else None
    by_class, classes, origin = _texts(config, dataset)
    font = load_font(config.font)
    entries = tuple((classes.index(name), text) for name in classes for text in by_class.get(name, ()))
    digest = hashlib.sha256(json.dumps([classes, entries], ensure_ascii=False).encode()).hexdigest()
    state = Texts(entries, tuple(classes), font, origin)
    return Prepared({"texts": f"sha256:{digest}", "font": json.dumps(font.identity, sort_keys=True)}, state)


def _texts(config: RenderTextConfig, dataset: Dataset | None) -> tuple[Mapping[str, Sequence[str]], list[str], str]:
    """Return class texts, class names and their origin: a file, the dataset's texts, its captions, or templates."""
    if config.texts is not None:
        texts = _from_file(config.texts, dataset)
        classes = list(dataset.classes) if dataset else list(texts)
        missing = [name for name in classes if name not in texts]
        return {**texts, **class_templates(missing, config.templates or DEFAULT_TEMPLATES)}, classes, config.texts.name
    if dataset is None:
        raise InputError("there is nothing to render", "no texts and no dataset", "give --texts FILE or --dataset NAME")
    classes = list(dataset.classes)
    given, origin = (dataset.texts, "dataset") if dataset.texts else (_captions(dataset, config), "captions")
    missing = [name for name in classes if not given.get(name)]
    if len(missing) == len(classes):
        origin = "templates"
    return {**given, **class_templates(missing, config.templates or DEFAULT_TEMPLATES)}, classes, origin


def _from_file(path: Path, dataset: Dataset | None) -> dict[str, Sequence[str]]:
    """Return the texts of a file by class; texts of single samples go to the classes of those samples."""
    table = read_text_table(path)
    if table.key == "class":
        unknown = [name for name in table.texts if dataset and name not in dataset.classes]
        if dataset and unknown:
            raise InputError(
                f"the texts name a class the dataset does not have: {unknown[0]!r}",
                f"{path}; classes: {', '.join(dataset.classes[:12])}",
                suggest(unknown[0], dataset.classes),
            )
        return dict(table.texts)
    if dataset is None:
        raise InputError("texts by sample id need the dataset", str(path), "give --dataset NAME too")
    labels = {sample.id: sample.labels for sample in dataset.samples()}
    by_class: dict[str, list[str]] = {}
    for key, sentences in table.texts.items():
        if key not in labels:
            raise InputError(f"the texts name a sample the dataset does not have: {key!r}", str(path), "check the ids")
        for label in labels[key]:
            by_class.setdefault(dataset.classes[label], []).extend(sentences)
    return dict(by_class)


def _captions(dataset: Dataset, config: RenderTextConfig) -> dict[str, list[str]]:
    """Return a seeded choice of the captions of every class's training images."""
    if "train" not in dataset.splits:
        return {}
    pool: dict[str, list[str]] = {name: [] for name in dataset.classes}
    for sample in dataset.samples("train"):
        for label in sample.labels:
            pool[dataset.classes[label]].extend(sample.captions[:1])
    rng = np.random.default_rng(config.seed)
    return {
        name: [captions[i] for i in np.sort(rng.permutation(len(captions))[: config.per_class])]
        for name, captions in pool.items()
        if captions
    }


def compute(job: Job, state: Texts, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    """Draw every text and append its pages."""
    config: RenderTextConfig = job.config
    rows: list[tuple[str, int, int, int, int]] = []
    preview: list[tuple[np.ndarray, str]] = []
    canvas = Canvas(config.size, config.min_px, config.max_px)
    with job.console.progress("render-text", len(state.entries), "texts") as ticker:
        for item, (label, text) in enumerate(state.entries):
            drawn = render(text, state.font, canvas)
            out.append("image", drawn.pages)
            for page in range(len(drawn.pages)):
                rows.append((f"{state.classes[label]}/{item:06d}/{page}", label, item, page, drawn.font_px))
            preview += [(page_image, state.classes[label]) for page_image in drawn.pages]
            preview = preview[:PREVIEW_PAGES] if config.preview else []
            ticker.advance()
    ids, labels, items, pages, sizes = zip(*rows, strict=True)
    table = SampleTable.of(ids, ["train"] * len(ids), [[label] for label in labels], state.classes, items)
    for name, values in table.to_arrays().items():
        out.write(name, values)
    out.write("page", np.array(pages))
    out.write("font_px", np.array(sizes))
    out.write("text", np.array([text for _, text in state.entries], dtype=object))
    out.provenance["texts_from"] = state.origin
    if config.preview:
        _write_preview(config.preview, preview)


def _write_preview(path: Path, preview: list[tuple[np.ndarray, str]]) -> None:
    sheet = contact_sheet([page for page, _ in preview], [caption for _, caption in preview])
    publish_file(path, lambda file: sheet.save(file, format="PNG"))


def summarize(artifact: Artifact, job: Job) -> None:
    """Say how many texts and pages there are."""
    sizes = artifact["font_px"]
    values = {
        "texts": len(artifact["text"]),
        "pages": len(sizes),
        "classes": len(artifact["classes"]),
        "texts from": artifact.provenance.get("texts_from"),
        "font size": f"{sizes.min()} to {sizes.max()} px",
        "output": str(job.output),
    }
    if job.config.preview:
        values["preview"] = str(job.config.preview)
    job.console.fields("render-text", values)
