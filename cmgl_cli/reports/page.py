"""The report page: one HTML file that needs nothing but itself, and its Markdown twin, from plain data."""

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cmgl_cli.errors import InputError

NUMBER = re.compile(r"[<>~≈±+\-−]?\s*\d[\d.,]*(e[+-]?\d+)?\s*(%|[a-zA-Zµ/]{1,7})?(\s*±\s*\d[\d.,]*\s*%?)?")
"""What counts as a number in a cell: a sign, digits, a short unit, a spread."""

SCREEN_SHARE = 0.58
"""CSS pixels a pixel of a figure: drawn at 150 dots an inch, its text is about as large as the page's captions."""


@dataclass(frozen=True)
class Table:
    """A table of text; columns that hold numbers alone are set flush right.

    Attributes
    ----------
    columns : sequence of str
    rows : sequence of sequence of str
        Formatted cells, as many in each row as there are columns.
    caption : str
    emphasised : sequence of int
        Rows set in bold, such as our own method among the baselines.
    folded : bool
        Shown on request only; needs a caption.

    Raises
    ------
    InputError
        If a row has another number of cells than there are columns.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    emphasised: Sequence[int] = ()
    folded: bool = False

    def __post_init__(self) -> None:
        for index, cells in enumerate(self.rows):
            if len(cells) != len(self.columns):
                raise InputError(
                    "a table row does not fit its columns",
                    f"row {index}: {len(cells)} cells for {len(self.columns)} columns",
                    "give every row one cell a column",
                )

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers (and blanks or dashes) alone."""
        columns = [[row[j].strip() for row in self.rows] for j in range(len(self.columns))]
        filled = [[cell for cell in column if cell not in ("", "-", "–", "—")] for column in columns]
        return [bool(cells) and all(NUMBER.fullmatch(cell) for cell in cells) for cells in filled]


@dataclass(frozen=True)
class Figure:
    """A picture in the report.

    Attributes
    ----------
    name : str
        File name without ending, for the Markdown twin: letters, digits, ``-`` and ``_``.
    png : bytes
    alt : str
        What the picture shows, for those who cannot see it.
    caption : str
    reading : str
        How to read it, for someone who has read neither paper.
    photo : bool
        It holds photographs, so a dark page must not turn its colours round.
    zoom : float
        How much larger than usual its pixels are shown.

    Raises
    ------
    InputError
        If the name is not a plain file name, the bytes are no PNG or the alternative text is missing.
    """

    name: str
    png: bytes
    alt: str
    caption: str = ""
    reading: str = ""
    photo: bool = False
    zoom: float = 1.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+", self.name):
            raise InputError(
                "a figure's name must be a plain file name", repr(self.name), "use letters, digits, - and _"
            )
        if not self.png.startswith(b"\x89PNG\r\n\x1a\n"):
            raise InputError("a figure must be PNG", f"figure {self.name!r}", "save it with cmgl_cli.reports.png")
        if not self.alt.strip():
            raise InputError("a figure needs an alternative text", f"figure {self.name!r}", "say what it shows")

    @property
    def data_uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as a page shows it at full size, in CSS pixels."""
        width, height = struct.unpack(">II", self.png[16:24])
        return round(width * SCREEN_SHARE * self.zoom), round(height * SCREEN_SHARE * self.zoom)


@dataclass(frozen=True)
class Section:
    """One part of the report: text, then points, a listing, tables, figures, and parts of its own.

    Attributes
    ----------
    heading : str
    paragraphs : sequence of str
        Plain text; nothing in it is read as HTML or Markdown.
    tables : sequence of Table
    figures : sequence of Figure
    points : sequence of str
        Shown as a list.
    listing : str
        Lines whose spaces matter, such as a tree.
    parts : sequence of Section
        Subsections; theirs are not shown.
    """

    heading: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    points: Sequence[str] = ()
    listing: str = ""
    parts: "Sequence[Section]" = ()

    @property
    def all_figures(self) -> "list[Figure]":
        """Its figures, those of its parts among them."""
        return [*self.figures, *(figure for part in self.parts for figure in part.figures)]


def build_page(
    title: str,
    sections: Sequence[Section],
    *,
    subtitle: str = "",
    facts: Mapping[str, str] | None = None,
    figure_folder: str = "figures",
) -> tuple[str, str]:
    """Return the report as HTML and as Markdown.

    The HTML holds its pictures and style and reaches for no network; it follows the reader's light or dark setting. The
    Markdown refers to pictures as ``<figure_folder>/<name>.png``, which the caller writes from each `Figure.png`.

    Parameters
    ----------
    title : str
    sections : sequence of Section
    subtitle : str
        One sentence below the title: the result.
    facts : mapping of str to str, optional
        Provenance (data set, encoder, seed, command), shown as a list at the end.
    figure_folder : str
        Folder of the Markdown's pictures, relative to it.

    Raises
    ------
    InputError
        If two figures share a name.
    """
    names = [figure.name for section in sections for figure in section.all_figures]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise InputError("two figures share a name", ", ".join(sorted(doubled)), "name every figure differently")
    context = {
        "title": title,
        "subtitle": subtitle,
        "sections": sections,
        "facts": facts or {},
        "figure_folder": figure_folder,
        "anchors": _anchors([section.heading for section in sections]),
    }
    html, markdown = (_environment().get_template(name).render(context) for name in ("page.html", "page.md"))
    return html, re.sub(r"\n{3,}", "\n\n", re.sub(r" +\n", "\n", markdown)).strip() + "\n"


@cache
def _environment() -> Environment:
    """Return the template environment; HTML is escaped by Jinja, Markdown by the ``plain`` filter."""
    environment = Environment(
        loader=PackageLoader("cmgl_cli.reports", ""),
        autoescape=lambda name: bool(name and name.endswith(".html")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = _plain
    environment.filters["breakable"] = _breakable
    return environment


def _plain(text: str) -> str:
    """Escape what Markdown or HTML would read as markup, and fold the text into one line."""
    folded = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", folded)


def _breakable(text: str) -> Markup:
    """Let long paths and identifiers break after a slash on narrow screens."""
    return Markup("/<wbr>").join(Markup.escape(part) for part in text.split("/"))


def _anchors(headings: Sequence[str]) -> list[str]:
    """Return a unique fragment identifier for each heading."""
    anchors: list[str] = []
    for heading in headings:
        base = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "section"
        anchor, number = base, 2
        while anchor in anchors:
            anchor, number = f"{base}-{number}", number + 1
        anchors.append(anchor)
    return anchors
