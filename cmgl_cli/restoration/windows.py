"""Records as matrices and back: (time, station, variable) <-> (window, station, variable x step)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmgl_cli.errors import InputError

Array = NDArray[np.float64]


def window_starts(n_times: int, length: int) -> list[int]:
    """Return the starts of windows that cover every time; the last one overlaps where the record does not divide."""
    if not 1 <= length <= n_times:
        raise InputError("a window must fit into the record", f"length={length}, times={n_times}", "shorten it")
    starts = list(range(0, n_times - length + 1, length))
    return starts if starts[-1] == n_times - length else [*starts, n_times - length]


def to_windows(values: Array, length: int) -> tuple[Tensor, Tensor]:
    """Cut a record into matrices.

    Parameters
    ----------
    values : ndarray, shape (n_times, n_stations, n_variables)
        NaN where missing.
    length : int
        Steps a window.

    Returns
    -------
    observed : Tensor, shape (n_windows, n_stations, n_variables * length)
        Columns by variable, then step; NaN where missing.
    mask : Tensor of bool
        True where observed.
    """
    pieces = [values[first : first + length] for first in window_starts(len(values), length)]
    matrices = np.stack([piece.transpose(1, 2, 0).reshape(values.shape[1], -1) for piece in pieces])
    observed = torch.from_numpy(matrices)
    return observed, torch.isfinite(observed)


def from_windows(matrices: Tensor, n_times: int, length: int) -> Array:
    """Join matrices to a record, averaging where windows overlap."""
    n_stations = matrices.shape[1]
    n_variables = matrices.shape[2] // length
    total = np.zeros((n_times, n_stations, n_variables))
    count = np.zeros((n_times, 1, 1))
    for first, matrix in zip(window_starts(n_times, length), matrices.detach().cpu().double().numpy(), strict=True):
        total[first : first + length] += matrix.reshape(n_stations, n_variables, length).transpose(2, 0, 1)
        count[first : first + length] += 1
    return total / count
