"""The papers' tables as commands: lists of independent cells, one journal, one artifact, one table, one figure each."""

from collections.abc import Mapping
from types import MappingProxyType

from cmgl_cli.experiments.chain import Chain
from cmgl_cli.experiments.engine import SECONDS, Cell, Experiment, Request, Results, chosen, run_cells
from cmgl_cli.experiments.journal import Journal
from cmgl_cli.experiments.matrix import MATRIX
from cmgl_cli.experiments.tables import Table, paired_gains, summary_tables, to_csv, to_latex, to_markdown
from cmgl_cli.experiments.twofold_stations import TWOFOLD_STATIONS
from cmgl_cli.experiments.twofold_synthetic import TWOFOLD_SYNTHETIC

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {experiment.name: experiment for experiment in (MATRIX, TWOFOLD_SYNTHETIC, TWOFOLD_STATIONS)}
)

__all__ = [
    "EXPERIMENTS",
    "SECONDS",
    "Cell",
    "Chain",
    "Experiment",
    "Journal",
    "Request",
    "Results",
    "Table",
    "chosen",
    "paired_gains",
    "run_cells",
    "summary_tables",
    "to_csv",
    "to_latex",
    "to_markdown",
]
