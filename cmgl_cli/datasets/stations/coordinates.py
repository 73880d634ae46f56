"""The table of stations: identifiers, names and places."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cmgl_cli.datasets.stations.table import StationTable
from cmgl_cli.datasets.stations.text import csv_rows, decode, name_and_unit, number, read_bytes
from cmgl_cli.errors import InputError

STATION_HEADERS = ("station", "station_id", "id", "stationid", "site", "site_id", "stn", "wmo", "code", "location")
PLACE_HEADERS: Mapping[str, tuple[str, ...]] = {
    "latitude": ("latitude", "lat", "緯度"),
    "longitude": ("longitude", "lon", "lng", "long", "経度"),
    "elevation": ("elevation", "elev", "altitude", "alt", "height", "標高"),
}


@dataclass(frozen=True)
class Place:
    """One line of a station table: identifier, all its names, degrees and metres (NaN where unknown)."""

    station: str
    names: tuple[str, ...]
    latitude: float
    longitude: float
    elevation: float


def find_column(header: list[str], wanted: tuple[str, ...]) -> int | None:
    """Return the first column with one of these names, whatever its case and unit; None where there is none."""
    plain = [name_and_unit(name)[0].lower().replace(" ", "_") for name in header]
    return next((plain.index(name) for name in wanted if name in plain), None)


def read_places(path: Path, encoding: str | None = None) -> tuple[Place, ...]:
    """Read a station table: CSV with ``station,latitude,longitude[,elevation]`` in any order and usual spelling.

    Raises
    ------
    InputError
        If it is no such table, a cell is no number, or a station is listed twice.
    """
    rows = [row for row in csv_rows(decode(read_bytes(path), path, encoding), path) if any(row)]
    header = rows[0] if rows else []
    key = find_column(header, STATION_HEADERS)
    columns = {kind: find_column(header, names) for kind, names in PLACE_HEADERS.items()}
    if key is None or columns["latitude"] is None or columns["longitude"] is None:
        raise InputError(
            "the station table lacks a column",
            f"{path}: {', '.join(header)}",
            "give the columns station, latitude, longitude and, if known, elevation",
        )
    named = [i for i, name in enumerate(header) if name.strip().lower().startswith("name")]
    places = []
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise InputError(
                "a row of the station table has another length",
                f"{path}, row {line}: {len(row)} cells, the header has {len(header)}",
                "correct the row",
            )
        numbers = {kind: _coordinate(path, line, row, column) for kind, column in columns.items()}
        names = tuple(row[i].strip() for i in named if row[i].strip())
        places.append(Place(row[key].strip(), names, **numbers))
    _refuse_twice(path, places)
    return tuple(places)


def _coordinate(path: Path, line: int, row: list[str], column: int | None) -> float:
    if column is None:
        return float("nan")
    try:
        return number(row[column])
    except ValueError as error:
        raise InputError(
            "a coordinate is not a number", f"{path}, row {line}: {row[column]!r}", "give decimal degrees and metres"
        ) from error


def _refuse_twice(path: Path, places: list[Place]) -> None:
    seen: set[str] = set()
    for place in places:
        if not place.station or place.station in seen:
            raise InputError(
                "A station is listed twice" if place.station else "A station has no identifier",
                f"{path}: {place.station!r}",
                "give each station one row with its identifier",
            )
        seen.add(place.station)


def with_places(table: StationTable, places: tuple[Place, ...], where: str) -> StationTable:
    """Add coordinates and names, matching stations by identifier or else by a name that only one place has.

    Raises
    ------
    InputError
        If a station of the data is not among the places.
    """
    known = {place.station: place for place in places}
    by_name: dict[str, list[Place]] = {}
    for place in places:
        for name in dict.fromkeys(place.names):
            by_name.setdefault(name, []).append(place)
    known = {name: found[0] for name, found in by_name.items() if len(found) == 1} | known
    lost = [station for station in table.stations if station not in known]
    if lost:
        raise InputError(
            f"{len(lost)} stations of the data are not in the station table",
            f"{where}: {', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}",
            "add them to the station table with empty coordinates if need be" + _zeros_hint(lost, known),
        )
    found = [known[station] for station in table.stations]
    unused = len(places) - len({place.station for place in found})
    notes = (f"{unused} stations of the station table have no data and are left out",) if unused else ()
    return replace(
        table,
        latitude=np.array([place.latitude for place in found]),
        longitude=np.array([place.longitude for place in found]),
        elevation=np.array([place.elevation for place in found]),
        names=tuple(
            place.names[0] if place.names else station for place, station in zip(found, table.stations, strict=True)
        ),
        notes=table.notes + notes,
    )


def _zeros_hint(lost: list[str], known: Mapping[str, Place]) -> str:
    bare = {station.lstrip("0") for station in known}
    return "; leading zeros seem to have been lost" if any(station.lstrip("0") in bare for station in lost) else ""
