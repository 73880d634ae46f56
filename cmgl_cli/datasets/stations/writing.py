"""Write a restored table: in the layout it came in, or as tidy CSV or NetCDF.

Observed cells are never taken from the restoration. In the input's own layout they keep their very text (or stored
number); elsewhere they are written so that they read back as the same 64-bit number. Every variable gets a column
``<variable>_filled`` (1 where the restoration filled the cell) and ``<variable>_standard_error``.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from cmgl_cli.datasets.stations.restored import Restored
from cmgl_cli.datasets.stations.table import Source
from cmgl_cli.datasets.stations.text import digest, read_bytes
from cmgl_cli.errors import InputError, OutputError, UsageError, suggest

Export = Literal["own", "csv", "netcdf"]
_EXPORTS = ("own", "csv", "netcdf")
_WRITERS = {
    "csv": ("tidy_writing", "fill_tidy"),
    "jma": ("jma_writing", "fill_jma"),
    "netcdf": ("netcdf_writing", "fill_netcdf"),
    "npz": ("npz_writing", "fill_npz"),
}


def write_restored(path: Path | str, restored: Restored, layout: Export = "own") -> tuple[Path, ...]:
    """Write a restored table.

    Parameters
    ----------
    path : path
        The file to write; for ``own`` and a table of several files, the folder to write them into. Existing files are
        replaced once the new ones are complete.
    restored : Restored
        What to write.
    layout : {"own", "csv", "netcdf"}
        The input's own layout, tidy CSV, or NetCDF with CF conventions.

    Returns
    -------
    tuple of Path
        The files written.

    Raises
    ------
    InputError
        If a file of the input changed since it was read, the input is not known, or would be overwritten.
    UsageError
        If there is no such layout.
    """
    target, source = Path(path), restored.table.source
    if layout not in _EXPORTS:
        raise UsageError(f"there is no layout {layout!r}", f"layout: {layout}", suggest(layout, _EXPORTS))
    if layout == "csv":
        return (_publish(target, _writer("tidy_writing", "export_tidy")(restored), source),)
    if layout == "netcdf":
        return (_publish(target, _writer("netcdf_writing", "export_netcdf")(restored), source),)
    if source is None:
        raise InputError(
            "the input's own layout is not known",
            "the table was not read from files of one kind",
            "export CSV or NetCDF",
        )
    writer = _writer(*_WRITERS[source.kind])
    targets = [target] if len(source.paths) == 1 else [target / name.name for name in source.paths]
    raws = [_unchanged(place, known) for place, known in zip(source.paths, source.digests, strict=True)]
    contents = [writer(place, raw, restored) for place, raw in zip(source.paths, raws, strict=True)]
    return tuple(_publish(file, content, source) for file, content in zip(targets, contents, strict=True))


def _writer(module: str, function: str) -> Callable[..., bytes]:
    return getattr(importlib.import_module(f"cmgl_cli.datasets.stations.{module}"), function)


def _unchanged(path: Path, known: str) -> bytes:
    raw = read_bytes(path)
    if digest(raw) != known:
        raise InputError("the input changed since it was read", str(path), "restore again from the file as it is now")
    return raw


def _publish(path: Path, content: bytes, source: Source | None) -> Path:
    if source is not None and any(path.exists() and path.samefile(known) for known in source.paths if known.exists()):
        raise InputError("the output is the input", str(path), "name another file: observations are never overwritten")
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(
            f"the filled record cannot be written: {error.strerror}", str(path), "make room, or choose another place"
        ) from error
    return path
