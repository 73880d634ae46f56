"""What is odd about a table of stations, by name."""

import re
from dataclasses import dataclass

import numpy as np

from cmgl_cli.datasets.stations.changed_units import changed_units
from cmgl_cli.datasets.stations.mixed_units import mixed_units
from cmgl_cli.datasets.stations.table import StationTable

_DIRECTION = re.compile(r"dir|drct|bearing|azimuth|^wd(_|$)")


@dataclass(frozen=True)
class Finding:
    """One oddity: its kind, a sentence, and the stations, variables or times it concerns."""

    kind: str
    sentence: str
    names: tuple[str, ...]


def diagnose(table: StationTable) -> tuple[Finding, ...]:
    """Look for what a restoration should know or cannot mend.

    Parameters
    ----------
    table : StationTable
        Any table.

    Returns
    -------
    tuple of Finding
        Kinds: ``dead-station``, ``empty-variable``, ``never-observed`` (a variable at a station), ``constant``,
        ``empty-time``, ``no-coordinates``, ``same-place``, ``mixed-units``, ``changed-units``, ``direction``. Empty
        where all is well.
    """
    observed: np.ndarray = table.observed
    dead = np.asarray(~observed.any(axis=(0, 2)))
    empty = np.asarray(~observed.any(axis=(0, 1)))
    never = ~observed.any(axis=0) & ~dead[:, None] & ~empty[None, :]
    pairs = [f"{table.variables[k]} at {table.stations[i]}" for i, k in np.argwhere(never)]
    blank = [_written(table, time) for time in table.time[~observed.any(axis=(1, 2)) & ~table.inserted]]
    nowhere = np.isnan(table.latitude) | np.isnan(table.longitude)
    found = [
        ("dead-station", "stations without any observation", _named(table.stations, dead)),
        ("empty-variable", "variables never observed anywhere", _named(table.variables, empty)),
        ("never-observed", "variables never observed at a station", tuple(pairs)),
        ("constant", "variables with one value only", _constant(table)),
        ("empty-time", "times without any observation", tuple(blank)),
        (
            "no-coordinates",
            "stations without coordinates: nothing is known of their neighbours",
            _named(table.stations, nowhere),
        ),
        ("same-place", "places shared by several stations", _same_place(table)),
        (
            "mixed-units",
            "records as if in another unit (used as they are; convert them, or leave the stations out with --exclude)",
            _mixed_units(table),
        ),
        (
            "changed-units",
            "records as if in another unit in some years (used as they are; convert these, or set them missing)",
            _changed_units(table),
        ),
        (
            "direction",
            "variables that look like directions in degrees (filled as plain numbers, so that north and north may give "
            "south: give the sine and cosine, or the wind's two components, instead)",
            _directions(table),
        ),
    ]
    return tuple(Finding(kind, _counted(len(names), what), names) for kind, what, names in found if names)


def _counted(count: int, what: str) -> str:
    return f"{count} {what if count > 1 else what.replace('s ', ' ', 1)}"


def _named(names: tuple[str, ...], which: np.ndarray) -> tuple[str, ...]:
    return tuple(names[index] for index in np.flatnonzero(which))


def _written(table: StationTable, time: np.datetime64) -> str:
    unit = {"hourly": "h", "daily": "D", "monthly": "M"}[table.frequency]
    return str(time.astype(f"datetime64[{unit}]")).replace("T", " ")


def _constant(table: StationTable) -> tuple[str, ...]:
    names = []
    for k, name in enumerate(table.variables):
        values = table.values[..., k][table.observed[..., k]]
        if values.size > 1 and values.min() == values.max():
            names.append(f"{name} = {values[0]:g}")
    return tuple(names)


def _directions(table: StationTable) -> tuple[str, ...]:
    names = []
    for k, name in enumerate(table.variables):
        values = table.values[..., k][table.observed[..., k]]
        if _DIRECTION.search(name.lower()) and values.size and values.min() >= 0 and 180 < values.max() <= 360:
            names.append(name)
    return tuple(names)


def _mixed_units(table: StationTable) -> tuple[str, ...]:
    names = []
    for k, (variable, unit) in enumerate(zip(table.variables, table.units, strict=True)):
        for suspect in mixed_units(table.values[..., k], unit):
            change, (low, high) = suspect.conversion, suspect.others
            names.append(
                f"{variable} at {table.stations[suspect.station]}, mean {suspect.mean:.4g}, elsewhere {low:.4g} to "
                f"{high:.4g} (as {change.unit} among {change.into})"
            )
    return tuple(names)


def _changed_units(table: StationTable) -> tuple[str, ...]:
    names = []
    for k, (variable, unit) in enumerate(zip(table.variables, table.units, strict=True)):
        for found in changed_units(table.values[..., k], table.time, unit):
            low, high = found.others
            first, last, count = found.years[0], found.years[-1], len(found.years)
            when = str(first) if count == 1 else f"{count} years from {first} to {last}"
            names.append(
                f"{variable} at {table.stations[found.station]} in {when}, mean {found.mean:.4g}, in other years "
                f"{low:.4g} to {high:.4g} (as {found.conversion.unit} among {found.conversion.into})"
            )
    return tuple(names)


def _same_place(table: StationTable) -> tuple[str, ...]:
    groups: dict[tuple[float, ...], list[str]] = {}
    for name, place in zip(table.stations, table.coordinates[:, :2].tolist(), strict=True):
        if not np.isnan(place).any():
            groups.setdefault(tuple(place), []).append(name)
    return tuple(" and ".join(group) for group in groups.values() if len(group) > 1)
