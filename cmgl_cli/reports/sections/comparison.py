"""Methods side by side, over one run or several: means, spread, and whether the graph earned its keep."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cmgl_cli.heads.uncertainty import accuracy_interval
from cmgl_cli.reports.material import Run
from cmgl_cli.reports.page import Table

OURS = "graph classifier"
CONTROL = "control: "
Z95 = 1.96
NUMBERS = ("accuracy", "macro_f1", "nll", "ece")
HEADS = ("accuracy", "macro F1", "NLL", "ECE")
CONTROLS = {
    "diagonal": "without its edges",
    "random graph": "with its edges between other nodes",
    "common only": "with the common graph for every class",
    "specific only": "without the common edges",
    "identity": "without edges and variances",
    "graph, means ignored": "with its graphs alone, the means ignored",
}
"""What was done to the graph classifier, in words."""


@dataclass(frozen=True)
class Comparison:
    """The table of one classification.

    Attributes
    ----------
    run : str
    columns : mapping of str to ndarray
    n_samples : int
        Test samples whose class is known.
    chosen : str
        The method that the validation part preferred.
    settings : mapping
        Everything that was set on the way to it, by artifact and key.
    """

    run: str
    columns: Mapping[str, np.ndarray]
    n_samples: int
    chosen: str
    settings: Mapping[str, object]

    @property
    def methods(self) -> list[tuple[str, str]]:
        """Method and inputs of every row."""
        return list(zip(self.columns["method"].tolist(), self.columns["inputs"].tolist(), strict=True))

    def value(self, method: tuple[str, str], number: str) -> float:
        """Return a number of a method; NaN where it was not run."""
        return float(self.columns[number][self.methods.index(method)]) if method in self.methods else float("nan")

    def accuracy(self, method: str) -> float | None:
        """Return the accuracy of a method by its name alone."""
        found = [
            value
            for name, value in zip(self.columns["method"], self.columns["accuracy"], strict=True)
            if name == method
        ]
        return float(found[0]) if found else None


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """Return the table of every run that has one with rows."""
    made = []
    for run in runs:
        artifact = run.open("classification")
        if artifact is None:
            continue
        with artifact:
            columns = artifact.group("table")
            settings = {
                f"{one.path.name}: {key}": value
                for one in run.found.values()
                for key, value in one.identity.config.items()
            }
            if len(columns["method"]):
                chosen = str(artifact.provenance.get("chosen", ""))
                made.append(Comparison(run.name, columns, int(artifact["confusion"].sum()), chosen, settings))
    return made


def differing(tables: Sequence[Comparison]) -> list[str]:
    """Return the settings in which some tables differ."""
    keys = dict.fromkeys(key for table in tables for key in table.settings)
    return [
        key for key in keys if len({repr(table.settings.get(key)) for table in tables if key in table.settings}) > 1
    ]


def only_seeds_differ(tables: Sequence[Comparison]) -> bool:
    """Tell whether tables repeat one experiment with other seeds."""
    keys = differing(tables)
    return bool(keys) and all(key.endswith(": seed") for key in keys)


def one_table(table: Comparison) -> Table:
    """Return all methods of one run, best first, with the bootstrap interval of their accuracy."""
    columns = table.columns
    order = np.argsort(-columns["accuracy"], kind="stable")
    rows = [
        [
            columns["method"][i],
            columns["inputs"][i],
            f"{columns['accuracy'][i]:.1%}",
            "{:.1%} to {:.1%}".format(*accuracy_interval(float(columns["accuracy"][i]), table.n_samples)),
            *(f"{columns[name][i]:.3f}" for name in NUMBERS[1:]),
        ]
        for i in order
    ]
    chosen = [at for at, i in enumerate(order) if columns["method"][i] == table.chosen]
    caption = (
        f"{table.n_samples:,} test images; best first; in bold what the validation part chose. All methods saw the "
        "same frozen features. The interval is the 95 % percentile bootstrap over test images; two methods on the "
        "same images differ by less chance than two intervals suggest."
    )
    return Table(("method", "inputs", HEADS[0], "95 % interval", *HEADS[1:]), rows, caption, chosen)


def chosen_table(table: Comparison) -> Table:
    """Return what the validation part chose for every method."""
    rows = [[*method, str(words)] for method, words in zip(table.methods, table.columns["chosen"], strict=True)]
    return Table(("method", "inputs", "chosen"), rows, "What the validation part chose for every method", folded=True)


def many_table(tables: Sequence[Comparison]) -> Table:
    """Return mean and standard deviation over seeds, or the accuracies run by run where more than seeds differ."""
    methods = list(dict.fromkeys(method for table in tables for method in table.methods))
    means = {method: np.nanmean([table.value(method, "accuracy") for table in tables]) for method in methods}
    methods = sorted(methods, key=lambda method: -means[method])
    if only_seeds_differ(tables):
        rows = [[*method, *_mean_and_spread(tables, method)] for method in methods]
        caption = f"Mean ± standard deviation over {len(tables)} runs that differ in their seed alone; best first."
        return Table(("method", "inputs", *HEADS, "runs"), rows, caption, _ours(methods))
    rows = [[*method, *(_share(table.value(method, "accuracy")) for table in tables)] for method in methods]
    keys = ", ".join(differing(tables)) or "their inputs"
    caption = f"Accuracy run by run, best mean first. The runs differ in {keys}, so no mean is given."
    return Table(("method", "inputs", *(table.run for table in tables)), rows, caption, _ours(methods))


def _ours(methods: Sequence[tuple[str, str]]) -> list[int]:
    return [at for at, (name, _) in enumerate(methods) if name.startswith(OURS)]


def _share(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1%}"


def _mean_and_spread(tables: Sequence[Comparison], method: tuple[str, str]) -> list[str]:
    cells = []
    for number in NUMBERS:
        values = np.array([table.value(method, number) for table in tables])
        values = values[~np.isnan(values)]
        scale, digits = (100, 1) if number == "accuracy" else (1, 3)
        text = f"{scale * values.mean():.{digits}f}"
        if len(values) > 1:
            text += f" ± {scale * values.std(ddof=1):.{digits}f}"
        cells.append(text + (" %" if scale == 100 else ""))
    return [*cells, str(len(values))]


def kinds_of(table: Comparison) -> list[str]:
    """Return the kinds of observations that the graph classifier was run on."""
    found = (re.fullmatch(rf"{OURS} \((image|patch)\)", name) for name, _ in table.methods)
    return [match.group(1) for match in found if match]


def verdicts(table: Comparison) -> list[str]:
    """Say for each kind of observation what the classifier loses without its graph, and what of that may be chance."""
    lines = []
    for kind in kinds_of(table):
        ours = table.accuracy(f"{OURS} ({kind})")
        if ours is None:
            continue
        clauses = []
        for name, words in CONTROLS.items():
            other = table.accuracy(f"{CONTROL}{name} ({kind})")
            if other is not None:
                clauses.append(
                    (ours - other, f"{words} {_points(ours - other)}", beyond_chance(ours, other, table.n_samples))
                )
        lines.append(_sentence(kind, ours, clauses))
    return lines


def _sentence(kind: str, ours: float, clauses: Sequence[tuple[float, str, bool]]) -> str:
    lost = [words for gain, words, sure in clauses if sure and gain > 0]
    won = [words for gain, words, sure in clauses if sure and gain < 0]
    level = [words for _, words, sure in clauses if not sure]
    text = f"With {kind} observations the graph classifier is right on {ours:.1%}."
    if lost:
        text += f" Beyond chance, it is worse {'; '.join(lost)}."
    if won:
        text += f" Beyond chance, it is better {'; '.join(won)}: there the graph does harm."
    if level:
        text += f" Within chance: {'; '.join(level)}."
    return text


def _points(gain: float) -> str:
    return f"({-100 * gain:+.1f} points)" if abs(gain) >= 0.0005 else "(no difference)"


def beyond_chance(one: float, other: float, n_samples: int) -> bool:
    """Tell whether two accuracies differ by more than 1.96 standard errors of independent samples."""
    error = np.sqrt((one * (1 - one) + other * (1 - other)) / n_samples)
    return bool(abs(one - other) > Z95 * error)


def best_peer(table: Comparison) -> tuple[str, float] | None:
    """Return name and accuracy of the best method that is neither ours nor a control."""
    peers = [
        (f"{name} on {inputs}", table.value((name, inputs), "accuracy"))
        for name, inputs in table.methods
        if not name.startswith((OURS, CONTROL))
    ]
    return max(peers, key=lambda item: item[1]) if peers else None
