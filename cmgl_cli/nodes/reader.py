"""Shuffled batches from a feature file that does not fit into memory.

Rows are read in contiguous blocks; the order of the blocks is shuffled, a window of several blocks is held
at a time and shuffled row by row, and the next window is read by a background thread meanwhile. At most two
windows are in memory. The order is a function of the row numbers, the seed, the epoch and the plan's block
and window sizes only, never of whether the rows happened to fit into memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle, zip_longest
from typing import Any, cast

import numpy as np

from cmgl_cli.errors import InputError, UsageError


@dataclass(frozen=True)
class ReaderPlan:
    """How much is read at once.

    Attributes
    ----------
    block_rows : int
        Rows of one contiguous read. A multiple of the file's chunk rows avoids touching a chunk twice.
    window_rows : int
        Rows shuffled together, rounded down to whole blocks (at least one); two windows are in memory at a time.
    memory_bytes : int
        All rows are kept in memory after the first epoch where they take no more than this.
    max_gap : int
        Unwanted rows read along, rather than starting another read, between two wanted ones.
    """

    block_rows: int = 32
    window_rows: int = 2048
    memory_bytes: int = 2 << 30
    max_gap: int = 1

    def __post_init__(self) -> None:
        if self.block_rows < 1 or self.window_rows < 1:
            raise UsageError(
                "blocks and windows hold at least one row",
                f"block_rows = {self.block_rows}, window_rows = {self.window_rows}",
                "give positive sizes",
            )


@dataclass(frozen=True)
class Batch:
    """Rows of the source, in the order of the epoch.

    Attributes
    ----------
    indices : ndarray of int64, [B]
        Row numbers in the source.
    patches : ndarray, [B, ...]
        Those rows, in the type of the source.
    aligned : dict of str to ndarray, [B, ...]
        The same rows of every aligned source.
    """

    indices: np.ndarray
    patches: np.ndarray
    aligned: dict[str, np.ndarray] = field(default_factory=dict)


class BlockShuffledReader:
    """Batches of chosen rows of a row-sliceable source, each row once an epoch.

    Parameters
    ----------
    source : array-like with ``shape``, ``dtype`` and ``source[start:stop]``
        Patches [N, N_p, d]: an array, a memory map, an open HDF5 dataset.
    indices : ndarray of int, [n], optional
        The rows to read; all of them by default.
    batch_size : int
        Rows a batch; only the last batch of an epoch is smaller.
    seed : int
        Together with the epoch's number decides the order.
    shuffle : bool
        False reads in ascending order.
    aligned : mapping of str to array-like, optional
        Further sources with the same rows (validity masks, label maps), delivered with the patches.
    plan : ReaderPlan
        Block and window sizes and the memory budget.

    Raises
    ------
    InputError
        Row numbers that repeat or lie outside the source, or an aligned source of another length.
    """

    def __init__(
        self,
        source: Any,
        indices: np.ndarray | Sequence[int] | None = None,
        *,
        batch_size: int = 64,
        seed: int = 0,
        shuffle: bool = True,
        aligned: Mapping[str, Any] | None = None,
        plan: ReaderPlan = ReaderPlan(),  # noqa: B008 (frozen)
    ):
        self._sources = {"patches": source, **(aligned or {})}
        self.rows = _checked_rows(self._sources, indices)
        if batch_size < 1:
            raise UsageError("a batch holds at least one sample", f"batch_size = {batch_size}", "give a positive size")
        self.batch_size, self.seed, self.shuffle, self.plan = batch_size, seed, shuffle, plan
        starts = np.unique(self.rows // plan.block_rows, return_index=True)[1]
        self._blocks = np.split(np.arange(len(self.rows)), starts[1:])
        self._cache: dict[str, np.ndarray] | None = None

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self.rows) // self.batch_size)

    @property
    def n_bytes(self) -> int:
        """Bytes of all wanted rows together."""
        return len(self.rows) * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """Bytes of one row over all sources."""
        return sum(
            int(np.prod(s.shape[1:], dtype=np.int64)) * np.dtype(s.dtype).itemsize for s in self._sources.values()
        )

    def epoch(self, number: int = 0) -> Iterator[Batch]:
        """Yield the batches of epoch `number`."""
        windows = self._windows(number)
        if self.n_bytes <= self.plan.memory_bytes:
            if self._cache is None:
                self._cache = self._read(np.arange(len(self.rows)), self._buffers(len(self.rows)))
            yield from self._cached_batches(np.concatenate(windows), self._cache)
        else:
            yield from self._streamed_batches(windows)

    def _windows(self, number: int) -> list[np.ndarray]:
        """Positions into `rows`, window by window, in the order of the epoch."""
        generator = np.random.default_rng([self.seed, number])
        n_blocks = len(self._blocks)
        order = generator.permutation(n_blocks) if self.shuffle else np.arange(n_blocks)
        per_window = max(1, self.plan.window_rows // self.plan.block_rows)
        windows = []
        for start in range(0, n_blocks, per_window):
            window = np.concatenate([self._blocks[block] for block in order[start : start + per_window]])
            windows.append(generator.permutation(window) if self.shuffle else window)
        return windows

    def _cached_batches(self, order: np.ndarray, cache: dict[str, np.ndarray]) -> Iterator[Batch]:
        for start in range(0, len(order), self.batch_size):
            positions = order[start : start + self.batch_size]
            yield self._batch(positions, {name: array[positions] for name, array in cache.items()})

    def _streamed_batches(self, windows: list[np.ndarray]) -> Iterator[Batch]:
        carried: tuple[np.ndarray, dict[str, np.ndarray]] | None = None
        for order, arrays, ranks in self._prefetched(windows):
            start = 0
            if carried is not None:
                start = min(self.batch_size - len(carried[0]), len(order))
                head = {name: array[ranks[:start]] for name, array in arrays.items()}
                carried = _joined(carried, (order[:start], head))
                if len(carried[0]) == self.batch_size:
                    yield self._batch(*carried)
                    carried = None
            full = start + (len(order) - start) // self.batch_size * self.batch_size
            for first in range(start, full, self.batch_size):
                chosen = slice(first, first + self.batch_size)
                yield self._batch(order[chosen], {name: array[ranks[chosen]] for name, array in arrays.items()})
            if full < len(order):
                carried = (order[full:], {name: array[ranks[full:]] for name, array in arrays.items()})
        if carried is not None:
            yield self._batch(*carried)

    def _prefetched(self, windows: list[np.ndarray]) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]]:
        """Yield each window's order, its rows in ascending order, and the order's ranks among them.

        The rows lie in one of two buffers, which is filled again after the next window has been asked for.
        """
        largest = max(map(len, windows))
        buffers = cycle([self._buffers(largest), self._buffers(largest)])
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="feature-reader") as pool:
            pending: Future[dict[str, np.ndarray]] | None = pool.submit(self._read, np.sort(windows[0]), next(buffers))
            for order, following in zip_longest(windows, windows[1:]):
                arrays = cast(Future[dict[str, np.ndarray]], pending).result()
                if following is not None:
                    pending = pool.submit(self._read, np.sort(following), next(buffers))
                yield order, arrays, np.argsort(np.argsort(order))

    def _buffers(self, n_rows: int) -> dict[str, np.ndarray]:
        return {name: np.empty((n_rows, *s.shape[1:]), dtype=s.dtype) for name, s in self._sources.items()}

    def _read(self, positions: np.ndarray, buffers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Read ascending positions of `rows` into the first rows of the buffers, a block at most at a time."""
        rows = self.rows[positions]
        new_run = (np.diff(rows) > 1 + self.plan.max_gap) | (np.diff(rows // self.plan.block_rows) > 0)
        bounds = [0, *(np.flatnonzero(new_run) + 1), len(rows)]
        for name, source in self._sources.items():
            for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
                first, last = int(rows[start]), int(rows[stop - 1])
                block = source[first : last + 1]
                dense = stop - start == last + 1 - first
                buffers[name][start:stop] = block if dense else block[rows[start:stop] - first]
        return {name: buffer[: len(rows)] for name, buffer in buffers.items()}

    def _batch(self, positions: np.ndarray, arrays: dict[str, np.ndarray]) -> Batch:
        aligned = {name: array for name, array in arrays.items() if name != "patches"}
        return Batch(self.rows[positions], arrays["patches"], aligned)


def _joined(
    first: tuple[np.ndarray, dict[str, np.ndarray]], second: tuple[np.ndarray, dict[str, np.ndarray]]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    arrays = {name: np.concatenate([array, second[1][name]]) for name, array in first[1].items()}
    return np.concatenate([first[0], second[0]]), arrays


def _checked_rows(sources: Mapping[str, Any], indices: np.ndarray | Sequence[int] | None) -> np.ndarray:
    n_rows = int(sources["patches"].shape[0])
    for name, source in sources.items():
        if int(source.shape[0]) != n_rows:
            raise InputError(
                "two sources that belong together differ in length",
                f"{name} has {source.shape[0]} rows, patches have {n_rows}",
                "extract the features again",
            )
    rows = np.arange(n_rows) if indices is None else np.sort(np.asarray(indices, dtype=np.int64))
    if len(rows) == 0:
        raise InputError("there is nothing to read", "an empty set of rows", "check the split and its labels")
    if rows[0] < 0 or rows[-1] >= n_rows:
        raise InputError(
            "a row lies outside the features", f"rows {rows[0]} to {rows[-1]} of {n_rows}", "give rows of this file"
        )
    if np.any(np.diff(rows) == 0):
        repeated = int(rows[1:][np.diff(rows) == 0][0])
        raise InputError("a row is listed twice", f"row {repeated}", "give every row once")
    return rows
