"""What the sections share: figures from drawings, samples of many classes, numbers as text."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure as Drawing

from cmgl_cli.reports.material import Run, kinds
from cmgl_cli.reports.page import Figure
from cmgl_cli.reports.style import png

CLASSES_DRAWN = 5
"""Classes of which pictures are drawn; tables say when there are more."""


def figure(name: str, drawing: Drawing, caption: str, reading: str = "", *, photo: bool = False) -> Figure:
    """Return a drawing as a figure of the page; its caption is its alternative text, with what it shows added."""
    return Figure(name, png(drawing), f"{caption}. {reading}".strip(), caption + ".", reading, photo)


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
