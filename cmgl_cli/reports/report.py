"""The report: sections in order, one page, its Markdown twin, and the pictures of the twin."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from cmgl_cli.artifacts.disk import publish_file
from cmgl_cli.reports.budget import within
from cmgl_cli.reports.material import Run
from cmgl_cli.reports.page import build_page
from cmgl_cli.reports.sections import (
    attention,
    classification,
    differences,
    evidence,
    experiments,
    graphs,
    opening,
    prior,
    provenance,
    restoration,
    segmentation,
)
from cmgl_cli.reports.sections.parts import listed

SECTIONS = (
    opening,
    classification,
    evidence,
    segmentation,
    restoration,
    experiments,
    differences,
    graphs,
    attention,
    prior,
    provenance,
)


@dataclass(frozen=True)
class Written:
    """Where a report lies.

    Attributes
    ----------
    page, twin : Path
        HTML and Markdown.
    sections : tuple of str
    notes : tuple of str
        What is missing.
    """

    page: Path
    twin: Path
    sections: tuple[str, ...]
    notes: tuple[str, ...]


def write_report(runs: Sequence[Run], page: Path) -> Written:
    """Write the report of some runs: an HTML page, a Markdown twin beside it, and the twin's pictures.

    Parameters
    ----------
    runs : sequence of Run
        Pictures are of the first; numbers of all.
    page : Path
        Of the HTML; the twin has its name with ``.md``, the pictures lie in a folder ``<name>-figures``.
    """
    sections = within([section for room in SECTIONS for section in room.sections(runs)])
    figures = f"{page.stem}-figures"
    title = "cmgl: " + listed([run.name for run in runs])
    html, markdown = build_page(title, sections, subtitle=classification.headline(runs), figure_folder=figures)
    for section in sections:
        for figure in section.all_figures:
            publish_file(page.parent / figures / f"{figure.name}.png", partial(_write, figure.png))
    twin = page.with_suffix(".md")
    publish_file(page, partial(_write, html.encode()))
    publish_file(twin, partial(_write, markdown.encode()))
    notes = tuple(note if len(runs) == 1 else f"{run.name}: {note}" for run in runs for note in run.notes)
    return Written(page, twin, tuple(section.heading for section in sections), notes)


def _write(data: bytes, file: IO[bytes]) -> None:
    file.write(data)
