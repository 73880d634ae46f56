"""Write a restored table as NetCDF with CF conventions, or into the NetCDF file it came from."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cmgl_cli.datasets.stations.netcdf import (
    ERROR,
    FILLED,
    data_variables,
    dataset_times,
    identifiers,
    open_netcdf,
    table_dimensions,
    xarray,
)
from cmgl_cli.datasets.stations.restored import Restored
from cmgl_cli.datasets.stations.table import NO_FLAG

_FLAGS = {
    "long_name": "whether the value was filled",
    "standard_name": "status_flag",
    "flag_values": np.array([0, 1], dtype=np.int8),
    "flag_meanings": "observed_or_missing filled",
}


def export_netcdf(restored: Restored) -> bytes:
    """Return a NetCDF file of the whole table: CF-1.8, feature type timeSeries, dimensions station and time."""
    table, dims = restored.table, ("station", "time")
    variables: dict[str, Any] = {}
    for k, (name, unit) in enumerate(zip(table.variables, table.units, strict=True)):
        companions = [name + FILLED] + ([name + ERROR] if restored.standard_error is not None else [])
        if table.quality is not None:
            companions.append(f"{name}_quality")
            variables[companions[-1]] = (dims, table.quality[..., k].T, {"long_name": f"quality of {name}"})
        attributes = {"units": unit, "ancillary_variables": " ".join(companions), "coordinates": "latitude longitude"}
        variables[name] = (
            dims,
            restored.complete[..., k].T,
            {key: value for key, value in attributes.items() if value},
        )
        variables[name + FILLED] = (dims, restored.filled[..., k].T.astype(np.int8), _FLAGS)
        if restored.standard_error is not None:
            error = np.where(restored.filled[..., k], restored.standard_error[..., k], np.nan)
            variables[name + ERROR] = (dims, error.T, {"units": unit, "long_name": f"standard error of {name}"})
    places = {
        "latitude": ("station", table.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": ("station", table.longitude, {"standard_name": "longitude", "units": "degrees_east"}),
        "elevation": ("station", table.elevation, {"standard_name": "surface_altitude", "units": "m"}),
        "station": ("station", np.array(table.stations, dtype=object), {"cf_role": "timeseries_id"}),
        "station_name": ("station", np.array(table.names, dtype=object), {"long_name": "station name"}),
        "time": ("time", table.time.astype("datetime64[s]"), {"standard_name": "time"}),
    }
    dataset = xarray().Dataset(variables, places, {"Conventions": "CF-1.8", "featureType": "timeSeries"})
    for name in table.variables:  # `coordinates` goes through the encoding, or xarray refuses it
        dataset[name].encoding["coordinates"] = dataset[name].attrs.pop("coordinates")
    return _stored(dataset)


def fill_netcdf(path: Path, raw: bytes, restored: Restored) -> bytes:
    """Return a NetCDF file with its gaps filled: its variables, attributes, types and packing stay as they are.

    Parameters
    ----------
    path : Path
        The file, as it was read.
    raw : bytes
        Its content.
    restored : Restored
        A table of its stations and variables, or part of it.

    Returns
    -------
    bytes
        The new file, as NetCDF 4.
    """
    dataset = open_netcdf(path)
    time, station = table_dimensions(dataset, path)
    table = restored.table
    names = [name for name in data_variables(dataset, time, station) if name in table.variables]
    dataset, times = _with_added_times(dataset, time, path, restored)
    known = identifiers(dataset, station)
    inside = np.flatnonzero(np.isin(times, table.time))
    cells = np.ix_(inside, np.array([known.index(name) for name in table.stations]))
    rows = np.searchsorted(table.time, times[inside])
    for name in names:
        k = table.variables.index(name)
        values = dataset[name].transpose(time, station).values.copy()
        done = np.zeros(values.shape, dtype=bool)
        done[cells] = restored.filled[rows, :, k]
        values[done] = restored.values[rows, :, k][restored.filled[rows, :, k]]
        dataset[name] = _like(dataset[name], (time, station), values)
        dataset[name + FILLED] = ((time, station), done.astype(np.int8), _FLAGS)
        if restored.standard_error is not None:
            error = np.full(values.shape, np.nan)
            error[cells] = np.where(restored.filled[rows, :, k], restored.standard_error[rows, :, k], np.nan)
            dataset[name + ERROR] = ((time, station), error, {"units": str(dataset[name].attrs.get("units", ""))})
    return _stored(dataset)


def _like(variable: Any, dims: tuple[str, str], values: np.ndarray) -> Any:
    """Return a variable of other values, with the dimensions' order, attributes and packing of the given one."""
    filled = variable.transpose(*dims).copy(data=values).transpose(*variable.dims)
    filled.encoding = {
        key: value
        for key, value in variable.encoding.items()
        if key in ("dtype", "scale_factor", "add_offset", "_FillValue", "coordinates", "grid_mapping")
    }
    return filled


def _with_added_times(dataset: Any, time: str, path: Path, restored: Restored) -> tuple[Any, np.ndarray]:
    """Add the times that the file lacks and the restoration fills; return the axis as datetime64[s] too."""
    table = restored.table
    times = dataset_times(dataset, time, path)
    own = times.astype("datetime64[M]").astype(times.dtype) if table.frequency == "monthly" else times
    added = table.time[restored.filled.any(axis=(1, 2)) & ~np.isin(table.time, own)]
    if not added.size:
        return dataset, own
    encodings = {name: dataset[name].encoding for name in dataset.variables}
    whole = np.sort(np.concatenate([times, added]))
    fill = {name: NO_FLAG for name in dataset.data_vars if dataset[name].dtype.kind in "iu"}
    longer = dataset.assign_coords({time: times}).reindex({time: whole}, fill_value=fill or np.nan)
    for name, encoding in encodings.items():
        longer[name].encoding = encoding
    return longer, whole.astype("datetime64[M]").astype(times.dtype) if table.frequency == "monthly" else whole


def _stored(dataset: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "restored.nc"
        dataset.to_netcdf(path, engine="h5netcdf")
        return path.read_bytes()
