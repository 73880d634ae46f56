"""The papers' tables as commands: lists of independent cells, one journal, one artifact, one table, one figure each."""

from collections.abc import Mapping
from types import MappingProxyType

from cmgl_cli.experiments.backends import workers
from cmgl_cli.experiments.chain import Chain
from cmgl_cli.experiments.engine import SECONDS, Cell, Experiment, Request, Results, chosen, run_cells
from cmgl_cli.experiments.journal import Journal
from cmgl_cli.experiments.mapping import MAPPING
from cmgl_cli.experiments.matrix import MATRIX
from cmgl_cli.experiments.nonparanormal import NONPARANORMAL
from cmgl_cli.experiments.optimisation import OPTIMISATION
from cmgl_cli.experiments.prior_direction import PRIOR_DIRECTION
from cmgl_cli.experiments.runtime import RUNTIME
from cmgl_cli.experiments.sensitivity import SENSITIVITY
from cmgl_cli.experiments.tables import Table, paired_gains, summary_tables, to_csv, to_latex, to_markdown
from cmgl_cli.experiments.text_encoding import TEXT_ENCODING
from cmgl_cli.experiments.twofold_stations import TWOFOLD_STATIONS
from cmgl_cli.experiments.twofold_synthetic import TWOFOLD_SYNTHETIC

_ALL = (
    TEXT_ENCODING,
    MAPPING,
    NONPARANORMAL,
    OPTIMISATION,
    MATRIX,
    PRIOR_DIRECTION,
    SENSITIVITY,
    RUNTIME,
    TWOFOLD_SYNTHETIC,
    TWOFOLD_STATIONS,
)
EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType({experiment.name: experiment for experiment in _ALL})

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
    "workers",
]
