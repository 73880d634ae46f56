"""The disk under an artifact: space set aside, errors in words, side products published in one rename."""

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cmgl_cli.errors import OutputError

SLACK_BYTES = 2**16


def fsync_path(path: Any) -> None:
    """Force a file, or a folder's entries, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_space(output: Path, wanted: int) -> None:
    """Raise `OutputError` when the disk of `output` has less than `wanted` bytes free."""
    free = shutil.disk_usage(output.parent).free
    if wanted > free:
        raise OutputError(
            f"not enough disk space: {wanted / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free",
            str(output),
            "free some space, choose another disk with --output, or take fewer samples with --limit",
        )


def reserve(output: Path, partial: Path, extra: int) -> None:
    """Have the file system set aside what the file claims, `extra` bytes and some slack, before HDF5 writes them.

    HDF5 cannot close a file that it failed to write, and takes the process down at exit; a full disk must show
    itself here instead.
    """
    with disk_errors(output):
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, os.fstat(descriptor).st_size + extra + SLACK_BYTES)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                raise
        finally:
            os.close(descriptor)


@contextmanager
def disk_errors(output: Path) -> Iterator[None]:
    """Turn what the operating system and HDF5 say about a full or forbidden disk into `OutputError`."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, RuntimeError) as error:
        reason = _why(error)
        if reason is None:
            raise
        _hush_hdf5()
        raise OutputError(
            f"cannot write the output: {reason}",
            str(output),
            "make room or choose another place with --output, then run the same command again",
        ) from error


def _hush_hdf5() -> None:
    """Keep HDF5 from saying again, with a traceback, at each of its handles that the disk is full."""
    before = sys.unraisablehook
    if getattr(before, "hushes_hdf5", False):
        return

    def hook(unraisable: Any) -> None:
        if not str(unraisable.object).startswith("h5py."):
            before(unraisable)

    hook.hushes_hdf5 = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _why(error: BaseException) -> str | None:
    """HDF5 reports the operating system's error as text; find it there."""
    number = getattr(error, "errno", None)
    told = re.search(r"errno = (\d+)", str(error))
    if number is None and told is not None:
        number = int(told[1])
    return None if number is None else os.strerror(number)


def publish_bytes(path: Path, content: bytes) -> None:
    """Write a side product whose content is known, as `publish_file` does."""
    publish_file(path, lambda file: file.write(content))


def publish_file(path: Path, write: Callable[[Any], None]) -> None:
    """Write a side product (a figure, a page) beside its target and rename it onto it.

    Parameters
    ----------
    path : Path
        The final name.
    write : callable
        Called with a binary file open for writing.
    """
    fresh = path.with_name(path.name + ".partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(fresh, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
