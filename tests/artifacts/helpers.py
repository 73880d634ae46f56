"""A small features artifact, written block by block; run as a script it is the process that tests kill."""

import os
import sys
import time
from pathlib import Path

import numpy as np

from cmgl_cli.artifacts import BlockSpec, Identity, create_artifact

ROWS, BLOCK = 40, 4
IDENTITY = Identity(
    "features",
    1,
    "extract",
    1,
    {"encoder": "none"},
    {"renders": {"file": "r.h5", "digest": "sha256:0"}},
    {"weights": "w"},
)

BLOCKS = BlockSpec(ROWS, BLOCK, {"features": ((6, 5), np.float16)})


def tokens(start: int, stop: int) -> np.ndarray:
    """Return the rows a given block must hold."""
    return np.stack(
        [np.random.default_rng(row).standard_normal((6, 5)).astype(np.float16) for row in range(start, stop)]
    )


def small_arrays() -> dict[str, np.ndarray]:
    """Return every other data set of the schema."""
    return {
        "id": np.array([f"s{i}" for i in range(ROWS)]),
        "split": np.array(["train"] * ROWS),
        "label": np.arange(ROWS) % 2,
        "labels/values": np.arange(ROWS) % 2,
        "labels/offsets": np.arange(ROWS + 1),
        "item": np.arange(ROWS),
        "classes": np.array(["cat", "dög"]),
        "grid": np.tile([2, 3], (ROWS, 1)),
        "valid": np.ones(ROWS, bool),
        "problem": np.array([""] * ROWS),
    }


def write(path: Path, identity: Identity = IDENTITY, pause: float = 0.0, log=lambda text: None) -> int:
    """Write the artifact; return how many blocks this run wrote."""
    with create_artifact(path, identity, log) as out:
        (rows,) = out.declare_blocks(BLOCKS)
        blocks = rows.pending()
        for start, stop in blocks:
            rows.put(start, {"features": tokens(start, stop)})
            time.sleep(pause)
        for name, values in small_arrays().items():
            out.write(name, values)
    return len(blocks)


if __name__ == "__main__":
    if "--limit-file-size" in sys.argv:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (90000, 90000))
    print(os.getpid(), flush=True)
    write(Path(sys.argv[1]), pause=float(sys.argv[2]))
