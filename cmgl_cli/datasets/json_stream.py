"""Walk a JSON object of long arrays item by item, in bounded memory.

COCO's annotations are one object whose arrays hold hundreds of thousands of small objects; reading it whole
takes gigabytes. Here a window moves over the file. Its bytes are read as Latin-1, in which a character is a
byte: JSON's structure is ASCII, offsets into the text are offsets into the file, and the rare item that is
not pure ASCII is parsed again as UTF-8.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cmgl_cli.errors import InputError

_CHUNK = 1 << 22
_BLANK = " \t\r\n"
_NUMBER_TAIL = 4
"""Characters that must follow a value: `1` may yet become `1.5` or `1e+5` when the window moves on."""


@dataclass(frozen=True, slots=True)
class StreamedItem:
    """One item of a top-level array: the array's key, the value, and where its bytes lie in the file."""

    key: str
    value: Any
    offset: int
    length: int


def stream_items(path: Path) -> Iterator[StreamedItem]:
    """Yield the items of every top-level array of a JSON object, in the order of the file.

    Raises
    ------
    InputError
        If the file cannot be read, is cut off, or is not a JSON object.
    """
    try:
        with open(path, "rb") as file:
            yield from _Window(file).items()
    except OSError as error:
        raise InputError("an annotation file cannot be read", f"{path}: {error.strerror}", "restore it") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            "an annotation file is not complete, valid JSON", f"{path}: {error}", "get the archive again"
        ) from error


class _Window:
    """The part of a file being parsed: ``text[position:]`` is what comes next."""

    def __init__(self, file: BinaryIO):
        self.file, self.text, self.position, self.start = file, "", 0, 0
        self.ended = False
        self.decode = json.JSONDecoder().raw_decode

    def items(self) -> Iterator[StreamedItem]:
        """Walk the top-level object."""
        self.expect("{")
        if self.peek() == "}":
            return
        while True:
            key = self.value()[0]
            self.expect(":")
            if self.peek() == "[":
                yield from self.array(key)
            else:
                self.value()
            if self.expect(",}") == "}":
                return

    def array(self, key: str) -> Iterator[StreamedItem]:
        """Walk one array."""
        self.expect("[")
        if self.peek() == "]":
            self.position += 1
            return
        while True:
            value, begin, end = self.value()
            yield StreamedItem(key, value, self.start + begin, end - begin)
            if self.expect(",]") == "]":
                return

    def peek(self) -> str:
        """Return the next character that is not blank, without taking it."""
        while True:
            while self.position < len(self.text):
                if self.text[self.position] not in _BLANK:
                    return self.text[self.position]
                self.position += 1
            if self.ended:
                raise ValueError(f"it ends after {self.start + self.position} bytes in the middle of a value")
            self.fill(_CHUNK)

    def expect(self, characters: str) -> str:
        """Take the next character, which must be one of these."""
        found = self.peek()
        if found not in characters:
            raise ValueError(f"{found!r} at byte {self.start + self.position} where one of {characters!r} is expected")
        self.position += 1
        return found

    def value(self) -> tuple[Any, int, int]:
        """Take the next value; return it and its begin and end in ``text``."""
        self.peek()
        size = _CHUNK
        while True:
            try:
                value, end = self.decode(self.text, self.position)
            except ValueError:
                if self.ended:
                    raise
                end = len(self.text)
            if end + _NUMBER_TAIL <= len(self.text) or self.ended:
                break
            self.fill(size)
            size *= 2
        begin, self.position = self.position, end
        piece = self.text[begin:end]
        return (value if piece.isascii() else json.loads(piece.encode("latin-1"))), begin, end

    def fill(self, size: int) -> None:
        """Drop what was taken and read on."""
        block = self.file.read(size)
        self.ended = not block
        self.text, self.start = self.text[self.position :] + block.decode("latin-1"), self.start + self.position
        self.position = 0
