"""Stations whose values look as if written in another unit than those of all others.

A station that is merely far away from the others may be a mountain; it is named only where a usual conversion brings
both its level and its spread among theirs.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FAR_SHIFTED, _FAR_SCALED, _NEAR = 4.0, 6.0, 3.0
"""In robust spreads over stations: how far off a suspect's level is as it stands, and how near once converted.

A scale changes level and spread alike, as a wet or windy place does, so that more is asked of it.
"""
_TEMPERATURES = {"degC": (-90.0, 60.0), "K": (183.0, 333.0), "degF": (-130.0, 140.0)}
"""Without a known unit, only means in these ranges are taken for temperatures."""
_LEAST_STATIONS, _LEAST_COMMON = 4, 6
_MOST_REFERENCES = 100


@dataclass(frozen=True)
class Conversion:
    """``factor * value + shift`` turns a value in ``unit`` into one in ``into``."""

    quantity: str
    unit: str
    into: str
    factor: float
    shift: float = 0.0


def _both_ways(quantity: str, unit: str, into: str, factor: float, shift: float = 0.0) -> tuple[Conversion, ...]:
    back = Conversion(quantity, into, unit, 1 / factor, -shift / factor)
    return Conversion(quantity, unit, into, factor, shift), back


CONVERSIONS = (
    *_both_ways("temperature", "K", "degC", 1.0, -273.15),
    *_both_ways("temperature", "degF", "degC", 5 / 9, -160 / 9),
    *_both_ways("temperature", "K", "degF", 1.8, -459.67),
    *_both_ways("length", "in", "mm", 25.4),
    *_both_ways("length", "cm", "mm", 10.0),
    *_both_ways("speed", "kt", "m/s", 1852 / 3600),
)
_SPELLINGS = {
    "K": ("k", "kelvin"),
    "degC": ("degc", "c", "°c", "℃", "celsius", "deg_c", "degree_celsius", "degrees_celsius"),
    "degF": ("degf", "f", "°f", "℉", "fahrenheit", "deg_f", "degree_fahrenheit", "degrees_fahrenheit"),
    "mm": ("mm", "millimeter", "millimetre", "kg m-2", "mm/day", "mm d-1", "mm/month"),
    "cm": ("cm", "centimeter", "centimetre"),
    "in": ("in", "inch", "inches"),
    "m/s": ("m/s", "m s-1", "ms-1", "m s**-1"),
    "kt": ("kt", "kts", "kn", "knot", "knots"),
}
_UNITS = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings}


@dataclass(frozen=True)
class Suspect:
    """A station that looks as if in another unit.

    Attributes
    ----------
    station : int
        Its index.
    conversion : Conversion
        What would bring it among the others.
    mean : float
        Of its values, as they stand.
    others : (float, float)
        Least and greatest mean of the stations that are no suspects.
    """

    station: int
    conversion: Conversion
    mean: float
    others: tuple[float, float]


def mixed_units(values: Array, unit: str = "") -> list[Suspect]:
    """Find stations of one variable that are far from the others and among them after a usual conversion.

    Parameters
    ----------
    values : ndarray, shape (n_times, n_stations)
        NaN where missing. Stations are compared over the times that they have in common, so that one with winters
        alone is not taken for a cold one.
    unit : str
        Unit of the variable, if known: conversions that do not lead to it are left out, and all of them where it is a
        unit of none.

    Returns
    -------
    list of Suspect
        In the order of the stations; empty with fewer than four stations, as no majority shows there.
    """
    written = unit.strip().lower()
    named = _UNITS.get(written)
    if written and named is None:
        return []
    pairs = _Pairs.of(np.asarray(values, dtype=np.float64))
    compared = pairs.compared
    if compared.sum() < _LEAST_STATIONS:
        return []
    tried = [conversion for conversion in CONVERSIONS if named in {None, conversion.into}]
    misfit = np.stack([_misfit(pairs, conversion) for conversion in tried])
    misfit[:, ~compared] = np.inf
    best = misfit.argmin(axis=0)
    found = {i: tried[best[i]] for i in np.flatnonzero(np.isfinite(misfit.min(axis=0))).tolist()}
    return _confirmed(values, found, compared)


def _confirmed(values: Array, found: dict[int, Conversion], compared: Mask) -> list[Suspect]:
    """Return the suspects outside the range of the others' means: among them as it stands, a station may be right."""
    with np.errstate(invalid="ignore"):
        means = np.nansum(values, axis=0) / np.isfinite(values).sum(axis=0)
    rest = means[compared & ~np.isin(np.arange(len(means)), list(found))]
    if len(rest) < _LEAST_STATIONS - 1:
        return []
    low, high = float(rest.min()), float(rest.max())
    suspects = []
    for i in sorted(found):
        least, most = _TEMPERATURES.get(found[i].into, (-np.inf, np.inf))
        if least <= low <= high <= most and not low <= means[i] <= high:
            suspects.append(Suspect(i, found[i], float(means[i]), (low, high)))
    return suspects


@dataclass(frozen=True)
class _Pairs:
    """Means and standard deviations over common times: ``own[i, j]`` is of station i where reference j is observed."""

    own: Array
    their: Array
    own_spread: Array
    their_spread: Array

    @classmethod
    def of(cls, values: Array) -> "_Pairs":
        known = np.isfinite(values)
        filled = np.where(known, values, 0.0)
        picked = np.flatnonzero(known.sum(axis=0) >= _LEAST_COMMON)
        picked = picked[:: max(1, len(picked) // _MOST_REFERENCES)]
        mask, there, at = known.astype(float), known[:, picked].astype(float), filled[:, picked]
        count = mask.T @ there
        with np.errstate(invalid="ignore", divide="ignore"):
            few = np.where(count < _LEAST_COMMON, np.nan, 1.0)
            few[picked, np.arange(len(picked))] = np.nan
            own, their = filled.T @ there / count * few, mask.T @ at / count * few
            own_spread = np.sqrt(np.maximum((filled**2).T @ there / count - own**2, 0)) * few
            their_spread = np.sqrt(np.maximum(mask.T @ at**2 / count - their**2, 0)) * few
        return cls(own, their, own_spread, their_spread)

    @property
    def compared(self) -> Mask:
        """Stations with enough others to compare with."""
        return np.isfinite(self.own).sum(axis=1) >= _LEAST_STATIONS - 1

    @cached_property
    def difference(self) -> Array:
        """Each station's typical difference from the others."""
        return _median(self.own - self.their)

    @cached_property
    def level(self) -> Array:
        """Logarithm of each station's typical ratio to the others, the middle station's at zero."""
        own, their = (np.where(means > 0, means, np.nan) for means in (self.own, self.their))
        return _centred(_median(np.log(own / their)))

    @cached_property
    def spread(self) -> Array:
        """The same of standard deviations."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return _centred(_median(np.log(self.own_spread / self.their_spread)))


def _misfit(pairs: _Pairs, conversion: Conversion) -> Array:
    """Return how far stations are from the others once converted; infinite where they are no suspects."""
    factor, shift = conversion.factor, conversion.shift
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = pairs.spread + np.log(factor)
        if shift:
            before = _centred(pairs.difference)
            # with the factor 1 the conversion moves the median as it moves every value
            moved = pairs.difference if factor == 1 else _median(factor * pairs.own - pairs.their)
            after = moved + shift - _middle(pairs.difference)
            floor = 0.1 * _middle(pairs.own_spread)
        else:
            before, floor = pairs.level, 0.03
            after = before + np.log(factor)
        scale = max(1.4826 * _middle(np.abs(before)), floor)
        near = np.maximum(_NEAR * scale, 0.1 * np.abs(before))
        tolerance = 0.7 if factor == 1 else min(0.7, 0.4 * abs(np.log(factor)))
        far = _FAR_SHIFTED if shift else _FAR_SCALED
        fits = (np.abs(before) > far * scale) & (np.abs(after) < near) & (np.abs(spread) < tolerance)
        return np.where(fits, np.abs(after) / near + np.abs(spread) / tolerance, np.inf)


def _centred(values: Array) -> Array:
    return values - _middle(values)


def _median(relative: Array) -> Array:
    found = np.full(len(relative), np.nan)
    some = np.isfinite(relative).any(axis=1)
    found[some] = np.nanmedian(np.where(np.isfinite(relative[some]), relative[some], np.nan), axis=1)
    return found


def _middle(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")
