"""``cmgl extract``: images or rendered texts in, patch tokens of one frozen encoder out."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from cmgl_cli.artifacts import Artifact, ArtifactWriter, BlockSet, BlockSpec, SampleTable, open_artifact
from cmgl_cli.datasets import Dataset, Sample
from cmgl_cli.encoders import AnyEncoder, Encoder, MirroredEncoder, TiledEncoder, encode_stream, load_encoder
from cmgl_cli.errors import UsageError
from cmgl_cli.pipeline import Job, Prepared
from cmgl_cli.segmentation.augmented import AugmentedImages
from cmgl_cli.segmentation.label_maps import LabelMaps
from cmgl_cli.settings import ExtractConfig
from cmgl_cli.sharding import Shard, merge_shards, merged_digests, shard_of
from cmgl_cli.sources import chosen_samples

BLOCK_ROWS = 64
PROBLEM_BYTES = 256


@dataclass(frozen=True)
class Source:
    """What is encoded: the table of samples, how to open the image of a row, and what is stored beside its tokens."""

    table: SampleTable
    open: Callable[[int], Image.Image]
    digests: Mapping[str, str]
    fields: Mapping[str, tuple[tuple[int, ...], Any]] = field(default_factory=dict)
    beside: Callable[[int], Mapping[str, np.ndarray]] = lambda row: {}


@dataclass(frozen=True)
class State:
    """A loaded encoder and its source; both None when shards are only joined."""

    encoder: AnyEncoder | None
    source: Source | None


def prepare(job: Job) -> Prepared:
    """Open encoder and dataset; weights, preprocessing and the chosen images decide the output."""
    if job.options.get("merge"):
        return Prepared(merged_digests(job.output, job.step.schema), State(None, None))
    config: ExtractConfig = job.config
    shard = shard_of(job.output, job.options.get("shard"))
    # the images first: they are missing more often than the encoder, and looking for them is faster
    open_source = {"image": _dataset, "text": _rendered, "augmented": _augmented}[job.step.variant]
    source = _cut(open_source(job), shard)
    loaded = load_encoder(
        config.encoder,
        device=shard.device(config.device),
        dtype=config.dtype,
        precision=config.precision,
        attention=config.attention,
        max_num_patches=config.max_patches,
        revision=config.revision,
    )
    # pages of text are read whole, and no letter is to be mirrored
    encoder = loaded if job.step.variant == "text" else _as_read(loaded, config)
    digests = {"weights": encoder.weights_digest, "settings": json.dumps(encoder.settings, sort_keys=True)}
    return Prepared({**digests, **source.digests}, State(encoder, source))


def _as_read(encoder: Encoder, config: ExtractConfig) -> AnyEncoder:
    """Return an encoder that reads images as the settings say."""
    tiled = TiledEncoder(encoder, config.tiles) if config.tiles > 1 else encoder
    return MirroredEncoder(tiled) if config.mirror else tiled


def _dataset(job: Job) -> Source:
    dataset, samples = chosen_samples(job)
    table = SampleTable.of(
        [sample.id for sample in samples],
        [sample.split for sample in samples],
        [sample.labels for sample in samples],
        dataset.classes,
    )
    return Source(table, partial(_image, dataset, samples), {"dataset": dataset.fingerprint(samples)})


def _image(dataset: Dataset, samples: Sequence[Sample], row: int) -> Image.Image:
    return dataset.image(samples[row])


def _rendered(job: Job) -> Source:
    with open_artifact(job.inputs["renders"], "renders") as renders:
        table, pages = SampleTable.read(renders), renders["image"]
    return Source(table, lambda row: Image.fromarray(pages[row]), {})


def _augmented(job: Job) -> Source:
    config: ExtractConfig = job.config
    if not config.augment:
        raise UsageError(
            "no number of further looks given", f"cmgl extract: augment = {config.augment}", "add --augment 2"
        )
    dataset, samples = chosen_samples(job)
    with open_artifact(job.inputs["masks"], "masks") as masks:
        maps = LabelMaps.read(masks, np.array([sample.id for sample in samples], dtype=object), dataset.name)
        images = AugmentedImages(dataset, samples, maps, config.augment, config.seed)
    digests = {"dataset": dataset.mask_fingerprint(samples)}
    return Source(images.table, images.image, digests, images.fields, images.beside)


def _cut(source: Source, shard: Shard) -> Source:
    """Keep a shard's rows; the whole when there is one shard."""
    if shard.count == 1:
        return source
    start, stop = shard.rows(len(source.table), BLOCK_ROWS)
    return Source(
        source.table.slice(start, stop),
        lambda row: source.open(start + row),
        {**source.digests, "shard": f"{shard.index}/{shard.count}"},
        source.fields,
        lambda row: source.beside(start + row),
    )


def compute(job: Job, state: State, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    """Encode the blocks that are not done yet, or join the shards."""
    if state.encoder is None or state.source is None:
        merge_shards(job.output, job.step.schema, out, BLOCK_ROWS, job.console)
        return
    encoder, source, rows = state.encoder, state.source, len(state.source.table)
    fields: dict[str, tuple[tuple[int, ...], Any]] = {
        "features": ((encoder.n_patches, encoder.width), np.dtype(job.config.store)),
        "grid": ((2,), np.int32),
        "valid": ((), np.bool_),
        "problem": ((), f"S{PROBLEM_BYTES}"),
        **source.fields,
    }
    (blocks,) = out.declare_blocks(BlockSpec(rows, BLOCK_ROWS, fields))
    _encode(job, encoder, source, blocks)
    for name, values in source.table.to_arrays().items():
        out.write(name, values)
    out.provenance.update(device=str(encoder.device), unreadable=int((~blocks["valid"][()]).sum()))


def _encode(job: Job, encoder: AnyEncoder, source: Source, blocks: BlockSet) -> None:
    pending = blocks.pending()
    problems: dict[int, str] = {}

    def failed(row: Any, error: Exception) -> None:
        if job.config.strict:
            raise error
        problems[int(row)] = " ".join(str(error).split())

    items = ((row, partial(source.open, row)) for start, stop in pending for row in range(start, stop))
    stream = encode_stream(
        encoder,
        items,
        batch_size=_batch_size(job.config.batch_size),
        workers=job.config.workers,
        dtype=job.config.store,
        on_error=failed,
        log=job.console.info,
    )
    done = len(source.table) - sum(stop - start for start, stop in pending)
    with job.console.progress(job.step.label, len(source.table), "images", done) as ticker:
        for (start, stop), block in zip(pending, _regroup(stream, pending), strict=True):
            block["problem"] = np.array([_cut_text(problems.get(row, "")) for row in range(start, stop)])
            beside = [source.beside(row) for row in range(start, stop)]
            block |= {name: np.stack([found[name] for found in beside]) for name in source.fields}
            blocks.put(start, block)
            ticker.advance(stop - start)


def _cut_text(text: str) -> bytes:
    """Return as much of a text as there is room for, in whole characters."""
    return text.encode("utf-8", "replace")[:PROBLEM_BYTES].decode("utf-8", "ignore").encode()


def _regroup(stream: Iterator[Any], pending: list[tuple[int, int]]) -> Iterator[dict[str, np.ndarray]]:
    """Cut the encoder's batches into the file's blocks."""
    held: list[dict[str, np.ndarray]] = []
    for start, stop in pending:
        while sum(len(part["valid"]) for part in held) < stop - start:
            batch = next(stream)
            tokens = np.where(batch.valid[:, None, None], batch.tokens, 0)
            held.append({"features": tokens, "grid": batch.grids, "valid": batch.valid})
        whole = {name: np.concatenate([part[name] for part in held]) for name in held[0]}
        yield {name: values[: stop - start] for name, values in whole.items()}
        held = [{name: values[stop - start :] for name, values in whole.items()}]


def _batch_size(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def summarize(artifact: Artifact, job: Job) -> None:
    """Say what was encoded, and list what could not be read."""
    shape, valid = artifact.stream("features").shape, artifact["valid"]
    settings = json.loads(artifact.identity.digests["settings"])
    job.console.fields(
        job.step.label,
        {
            "samples": shape[0],
            "unreadable": int((~valid).sum()),
            "patches x width": f"{shape[1]} x {shape[2]}",
            "encoder": f"{artifact.config['encoder']} ({settings['model_type']}, {settings['dtype']})",
            "output": str(job.output),
        },
    )
    if not valid.all():
        rows = np.flatnonzero(~valid)
        ids, problems = artifact["id"], artifact["problem"]
        job.console.table("unreadable", ("id", "reason"), [(ids[row], problems[row]) for row in rows[:50]])
        job.console.warn(f"{len(rows)} of {len(valid)} images could not be read; they are left out from here on")
