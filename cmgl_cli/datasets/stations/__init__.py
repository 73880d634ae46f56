"""Station data: hourly, daily or monthly observations at places, from and to the files people have.

One `StationTable` whatever the layout: tidy CSV, NetCDF with CF conventions, the Japan Meteorological Agency's
download CSV, or ``.npz``::

    from cmgl_cli.datasets.stations import diagnose, read_stations

    table = read_stations("observations.csv", "stations.csv")
    for finding in diagnose(table):
        print(finding.sentence, finding.names)
"""

from cmgl_cli.datasets.stations.diagnose import Finding, diagnose
from cmgl_cli.datasets.stations.merge import merge_tables
from cmgl_cli.datasets.stations.reading import detect_layout, read_stations
from cmgl_cli.datasets.stations.restored import Restored
from cmgl_cli.datasets.stations.table import NO_FLAG, Frequency, Source, StationTable
from cmgl_cli.datasets.stations.writing import write_restored

__all__ = [
    "NO_FLAG",
    "Finding",
    "Frequency",
    "Restored",
    "Source",
    "StationTable",
    "detect_layout",
    "diagnose",
    "merge_tables",
    "read_stations",
    "write_restored",
]
