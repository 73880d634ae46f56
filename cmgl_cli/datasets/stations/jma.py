"""Read the Japan Meteorological Agency's download CSV into a table (its layout: see `jma_file`)."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmgl_cli.datasets.stations.grid import Rows, build_table, refuse_hollow
from cmgl_cli.datasets.stations.jma_file import ELEMENTS, Block, JmaFile, no_download, open_jma
from cmgl_cli.datasets.stations.table import NO_FLAG, Frequency, Source, StationTable
from cmgl_cli.datasets.stations.times import parse_times
from cmgl_cli.errors import InputError, UsageError, suggest

_UNITS = {"℃": "degC", "％": "%", "時間": "h", "日": "d"}
_CELL = re.compile(r"\s*([-+]?\d+(?:\.\d*)?|[-+]?\.\d+)\s*([)\]#*]?)\s*")
_SYMBOLS = {")": 5, "]": 4, "#": 2, "*": 2}
_NOTHING: dict[str, int | None] = {"": None, "×": 1, "x": 1, "///": 0, "...": 1}


def read_jma(
    path: Path,
    *,
    variables: Sequence[str] | None = None,
    frequency: Frequency | None = None,
    min_quality: int = 4,
) -> StationTable:
    """Read one download file.

    Parameters
    ----------
    path : Path
        The file, in cp932 as downloaded or converted to UTF-8.
    variables : sequence of str, optional
        Elements to take, by Japanese or English name; all numeric ones by default.
    frequency : {"hourly", "daily", "monthly"}, optional
        The step, where it should not be recognised.
    min_quality : int
        Values of lower quality are taken as missing.

    Returns
    -------
    StationTable
        Stations by the agency's names, without coordinates; variables in English where `ELEMENTS` has them.

    Raises
    ------
    InputError
        If the file is not such a download, or not hourly, daily or monthly.
    UsageError
        If a variable asked for is not there.
    """
    file = open_jma(path)
    stations = tuple(dict.fromkeys(block.station for block in file.blocks))
    elements = tuple(dict.fromkeys(block.element for block in file.blocks))
    body = file.rows[file.start :]
    shape = len(body), len(stations), len(elements)
    refuse_hollow(shape, len(body) * len(file.blocks), str(path))
    values = np.full(shape, np.nan)
    quality = np.full(values.shape, NO_FLAG, dtype=np.int16)
    unread: set[str] = set()
    undone = 0
    for block in file.blocks:
        cell = slice(None), stations.index(block.station), elements.index(block.element)
        numbers, quality[cell] = _read_block(file, block)
        if numbers is None:
            unread.add(block.element)
            continue
        undone += _forget_filled(numbers, body, block)
        values[cell] = numbers
    columns = [elements.index(element) for element in _choose(file, elements, unread, variables)]
    values, quality = values[..., columns], quality[..., columns]
    low = (quality != NO_FLAG) & (quality < min_quality) & ~np.isnan(values)
    values[low] = np.nan
    notes = _notes(unread if variables is None else set(), quality[low], min_quality, undone)
    taken = tuple(elements[column] for column in columns)
    rows = _as_rows(file, stations, taken, values, quality, notes)
    return replace(build_table(rows, str(path), frequency), source=Source("jma", (path,), (file.digest,)))


def _read_block(file: JmaFile, block: Block) -> tuple[np.ndarray | None, np.ndarray]:
    """Return numbers (None where the element is text) and flags of one block."""
    body = file.rows[file.start :]
    numbers, flags = np.full(len(body), np.nan), np.full(len(body), NO_FLAG, dtype=np.int16)
    odd: list[int] = []
    for i, row in enumerate(body):
        try:
            numbers[i], flag = read_cell(row[block.value])
        except ValueError:
            odd.append(i)
            continue
        given = row[block.quality].strip() if block.quality is not None else ""
        flags[i] = int(given) if given.isdecimal() and len(given) < 3 else NO_FLAG if flag is None else flag
    if not odd:
        return numbers, flags
    if np.isnan(numbers).all():
        return None, flags
    raise InputError(
        "a cell is neither a number nor missing",
        f"{file.path}, line {file.start + odd[0] + 1}: "
        f"{block.element} at {block.station} = {body[odd[0]][block.value]!r}",
        "correct the cell, or leave it empty",
    )


def _forget_filled(numbers: np.ndarray, body: list[list[str]], block: Block) -> int:
    """Set cells to NaN, in place, that an earlier restoration filled; return how many."""
    if block.filled is None:
        return 0
    marked = np.array([row[block.filled].strip() == "1" for row in body], dtype=bool) & ~np.isnan(numbers)
    numbers[marked] = np.nan
    return int(marked.sum())


def _choose(
    file: JmaFile, elements: tuple[str, ...], unread: set[str], variables: Sequence[str] | None
) -> tuple[str, ...]:
    known = {ELEMENTS.get(element, element): element for element in elements if element not in unread}
    if variables is None:
        if not known:
            raise InputError("the file has no numeric element", f"{file.path}: {', '.join(elements)}", "choose others")
        return tuple(known.values())
    names = known | {element: element for element in known.values()}
    for name in variables:
        if name not in names:
            raise UsageError(f"the file has no variable {name!r}", f"{file.path}: {name}", suggest(name, names))
    return tuple(dict.fromkeys(names[name] for name in variables))


def _notes(unread: set[str], low: np.ndarray, min_quality: int, undone: int) -> list[str]:
    notes = [f"{element} is text and was left out" for element in sorted(unread)]
    for flag, count in zip(*np.unique(low, return_counts=True), strict=True):
        notes.append(f"{count} values of quality {flag} taken as missing (min_quality is {min_quality})")
    if undone:
        notes.append(f"{undone} cells filled by an earlier restoration were taken as missing")
    return notes


def _as_rows(
    file: JmaFile,
    stations: tuple[str, ...],
    elements: tuple[str, ...],
    values: np.ndarray,
    quality: np.ndarray,
    notes: list[str],
) -> Rows:
    """Turn [line, station, element] into one row for each station and time."""
    try:
        times, resolution, _ = parse_times(file.dates())
    except (ValueError, OverflowError) as error:
        raise no_download(file.path, str(error)) from error
    units = {block.element: block.unit for block in file.blocks}
    for block in file.blocks:
        if block.unit != units[block.element]:
            found = f"{block.element} in {block.unit} at {block.station}, in {units[block.element]} elsewhere"
            raise InputError("units are mixed", f"{file.path}: {found}", "bring them to one unit")
    count = len(stations)
    return Rows(
        stations=stations,
        variables=tuple(ELEMENTS.get(element, element) for element in elements),
        units=tuple(_UNITS.get(units[element], units[element]) for element in elements),
        station=np.tile(np.arange(count), len(times)),
        time=np.repeat(times, count),
        values=values.reshape(-1, len(elements)),
        resolution=resolution,
        place=[f"line {file.start + i + 1}" for i in range(len(times)) for _ in stations],
        quality=quality.reshape(-1, len(elements)),
        notes=notes,
    )


def read_cell(text: str) -> tuple[float, int | None]:
    """Read a value and the quality its symbol stands for (None where it has none).

    Raises
    ------
    ValueError
        If it is neither a number nor one of the agency's signs for "missing".
    """
    match = _CELL.fullmatch(text)
    if match:
        return float(match[1]), _SYMBOLS.get(match[2])
    sign = text.strip()
    if sign.rstrip(")] ") == "--":
        return 0.0, _SYMBOLS.get(sign[-1])
    if sign in _NOTHING:
        return float("nan"), _NOTHING[sign]
    raise ValueError(text)
