"""Figures of graphs: signed edges around a circle or as ordered matrices, and the prior that weighed them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from cmgl_cli.reports.style import (
    BLUE,
    DASHES,
    DIVERGING,
    INK,
    MUTED,
    ORANGE,
    SEQUENTIAL,
    image_axes,
    new_figure,
    styled,
)

MOST_EDGES = 45
"""Edges drawn in one circle; of more, the strongest are drawn and the title says so."""
MOST_NAMED = 64
"""Nodes up to which each is named: more names could not be read."""
COLUMNS = 3
"""Panels side by side: more would be too small to read on a page."""


def node_order(strength: NDArray) -> NDArray:
    """Return an order of the nodes that puts strongly linked ones beside each other.

    Parameters
    ----------
    strength : ndarray, [p, p]
        Symmetric edge strengths; only magnitudes off the diagonal count.

    Returns
    -------
    ndarray, int, [p]
        Leaves of average-linkage clustering with optimal leaf order.
    """
    size = np.abs(np.asarray(strength, dtype=float))
    if len(size) < 3:
        return np.arange(len(size))
    distance = (size * (1 - np.eye(len(size)))).max() - size
    distance = (distance + distance.T) / 2
    np.fill_diagonal(distance, 0)
    return leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=True))


def circle_figure(
    graphs: Mapping[str, NDArray],
    *,
    node_names: Sequence[str] | None = None,
    order: NDArray | None = None,
    quantity: str = "partial correlation",
    title: str = "Graphs",
) -> Figure:
    """Draw one circle of nodes for each graph: edges by sign (colour and line style) and strength (width).

    Parameters
    ----------
    graphs : mapping of str to ndarray, [p, p]
        Signed edge strengths by panel title, such as ``{"common": ..., "cat": ..., ...}``; zero means no edge. The
        nodes are ordered by the first graph in all panels.
    node_names : sequence of str, optional
        Node numbers by default.
    order : ndarray, int, [p], optional
        Of the nodes, clockwise from the top; by default clustered by the first graph.
    quantity : str
        What the strengths are, for the legend.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    matrices = [np.asarray(matrix, dtype=float) for matrix in graphs.values()]
    order = node_order(matrices[0]) if order is None else order
    names = [str(i) for i in range(len(order))] if node_names is None else list(node_names)
    strongest = max((np.abs(_pairs(matrix)[2]).max(initial=0) for matrix in matrices), default=0) or 1.0
    with styled():
        figure, panels = _grid(len(matrices), 3.3)
        for axes, (name, matrix) in zip(panels, zip(graphs, matrices, strict=True), strict=False):
            draw_circle(axes, matrix[np.ix_(order, order)], [names[i] for i in order], strongest)
            axes.set_title(f"{name}\n{_edge_note(matrix)}", fontsize=9.5, loc="center")
        widest = _widest(len(order))
        handles = [
            Line2D([], [], color=ORANGE, linewidth=3, label=f"positive {quantity}"),
            Line2D([], [], color=BLUE, linewidth=3, linestyle=DASHES, label=f"negative {quantity}"),
            Line2D([], [], color=MUTED, linewidth=0.4 + widest, label=f"strength {strongest:.2g}"),
            Line2D([], [], color=MUTED, linewidth=0.4 + 0.3 * widest, label=f"strength {strongest * 0.3:.2g}"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4 if len(matrices) > 2 else 2, fontsize=8.5)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    return figure


def matrix_figure(
    graphs: Mapping[str, NDArray],
    *,
    order: NDArray | None = None,
    quantity: str = "partial correlation",
    title: str = "Graphs as matrices",
) -> Figure:
    """Draw each graph as a matrix, all in one order; blue negative, orange positive, white no edge.

    Parameters
    ----------
    graphs : mapping of str to ndarray, [p, p]
        As in `circle_figure`; diagonals are left blank.
    order : ndarray, int, [p], optional
        Of the nodes; by default clustered by the first graph.
    quantity, title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    matrices = [np.asarray(matrix, dtype=float) for matrix in graphs.values()]
    order = node_order(matrices[0]) if order is None else order
    strengths = np.abs(np.concatenate([_pairs(matrix)[2] for matrix in matrices]))
    limit = float(np.quantile(strengths, 0.99)) if len(strengths) else 1.0
    with styled():
        figure, panels = _grid(len(matrices), 3.1)
        for axes, (name, matrix) in zip(panels, zip(graphs, matrices, strict=True), strict=False):
            shown = matrix[np.ix_(order, order)].copy()
            np.fill_diagonal(shown, 0)
            picture = axes.imshow(shown, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
            axes.set_title(f"{name}\n{_edge_count(matrix)}", fontsize=9.5, loc="center")
            image_axes(axes)
            for spine in axes.spines.values():
                spine.set(visible=True, color=MUTED, linewidth=0.6)
        bar = figure.colorbar(picture, ax=panels, shrink=0.75, aspect=30, pad=0.02, extend="both")
        bar.set_label(quantity)
        bar.outline.set_visible(False)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    return figure


def prior_figure(
    prior: NDArray,
    class_names: Sequence[str],
    *,
    order: NDArray | None = None,
    title: str = "Prior",
    most_classes: int = 3,
) -> Figure:
    """Draw prior heat maps of some classes, and how the off-diagonal values of all classes are distributed.

    Parameters
    ----------
    prior : ndarray, [C, p, p]
        Values in [0, 1].
    class_names : sequence of str
    order : ndarray, int, [p], optional
        Of the nodes; by default clustered by the mean prior.
    title : str
    most_classes : int
        Heat maps drawn, the first so many classes.

    Returns
    -------
    matplotlib.figure.Figure
    """
    stack = np.asarray(prior, dtype=float)
    shown = min(most_classes, len(stack))
    order = node_order(stack.mean(0)) if order is None else order
    rows, cols = np.triu_indices(stack.shape[1], 1)
    values = stack[:, rows, cols].ravel()
    with styled():
        figure = new_figure(2.9 * shown + 4.4, 3.7)
        *maps, histogram = figure.subplots(1, shown + 1, width_ratios=[1] * shown + [1.35])
        for axes, matrix, name in zip(maps, stack, class_names, strict=False):
            picture = axes.imshow(
                matrix[np.ix_(order, order)], cmap=SEQUENTIAL, vmin=0, vmax=1, interpolation="nearest"
            )
            axes.set_title(name, fontsize=9.5, loc="center")
            image_axes(axes)
        bar = figure.colorbar(picture, ax=maps, shrink=0.8, pad=0.02)
        bar.set_label("prior P")
        bar.outline.set_visible(False)
        _draw_distribution(histogram, values, len(stack))
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    return figure


def _draw_distribution(axes: Axes, values: NDArray, n_classes: int) -> None:
    """Draw the histogram of off-diagonal priors with its quartiles."""
    axes.hist(values, bins=40, range=(0, 1), weights=np.full(len(values), 100 / len(values)), color=BLUE)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    axes.axvspan(low, high, color=ORANGE, alpha=0.15, linewidth=0, label=f"middle half: {low:.2f} to {high:.2f}")
    axes.axvline(middle, color=ORANGE, linewidth=2, label=f"median {middle:.2f}")
    axes.set(xlim=(0, 1), xlabel="off-diagonal prior", ylabel="% of node pairs")
    axes.set_title(f"Off-diagonal values, {n_classes} classes", fontsize=9.5)
    axes.legend(fontsize=8.5, loc="upper left" if middle > 0.5 else "upper right")
    axes.grid(axis="y")


def _grid(n_panels: int, side: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of `n_panels` square panels, at most `COLUMNS` in a row; surplus places stay empty."""
    columns = min(COLUMNS, n_panels)
    rows = -(-n_panels // columns)
    figure = new_figure(max(side * columns, 4.6) + 0.6, side * rows + 1.1)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[n_panels:]:
        axes.set_visible(False)
    return figure, list(panels)


def _pairs(matrix: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Return the node pairs that have an edge, and its strength."""
    rows, cols = np.nonzero(np.triu(matrix, 1))
    return rows, cols, matrix[rows, cols]


def _edge_count(matrix: NDArray) -> str:
    """Say how many edges there are, by sign."""
    values = _pairs(matrix)[2]
    return f"{len(values):,} edges ({(values > 0).sum():,} +, {(values < 0).sum():,} −)"


def _edge_note(matrix: NDArray) -> str:
    """Say how many edges there are and, where not all are drawn, how many are."""
    drawn = len(_pairs(matrix)[2])
    return _edge_count(matrix) + (f"\n{MOST_EDGES} strongest drawn" if drawn > MOST_EDGES else "")


def draw_circle(axes: Axes, matrix: NDArray, names: Sequence[str], strongest: float) -> None:
    """Draw nodes on a circle and edges as curves bent toward the centre, the strongest on top.

    Parameters
    ----------
    axes : Axes
    matrix : ndarray, [p, p]
        Signed strengths, nodes in order of the circle.
    names : sequence of str
    strongest : float
        Strength that is drawn widest.
    """
    angle = np.pi / 2 - 2 * np.pi * np.arange(len(names)) / len(names)
    place = np.column_stack([np.cos(angle), np.sin(angle)])
    rows, cols, values = _pairs(matrix)
    keep = np.argsort(np.abs(values), kind="stable")[-MOST_EDGES:]
    rows, cols, values = rows[keep], cols[keep], values[keep]
    t = np.linspace(0, 1, 24)[:, None]
    curves = []
    for start, end in zip(place[rows], place[cols], strict=True):
        # The longer the chord, the nearer its control point to the centre: neighbours bow little, long edges leave
        # the rim.
        bend = (0.9 - 0.25 * np.linalg.norm(end - start)) * (start + end) / 2
        curves.append((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end)
    relative = np.abs(values) / strongest
    widest = _widest(len(names))
    axes.add_collection(
        LineCollection(
            curves,
            colors=[
                (*_rgb(ORANGE if value > 0 else BLUE), 0.35 + 0.6 * r)
                for value, r in zip(values, relative, strict=True)
            ],
            linewidths=0.4 + widest * relative,
            linestyles=["-" if value > 0 else DASHES for value in values],
            capstyle="butt",
        )
    )
    linked = np.isin(np.arange(len(names)), np.concatenate([rows, cols]))
    axes.scatter(
        place[:, 0], place[:, 1], s=26, color=np.where(linked, INK, "white"), edgecolor=INK, linewidth=0.9, zorder=3
    )
    size = 7.5 if len(names) <= 40 else 5.5
    for (x, y), name in zip(place * 1.13, names if len(names) <= MOST_NAMED else [], strict=False):
        axes.text(x, y, name, ha="center", va="center", fontsize=size, color=INK)
    axes.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal")
    image_axes(axes)


def _widest(n_nodes: int) -> float:
    """Return how much wider than the weakest edge the strongest one is drawn, in points."""
    return 4.6 if n_nodes <= 40 else 3.0


def _rgb(colour: str) -> tuple[float, float, float]:
    """Return a hex colour as three fractions."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue
