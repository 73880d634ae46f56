"""The Japan Meteorological Agency's download CSV.

Line 1 is the time of the download, line 2 is empty, line 3 names the station of each column, line 4 the element with
its unit, optional lines sub-labels, the last line before the data what each column is (value, 品質情報, ...). A block
(one element at one station) is one to seven columns wide and begins at a column without sub-label and label. The
data begin at the first line that starts with a date, which may be one column or year, month, day, hour apart.

Quality: 8 normal, 5 quasi-normal, 4 insufficient, 2 doubtful, 1 missing, 0 not applicable. Files stored with
symbols in place of numbers are read too: ``)`` is 5, ``]`` is 4, ``#`` is 2, ``×`` and ``///`` are missing, ``--`` is
"no phenomenon", which is zero.
"""

import csv
import io
import re
from dataclasses import dataclass, replace
from pathlib import Path

from cmgl_cli.datasets.stations.text import digest, name_and_unit, read_bytes
from cmgl_cli.errors import InputError

QUALITY_LABEL = "品質情報"
FILLED_LABEL, ERROR_LABEL = "filled", "standard_error"
_STAMP = "ダウンロードした時刻"
_DATE_PARTS = ("年", "月", "日", "時")
_DATE_WORDS = frozenset({*_DATE_PARTS, "年月日", "年月", "年月日時", "日時"})
ELEMENTS = {
    "平均気温": "temperature_mean",
    "最高気温": "temperature_max",
    "最低気温": "temperature_min",
    "気温": "temperature",
    "日最高気温の平均": "temperature_daily_max_mean",
    "日最低気温の平均": "temperature_daily_min_mean",
    "降水量の合計": "precipitation_total",
    "降水量": "precipitation",
    "日降水量の最大": "precipitation_daily_max",
    "1時間降水量の最大": "precipitation_hourly_max",
    "10分間降水量の最大": "precipitation_10min_max",
    "日照時間": "sunshine_duration",
    "日照率": "sunshine_fraction",
    "合計全天日射量": "solar_radiation_total",
    "平均全天日射量": "solar_radiation_mean",
    "平均風速": "wind_speed_mean",
    "風速": "wind_speed",
    "最大風速": "wind_speed_max",
    "最大瞬間風速": "wind_gust_max",
    "最多風向": "wind_direction_prevailing",
    "降雪量合計": "snowfall_total",
    "降雪の深さの合計": "snowfall_total",
    "最深積雪": "snow_depth_max",
    "積雪": "snow_depth",
    "平均湿度": "humidity_mean",
    "最小相対湿度": "humidity_min",
    "相対湿度": "humidity",
    "平均蒸気圧": "vapour_pressure_mean",
    "蒸気圧": "vapour_pressure",
    "平均現地気圧": "station_pressure_mean",
    "現地気圧": "station_pressure",
    "平均海面気圧": "sea_level_pressure_mean",
    "最低海面気圧": "sea_level_pressure_min",
    "海面気圧": "sea_level_pressure",
    "平均雲量": "cloud_cover_mean",
    "雲量": "cloud_cover",
    "露点温度": "dew_point",
    "視程": "visibility",
}
"""English names of the common elements; others keep their own."""


@dataclass(frozen=True)
class Block:
    """One element at one station: which columns hold its value, its quality and an earlier restoration's mark."""

    station: str
    element: str
    unit: str
    value: int
    quality: int | None
    filled: int | None


@dataclass(frozen=True)
class JmaFile:
    """A file taken apart: its lines split into cells, where the data begin, and its blocks."""

    path: Path
    digest: str
    encoding: str
    newline: str
    rows: list[list[str]]
    start: int
    date_columns: int
    blocks: tuple[Block, ...]

    def dates(self) -> list[str]:
        """Return the date of each data line, year first."""
        parts = [[cell.strip() for cell in row[: self.date_columns]] for row in self.rows[self.start :]]
        if self.date_columns == 1:
            return [row[0] for row in parts]
        return ["-".join(row[:3]) + (f" {row[3]}:00" if len(row) > 3 else "") for row in parts]


def looks_like_jma(raw: bytes) -> bool:
    """Whether a file begins as the agency's downloads do."""
    return any(raw.lstrip(b"\xef\xbb\xbf").startswith(_STAMP.encode(encoding)) for encoding in ("cp932", "utf-8"))


def open_jma(path: Path) -> JmaFile:
    """Take a download file apart.

    Raises
    ------
    InputError
        If it is not one.
    """
    raw = read_bytes(path)
    encoding = "utf-8-sig" if raw.startswith((_STAMP.encode(), b"\xef\xbb\xbf")) else "cp932"
    try:
        text = raw.decode(encoding)
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise no_download(path, str(error)) from error
    while rows and not any(cell.strip() for cell in rows[-1]):
        rows.pop()
    start = next((i for i, row in enumerate(rows) if i > 1 and row and _begins_with_date(row)), None)
    header = [row for row in rows[: start or 0] if len(row) > 1]
    if start is None or len(header) < 2:
        raise no_download(path, "no line begins with a date" if start is None else "no lines of stations and elements")
    width = len(header[0])
    for line, row in enumerate(rows, start=1):
        if len(row) != width and (line > start or row in header):
            raise no_download(path, f"line {line} has {len(row)} cells, the line of stations has {width}")
    dates = next((i for i, cell in enumerate(header[1]) if cell.strip("()（） ") not in _DATE_WORDS), width)
    _refuse_periods(path, header, rows[start], dates)
    newline = "\r\n" if "\r\n" in text else "\n"
    return JmaFile(path, digest(raw), encoding, newline, rows, start, dates, _blocks(path, header, dates))


def _begins_with_date(row: list[str]) -> bool:
    return re.match(r"\d{4}$|\d{4}[-/]\d", row[0].strip()) is not None


def _refuse_periods(path: Path, header: list[list[str]], row: list[str], dates: int) -> None:
    words = [cell.strip() for cell in header[1][:dates]]
    if dates == 1 and words[0] != "年" or tuple(words) in (_DATE_PARTS[:2], _DATE_PARTS[:3], _DATE_PARTS):
        return
    found = f"columns {', '.join(words)}, the first {' to '.join(row[:dates])}"
    raise InputError(
        "the file holds neither hourly, daily nor monthly values",
        f"{path}: {found}",
        "download hourly (時別値), daily (日別値) or monthly (月別値) data",
    )


def _blocks(path: Path, header: list[list[str]], dates: int) -> tuple[Block, ...]:
    """Find the blocks: each begins at a column whose sub-labels and label are empty."""
    labelled = len(header) > 2 and not {QUALITY_LABEL, FILLED_LABEL}.isdisjoint(header[-1])
    labels = header[-1] if labelled else [""] * len(header[0])
    subs = header[2:-1] if labelled else header[2:]
    plain = [all(not row[i].strip() for row in subs) for i in range(len(labels))]
    starts = [i for i in range(dates, len(labels)) if plain[i] and not labels[i].strip()]
    split = _split_elements(header, starts)
    blocks: dict[tuple[str, str], Block] = {}
    for begin, end in zip(starts, [*starts[1:], len(labels)], strict=True):
        station, (element, unit) = header[0][begin].strip(), split[header[1][begin]]
        own = [i for i in range(begin + 1, end) if plain[i]]
        block = Block(station, element, unit, begin, next((i for i in own if labels[i] == QUALITY_LABEL), None), None)
        if not station or not element:
            raise no_download(path, f"column {begin + 1} has no station or no element")
        if blocks.setdefault((station, element), block) is not block:
            raise InputError(
                "a station has an element twice",
                f"{path}: {element} at {station}",
                "two stations may share this name: download them into files of their own and rename one",
            )
    marks = {
        (header[0][i].strip(), split[header[1][i]][0]): i for i, label in enumerate(labels) if label == FILLED_LABEL
    }
    return tuple(replace(block, filled=marks.get(key)) for key, block in blocks.items())


def _split_elements(header: list[list[str]], starts: list[int]) -> dict[str, tuple[str, str]]:
    """Return cell -> (element, unit); where one station has two cells of one name, what is in brackets is no unit."""
    found: dict[tuple[str, str], set[str]] = {}
    for i in starts:
        found.setdefault((header[0][i], name_and_unit(header[1][i])[0]), set()).add(header[1][i])
    whole = {name for (_, name), cells in found.items() if len(cells) > 1}
    split = {cell: name_and_unit(cell) for cell in header[1]}
    return {cell: (cell.strip(), "") if pair[0] in whole else pair for cell, pair in split.items()}


def no_download(path: Path, reason: str) -> InputError:
    """Return the error for a file that is not a download."""
    return InputError(
        "the file is not a download of the Japan Meteorological Agency as it came",
        f"{path}: {reason}",
        "give the CSV untouched, or a tidy CSV: station,time,<variables>",
    )
