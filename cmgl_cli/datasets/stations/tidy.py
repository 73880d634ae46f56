"""Tidy CSV: one row for each station and time, one column for each variable."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cmgl_cli.datasets.stations.coordinates import PLACE_HEADERS, STATION_HEADERS, find_column
from cmgl_cli.datasets.stations.grid import Rows, build_table
from cmgl_cli.datasets.stations.table import NO_FLAG, Frequency, Source, StationTable
from cmgl_cli.datasets.stations.text import csv_rows, decode, digest, name_and_unit, number, read_bytes
from cmgl_cli.datasets.stations.times import parse_times
from cmgl_cli.errors import InputError, UsageError, suggest

TIME_HEADERS = ("time", "date", "datetime", "timestamp", "valid_time", "month", "day", "年月日", "年月")
FLAG_SUFFIXES = ("_quality", "_flag", "_qc")
FILLED, ERROR = "_filled", "_standard_error"
_EXPECTED = "give station,time,<variables>"
_PARTS = ("year", "month", "day", "hour", "minute")
_LABELS = ("name", "name_en", "name_ja", "station_name")


@dataclass(frozen=True)
class TidyColumns:
    """Which column of a tidy file is what; places are indices into a row."""

    station: int
    time: int
    variables: dict[str, int]
    units: dict[str, str]
    flags: dict[str, int]
    filled: dict[str, int]
    places: dict[str, int]


def read_tidy(
    path: Path,
    *,
    variables: Sequence[str] | None = None,
    frequency: Frequency | None = None,
    encoding: str | None = None,
) -> StationTable:
    """Read a tidy CSV.

    Units may stand in the header (``tmax (degC)``). ``<variable>_quality`` columns are flags. Latitude, longitude
    and elevation may be columns too. Cells that an earlier restoration filled (``<variable>_filled`` is 1) are
    missing again.

    Parameters
    ----------
    path : Path
        The file.
    variables : sequence of str, optional
        Columns to take; by default all but those in which no cell is a number, which are noted.
    frequency : {"hourly", "daily", "monthly"}, optional
        The step, where it should not be recognised.
    encoding : str, optional
        UTF-8 by default.

    Returns
    -------
    StationTable
        Stations in the order of the file.

    Raises
    ------
    InputError
        If a column is missing, or a cell is neither number nor missing; the row is named.
    UsageError
        If a variable asked for is not there.
    """
    raw = read_bytes(path)
    rows = csv_rows(decode(raw, path, encoding), path)
    columns = tidy_columns(rows[0], path, variables)
    body = [(line, row) for line, row in enumerate(rows[1:], start=2) if any(row)]
    for line, row in body:
        if len(row) != len(rows[0]):
            raise InputError(
                "a row has another length than the header",
                f"{path}, row {line}: {len(row)} cells, the header has {len(rows[0])}",
                "correct the row",
            )
    words = () if variables else _without_numbers(body, columns)
    if words:
        numeric = [name for name in columns.variables if name not in words]
        if not numeric:
            raise InputError("the file has no variable", f"{path}: only words in {', '.join(words)}", _EXPECTED)
        columns = tidy_columns(rows[0], path, numeric)
    parsed = _parse(path, body, columns)
    if words:
        parsed.notes.append(f"{', '.join(words)}: words where numbers should be, left out")
    table = _with_own_places(path, build_table(parsed, str(path), frequency), body, columns)
    return replace(table, source=Source("csv", (path,), (digest(raw),), encoding or ""))


def tidy_columns(header: list[str], path: Path, variables: Sequence[str] | None = None) -> TidyColumns:
    """Tell the columns of a tidy file apart by their names.

    Raises
    ------
    InputError
        If there is no column of stations, of times, or of any variable, or a name occurs twice.
    """
    names = [name_and_unit(cell)[0] for cell in header]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError("two columns have one name", f"{path}: {twice[0]!r} occurs twice", "rename one of them")
    station, time = (
        _key_column(header, path, *key) for key in (("stations", STATION_HEADERS), ("times", TIME_HEADERS))
    )
    places = {kind: i for kind, known in PLACE_HEADERS.items() if (i := find_column(header, known)) is not None}
    aside = {*_LABELS, *_PARTS}
    taken = {station, time, *places.values()} | {i for i, name in enumerate(names) if name.lower() in aside}
    rest = {name: i for i, name in enumerate(names) if i not in taken}
    marks = tuple(name for name in rest if _base(name, rest) is not None)
    chosen = {name: i for name, i in rest.items() if name not in marks}
    for name in variables or ():
        if name not in chosen:
            raise UsageError(f"the file has no variable {name!r}", f"{path}: {name}", suggest(name, chosen))
    if variables:
        chosen = {name: chosen[name] for name in variables}
    if not chosen:
        raise InputError("the file has no variable", f"{path}: {', '.join(header)}", _EXPECTED)
    units = {name: name_and_unit(header[i])[1] for name, i in chosen.items()}
    flags = {name: rest[name + suffix] for name in chosen for suffix in FLAG_SUFFIXES if name + suffix in rest}
    filled = {name: rest[name + FILLED] for name in chosen if name + FILLED in rest}
    return TidyColumns(station, time, chosen, units, flags, filled, places)


def _key_column(header: list[str], path: Path, what: str, known: tuple[str, ...]) -> int:
    found = find_column(header, known)
    parts = [name for name in header if name.strip().lower() in _PARTS]
    if what == "times" and len(parts) > 1 and (found is None or header[found] in parts):
        raise InputError(
            "the times are spread over several columns",
            f"{path}: {', '.join(parts)}",
            "join them to one column, time, as 2020-01-31 06:00 (days: 2020-01-31, months: 2020-01)",
        )
    if found is None:
        raise InputError(
            f"there is no column of {what}",
            f"{path}: {', '.join(header)}",
            f"name it {known[0]} (or {', '.join(known[1:4])}); the file is to have station,time,<variables>",
        )
    return found


def _without_numbers(body: list[tuple[int, list[str]]], columns: TidyColumns) -> list[str]:
    """Return the variables that have cells, none of them a number: names, remarks, points of the compass."""
    return [name for name, column in columns.variables.items() if _is_words(row[column] for _, row in body)]


def _is_words(cells: Iterable[str]) -> bool:
    some = False
    for cell in cells:
        try:
            if not np.isnan(number(cell)):
                return False
        except ValueError:
            some = True
    return some


def _base(name: str, known: dict[str, int]) -> str | None:
    """Return the variable that a column of flags or errors belongs to."""
    for suffix in (*FLAG_SUFFIXES, FILLED, ERROR):
        if name.endswith(suffix) and name.removesuffix(suffix) in known:
            return name.removesuffix(suffix)
    return None


def _parse(path: Path, body: list[tuple[int, list[str]]], columns: TidyColumns) -> Rows:
    stations: dict[str, int] = {}
    station = [stations.setdefault(row[columns.station].strip(), len(stations)) for _, row in body]
    if "" in stations:
        line = body[station.index(stations[""])][0]
        raise InputError("a row has no station", f"{path}, row {line}", "give its identifier")
    try:
        times, resolution, note = parse_times([row[columns.time] for _, row in body])
    except (ValueError, OverflowError) as error:
        raise InputError("a time cannot be read", f"{path}: {error}", "write times year first") from error
    values = np.full((len(body), len(columns.variables)), np.nan)
    quality = np.full(values.shape, NO_FLAG, dtype=np.int16) if columns.flags else None
    undone = 0
    for k, (name, column) in enumerate(columns.variables.items()):
        values[:, k] = _numbers(path, body, column, name)
        if quality is not None and name in columns.flags:
            quality[:, k] = _flags(path, body, columns.flags[name], name)
        if name in columns.filled:
            before = np.array(
                [row[columns.filled[name]].strip() in ("1", "true", "True") for _, row in body], dtype=bool
            )
            undone += int((before & ~np.isnan(values[:, k])).sum())
            values[before, k] = np.nan
    notes = [note] if note else []
    if undone:
        notes.append(f"{undone} cells filled by an earlier restoration were taken as missing")
    return Rows(
        stations=tuple(stations),
        variables=tuple(columns.variables),
        units=tuple(columns.units.values()),
        station=np.array(station, dtype=np.int64),
        time=times,
        values=values,
        resolution=resolution,
        place=[f"row {line}" for line, _ in body],
        quality=quality,
        notes=notes,
    )


def _numbers(path: Path, body: list[tuple[int, list[str]]], column: int, name: str) -> list[float]:
    numbers = []
    for line, row in body:
        try:
            numbers.append(number(row[column]))
        except ValueError as error:
            raise InputError(
                "a cell is neither a number nor missing",
                f"{path}, row {line}: {name} = {row[column]!r}",
                "correct it or leave it empty; name the columns to take with --variables if this is not one",
            ) from error
    return numbers


def _flags(path: Path, body: list[tuple[int, list[str]]], column: int, name: str) -> np.ndarray:
    flags = np.nan_to_num(np.array(_numbers(path, body, column, f"flag of {name}")), nan=NO_FLAG)
    if (abs(flags) > 32767).any() or (flags != np.round(flags)).any():
        raise InputError("a quality flag is not a small integer", f"{path}: flags of {name}", "correct the column")
    return flags.astype(np.int16)


def _with_own_places(
    path: Path, table: StationTable, body: list[tuple[int, list[str]]], columns: TidyColumns
) -> StationTable:
    """Take coordinates from columns of the file; each station must keep to one place."""
    found: dict[str, np.ndarray] = {}
    index = {name: i for i, name in enumerate(table.stations)}
    for kind, column in columns.places.items():
        values = np.full(len(index), np.nan)
        for (line, row), value in zip(body, _numbers(path, body, column, kind), strict=True):
            place = index[row[columns.station].strip()]
            if not np.isnan(values[place]) and not np.isnan(value) and values[place] != value:
                raise InputError(
                    f"a station changes its {kind}",
                    f"{path}, row {line}: {table.stations[place]}, {values[place]} before, {value} here",
                    "give a moved station another identifier",
                )
            values[place] = value if np.isnan(values[place]) else values[place]
        found[kind] = values
    return replace(table, **found) if found else table  # type: ignore[arg-type]
