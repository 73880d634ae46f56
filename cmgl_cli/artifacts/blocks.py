"""Data sets that are written block by block, with a bitmap of what is done.

All structure is laid out before the first block, so that writing one touches raw bytes only: a kill cannot tear it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cmgl_cli.artifacts.disk import disk_errors

CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class BlockSpec:
    """Data sets with a common first axis that are written block by block.

    Attributes
    ----------
    rows : int
        Length of the first axis.
    block_rows : int
        Rows a block: what a kill can cost.
    fields : mapping
        Name to (shape of one row, dtype).
    """

    rows: int
    block_rows: int
    fields: Mapping[str, tuple[tuple[int, ...], Any]]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.rows // self.block_rows)

    @property
    def nbytes(self) -> int:
        """Bytes of all data sets together."""
        row = sum(
            int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize for shape, dtype in self.fields.values()
        )
        return self.rows * row


class BlockSet:
    """The block-wise data sets of an unfinished artifact, with the bitmap of what is done."""

    def __init__(self, file: h5py.File, output: Path, spec: BlockSpec, progress: str):
        self._file, self._output, self._rows = file, output, spec.rows
        self._progress = file[progress]
        # a resumed file keeps the block length it started with
        self.block_rows = int(self._progress.attrs["block_rows"])
        self._datasets = {name: file[name] for name in spec.fields}

    def pending(self) -> list[tuple[int, int]]:
        """Return the (start, stop) rows of every block that is not written yet."""
        done, step = self._progress[()], self.block_rows
        return [(i * step, min((i + 1) * step, self._rows)) for i in range(len(done)) if not done[i]]

    @staticmethod
    def fits(file: h5py.File, spec: BlockSpec, progress: str) -> bool:
        """Return whether an unfinished file is laid out as a spec says."""
        fields = {name: ((spec.rows, *shape), np.dtype(dtype)) for name, (shape, dtype) in spec.fields.items()}
        found = {name: (file[name].shape, file[name].dtype) for name in fields if name in file}
        bitmap = file.get(progress)
        step = int(bitmap.attrs.get("block_rows", 0)) if bitmap is not None else 0
        return found == fields and step > 0 and len(bitmap) == -(-spec.rows // step)

    def put(self, start: int, values: Mapping[str, np.ndarray]) -> None:
        """Write the block that starts at row `start`, and mark it done once its bytes are out."""
        with disk_errors(self._output):
            for name, rows in values.items():
                dataset = self._datasets[name]
                # HDF5 converts no text between encodings, so the rows must name theirs
                dataset[start : start + len(rows)] = rows.astype(dataset.dtype) if rows.dtype.kind == "S" else rows
            self._file.flush()
            self._progress[start // self.block_rows] = 1
            self._file.flush()

    def __getitem__(self, name: str) -> h5py.Dataset:
        """Return a handle on what has been written of one data set."""
        return self._datasets[name]


def done_blocks(bitmaps: h5py.Group) -> tuple[int, int]:
    """Return how many blocks of an unfinished file are done, and how many there are."""
    bitmaps = [dataset[()] for dataset in bitmaps.values()]
    return sum(int(done.sum()) for done in bitmaps), sum(len(done) for done in bitmaps)


def allocated(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype) -> h5py.Dataset:
    """Create a chunked data set whose chunk index is complete from the start."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(chunk_shape(shape, dtype))
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    # left to itself, h5py calls fixed-length text ASCII, and then cannot read what is not
    stored = h5py.string_dtype("utf-8", dtype.itemsize) if dtype.kind == "S" else dtype
    link = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    link.set_create_intermediate_group(True)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(stored, logical=True), space, dcpl=plist, lcpl=link)
    return file[name]


def chunk_shape(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """Return chunks of about 1 MiB along the first axis."""
    row = max(1, dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64)))
    return (max(1, min(shape[0], CHUNK_BYTES // row)), *(max(1, n) for n in shape[1:]))
