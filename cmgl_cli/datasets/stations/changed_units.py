"""Stations whose unit changes in the course of their record: some years look as if in another unit than the others.

The years of one station are compared as `mixed_units` compares stations: by level and spread, over the days of the
year that they have in common. Speeds are left out: a knot is half a metre a second, and calm years are no rarer.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmgl_cli.datasets.stations.mixed_units import Conversion, mixed_units

Array = NDArray[np.float64]

_LEAST_YEARS, _LEAST_SCALED = 5, 2
"""Years there must be; and years in another unit where it is one of amounts: a single dry year has the same looks."""
_ODD = 4.0
"""A year is looked at closely whose mean is so many robust spreads from the station's middle year."""


@dataclass(frozen=True)
class Change:
    """Years of a station that look as if in another unit.

    Attributes
    ----------
    station : int
        Its index.
    years : tuple of int
        The fewer ones.
    conversion : Conversion
        What would bring them among the other years.
    mean : float
        Of their values, as they stand.
    others : (float, float)
        Least and greatest mean of the other years.
    """

    station: int
    years: tuple[int, ...]
    conversion: Conversion
    mean: float
    others: tuple[float, float]


def changed_units(values: Array, time: NDArray[np.datetime64], unit: str = "") -> list[Change]:
    """Find stations of one variable some of whose years are in another unit than most.

    Parameters
    ----------
    values : ndarray, shape (n_times, n_stations)
        NaN where missing.
    time : ndarray of datetime64, shape (n_times,)
        Regular and increasing.
    unit : str
        Unit of the variable, if known, as in `mixed_units`.

    Returns
    -------
    list of Change
        In the order of the stations; empty with fewer than five years, as no majority shows there.
    """
    year = time.astype("datetime64[Y]")
    years = np.unique(year)
    if len(years) < _LEAST_YEARS:
        return []
    # years are compared over the same months, days and hours, leap years too
    month = time.astype("datetime64[M]")
    written = np.stack([(month - year).astype(np.int64), (time - month).astype("timedelta64[s]").astype(np.int64)])
    place = np.unique(written, axis=1, return_inverse=True)[1].ravel()
    column = np.searchsorted(years, year)
    found = []
    for station in np.flatnonzero(_odd(values, column, len(years))).tolist():
        table = np.full((int(place.max()) + 1, len(years)), np.nan)
        table[place, column] = values[:, station]
        suspects = [suspect for suspect in mixed_units(table, unit) if suspect.conversion.quantity != "speed"]
        counts = Counter(suspect.conversion for suspect in suspects)
        if not counts:
            continue
        common, count = counts.most_common(1)[0]
        if count < _LEAST_SCALED and not common.shift:
            continue
        same = [suspect for suspect in suspects if suspect.conversion == common]
        numbers = tuple(int(str(years[s.station])) for s in same)
        found.append(Change(station, numbers, common, float(np.mean([s.mean for s in same])), same[0].others))
    return found


def _odd(values: Array, column: NDArray[np.int64], n_years: int) -> NDArray[np.bool_]:
    """Return which stations have a year whose mean is far from those of the others: few have, and the rest is quick."""
    known = np.isfinite(values)
    means = np.full((n_years, values.shape[1]), np.nan)
    for k in range(n_years):
        rows = column == k
        count = known[rows].sum(axis=0)
        means[k, count > 0] = np.where(known[rows], values[rows], 0.0).sum(axis=0)[count > 0] / count[count > 0]
    some = np.isfinite(means).sum(axis=0) >= _LEAST_YEARS
    odd = np.zeros(values.shape[1], dtype=bool)
    if some.any():
        off = np.abs(means[:, some] - np.nanmedian(means[:, some], axis=0))
        odd[some] = np.nanmax(off, axis=0) > _ODD * 1.4826 * np.nanmedian(off, axis=0)
    return odd
