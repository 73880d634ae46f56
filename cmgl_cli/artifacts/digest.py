"""The content digest: sha256 over names, dtypes, shapes and bytes of every data set, in order of name.

It says nothing of chunking, compression, attributes or of the order in which data sets were created, so a
resumed, a merged and an uninterrupted file with equal numbers have equal digests.
"""

import hashlib
from typing import Any

import h5py
import numpy as np

from cmgl_cli.artifacts.safety import text_blocks

BLOCK_BYTES = 16 * 2**20
PRIVATE = "_"


def public_datasets(file: h5py.File) -> list[h5py.Dataset]:
    """Return every data set in order of name, except bookkeeping (names that start with an underscore)."""
    found: list[h5py.Dataset] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith(PRIVATE):
            found.append(item)

    file.visititems(visit)
    return sorted(found, key=lambda dataset: dataset.name)


def content_digest(file: h5py.File) -> str:
    """Return ``sha256:<hex>`` of the public data sets of an open file, reading it in blocks of 16 MiB."""
    total = hashlib.sha256()
    for dataset in public_datasets(file):
        header = f"{dataset.name}\0{_dtype_name(dataset)}\0{dataset.shape}\0"
        total.update(header.encode())
        if h5py.check_string_dtype(dataset.dtype):
            for texts in text_blocks(dataset):
                total.update(b"".join(len(text).to_bytes(8, "little") + text for text in texts))
            continue
        for start, stop in row_blocks(dataset, BLOCK_BYTES):
            total.update(_bytes(dataset, start, stop))
    return "sha256:" + total.hexdigest()


def row_blocks(dataset: h5py.Dataset, block_bytes: int) -> list[tuple[int, int]]:
    """Cut the first axis into blocks of about `block_bytes`; a scalar is one block."""
    if dataset.shape == ():
        return [(0, 1)]
    rows = dataset.shape[0]
    row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64)))
    step = max(1, block_bytes // row_bytes)
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def _dtype_name(dataset: h5py.Dataset) -> str:
    return "str" if h5py.check_string_dtype(dataset.dtype) else dataset.dtype.newbyteorder("<").str


def _bytes(dataset: h5py.Dataset, start: int, stop: int) -> memoryview:
    values = dataset[()] if dataset.shape == () else dataset[start:stop]
    little = np.ascontiguousarray(values).astype(dataset.dtype.newbyteorder("<"), copy=False)
    return np.atleast_1d(little).view(np.uint8).data
