"""CIFAR-10 and CIFAR-100 in their Python batches (Krizhevsky, 2009)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cmgl_cli.datasets.arrays import ArrayDataset
from cmgl_cli.datasets.records import Sample
from cmgl_cli.datasets.unpickle import read_pickle
from cmgl_cli.errors import InputError

_SIDE = 32


class _Cifar(ArrayDataset):
    """The batches of either set; rows are 3 x 32 x 32 pixels, channels first."""

    known_splits = ("train", "test")
    _meta: str
    _names_key: str
    _labels_key: str
    _batches: tuple[tuple[str, str], ...]

    def __init__(self, home: Path):
        super().__init__()
        self.home = home
        names = read_pickle(home / self._meta).get(self._names_key)
        if not isinstance(names, list) or not names or not all(isinstance(name, bytes | str) for name in names):
            raise self._damaged(home / self._meta, f"no list {self._names_key}")
        self.classes = tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names)

    def _list(self) -> Iterable[Sample]:
        counts: dict[str, int] = {}
        for split, file in self._batches:
            pixels, labels = self._read_batch(self.home / file)
            for row, label in zip(pixels, labels, strict=True):
                number = counts[split] = counts.get(split, -1) + 1
                yield self._hold(Sample(f"{split}/{number:05d}", split, (label,)), row)

    def _read_batch(self, path: Path) -> tuple[np.ndarray, list[int]]:
        """Return pixels, uint8 [N, 32, 32, 3], and labels of one file."""
        batch = read_pickle(path)
        rows, labels = batch.get("data"), self._labels(path, batch.get(self._labels_key))
        expected = (len(labels), 3 * _SIDE * _SIDE)
        if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape != expected:
            found = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
            raise self._damaged(path, f"data is {found}, expected uint8 {expected}")
        return rows.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1), labels

    def _labels(self, path: Path, labels: Any) -> list[int]:
        if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
            raise self._damaged(path, f"no list of integers {self._labels_key!r}")
        if labels and not 0 <= min(labels) <= max(labels) < len(self.classes):
            raise self._damaged(path, f"labels {min(labels)} to {max(labels)} with {len(self.classes)} classes")
        return labels

    def _damaged(self, path: Path, found: str) -> InputError:
        return InputError(f"a batch of {self.name} is damaged", f"{path}: {found}", "get the archive again")


class Cifar10(_Cifar):
    """CIFAR-10: 50,000 train and 10,000 test images of 10 classes.

    Parameters
    ----------
    home : Path
        The folder ``cifar-10-batches-py``.
    """

    name = "cifar10"
    _meta, _names_key, _labels_key = "batches.meta", "label_names", "labels"
    _batches = (*(("train", f"data_batch_{i}") for i in range(1, 6)), ("test", "test_batch"))


class Cifar100(_Cifar):
    """CIFAR-100, fine labels: 50,000 train and 10,000 test images of 100 classes.

    Parameters
    ----------
    home : Path
        The folder ``cifar-100-python``.
    """

    name = "cifar100"
    _meta, _names_key, _labels_key = "meta", "fine_label_names", "fine_labels"
    _batches = (("train", "train"), ("test", "test"))
