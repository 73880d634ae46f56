"""The figure of two classes: the edges that tell them apart, in both graphs, and what each edge is worth."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from cmgl_cli.reports.graph_figures import draw_circle
from cmgl_cli.reports.style import BLUE, DASHES, INK, ORANGE, SERIES, new_figure, styled


def difference_figure(
    partial: Sequence[NDArray],
    worth: NDArray,
    edges: Sequence[tuple[int, int]],
    names: tuple[str, str],
    *,
    order: NDArray,
) -> Figure:
    """Draw some edges in the graphs of two classes, and their worth as bars.

    Parameters
    ----------
    partial : sequence of two ndarray, [p, p]
        Partial correlations of either class.
    worth : ndarray, [p, p]
        What each pair is worth because the graphs differ, nats.
    edges : sequence of (int, int)
        Those to draw, best first.
    names : tuple of str
    order : ndarray, int, [p]
        Of the nodes, clockwise from the top.

    Returns
    -------
    matplotlib.figure.Figure
    """
    p = len(order)
    chosen = np.zeros((p, p), dtype=bool)
    for i, j in edges:
        chosen[i, j] = chosen[j, i] = True
    kept = [np.where(chosen, matrix, 0.0) for matrix in partial]
    strongest = max((float(np.abs(matrix).max()) for matrix in kept), default=0.0) or 1.0
    labels = [str(i) for i in order]
    with styled():
        figure = new_figure(11.4, 4.2)
        left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.05])
        for axes, matrix, name in zip((left, middle), kept, names, strict=True):
            draw_circle(axes, matrix[np.ix_(order, order)], labels, strongest)
            axes.set_title(name, fontsize=10, loc="center")
        _bars(right, worth, edges)
        handles = [
            Line2D([], [], color=ORANGE, linewidth=3, label="rise together"),
            Line2D([], [], color=BLUE, linewidth=3, linestyle=DASHES, label="move against each other"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8.5)
    return figure


def _bars(axes: Axes, worth: NDArray, edges: Sequence[tuple[int, int]]) -> None:
    """Draw one bar an edge."""
    places = np.arange(len(edges))
    axes.barh(places, [worth[i, j] for i, j in edges], 0.7, color=SERIES[2])
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(places, [f"{i} – {j}" for i, j in edges], fontsize=8.5)
    axes.invert_yaxis()
    axes.set_xlabel("nats towards telling them apart")
    axes.grid(axis="x")
