"""Figures of ablations: means with every seed as a dot, panel beside panel, and a map of two penalties."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cmgl_cli.reports.experiment_figures import Measured
from cmgl_cli.reports.style import BLUE, INK, MUTED, ORANGE, SEQUENTIAL, new_figure, styled


@dataclass(frozen=True)
class DotPanel:
    """One set of axes with a row for every value of a parameter.

    Attributes
    ----------
    title, metric : str
        `metric` is drawn to the right.
    against : str
        The parameter whose values are the rows.
    results : Measured
    beside : str
        A metric drawn as a grey bar beside the first, to compare with.
    """

    title: str
    metric: str
    against: str
    results: Measured
    beside: str = ""


def dots_figure(panels: Sequence[DotPanel], *, first: str = "", columns: int = 3) -> Figure:
    """Draw mean, standard deviation and every repetition of every row.

    Dots and not bars: differences are small against the values, and a bar that does not start at 0 misleads.

    Parameters
    ----------
    panels : sequence of DotPanel
    first : str
        The value drawn in the other colour.
    columns : int
        Panels a row.
    """
    width, rows = min(columns, len(panels)), -(-len(panels) // columns)
    most = max(len(panel.results.values(panel.against)) for panel in panels)
    with styled():
        figure = new_figure(4.6 * width, (0.32 * most + 1.1) * rows)
        grid = figure.subplots(rows, width, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _rows(axes, panel, first)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
    return figure


def _rows(axes: Axes, panel: DotPanel, first: str) -> None:
    names = panel.results.values(panel.against)
    for place, name in enumerate(names):
        part = panel.results.where(**{panel.against: name})
        values = _known(part.column(panel.metric))
        if not values.size:
            axes.text(0.02, place, "does not apply", transform=axes.get_yaxis_transform(), va="center", color=MUTED)
            continue
        colour = ORANGE if str(name) == first else BLUE
        axes.errorbar(
            values.mean(), place, xerr=values.std(), fmt="o", color=colour, markersize=7, capsize=3, linewidth=1.6
        )
        axes.plot(values, np.full(values.size, place + 0.22), "o", color=INK, markersize=2.6, alpha=0.7)
        other = _known(part.column(panel.beside)) if panel.beside else values[:0]
        if other.size:
            axes.plot(other.mean(), place, "|", color=MUTED, markersize=16, markeredgewidth=2, label=panel.beside)
    axes.set_yticks(range(len(names)), [str(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set(title=panel.title, xlabel=f"{panel.metric} (grey: {panel.beside})" if panel.beside else panel.metric)
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="both")


def _known(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def map_figure(panels: Sequence[tuple[str, Measured, str]], x: str, y: str) -> Figure:
    """Draw means over two parameters as numbered tiles, one panel a metric.

    Parameters
    ----------
    panels : sequence of (title, Measured, metric)
    x, y : str
        Parameters to the right and downwards.
    """
    with styled():
        figure = new_figure(4.6 * len(panels), 3.4)
        grid = figure.subplots(1, len(panels), squeeze=False)
        for axes, (title, part, metric) in zip(grid.flat, panels, strict=True):
            across, down = sorted(part.values(x)), sorted(part.values(y))
            values = [[float(np.nanmean(part.where(**{x: a, y: d}).column(metric))) for a in across] for d in down]
            image = axes.imshow(np.array(values), cmap=SEQUENTIAL, aspect="auto")
            middle = (np.nanmin(values) + np.nanmax(values)) / 2
            for i, row in enumerate(values):
                for j, value in enumerate(row):
                    colour = "white" if value > middle else INK
                    text = f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"
                    axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8.5)
            axes.set_xticks(range(len(across)), [f"{value:g}" for value in across])
            axes.set_yticks(range(len(down)), [f"{value:g}" for value in down])
            axes.set(title=title, xlabel=x, ylabel=y)
            figure.colorbar(image, ax=axes, label=metric)
    return figure
