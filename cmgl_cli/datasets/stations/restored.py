"""A table with its gaps filled, and how its numbers and times are written as text."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cmgl_cli.datasets.stations.table import StationTable
from cmgl_cli.errors import InputError

_TIME = re.compile(r"\d{4}([-/]?)(\d{1,2})(?:[-/]?(\d{1,2}))?(?:([T ]+)(\d{1,2})(:\d{2})?(:\d{2})?(.*))?")


@dataclass(frozen=True, eq=False)
class Restored:
    """A table with its gaps filled.

    Parameters
    ----------
    table : StationTable
        The observations.
    values : ndarray of float, shape [times, stations, variables]
        The restoration; only its cells without observation are used, NaN where it gives none.
    standard_error : ndarray of float, same shape, optional
        Of filled cells, in the variables' units.
    """

    table: StationTable
    values: np.ndarray
    standard_error: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("values", "standard_error"):
            array = getattr(self, name)
            if array is not None and np.shape(array) != self.table.values.shape:
                found = f"{name} {np.shape(array)}, expected {self.table.values.shape}"
                raise InputError("a restoration does not fit its table", found, "give [time, station, variable]")

    @cached_property
    def filled(self) -> np.ndarray:
        """Where the restoration fills a gap, bool [times, stations, variables]."""
        return ~self.table.observed & np.isfinite(self.values)

    @cached_property
    def complete(self) -> np.ndarray:
        """Observations, and the restoration where there are none; NaN where neither."""
        return np.where(self.filled, self.values, self.table.values)

    def error_text(self, cell: tuple[int, int, int], digits: int) -> str:
        """Return the standard error of a filled cell as text; empty where there is none."""
        if self.standard_error is None or not self.filled[cell] or not np.isfinite(self.standard_error[cell]):
            return ""
        return f"{self.standard_error[cell]:.{digits}f}"


def time_texts(times: np.ndarray, frequency: str) -> list[str]:
    """Write times in ISO form at the resolution of the frequency."""
    unit = {"hourly": "m", "daily": "D", "monthly": "M"}[frequency]
    if frequency == "daily" and (times != times.astype("datetime64[D]")).any():
        unit = "m"
    return [str(text) for text in np.datetime_as_string(times.astype(f"datetime64[{unit}]"))]


def time_like(example: str, time: np.datetime64, frequency: str) -> str:
    """Write a time as the file writes its times: separators, padding and clock of the example."""
    iso = time_texts(np.array([time]), "hourly")[0]
    year, month, day, clock = iso[:4], iso[5:7], iso[8:10], iso[11:]
    match = _TIME.match(example.strip())
    if match is None:
        return time_texts(np.array([time]), frequency)[0]
    separator = match[1]
    padded = not separator or all(part is None or len(part) == 2 for part in match.group(2, 3))
    month, day = (part if padded else str(int(part)) for part in (month, day))
    written = separator.join([year, month, day] if match[3] else [year, month])
    if match[4]:
        hour = clock[:2] if len(match[5]) == 2 else str(int(clock[:2]))
        written += match[4] + hour + (clock[2:] if match[6] else "") + (":00" if match[7] else "") + (match[8] or "")
    return written


def csv_text(rows: Iterable[Sequence[str]], delimiter: str = ",", newline: str = "\n") -> str:
    """Join cells to CSV, quoted only where needed."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter, lineterminator=newline).writerows(rows)
    return buffer.getvalue()


def decimals(texts: Iterable[str]) -> int:
    """Return the decimals a column of numbers is written with: the most that any of them has."""
    found = [match[1] for text in texts if (match := re.search(r"\.(\d+)\s*\D?$", text))]
    return min(max((len(digits) for digits in found), default=0), 12)
