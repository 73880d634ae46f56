"""One writer per output: an advisory lock beside the file, with the name of its holder.

The operating system drops the lock when its holder dies, however it dies, so a lock can never be orphaned;
the file's text only tells a second writer whom to wait for. (The filelock package empties the file on every
attempt to lock, which would erase the holder's name.)
"""

import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from cmgl_cli.errors import LockedError, OutputError


def lock_path(output: Path) -> Path:
    """Return the path of the lock that guards `output`."""
    return output.with_name(output.name + ".lock")


@contextmanager
def output_lock(output: Path) -> Iterator[None]:
    """Hold the lock of `output`; raise `LockedError` naming the holder when somebody else has it."""
    path = lock_path(output)
    descriptor = _acquire(path, output)
    try:
        yield
    finally:
        # Unlink while the lock is held: whoever opened the old file notices in `_acquire` and tries again.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, output: Path) -> int:
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise LockedError(
                f"another process is writing {output.name}",
                f"{output}: held by {_holder(path)}",
                "wait for it to end, or stop it; the lock vanishes with it",
            ) from None
        if _same_file(descriptor, path):
            break
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_me()).encode(), 0)
    except OSError as error:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        raise OutputError(
            f"cannot write the output: {error.strerror}", str(output), "make room or choose another place with --output"
        ) from error
    return descriptor


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(
            f"the output folder cannot be written: {error.strerror}",
            str(path),
            "choose a folder you may write to with --output",
        ) from error


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _me() -> dict[str, str | int]:
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": started, "command": " ".join(sys.argv)[:200]}


def _holder(path: Path) -> str:
    try:
        me = json.loads(path.read_text())
        return f"process {me['pid']} on {me['host']} since {me['since']} ({me['command']})"
    except (OSError, ValueError, KeyError):
        return "a process that has not written its name yet"
