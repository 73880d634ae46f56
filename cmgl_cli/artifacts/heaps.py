"""Texts of HDF5 live in heaps, and one wrong bit in a heap sends HDF5 round in circles: they are walked here first.

Format: HDF5 File Format Specification 3.0, III.E, "Global Heap". HDF5 goes on by an object's own size, and an object of
index 0 that says 0 bytes is never left behind.
"""

import mmap
from pathlib import Path

SIGNATURE, VERSION = b"GCOL", b"\x01\x00\x00\x00"
HEAP_HEADER = OBJECT_HEADER = 16
LEAST_HEAP = 4096
# larger files are looked at from both ends, where texts and attributes are written
WHOLE, END = 2**27, 2**26


def broken_heap(path: Path) -> str:
    """Return which heap of a file HDF5 would not get through; empty where there is none."""
    if path.stat().st_size < LEAST_HEAP:
        return ""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        size = len(data)
        spans = [(0, size)] if size <= WHOLE else [(0, END), (size - END, size)]
        for start, stop in spans:
            at = data.find(SIGNATURE + VERSION, start, stop)
            while at >= 0:
                if not _sound(data, at):
                    return f"the heap of texts at byte {at} is damaged"
                at = data.find(SIGNATURE + VERSION, at + 1, stop)
    return ""


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


def _number(data: mmap.mmap, at: int, width: int) -> int:
    return int.from_bytes(data[at : at + width], "little")
