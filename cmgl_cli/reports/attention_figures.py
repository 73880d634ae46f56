"""Figures of attention: where each node looks, on an image and on the rendered text beside it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmgl_cli.reports.style import HIGHLIGHT, INK, image_axes, new_figure, styled


def attention_figure(
    pictures: Sequence[tuple[str, NDArray, NDArray]], nodes: Sequence[int], title: str = "Where the nodes look"
) -> Figure:
    """Draw the attention of some nodes over an image and over a rendered text: a row each, a column a node.

    Parameters
    ----------
    pictures : sequence of (str, ndarray [H, W] or [H, W, 3], ndarray [p, h, w])
        Label, picture (uint8, or float in 0..1) and attention maps of all nodes on its patch grid; each map is scaled
        to its own maximum.
    nodes : sequence of int
        Nodes shown.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    with styled():
        figure = new_figure(1.75 * (len(nodes) + 1) + 0.5, 1.85 * len(pictures) + 0.8)
        grid = figure.subplots(len(pictures), len(nodes) + 1, squeeze=False)
        for line, (label, picture, maps) in zip(grid, pictures, strict=True):
            colour = rgb_picture(picture)
            line[0].imshow(colour)
            image_axes(line[0])
            line[0].set_ylabel(label, fontweight="bold")
            for axes, node in zip(line[1:], nodes, strict=True):
                overlay(axes, colour, np.asarray(maps[node], dtype=float))
        for axes, node in zip(grid[0, 1:], nodes, strict=True):
            axes.set_title(f"node {node}", fontsize=9.5, loc="center")
        grid[0, 0].set_title("input", fontsize=9.5, loc="center")
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    return figure


def rgb_picture(picture: NDArray) -> NDArray:
    """Return a picture as float RGB in 0..1."""
    array = np.asarray(picture)
    scaled = array / 255 if array.dtype == np.uint8 else array.astype(float)
    return np.repeat(scaled[:, :, None], 3, axis=2) if scaled.ndim == 2 else scaled


def overlay(axes: Axes, colour: NDArray, attention: NDArray) -> None:
    """Draw the picture in pale grey and the attention over it, opaque where it is strong."""
    grey = colour.mean(2)
    axes.imshow(0.35 + 0.65 * grey, cmap="gray", vmin=0, vmax=1)
    relative = attention / (attention.max() or 1.0)
    height, width = grey.shape
    axes.imshow(
        relative,
        cmap=HIGHLIGHT,
        vmin=0,
        vmax=1,
        alpha=np.clip(relative, 0, 1) * 0.85,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="bilinear",
    )
    image_axes(axes)
