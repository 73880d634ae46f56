"""Caltech-256 (Griffin, Holub, Perona, 2007)."""

from collections.abc import Iterable
from pathlib import Path

from cmgl_cli.datasets.files import FileDataset, list_files
from cmgl_cli.datasets.records import Sample
from cmgl_cli.datasets.splits import rank_key
from cmgl_cli.errors import InputError, UsageError

_CLUTTER = "257.clutter"


class Caltech256(FileDataset):
    """Photographs of 256 categories. There is no official split.

    As is usual for this set, each class gives a fixed number of images to train and the rest to test; which
    ones is seeded. The folder ``257.clutter`` is no category and is left out unless asked for.

    Parameters
    ----------
    home : Path
        The folder ``256_ObjectCategories``.
    train_per_class : int
        Training images of each class.
    split_seed : int
        Seed of the choice.
    clutter : bool
        Take the clutter images as class 257.
    """

    name = "caltech256"
    known_splits = ("train", "test")

    def __init__(self, home: Path, *, train_per_class: int = 60, split_seed: int = 0, clutter: bool = False):
        super().__init__(home)
        if train_per_class < 1:
            raise UsageError("training needs images", f"train_per_class = {train_per_class}", "take 1 or more")
        self._train, self._seed = train_per_class, split_seed
        folders = sorted(entry.name for entry in home.iterdir() if entry.is_dir() and entry.name[:3].isdigit())
        self._folders = [name for name in folders if clutter or name != _CLUTTER]
        if not self._folders:
            raise InputError("caltech256 has no categories", str(home), "unpack the archive into this folder")
        self.classes = tuple(name.partition(".")[2].removesuffix("-101").replace("-", " ") for name in self._folders)

    def _list(self) -> Iterable[Sample]:
        for label, folder in enumerate(self._folders):
            files = {path: size for path, size in list_files(self.home / folder).items() if "/" not in path}
            ranked = sorted(files, key=lambda path: rank_key(self._seed, f"{folder}/{path}"))
            training = set(ranked[: self._train])
            for path, size in files.items():
                split = "train" if path in training else "test"
                sample = Sample(f"{split}/{folder}/{path}", split, (label,), size=size)
                yield self._remember(sample, self.home / folder / path)
