"""How good and how honest class probabilities are: accuracy, F1, confusion, likelihood, Brier score, calibration.

Conventions: the macro F1 averages over the classes that occur in the truth or in the prediction (scikit-learn's
default); a precision, recall or F1 without a denominator is NaN in the per-class table and counts as 0 in the macro
average.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from cmgl_cli.errors import InputError
from cmgl_cli.heads.checks import Array, Labels, class_labels, finite

ECE_BINS = 15
"""Number of confidence bins (Guo et al., 2017)."""


@dataclass(frozen=True)
class Reliability:
    """Reliability curve: how often predictions of a given confidence are right.

    Attributes
    ----------
    edges : ndarray, [B + 1]
        Confidence at the bins' borders.
    confidence, accuracy : ndarray, [B]
        Mean confidence and share of right predictions in each bin, NaN where the bin is empty.
    count : ndarray, int, [B]
        Number of predictions in each bin.
    """

    edges: Array
    confidence: Array
    accuracy: Array
    count: Labels

    @property
    def error(self) -> float:
        """Expected calibration error: mean of |accuracy - confidence| weighted by the bins' counts."""
        filled = self.count > 0
        gaps = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float(np.average(gaps, weights=self.count[filled]))


@dataclass(frozen=True)
class ClassificationReport:
    """Everything the report of a classifier shows.

    Attributes
    ----------
    accuracy, macro_f1, nll, brier, ece : float
        Fractions in [0, 1]; `nll` is in nats a sample, `brier` the squared error summed over classes (0..2), `ece` the
        expected calibration error over 15 bins of equal width.
    precision, recall, f1 : ndarray, [C]
        Per class; NaN where undefined.
    support : ndarray, int, [C]
        True samples of each class.
    confusion : ndarray, int, [C, C]
        Rows are true classes, columns predicted ones.
    reliability : Reliability
        The curve behind `ece`.
    """

    accuracy: float
    macro_f1: float
    nll: float
    brier: float
    ece: float
    precision: Array
    recall: Array
    f1: Array
    support: Labels
    confusion: Labels
    reliability: Reliability


def classification_report(labels: ArrayLike, log_proba: ArrayLike) -> ClassificationReport:
    """Evaluate log class probabilities [N, C] against labels [N].

    Parameters
    ----------
    labels : array_like, int, [N]
        True classes in 0..C-1; classes without a sample are allowed.
    log_proba : array_like, [N, C]
        Log probabilities; their exponentials must sum to one (to 1e-6) in every row.

    Raises
    ------
    InputError
        If there is no sample, fewer than two classes, or a row is not finite or not a distribution.
    """
    log_p, truth = _checked(labels, log_proba)
    guess = log_p.argmax(1)
    classes = np.arange(log_p.shape[1])
    rows = np.arange(len(truth))
    proba = np.exp(log_p)
    precision, recall, f1, support = precision_recall_fscore_support(truth, guess, labels=classes, zero_division=np.nan)
    curve = reliability_curve(truth, log_p)
    return ClassificationReport(
        accuracy=float((truth == guess).mean()),
        macro_f1=float(f1_score(truth, guess, average="macro", zero_division=0.0)),
        nll=float(-log_p[rows, truth].mean()),
        brier=float(((proba - np.eye(len(classes))[truth]) ** 2).sum(1).mean()),
        ece=curve.error,
        precision=precision,
        recall=recall,
        f1=f1,
        support=support,
        confusion=confusion_matrix(truth, guess, labels=classes),
        reliability=curve,
    )


def reliability_curve(
    labels: ArrayLike, log_proba: ArrayLike, n_bins: int = ECE_BINS, bins: Literal["width", "mass"] = "width"
) -> Reliability:
    """Return the reliability curve of the predicted classes.

    Parameters
    ----------
    labels : array_like, int, [N]
    log_proba : array_like, [N, C]
    n_bins : int
        Number of bins B.
    bins : {"width", "mass"}
        Bins of equal width in (0, 1], as the literature's ECE, or with equally many predictions each.

    Raises
    ------
    InputError
        As `classification_report`.
    """
    log_p, truth = _checked(labels, log_proba)
    confidence = np.exp(log_p.max(1))
    right = (log_p.argmax(1) == truth).astype(float)
    if bins == "width":
        edges = np.linspace(0.0, 1.0, n_bins + 1)
        member = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    else:
        edges = np.quantile(confidence, np.linspace(0.0, 1.0, n_bins + 1))
        member = np.empty(len(truth), int)
        member[np.argsort(confidence, kind="stable")] = np.arange(len(truth)) * n_bins // len(truth)
    count = np.bincount(member, minlength=n_bins)
    filled = np.where(count > 0, count, np.nan)
    return Reliability(
        edges=edges,
        confidence=np.bincount(member, confidence, n_bins) / filled,
        accuracy=np.bincount(member, right, n_bins) / filled,
        count=count,
    )


def _checked(labels: ArrayLike, log_proba: ArrayLike) -> tuple[Array, Labels]:
    """Return log probabilities and labels after checking both; a probability of 0 may be given as -inf."""
    raw = np.asarray(log_proba, dtype=np.float64)
    log_p = finite("log_proba", np.maximum(raw, np.log(np.finfo(float).tiny)), (None, None))
    truth = class_labels(labels, *log_p.shape)
    if len(truth) == 0:
        raise InputError("there is nothing to evaluate", "0 samples", "check the split")
    off = np.abs(np.exp(log_p).sum(1) - 1)
    if off.max() > 1e-6:
        row = int(off.argmax())
        raise InputError(
            "log_proba is not a distribution",
            f"row {row} sums to {1 + off[row]:.6g}",
            "pass scores through log_softmax",
        )
    return log_p, truth
