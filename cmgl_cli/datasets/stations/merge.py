"""Several files of one record, put together."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cmgl_cli.datasets.stations.table import NO_FLAG, Source, StationTable
from cmgl_cli.datasets.stations.times import regular_axis
from cmgl_cli.errors import InputError


def merge_tables(tables: Sequence[StationTable]) -> StationTable:
    """Put tables together: periods one after the other, stations or variables side by side.

    A cell may be in several tables if they agree about it.

    Parameters
    ----------
    tables : sequence of StationTable
        At least one, all of one frequency.

    Returns
    -------
    StationTable
        Stations and variables in order of appearance, on one axis. Coordinates of the first table that has any.

    Raises
    ------
    InputError
        If frequencies or units differ, or two tables disagree about a cell.
    """
    first = tables[0]
    if len(tables) == 1:
        return first
    for table in tables[1:]:
        if table.frequency != first.frequency:
            raise InputError(
                "the files have different steps",
                f"{_origin(first)} is {first.frequency}, {_origin(table)} is {table.frequency}",
                "restore each step by itself",
            )
    stations = tuple(dict.fromkeys(name for table in tables for name in table.stations))
    variables = tuple(dict.fromkeys(name for table in tables for name in table.variables))
    axis = regular_axis(np.unique(np.concatenate([table.time for table in tables])), first.frequency)
    values = np.full((len(axis), len(stations), len(variables)), np.nan)
    quality = np.full(values.shape, NO_FLAG, dtype=np.int16)
    inserted = np.ones(len(axis), dtype=bool)
    for table in tables:
        rows = np.searchsorted(axis, table.time)
        inserted[rows[~table.inserted]] = False
        columns = np.array([stations.index(name) for name in table.stations])
        layers = np.array([variables.index(name) for name in table.variables])
        _lay(values, quality, np.ix_(rows, columns, layers), table)
    with_places = [table for table in tables if not np.isnan(table.coordinates).all()]
    return StationTable(
        values,
        axis,
        stations,
        variables,
        first.frequency,
        units=_units(tables, variables),
        latitude=_places(with_places, "latitude", stations),
        longitude=_places(with_places, "longitude", stations),
        elevation=_places(with_places, "elevation", stations),
        quality=quality if any(table.quality is not None for table in tables) else None,
        inserted=inserted,
        notes=tuple(dict.fromkeys(f"{_origin(table)}: {note}" for table in tables for note in table.notes)),
        source=_source(tables),
    )


def _lay(values: np.ndarray, quality: np.ndarray, cells: tuple, table: StationTable) -> None:
    """Write a table's cells into the whole, in place, unless they contradict what is there."""
    before = values[cells]
    clash = ~np.isnan(before) & table.observed & (before != table.values)
    if clash.any():
        time, station, variable = (int(index[0]) for index in np.nonzero(clash))
        raise InputError(
            "two files disagree about an observation",
            f"{table.variables[variable]} at {table.stations[station]}, {str(table.time[time]).replace('T', ' ')}: "
            f"{before[time, station, variable]} before, {table.values[time, station, variable]} in {_origin(table)}",
            "leave one of the files out",
        )
    values[cells] = np.where(table.observed, table.values, before)
    if table.quality is not None:
        quality[cells] = np.where(table.quality != NO_FLAG, table.quality, quality[cells])


def _origin(table: StationTable) -> str:
    return table.source.paths[0].name if table.source else "a table"


def _units(tables: Sequence[StationTable], variables: tuple[str, ...]) -> tuple[str, ...]:
    units: dict[str, str] = {}
    for table in tables:
        for name, unit in zip(table.variables, table.units, strict=True):
            if unit and units.setdefault(name, unit) != unit:
                raise InputError(
                    "units are mixed",
                    f"{name} is in {units[name]} and, in {_origin(table)}, in {unit}",
                    "bring them to one",
                )
    return tuple(units.get(name, "") for name in variables)


def _places(tables: Sequence[StationTable], kind: str, stations: tuple[str, ...]) -> np.ndarray:
    known: dict[str, float] = {}
    for table in tables:
        for name, value in zip(table.stations, getattr(table, kind), strict=True):
            if not np.isnan(value):
                known.setdefault(name, float(value))
    return np.array([known.get(name, np.nan) for name in stations])


def _source(tables: Sequence[StationTable]) -> Source | None:
    sources = [table.source for table in tables if table.source is not None]
    if len(sources) < len(tables) or len({source.kind for source in sources}) > 1:
        return None
    paths = tuple(path for source in sources for path in source.paths)
    return replace(sources[0], paths=paths, digests=tuple(d for source in sources for d in source.digests))
