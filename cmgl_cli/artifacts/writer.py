"""Write an artifact: beside the target, block by block, published in one rename.

A kill at any moment leaves either the old file or the new one under the final name. What was written before the
kill is kept: all structure of a block-wise file (data sets, chunk index, progress bitmap) is laid out and forced
to disk before the first block, so that writing a block touches raw bytes only and cannot tear the structure.
"""

import json
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cmgl_cli import __version__
from cmgl_cli.artifacts.blocks import BlockSet, BlockSpec, allocated, chunk_shape, done_blocks
from cmgl_cli.artifacts.digest import content_digest, public_datasets
from cmgl_cli.artifacts.disk import check_space, disk_errors, fsync_path, publish_bytes, reserve
from cmgl_cli.artifacts.identity import Identity
from cmgl_cli.artifacts.locking import lock_path, output_lock
from cmgl_cli.artifacts.safety import STRUCTURE_BYTES, UNREADABLE, Inspection, open_hdf5, read_values
from cmgl_cli.artifacts.schemas import SCHEMAS
from cmgl_cli.errors import CmglError, InputError, LockedError, OutputError
from cmgl_cli.limits import bounded_memory

GZIP_FROM_ELEMENTS = 4096
PACKED: Mapping[str, Any] = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
PROGRESS = "_progress"
# writers whose files cannot be closed; held for as long as the process lives
_UNCLOSED: list["ArtifactWriter"] = []
VERSIONED = ("numpy", "h5py", "torch", "transformers", "scipy", "numba", "sklearn", "PIL")


def partial_path(output: Path) -> Path:
    """Return the path of the unfinished file of `output`."""
    return output.with_name(output.stem + ".partial" + output.suffix)


def checkpoint_path(output: Path) -> Path:
    """Return the path of the training checkpoint that belongs to the unfinished file of `output`."""
    return output.with_name(output.stem + ".checkpoint.partial" + output.suffix)


def _fresh_checkpoint(output: Path) -> Path:
    path = checkpoint_path(output)
    return path.with_name(path.name + ".partial")


class DamagedUnfinishedError(InputError):
    """An unfinished file that could be opened, but not written on; it is removed, so that the next try starts over."""


class ArtifactWriter:
    """The unfinished artifact. Made by `create_artifact`, which also publishes it.

    Attributes
    ----------
    resumed : bool
        An unfinished file of the same identity was found and is being continued.
    provenance : dict
        Add what a reader may want to know (device, counts); it stays outside the identity.
    """

    def __init__(self, output: Path, identity: Identity, log: Callable[[str], None]):
        self.output, self.identity, self._log = output, identity, log
        self._partial = partial_path(output)
        self._started = time.monotonic()
        self._handles: list[Any] = []
        self.provenance: dict[str, Any] = {}
        self._file, self.resumed = self._open_or_start()
        self._laid_out = self.resumed

    def write(self, name: str, values: Any) -> None:
        """Write one whole data set (again, when a resumed file has it already)."""
        array = np.asarray(values)
        text_bytes = self._text_bytes(name, array) if array.dtype.kind in "OSU" else 0
        reserve(self.output, self._partial, 2 * (array.nbytes + text_bytes))
        with self._writing():
            if name in self._file:
                del self._file[name]
            if array.dtype.kind in "OSU":
                array, dtype = array.astype(object), h5py.string_dtype()
            else:
                dtype = array.dtype
            packed = array.dtype.kind in "iub" and array.size >= GZIP_FROM_ELEMENTS
            layout = {"chunks": chunk_shape(array.shape, array.dtype), **PACKED} if packed else {}
            dataset = self._file.create_dataset(name, array.shape, dtype, **layout)
            self._describe(name, dataset)
            with self._held(dataset):
                if array.size:
                    dataset[...] = array

    def write_group(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Write every array below group `name`."""
        for key, values in arrays.items():
            self.write(f"{name}/{key}", values)

    def append(self, name: str, rows: np.ndarray) -> None:
        """Append rows to a compressed data set; for what is quickly made again, since it is never resumed."""
        reserve(self.output, self._partial, rows.nbytes)
        with self._writing():
            if name not in self._file:
                shape = (0, *rows.shape[1:])
                chunks = chunk_shape((len(rows), *rows.shape[1:]), rows.dtype)
                dataset = self._file.create_dataset(
                    name, shape, rows.dtype, maxshape=(None, *rows.shape[1:]), chunks=chunks, **PACKED
                )
                self._describe(name, dataset)
            dataset = self._file[name]
            with self._held(dataset):
                dataset.resize(len(dataset) + len(rows), axis=0)
                dataset[len(dataset) - len(rows) :] = rows

    def declare_blocks(self, *specs: BlockSpec) -> list["BlockSet"]:
        """Lay out everything that is written block by block, in one call; return one handle a spec."""
        if PROGRESS in self._file and not self._laid_out_as(specs):
            self._log(f"the unfinished {self._partial.name} is laid out otherwise: starting over")
            self._file.close()
            self._file, self.resumed = self._start(), False
        if PROGRESS not in self._file:
            self._lay_out(specs)
        blocks = [BlockSet(self._file, self.output, spec, f"{PROGRESS}/{i}") for i, spec in enumerate(specs)]
        self._handles += blocks
        return blocks

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Explain what HDF5 says: of the disk, or of an unfinished file that a kill tore in the middle of a write."""
        try:
            with disk_errors(self.output):
                yield
        except CmglError:
            raise
        except UNREADABLE as error:
            if not self.resumed:
                raise
            raise DamagedUnfinishedError(
                "the unfinished file is damaged", f"{self._partial}: {error}", "run the same command again"
            ) from error

    @contextmanager
    def _held(self, dataset: h5py.Dataset) -> Iterator[None]:
        """Keep a handle until its bytes are out: HDF5 breaks down over one that it cannot close."""
        self._handles.append(dataset)
        yield
        self._file.flush()
        self._handles.pop()

    def save_checkpoint(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the state of a training, replacing the last one in one step."""
        # made in memory, since HDF5 cannot close a file that a full disk did not take
        with h5py.File(self._partial.name, "w", driver="core", backing_store=False) as file:
            file.attrs["key"] = self.identity.key()
            for name, values in arrays.items():
                file.create_dataset(name, data=values)
            file.flush()
            image = file.id.get_file_image()
        publish_bytes(checkpoint_path(self.output), image)

    def load_checkpoint(self) -> dict[str, np.ndarray] | None:
        """Return the last training state of the same identity, or None."""
        path = checkpoint_path(self.output)
        try:
            with open_hdf5(path, "r") as file:
                if file.attrs["key"] != self.identity.key():
                    return None
                return {name: read_values(path, name, dataset) for name, dataset in Inspection(path).walk(file).items()}
        except UNREADABLE:
            return None

    def publish(self) -> str:
        """Check, digest, force to disk and rename; return the content digest."""
        with self._writing():
            if PROGRESS in self._file:
                del self._file[PROGRESS]
            digest = self._seal()
            self._file.close()
            # HDF5 cuts off what was reserved and not used only when it finds it on opening
            h5py.File(self._partial, "r+").close()
            fsync_path(self._partial)
            os.replace(self._partial, self.output)
            fsync_path(self.output.parent)
        for path in (checkpoint_path(self.output), _fresh_checkpoint(self.output)):
            path.unlink(missing_ok=True)
        return digest

    def abandon(self, error: BaseException) -> None:
        """Close after a failure; keep the unfinished file only when it holds finished blocks."""
        if isinstance(error, OutputError):
            # HDF5 takes the process down when it goes on with a file that the disk did not take
            _UNCLOSED.append(self)
            worth_keeping = self._laid_out
        else:
            damaged = isinstance(error, DamagedUnfinishedError)
            try:
                worth_keeping = not damaged and bool(self._file) and self._has_finished_blocks()
                if self._file:
                    self._file.close()
            except (OSError, RuntimeError):
                worth_keeping = not damaged  # the next run looks at it and starts over if it cannot be read
        if not worth_keeping:
            self._partial.unlink(missing_ok=True)

    def _has_finished_blocks(self) -> bool:
        return PROGRESS in self._file and done_blocks(self._file[PROGRESS])[0] > 0

    def _seal(self) -> str:
        shapes = {dataset.name[1:]: (dataset.shape, dataset.dtype) for dataset in public_datasets(self._file)}
        SCHEMAS[self.identity.schema].check(shapes, str(self.output))
        self._file.flush()
        digest = content_digest(self._file)
        for key in [key for key in self._file.attrs if key.startswith("_")]:
            del self._file.attrs[key]
        header = self.identity.header_digest(digest)
        attributes = {**self.identity.attributes(), "content_digest": digest, "header_digest": header}
        for name, value in attributes.items():
            self._file.attrs[name] = value
        self._file.attrs["provenance"] = json.dumps({**_provenance(self._started), **self.provenance}, default=str)
        return digest

    def _open_or_start(self) -> tuple[h5py.File, bool]:
        with disk_errors(self.output):
            self.output.parent.mkdir(parents=True, exist_ok=True)
            if self._partial.exists():
                file = self._reopen()
                if file is not None:
                    return file, True
        return self._start(), False

    def _start(self) -> h5py.File:
        self._partial.unlink(missing_ok=True)
        try:
            reserve(self.output, self._partial, 0)
        except OutputError:
            self._partial.unlink(missing_ok=True)
            raise
        with disk_errors(self.output):
            file = h5py.File(self._partial, "w")
            file.attrs["_key"] = self.identity.key()
            file.flush()
            return file

    def _reopen(self) -> h5py.File | None:
        try:
            file = open_hdf5(self._partial, "r+")
        except UNREADABLE:
            self._log(f"the unfinished {self._partial.name} cannot be read: starting over")
            return None
        try:
            Inspection(self._partial).walk(file)
            with bounded_memory(STRUCTURE_BYTES):
                key = file.attrs["_key"]
            if key == self.identity.key() and PROGRESS in file:
                done, blocks = done_blocks(file[PROGRESS])
                self._log(f"resuming {self._partial.name}: {done} of {blocks} blocks are done")
                return file
            if key != self.identity.key():
                self._log(f"the unfinished {self._partial.name} was made with other settings: starting over")
        except UNREADABLE:
            self._log(f"the unfinished {self._partial.name} is damaged: starting over")
        file.close()
        return None

    def _lay_out(self, specs: tuple[BlockSpec, ...]) -> None:
        check_space(self.output, sum(spec.nbytes for spec in specs))
        with disk_errors(self.output):
            for spec in specs:
                for name, (shape, dtype) in spec.fields.items():
                    self._describe(name, allocated(self._file, name, (spec.rows, *shape), np.dtype(dtype)))
            self._file.flush()
            # the bitmaps come last: a file without them is started over
            for index, spec in enumerate(specs):
                bitmap = self._file.create_dataset(f"{PROGRESS}/{index}", data=np.zeros(spec.blocks, np.uint8))
                bitmap.attrs["block_rows"] = spec.block_rows
            self._file.flush()
            fsync_path(self._partial)
        self._laid_out = True
        reserve(self.output, self._partial, 0)

    def _laid_out_as(self, specs: tuple[BlockSpec, ...]) -> bool:
        try:
            return all(BlockSet.fits(self._file, spec, f"{PROGRESS}/{i}") for i, spec in enumerate(specs))
        except UNREADABLE:
            return False

    def _text_bytes(self, name: str, array: np.ndarray) -> int:
        """Return the bytes that texts take, refusing what HDF5 cannot store."""
        total = 0
        for row, text in enumerate(array.ravel().tolist()):
            encoded = text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogatepass")
            if b"\0" in encoded or not _is_utf8(encoded):
                raise InputError(
                    "a text holds characters that cannot be stored: NUL, or half a character",
                    f"{name}[{row}] = {ascii(text)[:200]}",
                    "correct the text, or rename the file, that it comes from",
                )
            total += len(encoded) + 32
        return total

    def _describe(self, name: str, dataset: h5py.Dataset) -> None:
        field = SCHEMAS[self.identity.schema].field(name)
        if field is not None:
            dataset.attrs["about"], dataset.attrs["axes"] = field.about, " ".join(field.dims)


@contextmanager
def create_artifact(
    output: str | Path, identity: Identity, log: Callable[[str], None] = lambda text: None
) -> Iterator[ArtifactWriter]:
    """Write `output` under its lock; publish it when the block ends well.

    Parameters
    ----------
    output : path
    identity : Identity
        Decides whether an unfinished file is continued.
    log : callable
        Told, in one sentence, when a file is resumed or started over.

    Raises
    ------
    LockedError
        Another process is writing the same output.
    OutputError
        The disk is full or the folder cannot be written.
    """
    output = Path(output)
    with disk_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    with output_lock(output):
        writer = ArtifactWriter(output, identity, log)
        try:
            yield writer
            writer.publish()
        except BaseException as error:
            writer.abandon(error)
            raise


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def clear_leftovers(output: Path) -> None:
    """Remove what a kill between publishing and tidying left beside a finished artifact, unless it is being written."""
    finished = (checkpoint_path(output), _fresh_checkpoint(output))
    if not any(path.exists() for path in (lock_path(output), *finished)):
        return
    try:
        with output_lock(output):
            for path in finished:
                path.unlink(missing_ok=True)
    except (LockedError, OSError):
        pass  # a running writer tidies up itself, and a folder that cannot be written stays as it is


def _provenance(started: float) -> dict[str, Any]:
    versions = {name: getattr(sys.modules[name], "__version__", "?") for name in VERSIONED if name in sys.modules}
    return {
        "command": " ".join(["cmgl", *sys.argv[1:]]),
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 3),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "versions": {"cmgl": __version__, "python": platform.python_version(), **versions},
    }
