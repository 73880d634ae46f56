"""Figures of a classifier: which classes it confuses, and whether its confidence can be believed."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmgl_cli.reports.style import BLUE, INK, MUTED, ORANGE, RULE, SEQUENTIAL, new_figure, styled

MOST_ANNOTATED = 25
"""Classes up to which every cell of the confusion matrix carries its count."""
FEW = 10
"""Predictions below which a bin of the reliability diagram is drawn pale: its share is mostly chance."""
LISTED_PAIRS = 15
"""Confusions listed beside the matrix when its cells are too small to read."""


def confusion_figure(confusion: NDArray, class_names: Sequence[str], title: str = "Confusion matrix") -> Figure:
    """Draw a confusion matrix that can be read at 10 classes and at 200.

    Up to 25 classes each cell carries its count; beyond that the most frequent confusions are listed beside the matrix.

    Parameters
    ----------
    confusion : ndarray, int, [C, C]
        Rows are true classes, columns predicted ones.
    class_names : sequence of str
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    n = len(class_names)
    counts = np.asarray(confusion)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with styled():
        if n <= MOST_ANNOTATED:
            side = max(5.0, 2.2 + (0.46 if n <= 12 else 0.33) * n)
            figure = new_figure(side + 0.9, side)
            axes = figure.add_subplot()
        else:
            figure = new_figure(12.5, 8.2)
            axes, listing = figure.subplots(1, 2, width_ratios=[7.6, 3.2])
            _list_confusions(listing, counts, class_names)
        picture = axes.imshow(
            share, cmap=SEQUENTIAL, norm=PowerNorm(0.5 if n <= MOST_ANNOTATED else 0.3, 0, 1), interpolation="nearest"
        )
        bar = figure.colorbar(picture, ax=axes, shrink=0.7, pad=0.02, ticks=[0, 0.05, 0.25, 0.5, 0.75, 1])
        bar.set_label("share of the true class")
        bar.ax.set_yticklabels(["0", "5%", "25%", "50%", "75%", "100%"])
        bar.outline.set_visible(False)
        _label_classes(axes, class_names)
        if n <= MOST_ANNOTATED:
            _write_counts(axes, counts, share)
        correct = np.trace(counts) / max(counts.sum(), 1)
        axes.set_title(f"{title}: {correct:.1%} of {counts.sum():,} right")
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
    return figure


def reliability_figure(
    edges: NDArray, confidence: NDArray, accuracy: NDArray, count: NDArray, title: str = "Reliability"
) -> Figure:
    """Draw accuracy against confidence, with the number of predictions in each bin below.

    Parameters
    ----------
    edges : ndarray, [B + 1]
        Borders of the confidence bins.
    confidence, accuracy : ndarray, [B]
        Mean confidence and share of right predictions; NaN where a bin is empty.
    count : ndarray, int, [B]
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    filled = np.asarray(count) > 0
    error = np.average(np.abs(accuracy - confidence)[filled], weights=np.asarray(count)[filled])
    left, width = edges[:-1][filled], np.diff(edges)[filled]
    with styled():
        figure = new_figure(5.6, 6.2)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        top.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1.2, label="perfectly calibrated")
        top.bar(left, accuracy[filled], width, align="edge", color=BLUE, edgecolor="white", label="share right")
        thin = filled & (np.asarray(count) < FEW)
        if thin.any():
            top.bar(edges[:-1][thin], 1, np.diff(edges)[thin], align="edge", color="white", alpha=0.65, zorder=5)
            top.bar(0, 0, color=RULE, label=f"pale: fewer than {FEW} predictions")
        top.plot(confidence[filled], accuracy[filled], "o", color=INK, markersize=3.5, zorder=4)
        top.vlines(
            confidence[filled],
            accuracy[filled],
            confidence[filled],
            color=ORANGE,
            linewidth=3,
            label="gap to the confidence",
            zorder=3,
        )
        top.set(ylim=(0, 1), ylabel="share of right predictions")
        top.set_title(f"{title}: calibration error {error:.1%}")
        top.legend(loc="upper left")
        top.grid(axis="y")
        bottom.bar(left, np.asarray(count)[filled], width, align="edge", color=MUTED, edgecolor="white")
        bottom.set(xlim=(0, 1), xlabel="confidence of the prediction", ylabel="predictions")
        bottom.grid(axis="y")
    return figure


def _label_classes(axes: Axes, class_names: Sequence[str]) -> None:
    """Put every class name on the axes, or every so many of them where there is no room."""
    n = len(class_names)
    step = max(1, -(-n // 40))
    places = np.arange(0, n, step)
    size = 9.5 if n <= MOST_ANNOTATED else 6.5
    names = [_short(name, 22) for name in class_names[::step]]
    axes.set_xticks(places, names, rotation=90 if n > 12 else 45, fontsize=size, ha="center" if n > 12 else "right")
    if n <= 12:
        for label in axes.get_xticklabels():
            label.set_rotation_mode("anchor")
    axes.set_yticks(places, names, fontsize=size)
    axes.tick_params(length=2)


def _write_counts(axes: Axes, counts: NDArray, share: NDArray) -> None:
    """Write every non-zero count into its cell, light on dark and dark on light."""
    size = 9.5 if len(counts) <= 12 else 7
    for i, j in np.argwhere(counts > 0):
        colour = "white" if share[i, j] > 0.22 else INK
        axes.text(j, i, f"{counts[i, j]:,}", ha="center", va="center", fontsize=size, color=colour)


def _list_confusions(axes: Axes, counts: NDArray, class_names: Sequence[str]) -> None:
    """Draw the most frequent confusions as bars."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED_PAIRS]
    pairs = [(i, j) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j] > 0]
    values = [wrong[pair] for pair in pairs]
    axes.barh(np.arange(len(pairs)), values, color=ORANGE, height=0.34)
    for place, (i, j) in enumerate(pairs):
        label = f"{_short(class_names[i], 22)} → {_short(class_names[j], 22)}: {wrong[i, j]:,}"
        axes.text(0, place - 0.28, label, va="bottom", fontsize=8)
    axes.set_ylim(LISTED_PAIRS - 0.4, -0.9)
    axes.set_title("Most frequent confusions")
    axes.set_xlabel("samples (true → predicted)")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    if not pairs:
        axes.text(0, 0, "none", va="center", color=MUTED)


def _short(name: str, longest: int) -> str:
    """Cut a name that would not fit."""
    return name if len(name) <= longest else name[: longest - 1] + "…"
