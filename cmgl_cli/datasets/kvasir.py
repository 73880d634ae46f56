"""Kvasir-SEG: polyps in colonoscopy images (Jha et al., 2020)."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from cmgl_cli.datasets.files import FileDataset, checked_name, list_files, read_lines
from cmgl_cli.datasets.mask_values import MaskValues
from cmgl_cli.datasets.records import Sample
from cmgl_cli.datasets.splits import assign_splits

_SHARES = {"train": 0.88, "val": 0.12}


class Kvasir(FileDataset):
    """1,000 images with masks of one class.

    The authors' lists ``train.txt`` and ``val.txt`` (880 and 120 images) are used where both lie in the folder;
    otherwise images are divided 88 : 12, seeded. Masks are JPEG, so grey: brighter than 127 is polyp.

    Parameters
    ----------
    home : Path
        The folder ``Kvasir-SEG``.
    split_seed : int
        Seed of the division where there are no lists.
    """

    name = "kvasir"
    task = "segmentation"
    classes = ("polyp",)
    known_splits = ("train", "val")
    mask_offset = 1

    def __init__(self, home: Path, *, split_seed: int = 0):
        super().__init__(home)
        self._seed = split_seed

    @cached_property
    def mask_values(self) -> MaskValues:
        """0 and 255, blurred by JPEG."""
        return MaskValues((0, 255), threshold=127)

    def _list(self) -> Iterable[Sample]:
        sizes = {path.rpartition(".")[0]: (path, size) for path, size in list_files(self.home / "images").items()}
        masks = {path.rpartition(".")[0]: path for path in list_files(self.home / "masks")}
        for name, split in self._splits(sizes).items():
            path, size = sizes.get(name, (f"{name}.jpg", None))
            sample = Sample(f"{split}/{name}", split, (0,), size=size)
            mask = self.home / "masks" / masks[name] if name in masks else None
            yield self._remember(sample, self.home / "images" / path, mask)

    def _splits(self, names: Iterable[str]) -> dict[str, str]:
        lists = {split: self.home / f"{split}.txt" for split in _SHARES}
        if not all(path.is_file() for path in lists.values()):
            return dict(sorted(assign_splits(dict.fromkeys(names, "polyp"), _SHARES, self._seed).items()))
        return {
            checked_name(line, path).removesuffix(".jpg"): split
            for split, path in lists.items()
            for line in read_lines(path)
        }
