import tracemalloc

import numpy as np
import pytest

from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.nodes.reader import BlockShuffledReader, ReaderPlan

SMALL = ReaderPlan(block_rows=4, window_rows=12, memory_bytes=0)


class Source:
    """Rows whose content is their number, remembering how they were read."""

    def __init__(self, n_rows=103, width=3):
        self.array = np.repeat(np.arange(n_rows, dtype=np.float32)[:, None], width, axis=1)
        self.shape, self.dtype, self.reads = self.array.shape, self.array.dtype, []

    def __getitem__(self, rows):
        self.reads.append((rows.start, rows.stop))
        return self.array[rows].copy()


def order(reader, epoch=0):
    return np.concatenate([batch.indices for batch in reader.epoch(epoch)])


@pytest.mark.parametrize("memory", [0, 1 << 30])
@pytest.mark.parametrize("batch_size", [1, 5, 7, 12, 13, 40, 200])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_once_an_epoch_with_its_own_content(memory, batch_size, shuffle):
    indices = np.random.default_rng(0).permutation(103)[:71]
    plan = ReaderPlan(4, 12, memory)
    reader = BlockShuffledReader(Source(), indices, batch_size=batch_size, shuffle=shuffle, plan=plan)
    batches = list(reader.epoch(2))
    rows = np.concatenate([batch.indices for batch in batches])
    assert np.array_equal(np.sort(rows), np.sort(indices))
    assert all(np.all(batch.patches == batch.indices[:, None]) for batch in batches)
    assert [len(batch.indices) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert len(batches) == len(reader) and len(batches[-1].indices) > 0
    assert shuffle or np.array_equal(rows, np.sort(indices))


def test_order_depends_on_seed_and_epoch_but_not_on_memory():
    def make(seed, memory=0):
        return BlockShuffledReader(Source(), batch_size=8, seed=seed, plan=ReaderPlan(4, 12, memory))

    assert np.array_equal(order(make(1), 3), order(make(1), 3))
    assert np.array_equal(order(make(1), 3), order(make(1, 1 << 30), 3))
    assert not np.array_equal(order(make(1), 3), order(make(1), 4))
    assert not np.array_equal(order(make(1), 3), order(make(2), 3))


def test_order_does_not_depend_on_earlier_epochs():
    reader = BlockShuffledReader(Source(), batch_size=8, plan=SMALL)
    order(reader, 0)
    assert np.array_equal(order(reader, 5), order(BlockShuffledReader(Source(), batch_size=8, plan=SMALL), 5))


def test_rows_are_mixed_beyond_their_block():
    rows = order(BlockShuffledReader(Source(1000), batch_size=10, plan=ReaderPlan(4, 100, 0)))
    displacement = np.abs(rows - np.arange(1000))
    assert np.median(displacement) > 100
    assert np.mean(np.diff(rows) == 1) < 0.1


def test_reads_are_contiguous_blocks_and_skip_what_nobody_wants():
    source = Source(100)
    wanted = np.array([0, 1, 2, 3, 8, 10, 11, 40, 43, 44])
    list(BlockShuffledReader(source, wanted, shuffle=False, plan=ReaderPlan(4, 12, 0)).epoch())
    assert source.reads == [(0, 4), (8, 12), (40, 41), (43, 44), (44, 45)]


def test_reads_never_cross_a_block_boundary():
    source = Source(100)
    list(BlockShuffledReader(source, plan=SMALL).epoch(1))
    assert sorted(source.reads) == [(start, min(start + 4, 100)) for start in range(0, 100, 4)]


def test_rows_that_fit_are_read_once():
    source = Source(50)
    reader = BlockShuffledReader(source, plan=ReaderPlan(4, 12, 10_000))
    order(reader, 0), order(reader, 1)
    assert len(source.reads) == 13


def test_memory_is_two_windows_whatever_the_size_of_the_file():
    class Endless:
        shape, dtype = (4000, 25_000), np.dtype(np.float16)

        def __getitem__(self, rows):
            return np.zeros((rows.stop - rows.start, 25_000), np.float16)

    plan = ReaderPlan(block_rows=10, window_rows=200, memory_bytes=0)
    window = 200 * 50_000
    tracemalloc.start()
    try:
        for _ in BlockShuffledReader(Endless(), batch_size=16, plan=plan).epoch():
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.4 * window


def test_aligned_sources_come_along():
    source, valid = Source(), Source()
    for batch in BlockShuffledReader(source, batch_size=9, aligned={"valid": valid}, plan=SMALL).epoch():
        assert np.array_equal(batch.aligned["valid"], batch.patches)


def test_an_error_of_the_source_reaches_the_consumer():
    class Broken(Source):
        def __getitem__(self, rows):
            if rows.start >= 40:
                raise OSError("disk gone")
            return super().__getitem__(rows)

    with pytest.raises(OSError, match="disk gone"):
        list(BlockShuffledReader(Broken(), plan=SMALL).epoch())


def test_an_abandoned_epoch_leaves_the_reader_usable():
    reader = BlockShuffledReader(Source(), batch_size=8, plan=SMALL)
    next(iter(reader.epoch(0)))
    assert len(order(reader, 1)) == 103


@pytest.mark.parametrize(
    ("indices", "message"), [([1, 1], "row 1"), ([-1], "-1"), ([103], "103"), ([], "nothing to read")]
)
def test_bad_rows_are_refused(indices, message):
    with pytest.raises(InputError, match=message):
        BlockShuffledReader(Source(), indices)


def test_bad_sizes_are_refused():
    with pytest.raises(UsageError, match="batch_size = 0"):
        BlockShuffledReader(Source(), batch_size=0)
    with pytest.raises(UsageError, match="block_rows = 0"):
        ReaderPlan(block_rows=0)
    with pytest.raises(InputError, match="102"):
        BlockShuffledReader(Source(), aligned={"valid": Source(102)})
