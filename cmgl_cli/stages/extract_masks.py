"""``cmgl extract``, its masks: files of any size in, label maps at the resolution that training sees out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cmgl_cli.artifacts import Artifact, ArtifactWriter, SampleTable
from cmgl_cli.datasets import Dataset, Sample
from cmgl_cli.errors import InputError
from cmgl_cli.pipeline import Job, Prepared
from cmgl_cli.segmentation.label_maps import shrunk
from cmgl_cli.sources import chosen_samples

WIDE = np.iinfo(np.uint16).max
NARROW = np.iinfo(np.uint8).max
APPENDED_ROWS = 64


@dataclass(frozen=True)
class MaskSource:
    """The dataset, and the samples whose masks are read."""

    dataset: Dataset
    samples: tuple[Sample, ...]


def prepare(job: Job) -> Prepared:
    """Open the dataset; its masks and the chosen images decide the output."""
    dataset, samples = chosen_samples(job)
    if not dataset.has_masks:
        raise InputError(
            "the dataset has no masks", f"{dataset.name}, {len(samples)} images", "choose one with masks: cmgl datasets"
        )
    return Prepared({"masks": dataset.mask_fingerprint(samples)}, MaskSource(dataset, samples))


def compute(job: Job, state: MaskSource, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    """Read and shrink every mask; what cannot be read is listed, or stops the run with ``--strict``."""
    dataset, samples, size = state.dataset, state.samples, job.config.mask_size
    wide = len(dataset.mask_classes) > NARROW
    ignore, kind = (WIDE, np.uint16) if wide else (NARROW, np.uint8)
    problems = [""] * len(samples)
    known, labels, first = np.zeros(len(samples), dtype=bool), [sample.labels for sample in samples], None
    with job.console.progress(job.step.label, len(samples), "masks") as ticker:
        for start in range(0, len(samples), APPENDED_ROWS):
            rows = np.full((min(APPENDED_ROWS, len(samples) - start), size, size), ignore, dtype=kind)
            for row, sample in enumerate(samples[start : start + APPENDED_ROWS], start=start):
                try:
                    mask = dataset.mask(sample)
                except InputError as error:
                    if job.config.strict:
                        raise
                    first, problems[row] = first or error, " ".join(str(error).split())
                    continue
                if mask is not None:
                    rows[row - start] = shrunk(mask, size, dataset.ignore_label, ignore)
                    known[row] = True
                    labels[row] = sample.labels or _present(mask, dataset)
                ticker.advance()
            out.append("mask", rows)
    if not known.any():
        raise first or InputError("no image has a mask", dataset.name, "put the masks where `cmgl datasets` says")
    _write(out, dataset, samples, labels, {"known": known, "problem": np.array(problems, dtype=object)})
    out.write("ignore_label", np.array([ignore]))


def _present(mask: np.ndarray, dataset: Dataset) -> tuple[int, ...]:
    """Return the classes in a mask, the background left out."""
    found = np.unique(mask)
    return tuple(int(v) - dataset.mask_offset for v in found if v >= dataset.mask_offset and v != dataset.ignore_label)


def _write(
    out: ArtifactWriter,
    dataset: Dataset,
    samples: Sequence[Sample],
    labels: Sequence[tuple[int, ...]],
    arrays: dict[str, np.ndarray],
) -> None:
    table = SampleTable.of([s.id for s in samples], [s.split for s in samples], labels, dataset.classes)
    for name, values in {**table.to_arrays(), **arrays}.items():
        out.write(name, values)
    out.write("mask_classes", np.array(dataset.mask_classes))
    if dataset.palette is not None:
        out.write("palette", dataset.palette)


def summarize(artifact: Artifact, job: Job) -> None:
    """Say how many masks there are, and list what could not be read."""
    known, problems = artifact["known"], artifact["problem"]
    bad = np.flatnonzero(problems != "")
    job.console.fields(
        job.step.label,
        {
            "masks": int(known.sum()),
            "images without": int((~known).sum()),
            "classes": len(artifact["mask_classes"]),
            "output": str(job.output),
        },
    )
    if len(bad):
        ids = artifact["id"]
        job.console.table("masks that cannot be read", ("id", "reason"), [(ids[r], problems[r]) for r in bad[:50]])
        job.console.warn(f"{len(bad)} of {len(known)} masks could not be read; nothing is learned from them")
