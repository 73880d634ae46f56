"""What an HDF5 file from anywhere may not do: lead out of itself, hold anything but plain data, or exhaust memory.

Checked from the file's structure, before a value is read: links, storage, types, filters, and how much a data set
claims beside what it stores. HDF5 reads other files for whoever opens an external link, raw storage elsewhere or a
virtual data set, and loads libraries for filters that it does not know.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from cmgl_cli.artifacts.heaps import broken_heap
from cmgl_cli.errors import CmglError, InputError, is_plain
from cmgl_cli.limits import SLACK_BYTES, bounded_memory, impossible, too_large

# what is read at once: one chunk, one row; cmgl writes chunks of about 1 MiB
LARGEST_CHUNK, LARGEST_ROW = 2**28, 2**30
MOST_OBJECTS, DEEPEST = 100_000, 8
# what reading the structure of a file, or some of its texts, may take
STRUCTURE_BYTES = 2**30
# by HDF5's numbers: gzip, shuffle, fletcher32; and of files that others wrote, szip, nbit, scale-offset, lzf
OWN_FILTERS = frozenset({1, 2, 3})
PLAIN_FILTERS = OWN_FILTERS | {4, 5, 6, 32000}
# what others wrote may have dimensions without values, which are never stored
PLAIN_SLACK = 2**26
TEXT_ROWS = 256
UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


def open_hdf5(path: Path, mode: str) -> h5py.File:
    """Open a file that may be damaged ("r" without a lock, or "r+"): HDF5 reads the root's structure already here.

    Raises
    ------
    OSError
        HDF5 cannot open it, or would not come to an end.
    """
    if damage := broken_heap(path):
        raise OSError(damage)
    with bounded_memory(STRUCTURE_BYTES):
        # locking=False: readers of a published file never wait, and read-only folders work
        return h5py.File(path, mode, locking=False if mode == "r" else None)


@dataclass
class Inspection:
    """A walk over one open file.

    Attributes
    ----------
    path : Path
        For messages.
    filters : frozenset of int
        Filters that are read.
    slack : int
        Bytes that a data set may claim without storing them.
    found : dict
        Data set by name.
    """

    path: Path
    filters: frozenset[int] = OWN_FILTERS
    slack: int = SLACK_BYTES
    found: dict[str, h5py.Dataset] = field(default_factory=dict)
    _seen: dict[tuple, str] = field(default_factory=dict)
    _size: int = 0

    def walk(self, file: h5py.File) -> dict[str, h5py.Dataset]:
        """Return every data set by name.

        Raises
        ------
        InputError
            At the first thing that is refused, naming it; or where the structure cannot be read.
        """
        try:
            self._size = os.path.getsize(self.path)
            with bounded_memory(STRUCTURE_BYTES):
                self._group(file, "")
        except CmglError:
            raise
        except UNREADABLE as error:
            raise unreadable(self.path, printable(str(error) or type(error).__name__)) from error
        return self.found

    def _group(self, group: h5py.Group, prefix: str) -> None:
        self._once(group, prefix or "/")
        for key in group:
            name = prefix + key
            if not is_plain(name):
                raise unsafe(self.path, f"{printable(name)} is no plain name")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise unsafe(self.path, f"{name} is a link")
            if name.count("/") > DEEPEST or len(self._seen) > MOST_OBJECTS:
                raise unsafe(self.path, f"{name[:80]} is nested too deeply, or there are too many names")
            item = group[key]
            if isinstance(item, h5py.Group):
                self._group(item, name + "/")
            elif isinstance(item, h5py.Dataset):
                self._once(item, name)
                self._dataset(name, item)
            else:
                raise unsafe(self.path, f"{name} is neither a group nor a data set")

    def _once(self, item: h5py.Group | h5py.Dataset, name: str) -> None:
        """Refuse what has two names: groups that hold themselves, and data that only seem to be many."""
        about = h5py.h5o.get_info(item.id)
        first = self._seen.setdefault((about.fileno, about.addr), name)
        if first != name:
            raise unsafe(self.path, f"{name} is a second name of {first}")

    def _dataset(self, name: str, dataset: h5py.Dataset) -> None:
        if dataset.is_virtual or dataset.external:
            raise unsafe(self.path, f"{name} keeps its data in other files")
        text = h5py.check_string_dtype(dataset.dtype)
        if dataset.shape is None or (dataset.dtype.kind not in "biuf" and text is None):
            raise unsafe(self.path, f"{name} holds {dataset.dtype}, not plain numbers or texts")
        self._filters(name, dataset)
        claimed, stored = dataset.nbytes, dataset.id.get_storage_size()
        chunk = int(np.prod(dataset.chunks or (0,), dtype=np.float64)) * dataset.dtype.itemsize
        row = claimed // max(1, dataset.shape[0]) if dataset.shape else claimed
        if chunk > LARGEST_CHUNK:
            raise unsafe(self.path, f"{name} has chunks of {chunk} bytes")
        stored = min(stored, self._size)
        trap = impossible(claimed, stored, self.slack)
        if trap:
            raise unsafe(self.path, f"{name} {trap}")
        if row > LARGEST_ROW:
            raise unsafe(self.path, f"{name} has rows of {row} bytes")
        self.found[name] = dataset

    def _filters(self, name: str, dataset: h5py.Dataset) -> None:
        plist = dataset.id.get_create_plist()
        for index in range(plist.get_nfilters()):
            number, _, _, called = plist.get_filter(index)
            if number not in self.filters:
                label = called.decode("ascii", "replace") or "unknown"
                raise unsafe(self.path, f"{name} is packed with filter {number} ({printable(label)})")


def read_values(path: Path, name: str, dataset: h5py.Dataset) -> np.ndarray:
    """Read one whole data set that `Inspection` let pass; texts come as an array of `str`.

    Raises
    ------
    InputError
        It cannot be read, or would fill the memory.
    """
    reason = too_large(dataset.nbytes, dataset.id.get_storage_size())
    if reason:
        raise unsafe(path, f"{name} {reason}")
    try:
        if not h5py.check_string_dtype(dataset.dtype):
            return np.asarray(dataset[()])
        texts = [text.decode("utf-8") for block in text_blocks(dataset) for text in block]
        return np.array(texts, dtype=object).reshape(dataset.shape)
    except UNREADABLE as error:
        raise unreadable(path, f"data set {name!r}: {printable(str(error))}") from error


def text_blocks(dataset: h5py.Dataset) -> Iterator[list[bytes]]:
    """Yield the texts of a data set, some rows at a time, in order.

    Raises
    ------
    ValueError
        Together they are longer than the file: many rows point to one long text.
    """
    limit = os.path.getsize(dataset.file.filename) if dataset.dtype.kind == "O" else np.inf
    total = 0
    for start in range(0, dataset.shape[0] if dataset.shape else 1, TEXT_ROWS):
        # a text says itself how long it is, and HDF5 takes the memory before it looks
        with bounded_memory(STRUCTURE_BYTES):
            values = dataset[start : start + TEXT_ROWS] if dataset.shape else dataset[()]
        block = np.atleast_1d(values).ravel().tolist()
        total += sum(map(len, block))
        if total > limit:
            raise ValueError("its texts are longer than the file that holds them")
        yield block


def unsafe(path: Path, reason: str) -> InputError:
    """Return the error of a file that is refused."""
    return InputError(
        "the file holds what no artifact does, and is refused unread",
        f"{path}: {reason}",
        "make it again with cmgl, or save plain arrays of numbers and texts",
    )


def unreadable(path: Path, reason: str) -> InputError:
    """Return the error of a file that HDF5 cannot read."""
    return InputError(
        "the file cannot be read: not HDF5, truncated, or damaged",
        f"{path}: {reason}",
        "make it again with the stage that writes it, or fetch it again",
    )


def printable(text: str) -> str:
    """Return a text without control characters and halves of characters, which terminals and JSON stumble over."""
    return "".join(c if is_plain(c) else "?" for c in text)[:300]
