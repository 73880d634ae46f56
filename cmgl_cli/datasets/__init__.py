"""Images with labels, captions and masks: the benchmarks, folders of one's own, and the bundled digits.

Files in, records out: this room knows no model. A `Dataset` lists its `Sample` records without opening an
image, and decodes images and masks one at a time on request. Open one by name::

    from cmgl_cli.datasets import open_dataset

    digits = open_dataset("digits")
    for sample in digits.samples("train"):
        image = digits.image(sample)
"""

from cmgl_cli.datasets.images import MAX_PIXELS, load_image, to_rgb
from cmgl_cli.datasets.mask_values import MaskValues
from cmgl_cli.datasets.records import Dataset, Sample
from cmgl_cli.datasets.registry import (
    DATASETS,
    DatasetSpec,
    FoundDataset,
    data_root,
    dataset_spec,
    find_datasets,
    has_masks,
    open_dataset,
)
from cmgl_cli.datasets.sampling import subset
from cmgl_cli.datasets.texts import read_texts

__all__ = [
    "DATASETS",
    "MAX_PIXELS",
    "Dataset",
    "DatasetSpec",
    "FoundDataset",
    "MaskValues",
    "Sample",
    "data_root",
    "dataset_spec",
    "find_datasets",
    "has_masks",
    "load_image",
    "open_dataset",
    "read_texts",
    "subset",
    "to_rgb",
]
