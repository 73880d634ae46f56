"""A page of bounded weight: the heaviest pictures are drawn coarser until all fit."""

import io
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from cmgl_cli.reports.page import Figure, Section

MOST_BYTES = 10_000_000
"""Of all pictures; base64 makes a third more of it in the page."""
LEAST_BYTES = 60_000
"""Pictures lighter than this are left as they are."""


def within(sections: Sequence[Section], most_bytes: int = MOST_BYTES) -> list[Section]:
    """Return the sections with the heaviest pictures halved, again and again, until all weigh less than `most_bytes`.

    A halved picture is shown as large as before.
    """
    figures = {figure.name: figure for section in sections for figure in section.all_figures}
    while sum(len(figure.png) for figure in figures.values()) > most_bytes:
        heaviest = max(figures.values(), key=lambda figure: len(figure.png))
        if len(heaviest.png) < LEAST_BYTES:
            break
        figures[heaviest.name] = halved(heaviest)
    return [_with(section, figures) for section in sections]


def halved(figure: Figure) -> Figure:
    """Return a figure of half as many pixels a side, shown as large as before."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(figure.png)) as picture:
        small = picture.convert("RGB").resize((max(1, picture.width // 2), max(1, picture.height // 2)))
    small.save(buffer, format="PNG", optimize=True)
    return replace(figure, png=buffer.getvalue(), zoom=2 * figure.zoom)


def _with(section: Section, figures: dict[str, Figure]) -> Section:
    return replace(
        section,
        figures=[figures[figure.name] for figure in section.figures],
        parts=[_with(part, figures) for part in section.parts],
    )
