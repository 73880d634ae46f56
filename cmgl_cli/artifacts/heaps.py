"""Texts and names of HDF5 live in heaps, and one wrong bit there sends HDF5 round in circles: they are walked first.

Format: HDF5 File Format Specification 3.0. III.E, "Global Heap" (texts): HDF5 goes on by an object's own size, and an
object of index 0 that says 0 bytes is never left behind. III.D, "Local Heap" (names of a group): HDF5 follows its list
of free blocks to the end, and takes memory at every block, whether or not it has been there before.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

SIGNATURE, VERSION = b"GCOL", b"\x01\x00\x00\x00"
HEAP_HEADER = OBJECT_HEADER = 16
LEAST_HEAP = 4096
NAMES, NAMES_VERSION = b"HEAP", b"\x00\x00\x00\x00"
NAMES_HEADER = 32
FREE_BLOCK = 16
LAST_FREE = 1
# larger files are looked at from both ends, where texts and attributes are written
WHOLE, END = 2**27, 2**26


def broken_heap(path: Path) -> str:
    """Return which heap of a file HDF5 would not get through; empty where there is none."""
    if path.stat().st_size < LEAST_HEAP:
        return ""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for at in _places(data, SIGNATURE + VERSION):
            if not _sound(data, at):
                return f"the heap of texts at byte {at} is damaged"
        for at in _places(data, NAMES + NAMES_VERSION):
            if not _sound_names(data, at):
                return f"the heap of names at byte {at} is damaged"
    return ""


def _places(data: mmap.mmap, mark: bytes) -> Iterator[int]:
    size = len(data)
    for start, stop in [(0, size)] if size <= WHOLE else [(0, END), (size - END, size)]:
        at = data.find(mark, start, stop)
        while at >= 0:
            yield at
            at = data.find(mark, at + 1, stop)


def _sound(data: mmap.mmap, at: int) -> bool:
    """Return whether the objects of a heap follow each other to its end."""
    length = _number(data, at + 8, 8)
    if not LEAST_HEAP <= length <= len(data) - at:
        return True  # no heap but bytes that look like one, or one that HDF5 refuses by itself
    place, end = at + HEAP_HEADER, at + length
    while end - place >= OBJECT_HEADER:
        index, size = _number(data, place, 2), _number(data, place + 8, 8)
        step = OBJECT_HEADER + -(-size // 8) * 8 if index else size
        if not OBJECT_HEADER <= step <= end - place:
            return False
        place += step
    return True


def _sound_names(data: mmap.mmap, at: int) -> bool:
    """Return whether the free blocks of a local heap lead to an end."""
    if at + NAMES_HEADER > len(data):
        return True
    length, free, segment = (_number(data, at + offset, 8) for offset in (8, 16, 24))
    if not FREE_BLOCK <= length <= len(data) - segment:
        return True  # no heap but bytes that look like one, or one that HDF5 refuses by itself
    for _ in range(length // FREE_BLOCK + 1):
        if free == LAST_FREE or free > length - FREE_BLOCK:
            return True  # the end, or a place outside, which HDF5 refuses by itself
        free = _number(data, segment + free, 8)
    return False


def _number(data: mmap.mmap, at: int, width: int) -> int:
    return int.from_bytes(data[at : at + width], "little")
