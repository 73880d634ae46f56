"""Results as tables: mean and spread over what is neither row nor column, in Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmgl_cli.experiments.engine import Cell, Experiment, Results


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes
    ----------
    title : str
    header : tuple of str
    rows : tuple of tuple of str
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def summary_tables(experiment: Experiment, results: Results, metric: str = "") -> list[Table]:
    """Return one table a page: rows by columns, mean ± standard deviation over the other parameters.

    Parameters
    ----------
    experiment : Experiment
        Says what is page, row and column.
    results : Results
    metric : str
        Default: the experiment's own.
    """
    several = experiment.shown if not metric else ()
    metric = metric or experiment.metric
    tables = []
    for page in _distinct(results, experiment.pages):
        part = results.where(**page)
        # columns are metrics, or values of parameters
        columns: list[tuple[str, Cell]] = [(name, {}) for name in several if name in part.names()]
        columns = columns or [(metric, column) for column in _distinct(part, experiment.columns)]
        rows = []
        for row in part.values(experiment.rows):
            own = part.where(**{experiment.rows: row})
            rows.append((str(row), *(_mean_and_spread(own.where(**fixed).column(name)) for name, fixed in columns)))
        header = (experiment.rows, *(name if several else _label(fixed) or name for name, fixed in columns))
        words = [experiment.name, _label(page), "" if several else metric]
        tables.append(Table(", ".join(filter(None, words)), header, tuple(rows)))
    return tables


def paired_gains(experiment: Experiment, results: Results) -> list[Table]:
    """Return one table a page: the reference row against the best other row, paired over the rest.

    The best other is the row with the best mean in that column. The spread is the standard deviation, over seeds or
    folds, of the paired differences: relative ones in percent for errors, absolute ones in points for shares.
    """
    points = experiment.gain == "points"
    tables = []
    for page in _distinct(results, experiment.pages):
        part = results.where(**page)
        others = [row for row in part.values(experiment.rows) if row not in {experiment.reference, *experiment.aside}]
        columns = _distinct(part, experiment.columns)
        if experiment.reference not in part.values(experiment.rows) or not others:
            continue
        named, gains = [], []
        for column in columns:
            own = part.where(**{experiment.rows: experiment.reference}, **column).column(experiment.metric)
            rivals = {row: part.where(**{experiment.rows: row}, **column).column(experiment.metric) for row in others}
            rivals = {row: values for row, values in rivals.items() if len(values) == len(own)}
            sign = -1 if points else 1
            best = min(rivals, key=lambda row: sign * float(np.mean(rivals[row])))
            named.append(str(best))
            gains.append(100 * (own - rivals[best] if points else own / rivals[best] - 1))
        unit = "points" if points else "%"
        cells = [f"{gain.mean():+.1f} ± {gain.std():.1f} {unit}" for gain in gains]
        mean = f"{float(np.mean([gain.mean() for gain in gains])):+.1f} {unit}"
        header = ("against the best other", *(_label(column) or experiment.metric for column in columns), "mean")
        title = ", ".join(
            filter(None, [experiment.name, _label(page), f"{experiment.reference} against the best other"])
        )
        tables.append(Table(title, header, (("best other", *named, ""), ("difference", *cells, mean))))
    return tables


def _distinct(results: Results, parameters: Sequence[str]) -> list[Cell]:
    found = {tuple(cell.get(name, "") for name in parameters): None for cell in results.cells}
    return [dict(zip(parameters, values, strict=True)) for values in found]


def _label(cell: Cell) -> str:
    return " ".join(value if isinstance(value, str) else f"{key} {value:g}" for key, value in cell.items())


def _mean_and_spread(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return "-"
    if known.mean() >= 10:  # counts: edges, images
        return f"{known.mean():.1f}" if known.size == 1 else f"{known.mean():.1f} ± {known.std():.1f}"
    mean = f"{known.mean():.4f}" if known.mean() < 1 else f"{known.mean():.3f}"
    return mean if known.size == 1 else f"{mean} ± {known.std():.4f}"


def to_markdown(tables: Sequence[Table]) -> str:
    """Return the tables as Markdown."""
    parts = []
    for table in tables:
        lines = [f"### {table.title}", "", _bar(table.header), _bar(["---"] * len(table.header))]
        parts.append("\n".join([*lines, *(_bar(row) for row in table.rows)]) + "\n")
    return "\n".join(parts)


def _bar(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def to_csv(results: Results) -> str:
    """Return every cell with its metrics as CSV, one row a cell."""
    parameters = list(dict.fromkeys(name for cell in results.cells for name in cell))
    names = results.names()
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*parameters, *names])
    for cell, metrics in zip(results.cells, results.metrics, strict=True):
        writer.writerow([cell.get(name, "") for name in parameters] + [metrics.get(name, "") for name in names])
    return buffer.getvalue()


def to_latex(tables: Sequence[Table]) -> str:
    """Return the tables as LaTeX ``tabular`` environments."""
    parts = []
    for table in tables:
        body = [" & ".join(map(_escaped, row)) + r" \\" for row in table.rows]
        lines = [
            f"% {table.title}",
            r"\begin{tabular}{l" + "r" * (len(table.header) - 1) + "}",
            r"\hline",
            " & ".join(map(_escaped, table.header)) + r" \\",
            r"\hline",
            *body,
            r"\hline",
            r"\end{tabular}",
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _escaped(text: str) -> str:
    for character in "&%_#$":
        text = text.replace(character, "\\" + character)
    return text.replace("±", r"$\pm$")
