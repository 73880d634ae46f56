"""Classifiers side by side: each gets its temperature from the validation part and is judged once on the test part."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from cmgl_cli.errors import InputError
from cmgl_cli.heads.calibration import fit_temperature, log_softmax
from cmgl_cli.heads.checks import Labels
from cmgl_cli.heads.metrics import ClassificationReport, classification_report


@dataclass(frozen=True)
class Split:
    """Row numbers of the three parts of a data set.

    Attributes
    ----------
    train, validation, test : ndarray, int
        Models are fitted on `train`; hyperparameters, weights and temperatures are chosen on `validation`; `test` is
        only ever scored.

    Raises
    ------
    InputError
        If a part is empty or two parts share a row.
    """

    train: Labels
    validation: Labels
    test: Labels

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            rows = np.asarray(getattr(self, name), dtype=np.int64)
            object.__setattr__(self, name, rows)
            if len(rows) == 0:
                raise InputError("a part of the split is empty", f"{name}: 0 samples", "check the split's fractions")
        together = np.concatenate([self.train, self.validation, self.test])
        values, counts = np.unique(together, return_counts=True)
        if (counts > 1).any():
            raise InputError("a sample stands in two parts", f"row {values[counts > 1][0]}", "make the parts disjoint")


@dataclass(frozen=True)
class Row:
    """One line of the comparison table.

    Attributes
    ----------
    method : str
        Name of the classifier.
    inputs : str
        Which features it saw.
    accuracy, macro_f1, nll, brier, ece : float
        On the test part; see `ClassificationReport`.
    seconds : float
        Wall time of fitting, including the search over hyperparameters.
    chosen : dict
        Hyperparameters the validation part chose; the temperature among them.
    validation_accuracy : float
        For spotting a choice that overfits the validation part.
    report : ClassificationReport
        Everything else about the test part.
    """

    method: str
    inputs: str
    accuracy: float
    macro_f1: float
    nll: float
    brier: float
    ece: float
    seconds: float
    chosen: dict[str, float | int | str]
    validation_accuracy: float
    report: ClassificationReport = field(repr=False)


@dataclass(frozen=True)
class Scored:
    """What a fitted classifier says: scores of the validation and the test part, and how it came to them.

    Attributes
    ----------
    method, inputs : str
        As in `Row`.
    validation, test : array_like, [N, C]
        Scores; any scale, larger is likelier.
    seconds : float
        Wall time of fitting.
    chosen : dict
        Hyperparameters.
    """

    method: str
    inputs: str
    validation: ArrayLike
    test: ArrayLike
    seconds: float = 0.0
    chosen: dict[str, float | int | str] = field(default_factory=dict)


def row(scored: Scored, validation_labels: ArrayLike, test_labels: ArrayLike) -> Row:
    """Return the table line of a scored classifier: temperature from the validation part, metrics from the test part.

    Raises
    ------
    InputError
        If scores are not finite or labels are out of range.
    """
    temperature = fit_temperature(scored.validation, validation_labels)
    report = classification_report(test_labels, log_softmax(scored.test, temperature))
    guess = np.asarray(scored.validation).argmax(1)
    return Row(
        method=scored.method,
        inputs=scored.inputs,
        accuracy=report.accuracy,
        macro_f1=report.macro_f1,
        nll=report.nll,
        brier=report.brier,
        ece=report.ece,
        seconds=scored.seconds,
        chosen={**scored.chosen, "temperature": temperature},
        validation_accuracy=float((guess == np.asarray(validation_labels)).mean()),
        report=report,
    )
