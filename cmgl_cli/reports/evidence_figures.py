"""Figures of decisions: what speaks for the predicted class and what for its rival, on the image and node by node."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmgl_cli.reports.attention_figures import rgb_picture
from cmgl_cli.reports.style import BLUE, DIVERGING, INK, MUTED, ORANGE, image_axes, new_figure, styled

BARS = 7
"""Nodes with a bar of their own; the rest are one bar together."""


@dataclass(frozen=True)
class Decision:
    """One decision between two classes.

    Attributes
    ----------
    title : str
    picture : ndarray, [H, W] or [H, W, 3], or None
        None where the image cannot be had.
    maps : sequence of (str, ndarray [h, w])
        Evidence over the image, with what it was computed from; positive speaks for the predicted class.
    nodes : ndarray, [p]
        Contribution of each node, nats.
    constant : float
        What no node contributes.
    rivals : tuple of (str, str)
        Predicted class and runner-up.
    """

    title: str
    picture: NDArray | None
    maps: Sequence[tuple[str, NDArray]]
    nodes: NDArray
    constant: float
    rivals: tuple[str, str]


def evidence_figure(decisions: Sequence[Decision]) -> Figure:
    """Draw decisions, a row each: the image, the evidence over it, and the nodes it comes from.

    Parameters
    ----------
    decisions : sequence of Decision
        All with the same maps.

    Returns
    -------
    matplotlib.figure.Figure
    """
    heads = ["input", *(name for name, _ in decisions[0].maps)]
    with styled():
        figure = new_figure(1.9 * len(heads) + 3.6, 2.05 * len(decisions) + 0.5)
        grid = figure.subplots(len(decisions), len(heads) + 1, squeeze=False, width_ratios=[1.9] * len(heads) + [3.3])
        for line, decision in zip(grid, decisions, strict=True):
            _input(line[0], decision)
            for axes, (_, values) in zip(line[1:-1], decision.maps, strict=True):
                _evidence(axes, decision.picture, values)
            _bars(line[-1], decision)
        for axes, head in zip(grid[0], heads, strict=False):
            axes.set_title(head, fontsize=9.5, loc="center")
    return figure


def _input(axes: Axes, decision: Decision) -> None:
    if decision.picture is None:
        axes.text(0.5, 0.5, "no image", ha="center", va="center", color=MUTED, transform=axes.transAxes)
    else:
        axes.imshow(rgb_picture(decision.picture))
    image_axes(axes)
    axes.set_xlabel(decision.title, fontsize=8.5)


def _evidence(axes: Axes, picture: NDArray | None, values: NDArray) -> None:
    limit = float(np.abs(values).max()) or 1.0
    if picture is None:
        axes.imshow(values, cmap=DIVERGING, vmin=-limit, vmax=limit)
    else:
        colour = rgb_picture(picture)
        height, width = colour.shape[:2]
        axes.imshow(0.45 + 0.55 * colour.mean(2), cmap="gray", vmin=0, vmax=1)
        axes.imshow(
            values,
            cmap=DIVERGING,
            vmin=-limit,
            vmax=limit,
            alpha=np.clip(np.abs(values) / limit, 0, 1) ** 0.7 * 0.85,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="bilinear",
        )
    image_axes(axes)


def _bars(axes: Axes, decision: Decision) -> None:
    """Draw the strongest nodes, the rest and the constant; they add up to the log-likelihood ratio."""
    top = np.argsort(-np.abs(decision.nodes), kind="stable")[:BARS]
    rest = decision.nodes.sum() - decision.nodes[top].sum()
    values = [*decision.nodes[top], rest, decision.constant]
    names = [f"node {i}" for i in top] + [f"{len(decision.nodes) - len(top)} others", "constant"]
    colours = [ORANGE if value > 0 else BLUE for value in values]
    axes.barh(np.arange(len(values)), values, color=colours, height=0.72)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(np.arange(len(values)), names, fontsize=7.5)
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=7.5)
    axes.grid(axis="x")
    one, other = decision.rivals
    total = float(sum(values))
    axes.set_title(f"{one} over {other}: {total:+.1f} nats in all", fontsize=9)
