"""Times of observations: reading them, recognising their step, and the regular axis they lie on."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from cmgl_cli.datasets.stations.table import Frequency
from cmgl_cli.errors import InputError

_ZONE = r"(Z|[+-]\d{2}:?\d{2})?"
_CLOCK = r"(\d{1,2})(?::(\d{2})(?::(\d{2})(?:\.0*)?)?)?\s*" + _ZONE
_SEPARATED = re.compile(r"(\d{4})[-/](\d{1,2})(?:[-/](\d{1,2})(?:[T ]\s*" + _CLOCK + r")?)?")
_COMPACT = re.compile(r"(\d{4})(\d{2})(?:(\d{2})(?:T?(\d{2})(?:(\d{2})(?:(\d{2}))?)?" + _ZONE + r")?)?")
_STEP = {"hourly": 3600, "daily": 86400}
_MOST_INSERTED = 20


def parse_time(text: str) -> tuple[datetime, str, int | None]:
    """Read a time written year first.

    Parameters
    ----------
    text : str
        Such as ``2020-01``, ``2020/1/31``, ``2020-01-31T06:00+09:00``, ``2020013106``. Hour 24 is midnight.

    Returns
    -------
    time : datetime
        As written, without offset.
    resolution : {"month", "day", "hour"}
        What the text names.
    offset : int or None
        Minutes east of UTC, where given.

    Raises
    ------
    ValueError
        If it is no such time.
    """
    match = _SEPARATED.fullmatch(text.strip()) or _COMPACT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time; write year first: 2020-01-31 or 2020-01-31 06:00")
    moment = datetime(int(match[1]), int(match[2]), int(match[3] or 1))
    hour, minute, second = (int(part or 0) for part in match.group(4, 5, 6))
    if hour > 24 or (hour == 24 and (minute or second)) or minute > 59 or second > 59:
        raise ValueError(f"{text!r} has an impossible time of day")
    moment += timedelta(hours=hour, minutes=minute, seconds=second)
    resolution = "month" if match[3] is None else "day" if match[4] is None else "hour"
    return moment, resolution, _offset(match[7])


def _offset(text: str | None) -> int | None:
    if text is None:
        return None
    if text == "Z":
        return 0
    sign = -1 if text[0] == "-" else 1
    return sign * (60 * int(text[1:3]) + int(text[-2:]))


def parse_times(texts: Sequence[str]) -> tuple[np.ndarray, str, str]:
    """Read a column of times.

    Parameters
    ----------
    texts : sequence of str
        As `parse_time` reads them. If offsets from UTC differ, all are converted to UTC; one common offset
        is dropped.

    Returns
    -------
    times : ndarray of datetime64[s], shape [len(texts)]
        The times.
    resolution : str
        The finest resolution named.
    note : str
        What was done about offsets; empty if nothing.

    Raises
    ------
    ValueError
        If one is no time, months and days are mixed, or only some have offsets.
    """
    known = {text: parse_time(text) for text in dict.fromkeys(texts)}
    named = {entry[1] for entry in known.values()}
    if "month" in named and len(named) > 1:
        bare = next(text for text, entry in known.items() if entry[1] == "month")
        raise ValueError(f"{bare!r} names a month, other times name days")
    resolution = next((finest for finest in ("hour", "day") if finest in named), "month")
    times = np.array([known[text][0] for text in texts], dtype="datetime64[s]")
    offsets = {entry[2] for entry in known.values()}
    if len(offsets) < 2:
        return times, resolution, ""
    if None in offsets:
        raise ValueError("some times have an offset from UTC and some have none")
    shifts = np.array([known[text][2] for text in texts], dtype="timedelta64[m]")
    return times - shifts, resolution, "offsets from UTC differ between times: all were converted to UTC"


def recognise_frequency(times: np.ndarray, resolution: str) -> Frequency:
    """Tell hourly, daily or monthly from a sorted set of times; gaps are allowed.

    Parameters
    ----------
    times : ndarray of datetime64[s], shape [n]
        Ascending and unique.
    resolution : {"month", "day", "hour"}
        What the texts named: decides where there is only one time.

    Raises
    ------
    InputError
        If the times keep none of the three steps; the reason and the first such place are named.
    """
    if resolution == "month":
        return "monthly"
    if len(times) == 1:
        return "hourly" if resolution == "hour" else "daily"
    steps = np.diff(times).astype(np.int64)
    if _is_monthly(times, steps):
        return "monthly"
    usual = Counter(steps.tolist()).most_common(1)[0][0]
    for frequency, step in (("daily", 86400), ("hourly", 3600)):
        if usual == step:
            off = np.flatnonzero(steps % step)
            if off.size:
                raise _irregular(
                    f"most steps are {_words(step)}, but {_written(times[off[0] + 1])} comes "
                    f"{_words(int(steps[off[0]]))} after {_written(times[off[0]])}"
                )
            return "daily" if frequency == "daily" else "hourly"
    raise _irregular(
        f"the most frequent step is {_words(usual)}, first after {_written(_first_step(times, steps, usual))}"
    )


def _first_step(times: np.ndarray, steps: np.ndarray, step: int) -> np.datetime64:
    return times[int(np.flatnonzero(steps == step)[0])]


def _is_monthly(times: np.ndarray, steps: np.ndarray) -> bool:
    """Whether no two times share a month and all stand at the same place in it: one day, or the last."""
    months, days = times.astype("datetime64[M]"), times.astype("datetime64[D]")
    if steps.min() < 28 * 86400 or len(np.unique(months)) != len(times):
        return False
    of_month = (days - months.astype("datetime64[D]")).astype(int)
    is_last = (months + 1).astype("datetime64[D]") - days == np.timedelta64(1, "D")
    usual = np.diff(months).astype(int)
    return bool(
        (len(set(of_month.tolist())) == 1 or is_last.all()) and Counter(usual.tolist()).most_common(1)[0][0] == 1
    )


def _words(seconds: int) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds % size == 0:
            count = seconds // size
            return f"{count} {unit}" + ("" if count == 1 else "s")
    return f"{seconds} seconds"


def _written(time: np.datetime64) -> str:
    return str(time).replace("T", " ")


def _irregular(reason: str) -> InputError:
    return InputError(
        "the times are neither hourly, daily nor monthly",
        reason,
        "bring the series to one of these steps, or name the step with --frequency if only a few times remain",
    )


def as_steps(times: np.ndarray, frequency: Frequency) -> np.ndarray:
    """Return times as the axis writes them: a month as its first day, others unchanged."""
    return times.astype("datetime64[M]").astype("datetime64[s]") if frequency == "monthly" else times


def regular_axis(times: np.ndarray, frequency: Frequency) -> np.ndarray:
    """Return every step from the first to the last time.

    Parameters
    ----------
    times : ndarray of datetime64[s], shape [n]
        Ascending steps of that frequency.
    frequency : {"hourly", "daily", "monthly"}
        The step.

    Returns
    -------
    ndarray of datetime64[s], shape [m], m >= n
        The axis.

    Raises
    ------
    InputError
        If a time is not on the axis, or a few times lie so far off that the axis would be nearly empty.
    """
    if frequency == "monthly":
        months = times.astype("datetime64[M]")
        axis = np.arange(months[0], months[-1] + 1).astype("datetime64[s]")
    else:
        count = int((times[-1] - times[0]).astype(np.int64)) // _STEP[frequency] + 1
        if count > _MOST_INSERTED * len(times) + 1000:
            gap = int(np.argmax(np.diff(times)))
            raise InputError(
                "the times have a gap that makes the rest vanish",
                f"nothing between {_written(times[gap])} and {_written(times[gap + 1])}",
                "correct the years of the times, or split the file",
            )
        axis = times[0] + np.arange(count) * np.timedelta64(_STEP[frequency], "s")
    missing = np.flatnonzero(~np.isin(times, axis))
    if missing.size:
        raise _irregular(f"{_written(times[missing[0]])} is not on the {frequency} axis from {_written(times[0])}")
    return axis
