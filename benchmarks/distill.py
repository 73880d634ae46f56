"""Training from a feature file that is larger than memory: whether the reader is the bottleneck.

    python benchmarks/distill.py [--gigabytes 3] [--folder TMP] [--nodes 32] [--threads 1]

Writes a feature file of random float16 patches (196 x 768 a sample, ViT-B/16 at 224 px) into a temporary
folder, and measures in one run, with the page cache dropped before every pass and then with it warm:

* read: the file from end to end, chunk-aligned, nothing else;
* reader: the shuffled batches, nothing done with them;
* training: one epoch of proxy training fed by the reader, never holding more than two windows;
* ceiling: the same training steps on batches that are already in memory.

The reader is not the bottleneck where training reaches its ceiling. CPU milliseconds an image, over all threads,
tell the same on a machine that is busy with other things. Peak memory is that of the process.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from cmgl_cli.nodes.distillation import Distiller
from cmgl_cli.nodes.proxies import ImageProxy
from cmgl_cli.nodes.reader import BlockShuffledReader, ReaderPlan
from cmgl_cli.nodes.training import ProxyData, TrainingSettings, train_proxy

N_PATCHES, WIDTH, N_CLASSES, CHUNK_ROWS = 196, 768, 20, 3
BATCH, CEILING_ROWS = 64, 1024


def write_features(path: Path, n_rows: int) -> None:
    block = np.random.default_rng(0).standard_normal((96, N_PATCHES, WIDTH), dtype=np.float32).astype(np.float16)
    with h5py.File(path, "w") as file:
        shape, chunks = (n_rows, N_PATCHES, WIDTH), (CHUNK_ROWS, N_PATCHES, WIDTH)
        data = file.create_dataset("patches", shape, np.float16, chunks=chunks)
        for start in range(0, n_rows, len(block)):
            stop = min(start + len(block), n_rows)
            data[start:stop] = np.roll(block, start, axis=2)[: stop - start]
        file.flush()
        os.fsync(file.id.get_vfd_handle())


def drop_cache(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def seconds(work: Callable[[], object]) -> np.ndarray:
    start = clocks()
    work()
    return clocks() - start


def read_all(data: h5py.Dataset) -> None:
    for start in range(0, len(data), 96):
        data[start : start + 96]


def read_batches(reader: BlockShuffledReader) -> None:
    for _ in reader.epoch(0):
        pass


def epoch_seconds(
    reader: BlockShuffledReader, few: BlockShuffledReader, n_nodes: int, before_second: Callable[[], object]
) -> list[np.ndarray]:
    """Train three epochs; return the times of the second, before which something is done, and of the third."""
    ends: list[np.ndarray] = []

    def mark(_: dict[str, np.ndarray]) -> None:
        if not ends:
            before_second()
        ends.append(clocks())

    labels = np.arange(reader.rows[-1] + 1) % N_CLASSES
    data, settings = ProxyData(reader, few, labels), TrainingSettings(epochs=3)
    train_proxy(Distiller(WIDTH, n_nodes, 64), ImageProxy(N_CLASSES, n_nodes), data, settings, on_epoch=mark)
    return [ends[1] - ends[0], ends[2] - ends[1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--nodes", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    n_rows = int(options.gigabytes * 1e9 / (N_PATCHES * WIDTH * 2))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "features.h5"
        write_features(path, n_rows)
        with h5py.File(path) as file:
            report(path, file["patches"], options.nodes)


def report(path: Path, data: h5py.Dataset, n_nodes: int) -> None:
    n_rows, row_gigabytes = len(data), data[0].nbytes / 1e9
    plan = ReaderPlan(memory_bytes=0)
    reader = BlockShuffledReader(data, batch_size=BATCH, plan=plan)
    few = BlockShuffledReader(data, np.arange(BATCH), batch_size=BATCH, shuffle=False)
    print(f"{n_rows} samples of {N_PATCHES} x {WIDTH} float16, {n_rows * row_gigabytes:.2f} GB, p = {n_nodes}")
    times: dict[str, list[np.ndarray]] = {}
    for name, work in (("read", lambda: read_all(data)), ("reader", lambda: read_batches(reader))):
        drop_cache(path)
        times[name] = [seconds(work) / n_rows for _ in ("cold", "warm")]
    times["training"] = [t / n_rows for t in epoch_seconds(reader, few, n_nodes, lambda: drop_cache(path))]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    resident = BlockShuffledReader(data[:CEILING_ROWS], batch_size=BATCH)
    times["ceiling"] = [t / CEILING_ROWS for t in epoch_seconds(resident, few, n_nodes, lambda: None)]
    print(f"{'':10}" + "".join(f"{c + ': images/s':>18}{'GB/s':>8}{'CPU ms/image':>14}" for c in ("cold", "warm")))
    for name, pair in times.items():
        cells = (f"{1 / wall:18.0f}{row_gigabytes / wall:8.2f}{1e3 * cpu:14.2f}" for wall, cpu in pair)
        print(f"{name:10}" + "".join(cells))
    cold, warm = (best[0] / ours[0] for ours, best in zip(times["training"], times["ceiling"], strict=True))
    print(f"training / ceiling (batches in memory), images/s: cold {cold:.2f}, warm {warm:.2f}")
    print(f"training / read, bytes/s: cold {times['read'][0][0] / times['training'][0][0]:.2f}")
    print(f"peak memory {peak:.2f} GB, of which two windows {2 * plan.window_rows * reader.row_bytes / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
