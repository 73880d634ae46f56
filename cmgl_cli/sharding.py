"""Many processes, one feature file: who encodes which rows, and how the parts are joined.

Every process writes its own shard with the same publish and resume as a whole file; the rows of a shard are
contiguous blocks, so the joined file equals the one a single process writes, digest included.
"""

import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmgl_cli.artifacts import Artifact, ArtifactWriter, BlockSpec, Identity, SampleTable, open_artifact, read_header
from cmgl_cli.console import Console
from cmgl_cli.errors import InputError, UsageError

RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
BLOCKWISE = ("features", "grid", "valid", "problem", "mask", "picture")


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 0; a whole file is part 0 of 1."""

    index: int
    count: int

    def rows(self, total: int, block: int) -> tuple[int, int]:
        """Return the (start, stop) rows of this shard: whole blocks, as even as they go."""
        blocks = -(-total // block)
        if self.count > blocks:
            raise UsageError(
                f"{total} images make {blocks} blocks, too few for {self.count} processes",
                f"shard {self.index} of {self.count}",
                f"start at most {blocks} processes",
            )
        first, last = (blocks * i // self.count for i in (self.index, self.index + 1))
        return first * block, min(last * block, total)

    def device(self, wanted: str) -> str:
        """Return the device of this process: one GPU a process where a launcher says which."""
        local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID"))
        return f"cuda:{local}" if wanted == "cuda" and self.count > 1 and local is not None else wanted


def requested_shard(text: str | None, environment: Mapping[str, str] | None = None) -> Shard:
    """Return the shard asked for by ``i/n`` (from 0) or by a launcher's variables.

    Raises
    ------
    UsageError
        Text that is not ``i/n`` with 0 <= i < n.
    """
    environment = os.environ if environment is None else environment
    if text is None:
        for rank, size in RANKS:
            if rank in environment and size in environment:
                text = f"{environment[rank]}/{environment[size]}"
                break
        else:
            return Shard(0, 1)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise UsageError("not a shard", f"{text!r}", "write i/n with i from 0 to n - 1, as in --shard 0/4")
    return Shard(int(match[1]), int(match[2]))


def shard_path(output: Path, shard: Shard) -> Path:
    """Return the file that a shard of `output` is written to."""
    if shard.count == 1:
        return output
    return output.with_name(f"{output.stem}.shard-{shard.index}-of-{shard.count}{output.suffix}")


def shard_of(output: Path, text: str | None) -> Shard:
    """Return the shard that a file written by `shard_path` holds, or the one asked for."""
    match = re.search(r"\.shard-(\d+)-of-(\d+)$", output.stem)
    return Shard(int(match[1]), int(match[2])) if match else requested_shard(text)


def find_shards(output: Path, schema: str) -> list[Path]:
    """Return the complete set of shards of `output`, in order.

    Raises
    ------
    InputError
        None, some missing, sets of different sizes, or shards of different identity.
    """
    pattern = re.compile(re.escape(output.stem) + r"\.shard-(\d+)-of-(\d+)" + re.escape(output.suffix))
    found = {}
    for path in output.parent.glob(f"{output.stem}.shard-*{output.suffix}"):
        match = pattern.fullmatch(path.name)
        if match:
            found[int(match[1]), int(match[2])] = path
    counts = {count for _, count in found}
    if len(counts) != 1:
        raise InputError(
            "there are no shards to join" if not counts else f"there are shards of {len(counts)} different runs",
            f"{output.parent}/{output.stem}.shard-*{output.suffix}",
            "run: cmgl extract --shard i/n for every i" if not counts else "delete the shards that do not belong",
        )
    count = counts.pop()
    missing = [index for index in range(count) if (index, count) not in found]
    if missing:
        raise InputError(
            f"{len(missing)} of {count} shards are not complete",
            f"missing: {', '.join(shard_path(output, Shard(index, count)).name for index in missing[:5])}",
            f"run: cmgl extract --shard {missing[0]}/{count}",
        )
    paths = [found[index, count] for index in range(count)]
    _require_one_identity(paths)
    return paths


def _require_one_identity(paths: list[Path]) -> None:
    first = _without_shard(read_header(paths[0])[0])
    for path in paths[1:]:
        reasons = _without_shard(read_header(path)[0]).differences(first)
        if reasons:
            raise InputError(
                "the shards do not belong together",
                f"{path} and {paths[0]}: {reasons[0]}",
                "encode them again with one command",
            )


def _without_shard(identity: Identity) -> Identity:
    digests = {key: value for key, value in identity.digests.items() if key != "shard"}
    return Identity(
        identity.schema,
        identity.schema_version,
        identity.stage,
        identity.stage_version,
        identity.config,
        identity.inputs,
        digests,
    )


def merged_digests(output: Path, schema: str) -> dict[str, str]:
    """Return the digests the joined file has: those of its shards, without their numbers."""
    return dict(_without_shard(read_header(find_shards(output, schema)[0])[0]).digests)


def merge_shards(output: Path, schema: str, out: ArtifactWriter, block_rows: int, console: Console) -> None:
    """Join the shards of `output`: rows one after the other, tables concatenated."""
    with ExitStack() as stack:
        shards = [stack.enter_context(open_artifact(path, schema)) for path in find_shards(output, schema)]
        tables = [SampleTable.read(shard) for shard in shards]
        rows = sum(len(table) for table in tables)
        blockwise, fields = [name for name in BLOCKWISE if name in shards[0]], {}
        for name in blockwise:
            stream = shards[0].stream(name)
            fields[name] = (stream.shape[1:], stream.dtype)
        (blocks,) = out.declare_blocks(BlockSpec(rows, block_rows, fields))
        starts = np.concatenate([[0], np.cumsum([len(table) for table in tables])])
        with console.progress("joining shards", rows, "rows") as ticker:
            for start, stop in blocks.pending():
                blocks.put(start, _rows(shards, blockwise, starts, start, stop))
                ticker.advance(stop - start)
        for name, values in SampleTable.concatenate(tables).to_arrays().items():
            out.write(name, values)
        out.provenance["shards"] = len(shards)


def _rows(
    shards: list[Artifact], blockwise: list[str], starts: np.ndarray, start: int, stop: int
) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {name: [] for name in blockwise}
    for shard, first, last in zip(shards, starts[:-1], starts[1:], strict=True):
        low, high = max(start, first), min(stop, last)
        if low < high:
            for name in blockwise:
                parts[name].append(shard.stream(name)[int(low - first) : int(high - first)])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}
