"""The default on networks of any size: whole where the covariance fits, else in overlapping neighbourhoods."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.anomaly_model import Problem
from cmgl_cli.restoration.seasons import SeasonalBasis
from cmgl_cli.restoration.structure import spatial_kernels
from cmgl_cli.restoration.twofold_gaussian import GaussianRestoration, restore_gaussian

Array = NDArray[np.float64]

MAX_COLUMNS = 1200
HALO = 0.5


def restore_blocks(
    values: Array,
    basis: SeasonalBasis,
    period: int,
    coordinates: Array | None,
    elevation: Array | None,
    root: NDArray[np.bool_],
    seed: int,
) -> tuple[GaussianRestoration, dict[str, object]]:
    """Restore a record with `restore_gaussian`, block by block where it is wide.

    Parameters
    ----------
    values : ndarray, shape (n_times, n_stations, n_variables)
        NaN where missing.
    basis, period : SeasonalBasis, int
        Seasonal regressors and steps a year.
    coordinates : ndarray, shape (n_stations, 2 or 3), or None
        East and north in km first.
    elevation : ndarray or None
        Metres.
    root : ndarray of bool, shape (n_variables,)
        Candidates for the square root.
    seed : int
        Of the hold-out.

    Returns
    -------
    restoration : GaussianRestoration
        Joined over blocks; ``choices`` and ``modality`` are those of the first block.
    settings : dict
        What was chosen, one entry a block where there are several.
    """
    n_stations, n_variables = values.shape[1:]
    if n_stations * n_variables <= MAX_COLUMNS:
        result = restore_gaussian(_problem(values, basis, coordinates, elevation, root), period, seed)
        return result, _settings(result)
    if coordinates is None:
        raise InputError(
            "a network of this size needs coordinates",
            f"{n_stations} stations x {n_variables} variables, at most {MAX_COLUMNS} series without",
            "give a station table, or restore parts of the network",
        )
    return _in_blocks(values, basis, period, coordinates, elevation, root, seed)


def _problem(
    values: Array, basis: SeasonalBasis, coordinates: Array | None, elevation: Array | None, root: NDArray[np.bool_]
) -> Problem:
    distance = None
    if coordinates is not None:
        distance = np.linalg.norm(coordinates[:, None, :2] - coordinates[None, :, :2], axis=2)
    usable = elevation if elevation is not None and np.isfinite(elevation).all() else None
    return Problem(values, basis, spatial_kernels(distance, usable, values.shape[1]), coordinates, root)


def _in_blocks(
    values: Array,
    basis: SeasonalBasis,
    period: int,
    coordinates: Array,
    elevation: Array | None,
    root: NDArray[np.bool_],
    seed: int,
) -> tuple[GaussianRestoration, dict[str, object]]:
    n_variables = values.shape[2]
    size = max(4, int(MAX_COLUMNS / n_variables / (1 + HALO)))
    joined: GaussianRestoration | None = None
    settings: dict[str, object] = {}
    for number, core in enumerate(neighbourhoods(coordinates[:, :2], size)):
        wide = np.concatenate([core, _halo(coordinates[:, :2], core, int(HALO * size))])
        height = None if elevation is None else elevation[wide]
        problem = _problem(values[:, wide], basis, coordinates[wide], height, root)
        part = restore_gaussian(problem, period, seed)
        settings[f"block {number}"] = _settings(part)
        if joined is None:
            empty = np.zeros_like(values)
            joined = replace(
                part,
                values=values.copy(),
                standard_error=empty,
                hidden=np.zeros(values.shape, bool),
                hidden_values=values.copy(),
            )
        for name in ("values", "standard_error", "hidden", "hidden_values"):
            getattr(joined, name)[:, core] = getattr(part, name)[:, : len(core)]
    if joined is None:
        raise InputError("there are no stations", "0 stations", "check the columns read")
    return joined, settings


def neighbourhoods(points: Array, size: int) -> list[NDArray[np.int64]]:
    """Return groups of at most ``size`` near points, by halving the longer side."""

    def halve(index: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        if len(index) <= size:
            return [np.sort(index)]
        side = int(np.ptp(points[index], axis=0).argmax())
        order = index[np.argsort(points[index, side], kind="stable")]
        return halve(order[: len(order) // 2]) + halve(order[len(order) // 2 :])

    return halve(np.arange(len(points)))


def _halo(points: Array, core: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return the ``size`` outside points that are nearest to the block."""
    inside = np.zeros(len(points), bool)
    inside[core] = True
    distance, _ = cKDTree(points[core]).query(points)
    outside = np.flatnonzero(~inside)
    return outside[np.argsort(distance[outside], kind="stable")[:size]]


def _settings(result: GaussianRestoration) -> dict[str, object]:
    choices = {
        "prior share": [one.share.tolist() for one in result.choices],
        "climatology refined": [one.refined.tolist() for one in result.choices],
        "station offsets": [one.offsets.tolist() for one in result.choices],
        "steps to either side": [(one.reach * one.lagged).tolist() for one in result.choices],
        "square root": [one.root.tolist() for one in result.choices],
    }
    return {"hold-out draws": len(result.choices), **choices, "standard error factor": result.widening.tolist()}
