"""What the sections share: figures from drawings, samples of many classes, numbers as text."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure as Drawing

from cmgl_cli.reports.material import Run, kinds
from cmgl_cli.reports.page import Figure, Table
from cmgl_cli.reports.style import png, slim

CLASSES_DRAWN = 5
"""Classes of which pictures are drawn; tables say when there are more."""
ROWS_SHOWN = 25
"""Rows of a table with one row a class; the artifact holds them all."""


def figure(name: str, drawing: Drawing, caption: str, reading: str = "", *, photo: bool = False) -> Figure:
    """Return a drawing as a figure of the page; caption and reading together are its alternative text."""
    return Figure(
        name, slim(png(drawing), dither=photo), f"{caption}. {reading}".strip(), caption + ".", reading, photo
    )


def first(runs: Sequence[Run], *wanted: str) -> Run | None:
    """Return the first run that has artifacts of all these kinds."""
    found = list(runs)
    for kind in wanted:
        found = kinds(found, kind)
    return found[0] if found else None


def drawn_classes(weight: np.ndarray, most: int = CLASSES_DRAWN) -> list[int]:
    """Return the classes to draw: all where they are few, else the heaviest, in order of index."""
    return sorted(np.argsort(-np.asarray(weight), kind="stable")[:most].tolist())


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return names as one text, cut where they are many."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def shortened(table: Table, most: int = ROWS_SHOWN) -> Table:
    """Return a table of at most so many rows; its caption says how many there are."""
    if len(table.rows) <= most:
        return table
    caption = f"{table.caption} (the first {most} of {len(table.rows)})"
    kept = [at for at in table.emphasised if at < most]
    return replace(table, rows=table.rows[:most], caption=caption, emphasised=kept)


def signed(value: float, digits: int = 2) -> str:
    """Return a number with its sign, in so many digits after the point, more where it would vanish."""
    if value and abs(value) < 0.5 * 10**-digits:
        return f"{value:+.1g}"
    return f"{value:+,.{digits}f}" if abs(value) < 100 else f"{value:+,.0f}"
