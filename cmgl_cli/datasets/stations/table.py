"""What a set of stations is: one dense array over a regular time axis, and all that is known about it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from cmgl_cli.errors import InputError, UsageError, suggest

Frequency = Literal["hourly", "daily", "monthly"]
NO_FLAG = -1
"""Quality of a cell that came without a flag."""


@dataclass(frozen=True)
class Source:
    """Where a table came from, for writing results back in the same layout.

    Parameters
    ----------
    kind : {"csv", "jma", "netcdf", "npz"}
        The layout.
    paths : tuple of Path
        The files.
    digests : tuple of str
        SHA-256 of each file when it was read: results are not merged into a file that changed since.
    encoding : str
        Of text files, where it was named; empty for UTF-8 and for layouts that have their own.
    """

    kind: Literal["csv", "jma", "netcdf", "npz"]
    paths: tuple[Path, ...]
    digests: tuple[str, ...]
    encoding: str = ""


@dataclass(frozen=True, eq=False)
class StationTable:
    """Observations of several variables at stations, on a regular time axis.

    Parameters
    ----------
    values : ndarray of float64, shape [times, stations, variables]
        Observations in the variables' units; NaN where missing. Never infinite.
    time : ndarray of datetime64[s], shape [times]
        Every hour, day or month from first to last; a month is its first day.
    stations : tuple of str
        Identifiers, unique.
    variables : tuple of str
        Names, unique.
    frequency : {"hourly", "daily", "monthly"}
        Step of the time axis.
    units : tuple of str
        Unit of each variable; empty where unknown.
    latitude, longitude, elevation : ndarray of float64, shape [stations]
        Degrees north, degrees east, metres; NaN where unknown.
    names : tuple of str
        Names of the stations for people; the identifiers where there are none.
    quality : ndarray of int16, shape [times, stations, variables], or None
        Flags as they came, `NO_FLAG` where there was none.
    inserted : ndarray of bool, shape [times]
        Times of the axis that the file does not have: gaps, or the rest of the year in a seasonal record.
    notes : tuple of str
        What the reader recognised or changed, one sentence each.
    source : Source or None
        Where it came from.
    """

    values: np.ndarray
    time: np.ndarray
    stations: tuple[str, ...]
    variables: tuple[str, ...]
    frequency: Frequency
    units: tuple[str, ...] = ()
    latitude: np.ndarray = field(default_factory=lambda: np.empty(0))
    longitude: np.ndarray = field(default_factory=lambda: np.empty(0))
    elevation: np.ndarray = field(default_factory=lambda: np.empty(0))
    names: tuple[str, ...] = ()
    quality: np.ndarray | None = None
    inserted: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=bool))
    notes: tuple[str, ...] = ()
    source: Source | None = None

    def __post_init__(self) -> None:
        unknown = np.full(len(self.stations), np.nan)
        for name in ("latitude", "longitude", "elevation"):
            given = np.asarray(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, given if given.size else unknown)
        inserted = self.inserted if self.inserted.size else np.zeros(len(self.time), dtype=bool)
        object.__setattr__(self, "inserted", inserted)
        object.__setattr__(self, "names", tuple(self.names) or self.stations)
        object.__setattr__(self, "units", tuple(self.units) or ("",) * len(self.variables))
        _check_shapes(self)
        _check_coordinates(self)

    @property
    def observed(self) -> np.ndarray:
        """Where there is an observation, bool [times, stations, variables]."""
        return ~np.isnan(self.values)

    @property
    def coordinates(self) -> np.ndarray:
        """Latitude, longitude and elevation, float64 [stations, 3]; NaN where unknown."""
        return np.stack([self.latitude, self.longitude, self.elevation], axis=1)

    def digest(self) -> str:
        """Return ``sha256:`` and the digest of what decides a restoration: values, times, places, names, units."""
        digest = hashlib.sha256()
        for values in (self.values, self.time.astype("datetime64[s]").astype(np.int64), self.coordinates):
            digest.update(np.ascontiguousarray(values).tobytes())
        digest.update(json.dumps([self.stations, self.variables, self.units], ensure_ascii=False).encode())
        return "sha256:" + digest.hexdigest()

    def select(
        self,
        stations: Sequence[str] | None = None,
        variables: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
    ) -> "StationTable":
        """Return part of the table.

        Parameters
        ----------
        stations, variables : sequence of str, optional
            What to keep, in this order.
        start, end : str, optional
            First and last time to keep, such as ``"1961-01"``; both ends belong to the part.

        Raises
        ------
        UsageError
            If a name is unknown, or the period is empty.
        """
        rows = _places(self.stations, stations, "station")
        columns = _places(self.variables, variables, "variable")
        inside = _period(self.time, self.frequency, start, end)
        cells = np.ix_(inside, rows, columns)
        return replace(
            self,
            values=self.values[cells],
            quality=None if self.quality is None else self.quality[cells],
            time=self.time[inside],
            inserted=self.inserted[inside],
            stations=tuple(self.stations[row] for row in rows),
            names=tuple(self.names[row] for row in rows),
            variables=tuple(self.variables[column] for column in columns),
            units=tuple(self.units[column] for column in columns),
            latitude=self.latitude[rows],
            longitude=self.longitude[rows],
            elevation=self.elevation[rows],
        )


def _places(known: tuple[str, ...], wanted: Sequence[str] | None, kind: str) -> np.ndarray:
    if wanted is None:
        return np.arange(len(known))
    for name in wanted:
        if name not in known:
            raise UsageError(f"the table has no {kind} {name!r}", f"{kind}: {name}", suggest(name, known))
    return np.array([known.index(name) for name in wanted], dtype=np.int64)


def _period(time: np.ndarray, frequency: Frequency, start: str | None, end: str | None) -> np.ndarray:
    unit = {"hourly": "h", "daily": "D", "monthly": "M"}[frequency]
    steps = time.astype(f"datetime64[{unit}]")
    try:
        first = steps[0] if start is None else np.datetime64(start)
        last = steps[-1] if end is None else np.datetime64(end)
        inside = np.flatnonzero((steps >= first) & (steps.astype(last.dtype) <= last))
    except ValueError as error:
        raise UsageError(
            "a period is not a date", f"start = {start}, end = {end}", "write dates as 1961-01-31"
        ) from error
    if not inside.size:
        raise UsageError(
            "the period holds no time of the table",
            f"start = {start}, end = {end}; the table runs from {steps[0]} to {steps[-1]}",
            "choose a period within it",
        )
    return inside


def _check_shapes(table: StationTable) -> None:
    expected = (len(table.time), len(table.stations), len(table.variables))
    if table.values.shape != expected or table.values.dtype != np.float64:
        found = f"{table.values.dtype} {table.values.shape}, expected float64 {expected}"
        raise InputError("a table of stations has values of another shape", found, "give [time, station, variable]")
    if 0 in expected:
        raise InputError(
            "a table of stations is empty",
            f"{expected[0]} times, {expected[1]} stations, {expected[2]} variables",
            "give at least one of each",
        )
    if np.isinf(table.values).any():
        raise InputError("a table of stations has infinite values", "values", "mark missing values as NaN")
    for kind, names in (("station", table.stations), ("variable", table.variables)):
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"a {kind} occurs twice", f"{kind}: {twice}", "give each its own name")
    if table.quality is not None and table.quality.shape != expected:
        raise InputError("the quality flags have another shape", f"{table.quality.shape}", f"expected {expected}")
    for name in ("names", "latitude", "longitude", "elevation"):
        if len(getattr(table, name)) != expected[1]:
            raise InputError(
                f"{name} does not match the stations", f"{len(getattr(table, name))}", f"give {expected[1]}"
            )


def _check_coordinates(table: StationTable) -> None:
    for name, values, limit in (("latitude", table.latitude, 90), ("longitude", table.longitude, 360)):
        wrong = np.flatnonzero((abs(values) > limit) | np.isinf(values))
        if wrong.size:
            raise InputError(
                f"a station has an impossible {name}",
                f"{table.stations[wrong[0]]}: {values[wrong[0]]}",
                "give degrees, or leave the cell empty where it is unknown",
            )
