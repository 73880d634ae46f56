"""Figures of ablations: bars with every seed as a dot, panel beside panel, and a map of two penalties."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmgl_cli.reports.experiment_figures import Measured
from cmgl_cli.reports.style import BLUE, INK, MUTED, ORANGE, SEQUENTIAL, new_figure, styled


@dataclass(frozen=True)
class BarPanel:
    """One set of axes with a bar for every value of a parameter.

    Attributes
    ----------
    title, metric : str
        `metric` is drawn to the right.
    against : str
        The parameter whose values are the bars.
    results : Measured
    """

    title: str
    metric: str
    against: str
    results: Measured


def bars_figure(panels: Sequence[BarPanel], *, first: str = "", columns: int = 3) -> Figure:
    """Draw one bar a value, its mean and standard deviation, and every repetition as a dot.

    Parameters
    ----------
    panels : sequence of BarPanel
    first : str
        The value drawn in the other colour.
    columns : int
        Panels a row.
    """
    width, rows = min(columns, len(panels)), -(-len(panels) // columns)
    most = max(len(panel.results.values(panel.against)) for panel in panels)
    with styled():
        figure = new_figure(4.6 * width, (0.36 * most + 1.1) * rows)
        grid = figure.subplots(rows, width, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _bars(axes, panel, first)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
    return figure


def _bars(axes: Axes, panel: BarPanel, first: str) -> None:
    names = panel.results.values(panel.against)
    columns = [panel.results.where(**{panel.against: name}).column(panel.metric) for name in names]
    columns = [values[np.isfinite(values)] for values in columns]
    for place, (name, values) in enumerate(zip(names, columns, strict=True)):
        if not values.size:
            axes.text(0, place, " not measured", va="center", color=MUTED, fontsize=8.5)
            continue
        own = str(name) == first
        axes.barh(place, values.mean(), 0.62, color=ORANGE if own else BLUE, alpha=0.85)
        if values.size > 1:
            axes.errorbar(values.mean(), place, xerr=values.std(), color=INK, capsize=2.5, linewidth=1)
        axes.plot(values, np.full(values.size, place), "o", color=INK, markersize=2.6, alpha=0.7)
    axes.set_yticks(range(len(names)), [str(name) for name in names])
    axes.invert_yaxis()
    axes.set(title=panel.title, xlabel=panel.metric)
    axes.grid(axis="x")
    _zoom(axes, np.concatenate([values for values in columns if values.size] or [np.zeros(1)]))


def _zoom(axes: Axes, values: np.ndarray) -> None:
    """Cut the axis where the differences would drown; bars then start at a value that the axis shows."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high - low < 0.4 * high:
        axes.set_xlim(max(0.0, low - 1.2 * (high - low) - 1e-3), high + 0.15 * (high - low) + 1e-3)


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
