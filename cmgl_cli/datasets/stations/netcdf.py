"""NetCDF with CF conventions: variables over a dimension of stations and one of times.

Reading and writing go through xarray (``pip install 'cmgl[netcdf]'``), imported on first use.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cmgl_cli.artifacts import require_plain
from cmgl_cli.datasets.stations.grid import Rows, build_table
from cmgl_cli.datasets.stations.table import NO_FLAG, Frequency, Source, StationTable
from cmgl_cli.datasets.stations.text import digest, read_bytes
from cmgl_cli.errors import InputError, UsageError, suggest

_PLACES = {
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
    "elevation": ("elevation", "elev", "altitude", "alt", "height", "station_height"),
}
_HDF5 = b"\x89HDF"
_STATION_NAMES = ("station", "station_id", "station_name", "id", "stations", "name")
FLAG_SUFFIXES = ("_quality", "_flag", "_qc")
FILLED, ERROR = "_filled", "_standard_error"


def xarray() -> ModuleType:
    """Import xarray.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        import xarray as module
    except ImportError as error:
        raise InputError("NetCDF needs xarray", "it is not installed", "pip install 'cmgl[netcdf]'") from error
    return module


def open_netcdf(path: Path) -> Any:
    """Open a file as an xarray dataset held in memory, times decoded.

    Raises
    ------
    InputError
        If it is not NetCDF, or its times cannot be read.
    """
    module = xarray()
    if read_bytes(path).startswith(_HDF5):
        require_plain(path)
    try:
        with module.open_dataset(path, decode_times=module.coders.CFDatetimeCoder(time_unit="s")) as dataset:
            return dataset.load()
    except Exception as error:  # the engines raise OSError, ValueError, RuntimeError, TypeError and more
        raise InputError(
            "a file cannot be read as NetCDF",
            f"{path}: {error or type(error).__name__}",
            "give NetCDF with CF conventions, or a tidy CSV: station,time,<variables>",
        ) from error


def read_netcdf(
    path: Path, *, variables: Sequence[str] | None = None, frequency: Frequency | None = None
) -> StationTable:
    """Read a station table from NetCDF.

    The time dimension is the one with CF times, the other dimension is the stations. Identifiers come from the
    variable with ``cf_role = "timeseries_id"``, or one named ``station``; places from ``lat``, ``lon``, ``elevation``
    or their standard names. Cells that an earlier restoration filled are missing again.

    Raises
    ------
    InputError
        If there is no such layout.
    UsageError
        If a variable asked for is not there.
    """
    dataset = open_netcdf(path)
    time, station = table_dimensions(dataset, path)
    names = data_variables(dataset, time, station)
    for name in variables or ():
        if name not in names:
            raise UsageError(f"the file has no variable {name!r}", f"{path}: {name}", suggest(name, names))
    names = tuple(variables or names)
    if not names:
        raise _unusable(path, f"no variable over ({time}, {station})")
    values = np.stack([_values(dataset, name, time, station) for name in names], axis=2)
    notes = []
    undone = _forget_filled(dataset, names, values, time, station)
    if undone:
        notes.append(f"{undone} cells filled by an earlier restoration were taken as missing")
    stations = identifiers(dataset, station)
    times = dataset_times(dataset, time, path)
    quality = _quality(dataset, names, values.shape, time, station)
    rows = Rows(
        stations=stations,
        variables=names,
        units=tuple(str(dataset[name].attrs.get("units", "")) for name in names),
        station=np.tile(np.arange(len(stations)), len(times)),
        time=np.repeat(times, len(stations)),
        values=values.reshape(-1, len(names)),
        resolution="day" if (times == times.astype("datetime64[D]")).all() else "hour",
        place=[f"time {i}" for i in range(len(times)) for _ in stations],
        quality=None if quality is None else quality.reshape(-1, len(names)),
        notes=notes,
    )
    table = build_table(rows, str(path), frequency)
    return replace(
        table,
        source=Source("netcdf", (path,), (digest(read_bytes(path)),)),
        latitude=_place(dataset, "latitude", station),
        longitude=_place(dataset, "longitude", station),
        elevation=_place(dataset, "elevation", station),
    )


def table_dimensions(dataset: Any, path: Path) -> tuple[str, str]:
    """Return the names of the time and the station dimension.

    Raises
    ------
    InputError
        If no variable has exactly these two.
    """
    shapes = [dataset[name].dims for name in dataset.data_vars if dataset[name].dtype.kind in "fiu"]
    pairs = [dims for dims in shapes if len(dims) == 2]
    for dims in pairs:
        for time, station in (dims, dims[::-1]):
            if _is_time(dataset, time) and not _is_time(dataset, station):
                return str(time), str(station)
    found = "; ".join(f"{name} {tuple(dataset[name].dims)}" for name in list(dataset.data_vars)[:5]) or "nothing"
    raise _unusable(path, f"no variable over time and station, found {found}")


def _is_time(dataset: Any, dimension: Any) -> bool:
    return dimension in dataset.coords and (
        dataset[dimension].dtype.kind == "M" or hasattr(dataset[dimension].to_index(), "to_datetimeindex")
    )


def data_variables(dataset: Any, time: str, station: str) -> tuple[str, ...]:
    """Return the numeric variables over exactly these dimensions that are not flags or errors of others."""
    found = [
        str(name)
        for name in dataset.data_vars
        if set(dataset[name].dims) == {time, station} and dataset[name].dtype.kind in "fiu"
    ]
    attached = {
        companion for name in found for companion in str(dataset[name].attrs.get("ancillary_variables", "")).split()
    }
    attached |= {name + suffix for name in found for suffix in (*FLAG_SUFFIXES, FILLED, ERROR)}
    return tuple(name for name in found if name not in attached)


def _values(dataset: Any, name: str, time: str, station: str) -> np.ndarray:
    return dataset[name].transpose(time, station).values.astype(np.float64)


def _forget_filled(dataset: Any, names: tuple[str, ...], values: np.ndarray, time: str, station: str) -> int:
    undone = 0
    for k, name in enumerate(names):
        if name + FILLED in dataset:
            before = (_values(dataset, name + FILLED, time, station) == 1) & ~np.isnan(values[..., k])
            values[..., k][before] = np.nan
            undone += int(before.sum())
    return undone


def _quality(dataset: Any, names: tuple[str, ...], shape: tuple, time: str, station: str) -> np.ndarray | None:
    quality = np.full(shape, NO_FLAG, dtype=np.int16)
    found = False
    for k, name in enumerate(names):
        for suffix in FLAG_SUFFIXES:
            if name + suffix in dataset and set(dataset[name + suffix].dims) == {time, station}:
                flags = np.nan_to_num(_values(dataset, name + suffix, time, station), nan=NO_FLAG)
                quality[..., k] = flags.clip(-32768, 32767).astype(np.int16)
                found = True
    return quality if found else None


def identifiers(dataset: Any, station: str) -> tuple[str, ...]:
    """Return the identifiers of the stations: by CF role, by name, or their numbers."""
    by_role = [name for name in dataset.variables if dataset[name].attrs.get("cf_role") == "timeseries_id"]
    for name in (*by_role, station, *_STATION_NAMES):
        if name in dataset.variables and dataset[name].dims == (station,):
            values = dataset[name].values
            return tuple(
                value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else str(value).strip()
                for value in values
            )
    return tuple(str(i) for i in range(dataset.sizes[station]))


def _place(dataset: Any, kind: str, station: str) -> np.ndarray:
    standard = {"elevation": ("height", "altitude", "surface_altitude")}.get(kind, (kind,))
    by_role = [name for name in dataset.variables if dataset[name].attrs.get("standard_name") in standard]
    for name in (*_PLACES[kind], *by_role):
        if name in dataset.variables and dataset[name].dims == (station,) and dataset[name].dtype.kind in "fiu":
            return dataset[name].values.astype(np.float64)
    return np.empty(0)


def dataset_times(dataset: Any, time: str, path: Path) -> np.ndarray:
    """Return times as datetime64[s]; calendars without leap days are converted, 360-day ones are refused."""
    values = dataset[time].values
    if values.dtype.kind == "M":
        if np.isnat(values).any():
            raise _unusable(path, "a time is missing")
        return values.astype("datetime64[s]")
    try:
        return dataset[time].to_index().to_datetimeindex(unsafe=True, time_unit="us").values.astype("datetime64[s]")
    except ValueError as error:
        raise _unusable(path, f"its calendar has days that do not exist: {error}") from error


def _unusable(path: Path, found: str) -> InputError:
    return InputError(
        "the NetCDF file is not a table of stations",
        f"{path}: {found}",
        "give variables over the dimensions time and station",
    )
