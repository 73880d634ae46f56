"""Write a restored table as tidy CSV, or into the tidy CSV it came from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cmgl_cli.datasets.stations.restored import Restored, csv_text, decimals, time_like, time_texts
from cmgl_cli.datasets.stations.table import StationTable
from cmgl_cli.datasets.stations.text import csv_delimiter, csv_rows, decode
from cmgl_cli.datasets.stations.tidy import ERROR, FILLED, FLAG_SUFFIXES, TidyColumns, tidy_columns
from cmgl_cli.datasets.stations.times import as_steps, parse_times


def export_tidy(restored: Restored) -> bytes:
    """Return the whole table as tidy CSV; numbers as Python writes them, which reads back exactly."""
    table = restored.table
    header = ["station", "time"]
    for name, unit in zip(table.variables, table.units, strict=True):
        header += [f"{name} ({unit})" if unit else name, name + FILLED, name + ERROR]
        header += [name + FLAG_SUFFIXES[0]] if table.quality is not None else []
    complete, filled, times = restored.complete, restored.filled, time_texts(table.time, table.frequency)
    error = np.full(complete.shape, np.nan) if restored.standard_error is None else restored.standard_error
    rows = [header]
    for i, station in enumerate(table.stations):
        for t, time in enumerate(times):
            row = [station, time]
            for k in range(len(table.variables)):
                cell = t, i, k
                row += [_exact(complete[cell]), str(int(filled[cell])), _exact(error[cell]) if filled[cell] else ""]
                if table.quality is not None:
                    row.append(str(table.quality[cell]))
            rows.append(row)
    return csv_text(rows).encode()


def _exact(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))


def fill_tidy(path: Path, raw: bytes, restored: Restored) -> bytes:
    """Return the content of a tidy CSV with its gaps filled, all else as it was."""
    table = restored.table
    named = table.source.encoding if table.source else ""
    encoding = named or ("utf-8-sig" if raw.startswith(b"\xef\xbb\xbf") else "utf-8")
    text = decode(raw, path, encoding)
    rows = [row for row in csv_rows(text, path) if any(row)]
    known = [name for name in tidy_columns(rows[0], path).variables if name in table.variables]
    columns = tidy_columns(rows[0], path, known)
    body = rows[1:]
    cells = _tidy_cells(table, body, columns.station, columns.time)
    body, cells = _with_absent_rows(restored, body, cells, columns)
    header = list(rows[0])
    for name in known:
        k, column = table.variables.index(name), columns.variables[name]
        digits = decimals(row[column] for row in body)
        marks = [_column(header, body, name + suffix) for suffix in (FILLED, ERROR)]
        for row, (t, i) in zip(body, cells, strict=True):
            done = i >= 0 and restored.filled[t, i, k]
            row[marks[0]] = str(int(done))
            row[marks[1]] = restored.error_text((t, i, k), digits + 1) if done else ""
            if done:
                row[column] = f"{restored.values[t, i, k]:.{digits}f}"
    newline = "\r\n" if "\r\n" in text else "\n"
    return csv_text([header, *body], csv_delimiter(text), newline).encode(encoding)


def _column(header: list[str], body: list[list[str]], name: str) -> int:
    """Return the place of a column, appended to all rows if it is not there yet."""
    if name not in header:
        header.append(name)
        for row in body:
            row.append("")
    return header.index(name)


def _tidy_cells(table: StationTable, body: list[list[str]], station: int, time: int) -> list[tuple[int, int]]:
    """Return (time, station) indices of each row; station -1 where the table does not have it."""
    times = as_steps(parse_times([row[time] for row in body])[0], table.frequency)
    places = np.searchsorted(table.time, times).clip(max=len(table.time) - 1)
    inside = table.time[places] == times
    index = {name: i for i, name in enumerate(table.stations)}
    return [
        (int(t), index.get(row[station].strip(), -1) if known else -1)
        for t, known, row in zip(places, inside, body, strict=True)
    ]


def _with_absent_rows(
    restored: Restored, body: list[list[str]], cells: list[tuple[int, int]], columns: TidyColumns
) -> tuple[list[list[str]], list[tuple[int, int]]]:
    """Add the rows that the restoration fills and the file lacks, within its stations and period, in its order."""
    table, known = restored.table, [(cell, row) for cell, row in zip(cells, body, strict=True) if cell[1] >= 0]
    if not known:
        return body, cells
    texts = {t: row[columns.time] for (t, _), row in known}
    first = {i: row for (_, i), row in reversed(known)}
    present, start, end = set(cells), min(texts), max(texts)
    absent = [
        (t, i)
        for t, i in np.argwhere(restored.filled.any(axis=2)).tolist()
        if (t, i) not in present and i in first and start <= t <= end
    ]
    rows = []
    for t, i in absent:
        row = [""] * len(body[0])
        row[columns.station] = first[i][columns.station]
        row[columns.time] = texts.get(t) or time_like(known[0][1][columns.time], table.time[t], table.frequency)
        for column in columns.places.values():
            row[column] = first[i][column]
        rows.append(row)
    whole, places = body + rows, cells + absent
    order = _order(cells, places)
    return [whole[n] for n in order], [places[n] for n in order]


def _order(cells: list[tuple[int, int]], whole: list[tuple[int, int]]) -> list[int]:
    """Return the order of all rows: by station or by time if the file's rows keep it, else new rows come last."""
    orders: tuple[Callable[[tuple[int, int]], tuple[int, ...]], ...] = (lambda c: c[::-1], lambda c: c, lambda c: c[:1])
    for order in orders:
        places = [order(cell) for cell in cells]
        if places == sorted(places):
            return sorted(range(len(whole)), key=lambda n: order(whole[n]))
    return list(range(len(whole)))
