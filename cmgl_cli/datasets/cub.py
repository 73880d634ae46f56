"""Caltech-UCSD Birds-200-2011 (Wah et al., 2011)."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cmgl_cli.datasets.files import FileDataset, checked_name, list_files, read_pairs
from cmgl_cli.datasets.images import load_mask
from cmgl_cli.datasets.records import Sample
from cmgl_cli.errors import InputError

_AGREED = 127
"""Segmentations are grey by how many of five people marked a pixel; the bird is where a majority did."""


class Cub200(FileDataset):
    """Photographs of 200 species, the published train / test split.

    Masks exist where the separate archive of segmentations lies beside or inside the folder: 0 is the
    background, ``1 + label`` the bird.

    Parameters
    ----------
    home : Path
        The folder ``CUB_200_2011``.
    """

    name = "cub200"
    known_splits = ("train", "test")
    mask_offset = 1

    def __init__(self, home: Path):
        super().__init__(home)
        self._class_ids = dict(read_pairs(home / "classes.txt"))
        self.classes = tuple(name.partition(".")[2].replace("_", " ") or name for name in self._class_ids.values())

    def _list(self) -> Iterable[Sample]:
        labels = self._table("image_class_labels.txt")
        training = self._table("train_test_split.txt")
        sizes = list_files(self.home / "images")
        masks = self._segmentations()
        index = {key: number for number, key in enumerate(self._class_ids)}
        for key, name in read_pairs(self.home / "images.txt"):
            checked_name(name, self.home / "images.txt")
            if labels.get(key) not in index or training.get(key) not in ("0", "1"):
                raise InputError(
                    "an image of cub200 has no class or no split",
                    f"image {key} ({name}): class {labels.get(key)}, is training image {training.get(key)}",
                    "get the lists again from the page of the dataset",
                )
            split = "train" if training[key] == "1" else "test"
            mask = masks.get(name.rpartition(".")[0])
            sample = Sample(f"{split}/{name}", split, (index[labels[key]],), size=sizes.get(name))
            yield self._remember(sample, self.home / "images" / name, mask)

    def _table(self, name: str) -> dict[str, str]:
        return dict(read_pairs(self.home / name))

    def _segmentations(self) -> dict[str, Path]:
        for folder in (self.home / "segmentations", self.home.parent / "segmentations"):
            if folder.is_dir():
                return {path.rpartition(".")[0]: folder / path for path in list_files(folder)}
        return {}

    def _decode_mask(self, path: Path, sample: Sample) -> np.ndarray:
        """Return the agreed part of a grey segmentation as the sample's class."""
        return ((load_mask(path, grey=True) > _AGREED) * (1 + sample.labels[0])).astype(np.uint8)
