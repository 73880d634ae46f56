"""Figures of segmentation: predictions over their images, and a graph drawn where its nodes look."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cmgl_cli.reports.attention_figures import overlay, rgb_picture
from cmgl_cli.reports.style import BLUE, DASHES, INK, MUTED, ORANGE, image_axes, new_figure, styled

OPACITY = 0.6
"""Opacity of a label over its picture."""


def overlay_figure(
    rows: Sequence[tuple[NDArray, NDArray | None, NDArray]],
    palette: NDArray,
    class_names: Sequence[str],
    *,
    ignore_label: int = 255,
    grey: bool = False,
    title: str = "Predictions",
) -> Figure:
    """Draw input, truth and prediction side by side, a row for each image, with the classes' colours below.

    Parameters
    ----------
    rows : sequence of (ndarray [H, W] or [H, W, 3], ndarray int [H, W] or None, ndarray int [H, W])
        Picture (uint8, or float in 0..1), true labels where known, and predicted labels.
    palette : ndarray, uint8, [C, 3]
        Colour of each class.
    class_names : sequence of str
        Only classes that occur are listed.
    ignore_label : int
        True label that is left uncoloured.
    grey : bool
        Draw labels over the picture in pale grey, so that its own colours cannot pass for labels.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    known = any(truth is not None for _, truth, _ in rows)
    heads = ["input", *(["truth"] if known else []), "prediction"]
    height, width = np.asarray(rows[0][0]).shape[:2]
    side = 2.9 if width >= height else 2.3
    with styled():
        figure = new_figure(side * len(heads) + 0.2, side * height / width * len(rows) + 1.2)
        grid = figure.subplots(len(rows), len(heads), squeeze=False)
        occurring: set[int] = set()
        for line, (picture, truth, prediction) in zip(grid, rows, strict=True):
            colour = rgb_picture(picture)
            ground = pale_grey(colour) if grey else colour
            shown = [None, *([truth] if known else []), prediction]
            for axes, labels, head in zip(line, shown, heads, strict=True):
                image_axes(axes)
                if labels is None and head != "input":
                    axes.text(0.5, 0.5, "no mask", ha="center", va="center", transform=axes.transAxes, color=MUTED)
                    continue
                axes.imshow(colour if labels is None else _tinted(ground, labels, palette, ignore_label))
                if labels is not None:
                    occurring |= set(np.unique(labels).tolist())
        for axes, head in zip(grid[0], heads, strict=True):
            axes.set_title(head, fontsize=9.5, loc="center")
        shown_classes = [c for c in sorted(occurring - {ignore_label}) if c < len(palette)]
        patches = [Patch(color=palette[c] / 255, label=class_names[c]) for c in shown_classes]
        figure.legend(handles=patches, loc="outside lower center", ncols=2 * len(heads), fontsize=8)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    return figure


def attention_grid_figure(picture: NDArray, maps: NDArray, title: str = "Attention of every node") -> Figure:
    """Draw the attention of all nodes over one picture as a grid.

    Parameters
    ----------
    picture : ndarray, [H, W] or [H, W, 3]
    maps : ndarray, [p, h, w]
        Attention on the patch grid; each map is scaled to its own maximum.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    colour = rgb_picture(picture)
    n_nodes = len(maps)
    columns = min(8, n_nodes)
    lines = -(-n_nodes // columns)
    aspect = colour.shape[0] / colour.shape[1]
    with styled():
        figure = new_figure(1.35 * columns + 0.2, (1.35 * aspect + 0.25) * lines + 0.5)
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in panels[n_nodes:]:
            axes.set_visible(False)
        for node, (axes, attention) in enumerate(zip(panels, maps, strict=False)):
            overlay(axes, colour, np.asarray(attention, dtype=float))
            axes.set_title(f"node {node}", fontsize=7.5, loc="center", fontweight="normal", pad=2)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    return figure


def graph_on_image_figure(
    picture: NDArray,
    maps: NDArray,
    graphs: Sequence[tuple[str, NDArray]],
    *,
    most_edges: int = 30,
    title: str = "Graphs where their nodes look",
) -> Figure:
    """Draw the edges of some graphs between the centres of their nodes' attention.

    Parameters
    ----------
    picture : ndarray, [H, W] or [H, W, 3]
    maps : ndarray, [p, h, w]
        Attention on the patch grid; a node stands at the centre of gravity of its map, the larger the more focused it
        is.
    graphs : sequence of (str, ndarray [p, p])
        Panel title and signed edge strengths, such as the graphs of the classes predicted in this image.
    most_edges : int
        Edges drawn, the strongest of each graph.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    colour = rgb_picture(picture)
    height, width = colour.shape[:2]
    centres, focus = attention_centres(maps, (height, width))
    strongest = max((float(np.abs(np.triu(graph, 1)).max()) for _, graph in graphs), default=0.0) or 1.0
    columns = min(3, len(graphs))
    lines = -(-len(graphs) // columns)
    with styled():
        figure = new_figure(max(4.0 * columns, 5.2), (4.0 * height / width + 0.35) * lines + 0.8)
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in panels[len(graphs) :]:
            axes.set_visible(False)
        for axes, (name, graph) in zip(panels, graphs, strict=False):
            axes.imshow(0.4 + 0.6 * colour.mean(2), cmap="gray", vmin=0, vmax=1)
            _draw_edges(axes, centres, np.asarray(graph, dtype=float), strongest, most_edges)
            axes.scatter(
                centres[:, 0], centres[:, 1], s=12 + 60 * focus, color=INK, edgecolor="white", linewidth=0.8, zorder=3
            )
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            axes.set_title(name, fontsize=9.5, loc="center")
            image_axes(axes)
        handles = [
            Line2D([], [], color=ORANGE, linewidth=3, label="positive edge"),
            Line2D([], [], color=BLUE, linewidth=3, linestyle=DASHES, label="negative edge"),
            Line2D([], [], color=INK, marker="o", linestyle="", label="node (large: focused)"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8.5)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    return figure


def attention_centres(maps: NDArray, size: tuple[int, int]) -> tuple[NDArray, NDArray]:
    """Return where each node looks, and how focused it is.

    Parameters
    ----------
    maps : ndarray, [p, h, w]
        Non-negative attention.
    size : tuple of int
        (H, W) of the picture.

    Returns
    -------
    centres : ndarray, [p, 2]
        Column and row of the centre of gravity in pixels of the picture; its middle for an empty map.
    focus : ndarray, [p]
        1 minus the map's entropy over the largest possible: 0 for uniform attention, 1 for a single patch.
    """
    array = np.asarray(maps, dtype=float)
    n_nodes, h, w = array.shape
    flat = array.reshape(n_nodes, -1)
    total = flat.sum(1, keepdims=True)
    share = np.where(total > 0, flat / np.where(total > 0, total, 1.0), 1 / flat.shape[1])
    row, column = np.divmod(np.arange(h * w), w)
    x = share @ ((column + 0.5) * size[1] / w - 0.5)
    y = share @ ((row + 0.5) * size[0] / h - 0.5)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(1)
    return np.column_stack([x, y]), np.clip(1 - entropy / np.log(max(h * w, 2)), 0, 1)


def pale_grey(colour: NDArray) -> NDArray:
    """Return a picture in pale grey, on which colours of a drawing stand out."""
    return np.repeat(0.35 + 0.65 * colour.mean(axis=2, keepdims=True), 3, axis=2)


def _tinted(colour: NDArray, labels: NDArray, palette: NDArray, ignore_label: int) -> NDArray:
    """Return the picture with each labelled pixel drawn toward its class's colour."""
    known = (labels != ignore_label) & (labels >= 0) & (labels < len(palette))
    tint = np.asarray(palette)[np.where(known, labels, 0)] / 255
    weight = OPACITY * known[:, :, None]
    return (1 - weight) * colour + weight * tint


def _draw_edges(axes: Axes, centres: NDArray, graph: NDArray, strongest: float, most_edges: int) -> None:
    """Draw the strongest edges as straight lines, width by strength and colour by sign."""
    rows, cols = np.nonzero(np.triu(graph, 1))
    keep = np.argsort(np.abs(graph[rows, cols]), kind="stable")[-most_edges:]
    rows, cols = rows[keep], cols[keep]
    values = graph[rows, cols]
    lines = LineCollection(
        [(centres[i], centres[j]) for i, j in zip(rows, cols, strict=True)],
        colors=[ORANGE if value > 0 else BLUE for value in values],
        linewidths=0.8 + 4 * np.abs(values) / strongest,
        linestyles=["-" if value > 0 else DASHES for value in values],
        alpha=0.8,
    )
    axes.add_collection(lines)
