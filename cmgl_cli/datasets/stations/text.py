"""Text of station files: decoding, rows of CSV, numbers, and names with units."""

import csv
import hashlib
import io
import re
from pathlib import Path

from cmgl_cli.errors import InputError

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "--", "---", "///", "×", "x", "m", "."})
_WITH_UNIT = re.compile(r"(.+?)\s*[\[(（]([^\[\]()（）]*)[\])）]")


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises
    ------
    InputError
        If it is missing, unreadable or empty.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(
            "a station file cannot be read", f"{path}: {error.strerror}", "give an existing file"
        ) from error
    if not raw.strip():
        raise InputError("a station file is empty", str(path), "give a file with a header and observations")
    return raw


def digest(raw: bytes) -> str:
    """Return the SHA-256 of a file's content, hexadecimal."""
    return hashlib.sha256(raw).hexdigest()


def decode(raw: bytes, path: Path, encoding: str | None = None) -> str:
    """Decode a text file: UTF-8 unless told otherwise.

    Raises
    ------
    InputError
        If the bytes are not in that encoding, or hold NUL characters.
    """
    name = encoding or "utf-8-sig"
    try:
        text = raw.decode(name)
    except (UnicodeDecodeError, LookupError) as error:
        raise InputError(
            f"a station file is not {encoding or 'UTF-8'} text",
            f"{path}: {error}",
            "save it as UTF-8, or name its encoding: --encoding cp932, --encoding latin-1",
        ) from error
    if "\0" in text:
        raise InputError("a station file is not text", f"{path}: it holds NUL characters", "give CSV or NetCDF")
    return text


def csv_rows(text: str, path: Path, delimiter: str | None = None) -> list[list[str]]:
    """Split CSV into rows; the delimiter is taken from the first line (comma, semicolon or tab).

    Raises
    ------
    InputError
        If quotes are broken.
    """
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or csv_delimiter(text), strict=True))
    except csv.Error as error:
        raise InputError("a station file is not CSV", f"{path}: {error}", "correct the quotes") from error


def csv_delimiter(text: str) -> str:
    """Return the delimiter that the first line has most of: comma, semicolon or tab."""
    first = text.partition("\n")[0]
    return max(",;\t", key=lambda mark: (first.count(mark), mark == ","))


def number(text: str) -> float:
    """Read a number; NaN for an empty cell and for the usual words for "missing".

    Raises
    ------
    ValueError
        If it is neither.
    """
    try:
        if "_" in text:
            raise ValueError(text)
        return float(text)
    except ValueError:
        if text.strip().lower() in _MISSING:
            return float("nan")
        raise


def name_and_unit(header: str) -> tuple[str, str]:
    """Split ``tmax (degC)`` or ``tmax [degC]`` into name and unit; the unit is empty where there is none."""
    match = _WITH_UNIT.fullmatch(header.strip())
    return (match[1].strip(), match[2].strip()) if match else (header.strip(), "")
