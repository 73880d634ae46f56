"""From rows as files have them to the dense table: duplicates, gaps, sentinels, mixed steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cmgl_cli.datasets.stations.table import NO_FLAG, Frequency, StationTable
from cmgl_cli.datasets.stations.times import as_steps, recognise_frequency, regular_axis
from cmgl_cli.errors import InputError

_ENOUGH_FOR_DAILY = 5
_MOST_HOLLOW, _EMPTIEST = 2**25, 20
_SENTINELS = tuple(
    sign * size
    for size in (99.0, 99.9, 99.99, 999.0, 999.9, 999.99, 9999.0, 9999.9, 9999.99, 99999.0, 99999.9, 999999.0, 8888.0)
    for sign in (-1, 1)
) + (-32768.0, 32767.0, -2147483648.0, 1e20, -1e20, 9.969209968386869e36, 1e30, -1e30, 1e35, -1e34)


@dataclass
class Rows:
    """Observations as a file lists them: each row is one station at one time.

    Parameters
    ----------
    stations, variables : tuple of str
        Names.
    units : tuple of str
        Unit of each variable.
    station : ndarray of int, shape [rows]
        Index of the station.
    time : ndarray of datetime64[s], shape [rows]
        The time.
    values : ndarray of float64, shape [rows, variables]
        NaN where missing; infinities and sentinels still in.
    resolution : {"month", "day", "hour"}
        What the file's times name.
    place : sequence of str
        Where each row stands, for messages.
    quality : ndarray of int16, shape [rows, variables], or None
        Flags.
    notes : list of str
        What the reader recognised.
    """

    stations: tuple[str, ...]
    variables: tuple[str, ...]
    units: tuple[str, ...]
    station: np.ndarray
    time: np.ndarray
    values: np.ndarray
    resolution: str
    place: Sequence[str]
    quality: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


def build_table(rows: Rows, where: str, frequency: Frequency | None = None) -> StationTable:
    """Put rows on a regular time axis.

    Parameters
    ----------
    rows : Rows
        The observations.
    where : str
        The file or files, for messages.
    frequency : {"hourly", "daily", "monthly"}, optional
        The step, where it should not be recognised.

    Returns
    -------
    StationTable
        Without coordinates.

    Raises
    ------
    InputError
        If there are no rows, a (station, time) occurs twice, the times keep no step, or stations of
        different steps are mixed.
    """
    if not len(rows.time):
        raise InputError("the file has no observations", where, "give a file with at least one row below the header")
    try:
        step = frequency or recognise_frequency(np.unique(rows.time), rows.resolution)
        times = as_steps(rows.time, step)
        axis = regular_axis(np.unique(times), step)
    except InputError as error:
        raise InputError(error.what, f"{where}: {error.where}", error.fix) from error
    _refuse_duplicates(rows, times, where)
    _refuse_mixed_steps(rows, step, where)
    cell = np.searchsorted(axis, times), rows.station
    shape = len(axis), len(rows.stations), len(rows.variables)
    refuse_hollow(shape, rows.values.size, where)
    values = np.full(shape, np.nan)
    values[cell] = rows.values
    quality = None
    if rows.quality is not None:
        quality = np.full(shape, NO_FLAG, dtype=np.int16)
        quality[cell] = rows.quality
    inserted = ~np.isin(axis, times)
    notes = [*rows.notes, *mask_sentinels(values, rows.variables)]
    if inserted.any():
        notes.append(f"{int(inserted.sum())} times of the {step} axis are not in the file and were added as missing")
    return StationTable(
        values,
        axis,
        rows.stations,
        rows.variables,
        step,
        units=rows.units,
        quality=quality,
        inserted=inserted,
        notes=tuple(notes),
    )


def refuse_hollow(shape: tuple[int, int, int], observed: int, where: str) -> None:
    """Refuse a table so large and so empty that its rows cannot be what they seem.

    Raises
    ------
    InputError
        Gigabytes of cells, nearly all of them without a row.
    """
    cells = math.prod(shape)
    if cells > _MOST_HOLLOW and cells > _EMPTIEST * observed:
        raise InputError(
            "the table would be nearly empty",
            f"{where}: {shape[0]} times x {shape[1]} stations x {shape[2]} variables for {observed} cells",
            "check that the columns of station and time are what they should be, or split the file",
        )


def _refuse_duplicates(rows: Rows, times: np.ndarray, where: str) -> None:
    order = np.lexsort((times, rows.station))
    same = (np.diff(times[order]) == np.timedelta64(0)) & (np.diff(rows.station[order]) == 0)
    if not same.any():
        return
    first = int(np.flatnonzero(same)[0])
    one, two = sorted((int(order[first]), int(order[first + 1])))
    hint = ""
    if rows.resolution == "hour" and len(set(times[order][1:][same].tolist())) < 5 * len(rows.stations):
        hint = "; where clocks were set back, give times in UTC or with their offset (+01:00)"
    raise InputError(
        f"{int(same.sum())} times occur twice at a station",
        f"{where}: {rows.stations[rows.station[two]]} at {str(times[two]).replace('T', ' ')}, "
        f"{rows.place[one]} and {rows.place[two]}",
        f"keep one row for each station and time{hint}",
    )


def _refuse_mixed_steps(rows: Rows, frequency: Frequency, where: str) -> None:
    """Refuse daily stations among hourly ones: their values mean something else."""
    if frequency != "hourly":
        return
    hour = (rows.time - rows.time.astype("datetime64[D]")).astype(np.int64) // 3600
    earliest, latest = np.full(len(rows.stations), 24), np.full(len(rows.stations), -1)
    np.minimum.at(earliest, rows.station, hour)
    np.maximum.at(latest, rows.station, hour)
    count = np.bincount(rows.station, minlength=len(rows.stations))
    daily = np.flatnonzero((earliest == latest) & (count >= _ENOUGH_FOR_DAILY))
    if daily.size:
        raise InputError(
            "hourly and daily series are mixed",
            f"{where}: {rows.stations[daily[0]]} reports once a day, at {earliest[daily[0]]:02d}:00, others every hour",
            "give each step in a file of its own",
        )


def mask_sentinels(values: np.ndarray, variables: Sequence[str]) -> list[str]:
    """Set infinities and values that stand for "missing" to NaN, in place, and say which.

    A sentinel is one of the usual numbers (-999, 9999.9, -32768, 1e20, ...) that stands clear of all other
    values of its variable: by a tenth of its own size and a quarter of the others' range. Positive ones below
    9,999 must moreover occur three times: a single 99.9 may be a cloudburst.

    Parameters
    ----------
    values : ndarray of float64, shape [times, stations, variables]
        Changed in place.
    variables : sequence of str
        Names, for the sentences.

    Returns
    -------
    list of str
        One sentence for each variable and value recognised.
    """
    notes = []
    for column, name in enumerate(variables):
        series = values[..., column]
        infinite = np.isinf(series)
        if infinite.any():
            series[infinite] = np.nan
            notes.append(f"{name}: {int(infinite.sum())} infinite values taken as missing")
        usual = np.isin(series, _SENTINELS)
        rest = series[~usual & ~np.isnan(series)]
        for value in np.unique(series[usual]):
            found = series == value
            if _stands_clear(float(value), rest) and (not 0 < value < 9999 or found.sum() >= 3):
                series[found] = np.nan
                notes.append(f"{name}: {int(found.sum())} values of {value:g} recognised as missing")
    return notes


def _stands_clear(value: float, rest: np.ndarray) -> bool:
    if not rest.size:
        return value < 0 or value >= 9999
    low, high = float(rest.min()), float(rest.max())
    gap = low - value if value < low else value - high
    return gap >= max(abs(value) / 10, (high - low) / 4)
