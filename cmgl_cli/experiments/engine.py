"""What an experiment is, and how its cells run: independently, in any order, each stored when it is done."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import joblib
import numpy as np
import torch
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from cmgl_cli.errors import CmglError, UsageError, suggest
from cmgl_cli.experiments.journal import Journal

Cell = Mapping[str, str | int | float]
"""Named parameters, the seed or fold among them: everything that `Experiment.run` needs beside the data."""
SECONDS = "seconds"


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes
    ----------
    quick : bool
        A small subset of the grid, for a first look and for tests.
    years : tuple of int
        Lengths to which a record is cut, in years; 0 takes all of it.
    seeds : int
        Repetitions of an ablation.
    text_encoder : str or None
        A text encoder to compare with.
    data : object
        What the experiment's loader read, None where it makes its own data.
    """

    quick: bool = False
    years: tuple[int, ...] = (0,)
    seeds: int = 3
    text_encoder: str | None = None
    data: Any = None


@dataclass(frozen=True)
class Results:
    """All cells with their metrics, in the order of the grid.

    Attributes
    ----------
    cells : tuple of Cell
    metrics : tuple of mapping
        One a cell: name to value. Cells may lack a metric that others have.
    """

    cells: tuple[Cell, ...]
    metrics: tuple[Mapping[str, float], ...]

    def names(self) -> list[str]:
        """Return the metrics' names in order of appearance."""
        return list(dict.fromkeys(name for one in self.metrics for name in one))

    def column(self, metric: str) -> np.ndarray:
        """Return one metric of all cells, NaN where a cell does not have it."""
        return np.array([one.get(metric, np.nan) for one in self.metrics], dtype=np.float64)

    def values(self, parameter: str) -> list[str | int | float]:
        """Return the distinct values of a parameter in order of appearance."""
        return list(dict.fromkeys(cell[parameter] for cell in self.cells))

    def where(self, **fixed: str | int | float) -> "Results":
        """Return the cells with these parameters."""
        kept = [i for i, cell in enumerate(self.cells) if all(cell.get(key) == value for key, value in fixed.items())]
        return Results(tuple(self.cells[i] for i in kept), tuple(self.metrics[i] for i in kept))


@dataclass(frozen=True)
class Experiment:
    """A grid of cells and what is shown of it.

    Attributes
    ----------
    name, about : str
    version : int
        Raised by hand when a cell's numbers change: journals of older versions are not read.
    cells : callable
        From a `Request` to the grid.
    run : callable
        From a cell and the request's data to its metrics. A function of a module, so that other processes can run it.
    pages, rows, columns : tuple of str
        Parameters that tell tables, rows and columns apart; over the others, tables give mean and spread.
    metric : str
        The metric of the tables.
    reference : tuple of (str, str)
        Row parameter and value that is compared with the best of the others.
    figure : callable
        From the results to a figure.
    needs : {"", "stations", "features"}
        What it works on: data of its own, a record given with ``--input``, or an experiment's features.
    aside : frozenset of str
        Rows that are no rivals of the reference.
    shown : tuple of str
        Metrics that are the columns of the tables; without them, columns are `columns` and the metric is `metric`.
    gain : {"percent", "points"}
        How the reference is compared: an error in percent of the other's, or a share (more is better) in points.
    """

    name: str
    about: str
    version: int
    cells: Callable[[Request], list[Cell]]
    run: Callable[[Cell, Any], dict[str, float]]
    pages: tuple[str, ...]
    rows: str
    columns: tuple[str, ...]
    metric: str
    reference: str
    figure: Callable[[Results], Figure]
    needs: Literal["", "stations", "features"] = ""
    aside: frozenset[str] = field(default_factory=frozenset)
    shown: tuple[str, ...] = ()
    gain: Literal["percent", "points"] = "percent"


def chosen(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """Return the cells that ``only`` asks for.

    Parameters
    ----------
    cells : sequence of Cell
    only : sequence of str
        ``parameter=value``; several values of one parameter are alternatives, several parameters must all hold.

    Raises
    ------
    UsageError
        For an unknown parameter or value.
    """
    wanted: dict[str, set[str]] = {}
    for item in only:
        key, _, value = item.partition("=")
        known = {_text(cell[key]) for cell in cells if key in cell}
        if not known:
            raise UsageError("the experiment has no such parameter", f"--only {item}", suggest(key, cells[0]))
        if value not in known:
            raise UsageError(f"no cell has this {key}", f"--only {item}", suggest(value, known))
        wanted.setdefault(key, set()).add(value)
    return [cell for cell in cells if all(_text(cell.get(key, "")) in values for key, values in wanted.items())]


def _text(value: str | int | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def run_cells(
    experiment: Experiment,
    cells: Sequence[Cell],
    data: Any,
    journal: Journal,
    *,
    parallel: AbstractContextManager[None] | None = None,
    on_done: Callable[[Cell], None] = lambda cell: None,
) -> Results:
    """Run the cells that the journal does not have yet, store each at once, and return all.

    Parameters
    ----------
    experiment : Experiment
    cells : sequence of Cell
    data : object
        Handed to every cell.
    journal : Journal
        Where finished cells are kept: a killed run goes on from there.
    parallel : context manager, optional
        In which cells run, see `backends.workers`; without it, one after the other in this process.
    on_done : callable
        Told each cell as it is finished.
    """
    due = [cell for cell in cells if cell not in journal]
    with parallel or nullcontext():
        for cell, metrics in _finished([joblib.delayed(_timed)(experiment.run, cell, data) for cell in due]):
            journal.add(cell, metrics)
            on_done(cell)
    return Results(tuple(cells), tuple(journal[cell] for cell in cells))


def _finished(tasks: Sequence[Any]) -> Iterator[tuple[Cell, dict[str, float]]]:
    """Yield cells as they are finished, or round by round where the backend can hand them back only together."""
    backend, jobs = joblib.parallel.get_active_backend()
    # one cell a task: a batch would come back, and be kept, as a whole only
    if backend.supports_return_generator:
        yield from joblib.Parallel(return_as="generator_unordered", batch_size=1)(tasks)
        return
    at_once = max(1, backend.effective_n_jobs(jobs))
    for start in range(0, len(tasks), at_once):
        yield from joblib.Parallel(batch_size=1)(tasks[start : start + at_once])


def _timed(run: Callable[[Cell, Any], dict[str, float]], cell: Cell, data: Any) -> tuple[Cell, dict[str, float]]:
    # one thread a cell: sums then have one order, and a cell's numbers do not depend on how many run beside it
    torch.set_num_threads(1)
    with threadpool_limits(1):
        start = time.thread_time()
        try:
            metrics = run(cell, data)
        except CmglError as error:
            named = ", ".join(f"{key}={value}" for key, value in cell.items())
            raise type(error)(error.what, f"cell {named}: {error.where}", error.fix) from error
        return cell, {**metrics, SECONDS: time.thread_time() - start}
