"""``cmgl distill``: patch tokens in, semantic nodes of every sample out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from cmgl_cli.artifacts import Artifact, ArtifactWriter, BlockSet, BlockSpec, SampleTable
from cmgl_cli.encoders.compute import choose_device
from cmgl_cli.errors import InputError
from cmgl_cli.nodes.crossfitting import cross_fitted, fold_assignment
from cmgl_cli.nodes.distillation import Distiller, distill_batch
from cmgl_cli.nodes.mappings import principal_components, response_attention, without_attention
from cmgl_cli.nodes.padding import PatchValidity
from cmgl_cli.nodes.proxies import ImageProxy, PixelProxy, balanced_weights
from cmgl_cli.nodes.reader import BlockShuffledReader, ReaderPlan
from cmgl_cli.nodes.training import ProxyData, TrainingResult, TrainingSettings, train_proxy
from cmgl_cli.pipeline import Job, Prepared
from cmgl_cli.segmentation.label_maps import LabelMaps, require_one_grid
from cmgl_cli.settings import DistillConfig

BLOCK_ROWS = 64
GIB = 2**30
# an epoch of pixels is many gradients even in small batches, and C label maps an image take memory
PIXEL_BATCH = 16


@dataclass(frozen=True)
class Lesson:
    """What the nodes are learned from: the rows of the two parts, and label maps where pixels are the task."""

    features: Artifact
    table: SampleTable
    train: np.ndarray
    validation: np.ndarray
    maps: LabelMaps | None = None

    @property
    def labels(self) -> np.ndarray | None:
        """Class numbers [n] or presences [n, C]; None where the targets are label maps."""
        if self.maps is not None:
            return None
        return self.table.presence if self.table.multi_label else self.table.label


def prepare(job: Job) -> Prepared:
    """Nothing beside artifacts is read."""
    return Prepared()


def compute(job: Job, state: None, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    """Train the probes on the proxy task, freeze them, and apply them to every sample of every modality."""
    _require_same_encoder(inputs)
    modalities = {"image": inputs["features"]}
    if "text_features" in inputs:
        modalities["text"] = inputs["text_features"]
    tables = {name: SampleTable.read(artifact) for name, artifact in modalities.items()}
    lesson = _lesson(job, inputs, tables["image"])
    tables["image"] = lesson.table
    blocks = out.declare_blocks(*(_spec(name, modalities[name], job.config, lesson.table) for name in modalities))
    result = _train(job, lesson, lesson.train, out)
    crossed = _cross_fit(job, lesson, result) if job.config.folds > 1 else {}
    with job.console.progress("distill", sum(map(len, tables.values())), "samples") as ticker:
        for (name, artifact), rows in zip(modalities.items(), blocks, strict=True):
            _apply(name, artifact, result, rows, job.config, ticker, len(lesson.table.classes))
    if crossed:
        blocks[0]["image/z"][lesson.train] = crossed["z"]
        out.write("history/fold_agreement", crossed["agreement"])
    for name, artifact in modalities.items():
        for key, values in tables[name].to_arrays(name).items():
            out.write(key, values)
        out.write(f"{name}/grid", artifact["grid"])
        out.write(f"{name}/valid", artifact["valid"])
    out.write("classes", tables["image"].classes)
    out.write_group("weights", result.distiller.to_arrays())
    out.write_group(
        "weights", {f"proxy/{key}": value.cpu().numpy() for key, value in result.proxy.state_dict().items()}
    )
    history = result.history
    for name in ("learning_rate", "train_loss", "validation_loss", "validation_score"):
        out.write(f"history/{name}", getattr(history, name))
    out.write("history/best_epoch", np.array(history.best_epoch))


def _require_same_encoder(inputs: Mapping[str, Artifact]) -> None:
    if "text_features" not in inputs:
        return
    images, texts = inputs["features"], inputs["text_features"]
    if images.identity.digests["weights"] != texts.identity.digests["weights"]:
        raise InputError(
            "images and texts were encoded by different encoders",
            f"{images.path}: {images.config['encoder']}; {texts.path}: {texts.config['encoder']}",
            "encode both again with one --encoder",
        )
    if images["classes"].tolist() != texts["classes"].tolist():
        raise InputError(
            "images and texts have different classes",
            f"{images.path}: {', '.join(images['classes'][:5])}...; {texts.path}: {', '.join(texts['classes'][:5])}...",
            "render the texts again with the same --dataset, then extract them",
        )


def _spec(name: str, features: Artifact, config: DistillConfig, images: SampleTable) -> BlockSpec:
    rows, patches, width = features.stream("features").shape
    fields: dict[str, tuple[tuple[int, ...], Any]] = {
        f"{name}/z": ((config.nodes,), np.float32),
        f"{name}/attention": ((config.nodes, patches), np.float16),
        f"{name}/pooled": ((width,), np.float32),
        f"{name}/proxy": ((len(images.classes),), np.float32),
    }
    if config.keep_nodes:
        fields[f"{name}/nodes"] = ((config.nodes, _key_width(config)), np.float16)
    return BlockSpec(rows, BLOCK_ROWS, fields)


def _lesson(job: Job, inputs: Mapping[str, Artifact], table: SampleTable) -> Lesson:
    """Choose the proxy task: pixels where there are masks and images show several classes, else image classes."""
    features = inputs["features"]
    maps = LabelMaps.read(inputs["masks"], table.ids, features.path) if "masks" in inputs else None
    if maps is not None:
        # samples without labels of their own take those of their masks, and keep their part
        table = maps.table if table.labelled.any() else replace(maps.table, part=table.parts)
    single = (table.label >= 0) | ~table.labelled
    wanted = job.config.proxy
    if wanted == "auto":
        wanted = "pixel" if maps is not None and (not single.all() or len(table.classes) < 2) else "image"
    if wanted == "image":
        train, validation = _parts(features, table, table.labelled)
        table.require_classes(train, "training image")
        return Lesson(features, table, train, validation)
    if maps is None:
        raise InputError(
            "the pixel proxy needs masks",
            f"{job.output.parent}: no masks.h5",
            f"run: {job.command('extract')} --modality mask, or choose --proxy image",
        )
    train, validation = _parts(features, table, maps.known)
    require_one_grid(features)
    return Lesson(features, table, train, validation, maps)


def _parts(features: Artifact, table: SampleTable, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and the rows to validate on."""
    usable = features["valid"] & known
    train = np.flatnonzero(usable & (table.parts == "train"))
    validation = np.flatnonzero(usable & (table.parts == "validation"))
    if len(train) == 0 or len(validation) == 0:
        raise InputError(
            "there are no labelled training and validation images to learn the nodes from",
            f"{features.path}: {len(train)} for training, {len(validation)} for validation",
            "encode a dataset with labels and a split called train",
        )
    return train, validation


def _train(job: Job, lesson: Lesson, train: np.ndarray, out: ArtifactWriter | None = None) -> TrainingResult:
    """Train probes and proxy head; with `out`, keep a checkpoint an epoch and go on from the last one."""
    config: DistillConfig = job.config
    device = choose_device(config.device)
    width = lesson.features.stream("features").shape[2]
    wout = "per_node" if config.mapping == "pca" else config.wout
    distiller = Distiller(width, config.nodes, _key_width(config), wout=wout, seed=config.seed).to(device)
    if config.mapping == "linear":
        without_attention(distiller)
    elif config.mapping == "pca":
        principal_components(distiller, _reader(lesson, train, config))
    torch.manual_seed(config.seed)
    proxy = _proxy(config, lesson, train).to(device)
    data = ProxyData(
        _reader(lesson, train, config), _reader(lesson, lesson.validation, config, shuffle=False), lesson.labels
    )
    settings = TrainingSettings(
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        patience=config.patience,
        patch_keep=config.patch_keep,
    )
    resume = out.load_checkpoint() if out else None
    if resume is not None:
        job.console.info("distill: going on from the last finished epoch")
    with job.console.progress("distill: training", config.epochs, "epochs") as ticker:

        def keep(checkpoint: dict[str, np.ndarray]) -> None:
            if out:
                out.save_checkpoint(checkpoint)
            ticker.advance()

        return train_proxy(distiller, proxy, data, settings, resume=resume, on_epoch=keep)


def _key_width(config: DistillConfig) -> int:
    """Return the width of Z: principal components are as many as nodes."""
    return config.nodes if config.mapping == "pca" else config.key_width


def _proxy(config: DistillConfig, lesson: Lesson, train: np.ndarray) -> ImageProxy | PixelProxy:
    if lesson.maps is None:
        return ImageProxy(len(lesson.table.classes), config.nodes, multi_label=lesson.table.multi_label)
    return PixelProxy(
        len(lesson.maps.classes),
        config.nodes,
        _key_width(config),
        require_one_grid(lesson.features),
        ignore_label=lesson.maps.ignore_label,
        class_weights=balanced_weights(lesson.maps.pixels(train), config.balance),
    )


def _cross_fit(job: Job, lesson: Lesson, reference: TrainingResult) -> dict[str, np.ndarray]:
    """Return z of the training rows [n, p] from folds that never saw them, in the reference's coordinates."""
    train = lesson.train
    folds = fold_assignment(lesson.table.label[train], job.config.folds, job.config.seed)
    z_reference = _z(lesson, train, reference, job.config)
    z_folds = []
    for fold in range(job.config.folds):
        job.console.info(f"distill: fold {fold + 1} of {job.config.folds}")
        result = _train(job, lesson, train[folds != fold])
        z_folds.append(_z(lesson, train, result, job.config))
    z, agreement = cross_fitted(z_reference, np.array(z_folds), folds)
    return {"z": z, "agreement": agreement}


def _z(lesson: Lesson, rows: np.ndarray, result: TrainingResult, config: DistillConfig) -> np.ndarray:
    batches = _reader(lesson, rows, config, shuffle=False).epoch()
    return np.concatenate([distill_batch(result.distiller, b.patches, b.aligned.get("valid"))[1] for b in batches])


def _reader(lesson: Lesson, rows: np.ndarray, config: DistillConfig, shuffle: bool = True) -> BlockShuffledReader:
    source = lesson.features.stream("features")
    validity = PatchValidity(lesson.features["grid"], source.shape[1])
    aligned: dict[str, Any] = {"valid": validity} if validity.any_padding else {}
    if lesson.maps is not None:
        aligned["mask"] = lesson.maps.maps
    return BlockShuffledReader(
        source,
        rows,
        batch_size=config.batch_size if lesson.maps is None else min(config.batch_size, PIXEL_BATCH),
        seed=config.seed,
        shuffle=shuffle,
        aligned=aligned or None,
        plan=ReaderPlan(memory_bytes=int(config.memory * GIB)),
    )


def _apply(  # noqa: PLR0913 (one call, inside the loop over modalities)
    name: str,
    features: Artifact,
    result: TrainingResult,
    rows: BlockSet,
    config: DistillConfig,
    ticker: Any,
    classes: int,
) -> None:
    """Write the nodes of one modality, block by block; unreadable samples keep zeros."""
    source, readable = features.stream("features"), features["valid"]
    validity = PatchValidity(features["grid"], source.shape[1])
    for start, stop in rows.pending():
        patches, real = source[start:stop], readable[start:stop]
        mask = validity[start:stop] if validity.any_padding else None
        if mask is not None:
            mask[~real] = True  # a softmax over nothing is undefined; these rows are zeroed below
        attention, z, nodes = distill_batch(result.distiller, patches, mask, nodes=config.keep_nodes)
        if config.mapping != "cross-attention":
            attention = response_attention(result.distiller, patches, mask)
        weights = np.ones(patches.shape[:2], np.float32) if mask is None else mask.astype(np.float32)
        pooled = np.einsum("bnd,bn->bd", patches.astype(np.float32), weights) / weights.sum(axis=1, keepdims=True)
        with torch.inference_mode():
            # of pixel classes, a background that comes first is no image class
            logits = result.proxy(torch.from_numpy(z).to(result.distiller.query.device)).cpu().numpy()[:, -classes:]
        block = {"z": z, "attention": attention, "pooled": pooled, "proxy": logits}
        if nodes is not None:
            block["nodes"] = nodes
        rows.put(start, {f"{name}/{key}": _zeroed(values, real) for key, values in block.items()})
        ticker.advance(stop - start)


def _zeroed(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    values[~real] = 0
    return values


def summarize(artifact: Artifact, job: Job) -> None:
    """Say how the training went and how sharply the nodes look."""
    history = artifact.group("history")
    best = int(history["best_epoch"])
    attention = artifact.stream("image/attention")
    maps = attention[: min(256, len(attention))].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(np.where(maps > 0, maps * np.log(maps), 0), axis=2)
    effective = float(np.exp(entropy[artifact["image/valid"][: len(maps)]]).mean())
    job.console.fields(
        "distill",
        {
            "nodes": attention.shape[1],
            "epochs": f"{len(history['train_loss'])}, best {best + 1}",
            "validation loss": float(history["validation_loss"][best]),
            "validation score of the proxy": float(history["validation_score"][best]),
            "patches a node looks at": f"{effective:.1f} of {attention.shape[2]} (exp of the mean entropy)",
            "samples": ", ".join(f"{len(artifact[f'{m}/id'])} {m}" for m in ("image", "text") if f"{m}/id" in artifact),
            "output": str(job.output),
        },
    )
