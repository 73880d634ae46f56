"""How much a file may claim beside what it stores: the rule that every reader of arrays keeps.

Deflate cannot shrink below 1/1032, so a file that claims more is no data but a trap. What expands a great deal, and to
gigabytes, may be streamed but is not read whole, and nothing is read whole that this machine cannot hold.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]

MOST_EXPANSION = 1032
BOMB_EXPANSION, BOMB_BYTES = 500, 2**30
SLACK_BYTES = 2**16


def impossible(claimed: int, stored: int, slack: int = SLACK_BYTES) -> str:
    """Return why `stored` bytes cannot hold `claimed`; empty where they can.

    Parameters
    ----------
    claimed, stored : int
        Bytes.
    slack : int
        Bytes that may be claimed without being stored: fill values.
    """
    return f"claims {claimed} bytes but stores {stored}" if claimed > MOST_EXPANSION * stored + slack else ""


def too_large(claimed: int, stored: int) -> str:
    """Return why so many bytes are not read whole; empty where they are."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if claimed > memory:
        return f"takes {claimed / 1e9:.1f} GB of memory, this machine has {memory / 1e9:.1f}"
    if claimed > BOMB_BYTES and claimed > BOMB_EXPANSION * stored:
        return f"expands to {claimed / 1e9:.1f} GB from {stored / 1e6:.1f} MB"
    return ""


@contextmanager
def bounded_memory(extra: int) -> Iterator[None]:
    """Let this process take no more than `extra` bytes beyond what it has, where the system can hold it to that.

    HDF5 follows the pointers of a file that was torn in the middle of a write, in circles if need be, and takes memory
    at every turn: with a bound it fails within a second, without one it takes the machine down.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    except (OSError, ValueError, AttributeError):
        yield
        return
    limit = pages * os.sysconf("SC_PAGE_SIZE") + extra
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
