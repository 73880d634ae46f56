"""Read station tables of any supported layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cmgl_cli.datasets.stations.arrays import read_npz
from cmgl_cli.datasets.stations.coordinates import read_places, with_places
from cmgl_cli.datasets.stations.jma import read_jma
from cmgl_cli.datasets.stations.jma_file import looks_like_jma
from cmgl_cli.datasets.stations.merge import merge_tables
from cmgl_cli.datasets.stations.netcdf import read_netcdf
from cmgl_cli.datasets.stations.table import Frequency, StationTable
from cmgl_cli.datasets.stations.text import read_bytes
from cmgl_cli.datasets.stations.tidy import read_tidy
from cmgl_cli.errors import UsageError, suggest

Layout = Literal["csv", "jma", "netcdf", "npz"]
FREQUENCIES = ("hourly", "daily", "monthly")
_MAGIC = {b"CDF": "netcdf", b"\x89HDF": "netcdf", b"PK\x03\x04": "npz"}


def detect_layout(path: Path) -> Layout:
    """Tell a file's layout by its first bytes.

    Raises
    ------
    InputError
        If the file is missing or empty.
    """
    raw = read_bytes(path)
    for magic, layout in _MAGIC.items():
        if raw.startswith(magic):
            return layout  # type: ignore[return-value]
    return "jma" if looks_like_jma(raw) else "csv"


def read_stations(
    inputs: Path | str | Sequence[Path | str],
    stations: Path | str | None = None,
    *,
    variables: Sequence[str] | None = None,
    frequency: str | None = None,
    encoding: str | None = None,
    min_quality: int = 4,
) -> StationTable:
    """Read a table of stations from one or many files.

    Parameters
    ----------
    inputs : path, or sequence of paths
        Tidy CSV, NetCDF, the Japan Meteorological Agency's CSV or ``.npz``, told apart by content. Several files
        are put together.
    stations : path, optional
        CSV with ``station,latitude,longitude[,elevation]``.
    variables : sequence of str, optional
        What to take; all numeric variables by default.
    frequency : {"hourly", "daily", "monthly"}, optional
        The step, where it should not be recognised.
    encoding : str, optional
        Of CSV files; UTF-8 by default.
    min_quality : int
        Lowest quality taken, for the agency's files.

    Returns
    -------
    StationTable
        On a regular axis.

    Raises
    ------
    InputError
        If a file is missing or not what it should be; file, place and value are named.
    UsageError
        If an option is unknown.
    """
    paths = [Path(inputs)] if isinstance(inputs, str | Path) else [Path(path) for path in inputs]
    if not paths:
        raise UsageError("there is no input", "inputs is empty", "give at least one file")
    if frequency is not None and frequency not in FREQUENCIES:
        raise UsageError(
            f"there is no frequency {frequency!r}", f"frequency: {frequency}", suggest(frequency, FREQUENCIES)
        )
    step: Frequency | None = frequency  # type: ignore[assignment]
    tables = [_read_one(path, variables, step, encoding, min_quality) for path in paths]
    table = merge_tables(tables)
    if stations is None:
        return table
    return with_places(table, read_places(Path(stations), encoding), str(stations))


def _read_one(
    path: Path, variables: Sequence[str] | None, frequency: Frequency | None, encoding: str | None, min_quality: int
) -> StationTable:
    layout = detect_layout(path)
    if layout == "netcdf":
        return read_netcdf(path, variables=variables, frequency=frequency)
    if layout == "npz":
        return read_npz(path, variables=variables, frequency=frequency)
    if layout == "jma":
        return read_jma(path, variables=variables, frequency=frequency, min_quality=min_quality)
    return read_tidy(path, variables=variables, frequency=frequency, encoding=encoding)
