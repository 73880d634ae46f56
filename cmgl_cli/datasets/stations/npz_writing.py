"""Write a restored table into the ``.npz`` file it came from."""

import io
import zipfile
from pathlib import Path

import numpy as np

from cmgl_cli.datasets.numpy_files import load_arrays
from cmgl_cli.datasets.stations.arrays import stored_key
from cmgl_cli.datasets.stations.restored import Restored, time_texts
from cmgl_cli.datasets.stations.table import NO_FLAG
from cmgl_cli.datasets.stations.times import as_steps, parse_times


def fill_npz(path: Path, raw: bytes, restored: Restored) -> bytes:
    """Return the content of an ``.npz`` file with its gaps filled.

    Every array keeps its name and type; ``filled`` and ``standard_error`` are added in the shape of ``values``. Times
    that the file lacks and the restoration fills are added at their places.

    Parameters
    ----------
    path : Path
        The file, for messages.
    raw : bytes
        Its content.
    restored : Restored
        A table of its stations and variables, or part of it.

    Returns
    -------
    bytes
        The new file.
    """
    arrays = load_arrays(raw)
    table, key = restored.table, stored_key(arrays, "time")
    texts = arrays[key].astype("datetime64[s]" if arrays[key].dtype.kind == "M" else str).astype(str).tolist()
    times = as_steps(parse_times(texts)[0], table.frequency)
    added = table.time[restored.filled.any(axis=(1, 2)) & ~np.isin(table.time, times)]
    order = np.argsort(np.concatenate([times, added]), kind="stable")
    written = np.array(time_texts(added, table.frequency), dtype=arrays[key].dtype)
    arrays[key] = np.concatenate([arrays[key], written])[order]
    for name in ("values", "quality"):
        if name in arrays:
            arrays[name] = _longer(arrays[name], len(added))[order]
    stations, variables = (arrays[stored_key(arrays, kind)].astype(str).tolist() for kind in ("station", "variable"))
    whole = np.concatenate([times, added])[order]
    inside = np.flatnonzero(np.isin(whole, table.time))
    cells = np.ix_(
        inside,
        np.array([stations.index(name) for name in table.stations]),
        np.array([variables.index(name) for name in table.variables]),
    )
    rows = np.searchsorted(table.time, whole[inside])
    done = restored.filled[rows]
    arrays["values"][cells] = np.where(done, restored.values[rows], arrays["values"][cells])
    arrays["filled"] = np.zeros(arrays["values"].shape, dtype=bool)
    arrays["filled"][cells] = done
    if restored.standard_error is not None:
        arrays["standard_error"] = np.full(arrays["values"].shape, np.nan)
        arrays["standard_error"][cells] = np.where(done, restored.standard_error[rows], np.nan)
    buffer = io.BytesIO()
    # not savez: an array may be called like one of its arguments
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)
    return buffer.getvalue()


def _longer(array: np.ndarray, count: int) -> np.ndarray:
    """Append empty times: NaN for numbers, no flag for quality."""
    empty = np.nan if array.dtype.kind == "f" else NO_FLAG
    return np.concatenate([array, np.full((count, *array.shape[1:]), empty, dtype=array.dtype)])
