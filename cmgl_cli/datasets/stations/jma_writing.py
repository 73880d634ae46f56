"""Write a restored table into the agency's CSV it came from.

Dates, quality and all other columns keep their places and their text. Marks and standard errors stand in columns of
their own at the end of each line, labelled ``filled`` and ``standard_error`` in the last line of the header.
"""

from pathlib import Path

import numpy as np

from cmgl_cli.datasets.stations.jma_file import ELEMENTS, ERROR_LABEL, FILLED_LABEL, Block, JmaFile, open_jma
from cmgl_cli.datasets.stations.restored import Restored, csv_text, decimals, time_like
from cmgl_cli.datasets.stations.times import as_steps, parse_times

_NEW_LINE = -1


def fill_jma(path: Path, raw: bytes, restored: Restored) -> bytes:
    """Return the content of a download with its gaps filled.

    Parameters
    ----------
    path : Path
        The download, as it was read.
    raw : bytes
        Its content.
    restored : Restored
        A table that has its stations and elements.

    Returns
    -------
    bytes
        The new content, in the encoding and with the line ends of the old.
    """
    file, table = open_jma(path), restored.table
    names = [ELEMENTS.get(block.element, block.element) for block in file.blocks]
    blocks = [
        (block, table.stations.index(block.station), table.variables.index(name))
        for block, name in zip(file.blocks, names, strict=True)
        if name in table.variables and block.station in table.stations
    ]
    lines, times = _all_lines(file, restored, blocks)
    marks: list[list[str]] = [[] for _ in lines]
    for block, i, k in blocks:
        digits = decimals(row[block.value] for row in file.rows[file.start :])
        for line, mark, t in zip(lines, marks, times, strict=True):
            done = t >= 0 and bool(restored.filled[t, i, k])
            if done:
                line[block.value] = f"{restored.values[t, i, k]:.{digits}f}"
            mark += [str(int(done)), restored.error_text((t, i, k), digits + 1) if done else ""]
    kept = _kept_columns(file)
    header = _header(file, kept, [block for block, _, _ in blocks])
    body = [[line[n] for n in kept] + mark for line, mark in zip(lines, marks, strict=True)]
    return csv_text([*header, *body], newline=file.newline).encode(file.encoding)


def _all_lines(
    file: JmaFile, restored: Restored, blocks: list[tuple[Block, int, int]]
) -> tuple[list[list[str]], list[int]]:
    """Return copies of the data lines with new ones for filled times the file lacks, and each line's time index."""
    table = restored.table
    lines = [list(row) for row in file.rows[file.start :]]
    dates = as_steps(parse_times(file.dates())[0], table.frequency)
    places = np.searchsorted(table.time, dates).clip(max=len(table.time) - 1)
    times = [int(t) if table.time[t] == date else _NEW_LINE for t, date in zip(places, dates, strict=True)]
    own = np.zeros(len(table.time), dtype=bool)
    for _, i, k in blocks:
        own |= restored.filled[:, i, k]
    own &= (table.time >= dates.min()) & (table.time <= dates.max())
    present = set(times)
    for t in np.flatnonzero(own):
        if int(t) not in present:
            lines.append(_new_line(file, table.time[t], table.frequency))
            times.append(int(t))
    moments = np.concatenate([dates, table.time[times[len(dates) :]]])
    order = np.argsort(moments, kind="stable")
    return [lines[n] for n in order], [times[n] for n in order]


def _new_line(file: JmaFile, time: np.datetime64, frequency: str) -> list[str]:
    example = file.rows[file.start]
    line = [""] * len(example)
    if file.date_columns == 1:
        line[0] = time_like(example[0], time, frequency)
        return line
    text = str(time.astype("datetime64[h]"))
    parts = (text[:4], text[5:7], text[8:10], text[11:13])
    line[: file.date_columns] = [str(int(part)) for part in parts[: file.date_columns]]
    return line


def _kept_columns(file: JmaFile) -> list[int]:
    """Return the columns of the download itself, without those of an earlier restoration."""
    labels = file.rows[file.start - 1]
    return [n for n in range(len(file.rows[file.start])) if labels[n] not in (FILLED_LABEL, ERROR_LABEL)]


def _header(file: JmaFile, kept: list[int], blocks: list[Block]) -> list[list[str]]:
    """Return the header lines, the wide ones lengthened by two columns a block."""
    wide = [n for n, row in enumerate(file.rows[: file.start]) if len(row) > 1]
    header = [[row[n] for n in kept] if i in wide else list(row) for i, row in enumerate(file.rows[: file.start])]
    if len(wide) == 2:  # a download without quality has no line of labels
        header.append([""] * len(kept))
        wide.append(len(header) - 1)
    for n in wide:
        for block in blocks:
            pair = {wide[0]: [block.station] * 2, wide[1]: [file.rows[wide[1]][block.value]] * 2}
            header[n] += pair.get(n, [FILLED_LABEL, ERROR_LABEL] if n == wide[-1] else ["", ""])
    return header
