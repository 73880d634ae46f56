"""Which images a stage is about: the dataset or folder that was named, and what splits and limit leave of it."""

from itertools import chain

from cmgl_cli.datasets import Dataset, Sample, open_dataset, subset
from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.pipeline import Job
from cmgl_cli.settings import ExtractConfig


def chosen_samples(job: Job) -> tuple[Dataset, tuple[Sample, ...]]:
    """Return the dataset that was named, and its samples that splits and limit leave.

    Raises
    ------
    UsageError
        No dataset and no folder of images was named.
    InputError
        No sample is left.
    """
    config: ExtractConfig = job.config
    dataset = _open(job)
    samples = dataset.samples() if not config.split else tuple(chain(*(dataset.samples(name) for name in config.split)))
    samples = subset(samples, config.limit, config.seed)
    if not samples:
        raise InputError("there are no images to encode", dataset.name, "check --split and --limit")
    return dataset, samples


def _open(job: Job) -> Dataset:
    images = job.options.get("images")
    if images is not None:
        return open_dataset("images", images)
    if not job.run.dataset:
        raise UsageError(
            "no images named", "cmgl extract", "give --dataset NAME (see: cmgl datasets) or --images FOLDER"
        )
    return open_dataset(job.run.dataset, job.run.root, **job.run.dataset_options)
