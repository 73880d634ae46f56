"""Figures of a restored station record: the learnt graphs, gaps and their fills, errors, what a network learnt."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmgl_cli.artifacts import Artifact
from cmgl_cli.errors import UsageError, suggest
from cmgl_cli.reports.style import (
    BLUE,
    DASHES,
    DIVERGING,
    HIGHLIGHT,
    INK,
    MUTED,
    ORANGE,
    RULE,
    SERIES,
    image_axes,
    new_figure,
    styled,
)

Z90 = 1.645
MOST_EDGES = 400
SHOWN = 3
AROUND = 60


def station_figures(artifact: Artifact, show: Sequence[str] = ()) -> dict[str, Figure]:
    """Return all figures of a restoration artifact by name.

    Parameters
    ----------
    artifact : Artifact
        Of the schema ``restoration``.
    show : sequence of str
        Stations in the figure of gaps; those with most gaps by default.
    """
    variables, units = artifact["variable"].tolist(), artifact["unit"].tolist()
    stations = artifact["station"].tolist()
    graphs = artifact.group("graphs")
    figures = {
        "modality-graph": modality_figure(graphs["modality_weights"], variables),
        "gaps": gaps_figure(artifact, _chosen(artifact["filled"], stations, show)),
    }
    coordinates = artifact["coordinates"]
    if np.isfinite(coordinates[:, :2]).all() and graphs["spatial_weights"].size:
        figures["spatial-graph"] = map_figure(coordinates, graphs["spatial_edges"], graphs["spatial_weights"])
    skill = artifact.group("skill")
    if len(skill["variable"]):
        figures["skill"] = skill_figure(skill, variables, units)
    return figures


def _chosen(filled: NDArray, stations: list[str], show: Sequence[str]) -> list[int]:
    for name in show:
        if name not in stations:
            raise UsageError("--show names a station that is not there", name, suggest(name, stations))
    if show:
        return [stations.index(name) for name in show]
    telling = [_telling(np.asarray(filled[:, s].any(axis=1)))[1] for s in range(len(stations))]
    return np.argsort(-np.array(telling), kind="stable")[: min(SHOWN, len(stations))].tolist()


def map_figure(coordinates: NDArray, edges: NDArray, weights: NDArray) -> Figure:
    """Draw the learnt spatial graph on the map: stations coloured by elevation, edges as wide as their weight.

    Parameters
    ----------
    coordinates : ndarray, shape (n_stations, 3)
        Latitude, longitude, elevation; the last may be NaN.
    edges : ndarray of int, shape (2, n_edges)
    weights : ndarray, shape (n_edges,)
    """
    latitude, longitude, elevation = coordinates.T
    aspect = 1 / max(np.cos(np.radians(latitude.mean())), 0.05)
    kept = np.argsort(weights)[-MOST_EDGES:]
    part = weights[kept].sum() / weights.sum()
    relative = weights[kept] / weights.max()
    segments = [np.stack([longitude[pair], latitude[pair]], axis=1) for pair in edges[:, kept].T]
    wide, high = max(np.ptp(longitude), 1e-3), max(np.ptp(latitude), 1e-3) * aspect
    size = 6.6 / max(wide, high)
    with styled():
        figure = new_figure(max(wide * size, 3.2) + 1.6, max(high * size, 3.2) + 0.9)
        axes = figure.subplots()
        shade = [(0.0, 0.45, 0.70, 0.12 + 0.88 * r) for r in relative]
        axes.add_collection(LineCollection(segments, linewidths=0.2 + 3.2 * relative, colors=shade, zorder=1))
        known = np.isfinite(elevation).all()
        dots = axes.scatter(
            longitude,
            latitude,
            s=16,
            c=elevation if known else MUTED,
            cmap="YlOrBr" if known else None,
            edgecolor=INK,
            linewidth=0.5,
            zorder=2,
        )
        if known:
            figure.colorbar(dots, ax=axes, label="elevation, m", shrink=0.7)
        shown = (
            f"strongest {len(kept)} of {len(weights)} edges, {part:.0%} of the weight"
            if part < 1
            else f"{len(kept)} edges"
        )
        axes.set(title=f"Spatial graph: {shown}", xlabel="longitude", ylabel="latitude", aspect=aspect)
        axes.grid()
    return figure


def filled_figure(
    coordinates: NDArray, filled: NDArray, error: NDArray, variables: Sequence[str], units: Sequence[str]
) -> Figure:
    """Draw stations on the map, a panel a variable: size by how much was filled, colour by how unsure that is.

    Parameters
    ----------
    coordinates : ndarray, shape (n_stations, 3)
        Latitude, longitude, elevation.
    filled : ndarray of bool, shape (n_times, n_stations, n_variables)
    error : ndarray, shape (n_times, n_stations, n_variables)
        Standard errors of filled values.
    variables, units : sequence of str
    """
    latitude, longitude = coordinates[:, 0], coordinates[:, 1]
    aspect = 1 / max(np.cos(np.radians(latitude.mean())), 0.05)
    share, count = filled.mean(axis=0), np.maximum(filled.sum(axis=0), 1)
    unsure = np.where(filled, error, 0).sum(axis=0) / count
    with styled():
        figure = new_figure(3.9 * len(variables) + 0.3, 4.2)
        for v, axes in enumerate(figure.subplots(1, len(variables), squeeze=False)[0]):
            dots = axes.scatter(
                longitude, latitude, s=6 + 90 * share[:, v], c=unsure[:, v], cmap=HIGHLIGHT, vmin=0, edgecolor=INK,
                linewidth=0.4,
            )  # fmt: skip
            unit = f", {units[v]}" if units[v] else ""
            figure.colorbar(dots, ax=axes, label=f"mean standard error{unit}", location="bottom", shrink=0.8)
            axes.set(title=f"{variables[v]}: {share[:, v].mean():.1%} filled", aspect=aspect)
            axes.grid()
    return figure


def modality_figure(weights: NDArray, variables: Sequence[str]) -> Figure:
    """Draw the signed graph between variables, as a matrix and as a network.

    Parameters
    ----------
    weights : ndarray, shape (n_variables, n_variables)
        Signed, zero diagonal.
    variables : sequence of str
    """
    limit = max(float(np.abs(weights).max()), 1e-12)
    count = len(variables)
    with styled():
        figure = new_figure(9.0, 3.9)
        left, right = figure.subplots(1, 2)
        image = left.imshow(weights, cmap=DIVERGING, vmin=-limit, vmax=limit)
        left.set_xticks(range(count), variables, rotation=30, ha="right")
        left.set_yticks(range(count), variables)
        for i in range(count):
            for j in range(count):
                if weights[i, j]:
                    colour = "white" if abs(weights[i, j]) > 0.6 * limit else INK
                    left.text(j, i, f"{weights[i, j]:+.2g}", ha="center", va="center", color=colour, fontsize=9)
        figure.colorbar(image, ax=left, shrink=0.8, label="edge weight")
        left.set_title("Signed graph between variables")
        _network(right, weights, variables)
        right.set_title(
            "dashed blue: move against each other, orange: together", fontsize=9, fontweight="normal", color=MUTED
        )
    return figure


def _network(axes: Axes, weights: NDArray, variables: Sequence[str]) -> None:
    """Draw variables on a circle, joined by edges of the sign's colour and the weight's width."""
    count, limit = len(variables), max(float(np.abs(weights).max()), 1e-12)
    angle = np.pi / 2 - 2 * np.pi * np.arange(count) / max(count, 1)
    places = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rows, columns = np.nonzero(np.triu(weights, 1))
    for i, j in zip(rows, columns, strict=True):
        strength = abs(weights[i, j]) / limit
        colour = ORANGE if weights[i, j] > 0 else BLUE
        style = "-" if weights[i, j] > 0 else DASHES
        axes.plot(*places[[i, j]].T, color=colour, linewidth=0.6 + 6 * strength, linestyle=style, zorder=1)
    axes.scatter(places[:, 0], places[:, 1], s=90, color="white", edgecolor=INK, linewidth=1.2, zorder=2)
    for place, name in zip(places, variables, strict=True):
        axes.text(1.4 * place[0], 1.3 * place[1], name, ha="center", va="center")
    axes.set(xlim=(-1.9, 1.9), ylim=(-1.4, 1.5), aspect="equal")
    image_axes(axes)


def gaps_figure(artifact: Artifact, shown: Sequence[int]) -> Figure:
    """Draw observations, fills and 90 % bands of some stations around their longest stretch of gaps."""
    variables, units = artifact["variable"].tolist(), artifact["unit"].tolist()
    time = artifact["time"].astype("datetime64[s]")
    values, error, filled = (artifact[name][:, list(shown)] for name in ("values", "standard_error", "filled"))
    names = artifact["station"][list(shown)]
    with styled():
        figure = new_figure(4.4 * len(variables), 2.3 * len(shown) + 0.5)
        grid = figure.subplots(len(shown), len(variables), squeeze=False)
        for row in range(len(shown)):
            inside = _telling(np.asarray(filled[:, row].any(axis=1)))[0]
            for v, variable in enumerate(variables):
                cells = (inside, row, v)
                _draw_gaps(grid[row, v], time[inside], values[cells], error[cells], filled[cells])
                unit = f", {units[v]}" if units[v] else ""
                grid[row, v].set_title(f"{names[row]}: {variable}{unit}", fontsize=9.5)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _telling(gaps: NDArray) -> tuple[slice, float]:
    """Return the stretch of `AROUND` times that shows most: a quarter of it gaps, the rest what they are to fit."""
    length = min(AROUND, len(gaps))
    total = np.concatenate([[0], np.cumsum(gaps)])
    share = (total[length:] - total[:-length]) / length
    score = np.minimum(share / 0.25, (1 - share) / 0.75)
    first = int(np.argmax(score))
    return slice(first, first + length), float(score[first])


def _draw_gaps(axes: Axes, time: NDArray, values: NDArray, error: NDArray, filled: NDArray) -> None:
    seen = values[~filled]
    # amounts that end at zero have no band below it
    floor = 0.0 if seen.size and seen.min() == 0 else -np.inf
    low = np.minimum(np.maximum(values - Z90 * error, floor), values)
    beside = filled | np.roll(filled, 1) | np.roll(filled, -1)
    axes.plot(time, values, color=RULE, linewidth=1)
    axes.fill_between(
        time, low, values + Z90 * error, where=beside, color=ORANGE, alpha=0.25, linewidth=0,
        label="90 % band",
    )  # fmt: skip
    axes.errorbar(
        time[filled],
        values[filled],
        yerr=[(values - low)[filled], Z90 * error[filled]],
        fmt="none",
        ecolor=ORANGE,
        alpha=0.5,
        linewidth=1,
    )
    axes.plot(
        time, np.where(filled, np.nan, values), color=BLUE, linewidth=1.2, marker="o", markersize=2, label="observed"
    )
    axes.plot(time[filled], values[filled], color=ORANGE, linestyle="none", marker="o", markersize=3, label="filled")
    axes.tick_params(axis="x", labelrotation=20, labelsize=8)
    axes.grid(axis="y")


def skill_figure(skill: Mapping[str, NDArray], variables: Sequence[str], units: Sequence[str]) -> Figure:
    """Draw the hold-out error of every method, one panel a variable, each in its own unit."""
    with styled():
        figure = new_figure(3.6 * len(variables) + 0.6, 2.9)
        grid = figure.subplots(1, len(variables), squeeze=False)[0]
        for v, (axes, variable) in enumerate(zip(grid, variables, strict=True)):
            rows = np.flatnonzero(skill["variable"] == variable)
            names, rmse = skill["method"][rows].tolist(), skill["rmse"][rows]
            colours = [BLUE if i == 0 else RULE for i in range(len(names))]
            axes.barh(range(len(names)), rmse, color=colours, edgecolor=MUTED, linewidth=0.5)
            for i, value in enumerate(rmse):
                if np.isfinite(value):
                    axes.text(value, i, f" {value:.3g}", va="center", fontsize=8.5)
            axes.set_yticks(range(len(names)), names if v == 0 else [""] * len(names))
            axes.invert_yaxis()
            axes.margins(x=0.18)
            unit = f", {units[v]}" if units[v] else ""
            axes.set(title=variable, xlabel=f"RMSE on held-out cells{unit}")
    return figure


def parameters_figure(parameters: Mapping[str, NDArray]) -> Figure:
    """Draw what unrolled networks learnt: every number over layers and steps, mean and range over the networks.

    Parameters
    ----------
    parameters : mapping
        ``mu`` [f, layer], ``signal`` [f, layer, step, 2] and, where learnt, ``spatial`` and ``modality``
        [f, layer, step, 5], before softplus.
    """
    names = {
        "spatial": ("θ₁", "θ₂", "θ₃", "τ (N-1)", "σ"),
        "modality": ("θ₁", "θ₂", "θ₃", "τ (M-1)", "σ"),
        "signal": ("κ", "ξ"),
        "mu": ("μ",),
    }
    found = [key for key in names if key in parameters]
    with styled():
        figure = new_figure(3.4 * len(found), 3.2)
        for axes, key in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
            values = np.logaddexp(0, np.asarray(parameters[key], dtype=float))
            values = values[:, :, None, None] if key == "mu" else values
            n_layers, n_steps = values.shape[1:3]
            flat = values.reshape(len(values), n_layers * n_steps, -1)
            at = np.arange(n_layers * n_steps)
            for i, (label, colour) in enumerate(zip(names[key], SERIES, strict=False)):
                axes.fill_between(at, flat[..., i].min(axis=0), flat[..., i].max(axis=0), color=colour, alpha=0.2, lw=0)
                axes.plot(at, flat[..., i].mean(axis=0), color=colour, marker="o", markersize=3, label=label)
            for layer in range(1, n_layers):
                axes.axvline(layer * n_steps - 0.5, color=RULE)
            axes.set_xticks([(layer + 0.5) * n_steps - 0.5 for layer in range(n_layers)], range(1, n_layers + 1))
            axes.set(title=key, xlabel="layer", ylim=(0, 1.45 * flat.max()))
            axes.legend(fontsize=8, ncols=3, loc="upper left")
    return figure
