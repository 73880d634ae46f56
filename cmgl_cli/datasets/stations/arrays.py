"""Station tables in ``.npz``: values [time, station, variable] with their coordinates.

Keys: ``values``, ``time`` (strings or datetime64), ``station_id``, ``modality`` or ``variable``; optional ``unit``,
``lat``, ``lon``, ``elev``, ``quality``. Missing values are NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmgl_cli.datasets.numpy_files import load_arrays as read_arrays
from cmgl_cli.datasets.stations.grid import Rows, build_table
from cmgl_cli.datasets.stations.table import Frequency, Source, StationTable
from cmgl_cli.datasets.stations.text import digest, read_bytes
from cmgl_cli.datasets.stations.times import parse_times
from cmgl_cli.errors import InputError, UsageError, suggest

_KEYS = {
    "time": ("time",),
    "station": ("station_id", "station", "stations"),
    "variable": ("modality", "variable", "variables"),
    "unit": ("unit", "units"),
    "latitude": ("lat", "latitude"),
    "longitude": ("lon", "longitude"),
    "elevation": ("elev", "elevation"),
}


def read_npz(path: Path, *, variables: Sequence[str] | None = None, frequency: Frequency | None = None) -> StationTable:
    """Read a station table from an ``.npz`` file (keys in the module).

    Raises
    ------
    InputError
        If an array is missing or does not fit the others.
    UsageError
        If a variable asked for is not there.
    """
    raw = read_bytes(path)
    arrays = load_arrays(raw, path)
    values = arrays["values"]
    stations, names = (tuple(str(name) for name in arrays[kind]) for kind in ("station", "variable"))
    if values.shape != (len(arrays["time"]), len(stations), len(names)) or values.dtype.kind not in "fiu":
        expected = (len(arrays["time"]), len(stations), len(names))
        raise _unusable(path, f"values are {values.dtype} {values.shape}, expected numbers {expected}")
    for kind, count in (
        ("unit", len(names)),
        *((kind, len(stations)) for kind in ("latitude", "longitude", "elevation")),
    ):
        if kind in arrays and len(arrays[kind]) != count:
            raise _unusable(path, f"{kind} has {len(arrays[kind])} entries, expected {count}")
    table = replace(
        build_table(_as_rows(path, arrays, stations, names), str(path), frequency),
        source=Source("npz", (path,), (digest(raw),)),
        latitude=arrays.get("latitude", np.empty(0)),
        longitude=arrays.get("longitude", np.empty(0)),
        elevation=arrays.get("elevation", np.empty(0)),
    )
    for name in variables or ():
        if name not in names:
            raise UsageError(f"the file has no variable {name!r}", f"{path}: {name}", suggest(name, names))
    return table.select(variables=variables) if variables else table


def load_arrays(raw: bytes, path: Path) -> dict[str, np.ndarray]:
    """Load the arrays of such a file under the names used here; pickled objects are refused.

    Raises
    ------
    InputError
        If the file is no ``.npz``, holds objects, or lacks one of the four needed arrays.
    """
    try:
        found = read_arrays(raw)
    except (OSError, ValueError) as error:
        raise _unusable(path, str(error)) from error
    arrays = {kind: found[key] for kind, keys in _KEYS.items() for key in reversed(keys) if key in found}
    arrays |= {key: found[key] for key in ("values", "quality", "filled") if key in found}
    lacking = [kind for kind in ("values", "time", "station", "variable") if kind not in arrays]
    flat = [kind for kind, array in arrays.items() if kind in _KEYS and array.ndim != 1]
    if lacking or flat:
        what = f"without {', '.join(lacking)}" if lacking else f"{', '.join(flat)} must have one dimension"
        raise _unusable(path, what)
    for kind in ("latitude", "longitude", "elevation"):
        if kind in arrays and arrays[kind].dtype.kind not in "fiu":
            raise _unusable(path, f"{kind} is {arrays[kind].dtype}, expected numbers")
    return arrays


def stored_key(arrays: Mapping[str, np.ndarray], kind: str) -> str:
    """Return the name under which the file holds an array of this kind."""
    return next(key for key in _KEYS[kind] if key in arrays)


def _as_rows(path: Path, arrays: dict[str, np.ndarray], stations: tuple[str, ...], names: tuple[str, ...]) -> Rows:
    times, count = arrays["time"], len(stations)
    try:
        texts = times.astype("datetime64[s]").astype(str) if times.dtype.kind == "M" else times.astype(str)
        parsed, resolution, note = parse_times(texts.tolist())
    except (ValueError, OverflowError) as error:
        raise _unusable(path, str(error)) from error
    quality = arrays.get("quality")
    if quality is not None and (quality.shape != arrays["values"].shape or quality.dtype.kind not in "iu"):
        raise _unusable(path, f"quality is {quality.dtype} {quality.shape}, expected integers {arrays['values'].shape}")
    values, undone = _observed(path, arrays)
    notes = [note] if note else []
    if undone:
        notes.append(f"{undone} cells filled by an earlier restoration were taken as missing")
    return Rows(
        stations=stations,
        variables=names,
        units=tuple(str(unit) for unit in arrays["unit"]) if "unit" in arrays else (),
        station=np.tile(np.arange(count), len(times)),
        time=np.repeat(parsed, count),
        values=values.reshape(-1, len(names)),
        resolution=resolution,
        place=[f"time {i}" for i in range(len(times)) for _ in stations],
        quality=None if quality is None else quality.astype(np.int16).reshape(-1, len(names)),
        notes=notes,
    )


def _observed(path: Path, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, int]:
    """Return the values with what an earlier restoration filled missing again, and how many those are."""
    values, filled = arrays["values"].astype(np.float64), arrays.get("filled")
    if filled is None:
        return values, 0
    if filled.shape != values.shape or filled.dtype != bool:
        raise _unusable(path, f"filled is {filled.dtype} {filled.shape}, expected bool {values.shape}")
    return np.where(filled, np.nan, values), int(filled.sum())


def _unusable(path: Path, found: str) -> InputError:
    return InputError(
        "the .npz file is not a table of stations",
        f"{path}: {found}",
        "save values [time, station, variable], time, station_id and modality with numpy.savez_compressed",
    )
