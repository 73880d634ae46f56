"""Figures of courses: training, the choice of the prior's sharpness, and a solver's way to its certificate."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmgl_cli.reports.style import BLUE, INK, MUTED, ORANGE, SEQUENTIAL, SERIES, new_figure, styled

MOST_NAMED = 6
"""Classes up to which each selection curve has a colour and a name of its own."""


def training_figure(
    loss: Mapping[str, Sequence[float]],
    score: Mapping[str, Sequence[float]] | None = None,
    *,
    best_epoch: int | None = None,
    score_name: str = "accuracy",
    title: str = "Training",
) -> Figure:
    """Draw losses and scores by epoch.

    Parameters
    ----------
    loss, score : mapping of str to sequence of float
        Curves by name, such as ``{"training": [...], "validation": [...]}``; first epoch first.
    best_epoch : int, optional
        Epoch (from 1) whose weights were kept.
    score_name, title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    kinds = [("loss", loss)] + ([(score_name, score)] if score else [])
    with styled():
        figure = new_figure(4.8 * len(kinds), 3.5)
        for axes, (name, curves) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
            for (label, values), colour in zip(curves.items(), SERIES, strict=False):
                epochs = np.arange(1, len(values) + 1)
                axes.plot(epochs, values, color=colour, linewidth=1.8, marker="o", markersize=3, label=label)
            if best_epoch is not None:
                axes.axvline(best_epoch, color=MUTED, linestyle=":", label=f"kept: epoch {best_epoch}")
            axes.set(xlabel="epoch", ylabel=name)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(axis="y")
            axes.legend(fontsize=8.5)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    return figure


def selection_figure(
    sharpness: NDArray,
    loss: NDArray,
    class_names: Sequence[str],
    *,
    chosen: NDArray | None = None,
    quantity: str = "eBIC",
    title: str = "Choice of the prior's sharpness",
) -> Figure:
    """Draw a criterion against k, each class relative to its own minimum, and how often each k was chosen.

    Parameters
    ----------
    sharpness : ndarray, [K]
        Candidates for k, ascending; 0 ignores the prior.
    loss : ndarray, [C, K]
        The criterion, less is better; a single row where all classes share k.
    class_names : sequence of str
    chosen : ndarray, [C], optional
        The k that was chosen; where the criterion is least by default.
    quantity, title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    k, curves = np.asarray(sharpness, dtype=float), np.asarray(loss, dtype=float)
    chosen = k[curves.argmin(1)] if chosen is None else np.asarray(chosen, dtype=float)
    with styled():
        figure = new_figure(9.4, 3.8)
        left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
        _draw_selection(left, k, curves - curves.min(1, keepdims=True), chosen, class_names)
        left.set_ylabel(f"{quantity} above the class's minimum")
        values, counts = np.unique(chosen, return_counts=True)
        gap = np.diff(k).min() if len(k) > 1 else 1.0
        right.bar(values, counts, width=max(0.8 * gap, (k.max() - k.min()) / 60), color=ORANGE)
        right.axvline(chosen.mean(), color=INK, linestyle="--", linewidth=1.2, label=f"mean k = {chosen.mean():.1f}")
        right.set(xlabel="chosen k", ylabel="classes", xlim=(k.min() - 1.5 * gap, k.max() + 1.5 * gap))
        right.set_title(f"{(chosen == 0).sum()} of {len(chosen)} classes reject the prior", fontsize=9.5)
        right.yaxis.get_major_locator().set_params(integer=True)
        right.legend(fontsize=8.5)
        right.grid(axis="y")
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    return figure


def path_figure(table: Mapping[str, NDArray], title: str = "The search over rho, gamma and k") -> Figure:
    """Draw what the search saw: criterion, edges and the share of common edges against k, one curve a rho.

    Each rho is drawn at the gamma where its curve reaches its best value.

    Parameters
    ----------
    table : mapping of str to ndarray
        ``rho``, ``gamma`` [cells], ``sharpness`` [K], ``heldout`` [cells, F, K, C] (F may be 0), ``ebic_of_k`` and
        ``edges_of_k`` [cells, K, C], ``common_ratio`` [cells, K], ``chosen_rho``, ``chosen_gamma``.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    k, rho = np.asarray(table["sharpness"], dtype=float), np.asarray(table["rho"])
    if table["heldout"].shape[1]:
        # cells far from the best were held out at the least k only: NaN elsewhere, and not drawn
        loss, name = -table["heldout"].mean(axis=(1, 3)), "held-out loss a sample (less is better)"
    else:
        loss, name = table["ebic_of_k"].sum(axis=2), "eBIC (less is better)"
    panels = (
        (loss, name),
        (table["edges_of_k"].mean(axis=2), "edges a class"),
        (table["common_ratio"], "common edges"),
    )
    with styled():
        figure = new_figure(12.6, 3.9)
        for axes, (values, label) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for level, colour in zip(np.unique(rho), _ramp(len(np.unique(rho))), strict=True):
                members = np.flatnonzero(rho == level)
                best = members[np.nanmin(loss[members], axis=1).argmin()]
                picked = level == table["chosen_rho"] and (rho == level).any()
                if picked:
                    best = members[np.argmax(table["gamma"][members] == table["chosen_gamma"])]
                axes.plot(
                    k,
                    values[best],
                    color=ORANGE if picked else colour,
                    linewidth=2.4 if picked else 1.5,
                    marker="o",
                    markersize=3,
                    label=f"rho {level:g}, gamma {table['gamma'][best]:g}" + (" (chosen)" if picked else ""),
                )
            axes.set(xlabel="sharpness k of the prior (0: prior ignored)", ylabel=label)
            axes.grid(axis="y")
        axes.set_ylim(-0.02, 1.02)
        axes.set_title("Theta's edges as a share of all", fontsize=9.5)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=8.5)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    return figure


def _ramp(number: int) -> list[tuple[float, ...]]:
    """Return so many tones of the sequential colours, dark enough to be seen on white."""
    return [SEQUENTIAL(value) for value in np.linspace(0.4, 1.0, number)]


def convergence_figure(
    objective: NDArray,
    duality_gap: NDArray,
    *,
    iterations: NDArray | None = None,
    tolerance: float | None = None,
    title: str = "Convergence",
) -> Figure:
    """Draw the objective above its final value, and the certified duality gap, by iteration on a log scale.

    Parameters
    ----------
    objective : ndarray, [T]
    duality_gap : ndarray, [T]
        Relative duality gap; an upper bound of the distance to the optimum whatever the solver did. Non-positive
        entries are not drawn.
    iterations : ndarray, int, [T], optional
        Iteration numbers; 1..T by default.
    tolerance : float, optional
        Gap at which the solver stops.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    values, gap = np.asarray(objective, dtype=float), np.asarray(duality_gap, dtype=float)
    steps = np.arange(1, len(values) + 1) if iterations is None else np.asarray(iterations)
    above = (values - values[-1]) / max(abs(values[-1]), 1.0)
    with styled():
        figure = new_figure(6.2, 3.8)
        axes = figure.add_subplot()
        axes.plot(
            steps, np.where(gap > 0, gap, np.nan), color=ORANGE, linewidth=2, label="certified duality gap (relative)"
        )
        axes.plot(
            steps, np.where(above > 0, above, np.nan), color=BLUE, linewidth=2, label="objective above its last value"
        )
        if tolerance is not None:
            axes.axhline(tolerance, color=MUTED, linestyle="--", linewidth=1.2, label=f"tolerance {tolerance:g}")
        axes.set(yscale="log", xlabel="iteration", ylabel="relative difference")
        axes.set_title(f"{title}: gap {gap[-1]:.1e} after {steps[-1]:,} iterations")
        axes.grid(axis="y")
        axes.legend(fontsize=8.5)
    return figure


def _draw_selection(axes: Axes, k: NDArray, curves: NDArray, chosen: NDArray, class_names: Sequence[str]) -> None:
    """Draw one curve a class, named where there are few, in one tone where there are many."""
    few = len(curves) <= MOST_NAMED
    for c, curve in enumerate(curves):
        colour = SERIES[c] if few else BLUE
        label = class_names[c] if few else (f"{len(curves)} classes" if c == 0 else None)
        axes.plot(k, curve, color=colour, linewidth=1.8 if few else 1.0, alpha=1 if few else 0.45, label=label)
    heights = [np.interp(value, k, curve) for value, curve in zip(chosen, curves, strict=True)]
    axes.plot(chosen, heights, "v", color=ORANGE, markersize=7, clip_on=False, label="chosen k", zorder=4)
    axes.set(xlabel="sharpness k of the prior (0: prior ignored)")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.legend(fontsize=8.5)
