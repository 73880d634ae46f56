"""Figures of experiments: errors of many methods against one parameter, panel beside panel, one legend for all."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmgl_cli.reports.style import INK, MUTED, SERIES, new_figure, styled

MARKERS = "osD^vP*X<>hd"


class Measured(Protocol):
    """What a panel is drawn from: cells selected by parameters, and metrics as columns."""

    @property
    def cells(self) -> Sequence[Mapping[str, Any]]:
        """Return the parameters of every cell."""

    def values(self, parameter: str) -> list[Any]:
        """Return the distinct values of a parameter."""

    def where(self, **fixed: Any) -> "Measured":
        """Return the cells with these parameters."""

    def column(self, metric: str) -> np.ndarray:
        """Return one metric of all cells."""


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes
    ----------
    title, x_label : str
    metric : str
        What is drawn upwards.
    results : Measured
        Cells with a parameter ``method``.
    against : str
        The parameter drawn to the right.
    bars : tuple of str
        Metrics drawn as one group of bars a method, in place of lines.
    relative_to : str
        Bars are shares of this method's, where it was run.
    """

    title: str
    x_label: str
    metric: str
    results: Measured
    against: str
    bars: tuple[str, ...] = ()
    relative_to: str = ""


def panels_figure(
    panels: Sequence[Panel], *, columns: int, first: str, left_out: Collection[str] = frozenset()
) -> Figure:
    """Draw mean and spread of every method in every panel.

    Parameters
    ----------
    panels : sequence of Panel
    columns : int
        Panels a row.
    first : str
        The method that is drawn on top and thick.
    left_out : collection of str
        Methods that would flatten the rest.
    """
    methods = list(dict.fromkeys(m for panel in panels for m in panel.results.values("method") if m not in left_out))
    looks = {name: (SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(methods)}
    rows = -(-len(panels) // columns)
    with styled():
        figure = new_figure(4.1 * min(columns, len(panels)) + 2.2, 3.3 * rows + 0.2)
        grid = figure.subplots(rows, min(columns, len(panels)), squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            (_bars if panel.bars else _lines)(axes, panel, looks, first)
            axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.metric)
            axes.grid(axis="y")
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=8.5)
    return figure


def _lines(axes: Axes, panel: Panel, looks: Mapping[str, tuple[str, str]], first: str) -> None:
    for name in panel.results.values("method"):
        if name not in looks:
            continue
        part = panel.results.where(method=name)
        places = sorted(part.values(panel.against))
        columns = [part.where(**{panel.against: place}).column(panel.metric) for place in places]
        mean, spread = (np.array([reduce(c) for c in columns]) for reduce in (np.mean, np.std))
        colour, marker = looks[name]
        own = name == first
        axes.errorbar(
            places,
            mean,
            yerr=spread,
            color=colour,
            marker=marker,
            markersize=6 if own else 4.5,
            linewidth=2.4 if own else 1.2,
            zorder=3 if own else 2,
            capsize=2,
            label=name,
        )
        axes.set_xticks(places, [f"{place:.0%}" if place < 1 else f"{place:g}" for place in places])
    low, high = axes.get_ylim()
    if low > 0 and high > 8 * low or _wide(axes):
        axes.set_yscale("log")


def _wide(axes: Axes) -> bool:
    """Tell whether the means span more than a factor of eight."""
    drawn = [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.get_lines()]
    values = np.concatenate([*drawn, np.zeros(1)])
    positive = values[np.isfinite(values) & (values > 0)]
    return bool(positive.size and positive.max() > 8 * positive.min())


def _bars(axes: Axes, panel: Panel, looks: Mapping[str, tuple[str, str]], first: str) -> None:
    names = [name for name in panel.results.values("method") if name in looks]
    width = 0.85 / max(len(names), 1)
    base = panel.results.where(method=panel.relative_to)
    units = [float(np.nanmean(base.column(metric))) if base.cells else 1.0 for metric in panel.bars]
    for i, name in enumerate(names):
        part = panel.results.where(method=name)
        heights = [
            float(np.nanmean(part.column(metric))) / unit for metric, unit in zip(panel.bars, units, strict=True)
        ]
        at = np.arange(len(panel.bars)) + (i - (len(names) - 1) / 2) * width
        edge = INK if name == first else MUTED
        axes.bar(at, heights, width, color=looks[name][0], edgecolor=edge, linewidth=0.5, label=name)
    axes.set_xticks(np.arange(len(panel.bars)), [metric.removeprefix("MSE ") for metric in panel.bars])
