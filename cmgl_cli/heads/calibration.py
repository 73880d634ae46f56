r"""From scores to probabilities: temperature, and the weighted sum of several score sets.

Both minimise the validation negative log-likelihood of softmax(sum_k w_k s_k) over w_k >= 0, a convex problem; one
score set with w = 1/T is temperature scaling (Guo et al., 2017). One pseudo-observation, equally likely to be of any
class, is added so that a validation part without a single error still gives finite weights (Platt's correction for
more than two classes).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import log_softmax as _log_softmax

from cmgl_cli.errors import InputError
from cmgl_cli.heads.checks import Array, Labels, class_labels, finite

LEAST_WEIGHT = 1e-6
"""Lower bound of a lone weight relative to the scores' spread, so that a temperature is always finite."""


def log_softmax(scores: ArrayLike, temperature: float = 1.0) -> Array:
    """Return the log probabilities [N, C] of `scores` [N, C] divided by `temperature` > 0.

    Raises
    ------
    InputError
        If a score is not finite or the temperature is not positive.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise InputError("the temperature must be positive", f"got {temperature}", "fit it on a validation part")
    return _log_softmax(finite("scores", scores, (None, None)) / temperature, axis=1)


def fit_temperature(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature T > 0 under which softmax(scores / T) has the least negative log-likelihood.

    Parameters
    ----------
    scores : array_like, [N, C]
        Scores of a validation part that took no part in the fit.
    labels : array_like, int, [N]
        Its classes; classes without a sample are allowed.

    Raises
    ------
    InputError
        If there are no samples, fewer than two classes, or a score is not finite.
    """
    return 1.0 / float(ScoreCombination.fit([scores], labels).weights[0])


@dataclass(frozen=True)
class ScoreCombination:
    """Weighted sum of score sets that serves as calibrated logits.

    Attributes
    ----------
    weights : ndarray, [K]
        Non-negative weight of each score set; 1 / temperature where there is a single one.
    """

    weights: Array

    @classmethod
    def fit(cls, score_sets: Sequence[ArrayLike], labels: ArrayLike) -> Self:
        """Fit the weights of K score sets, each [N, C], on the labels [N] of a validation part.

        Raises
        ------
        InputError
            If there is no set or no sample, shapes disagree, or a score is not finite.
        """
        stack = _stack(score_sets)
        if stack.shape[1] == 0:
            raise InputError("the validation part is empty", "0 samples", "set aside samples for validation")
        targets = class_labels(labels, stack.shape[1], stack.shape[2])
        stack = stack - stack.mean(2, keepdims=True)
        # A set that gives every class the same score has no spread: its weight is immaterial and left at 1.
        spread = np.sqrt((stack**2).mean((1, 2)))
        scale = np.where(spread > 0, spread, 1.0)
        start = np.full(len(stack), 1.0 / len(stack))
        least = LEAST_WEIGHT if len(stack) == 1 else 0.0
        solution = minimize(
            _pseudo_nll,
            start,
            args=(stack / scale[:, None, None], targets),
            jac=True,
            method="L-BFGS-B",
            bounds=[(least, None)] * len(stack),
            options={"maxiter": 500, "ftol": 1e-14, "gtol": 1e-9},
        )
        return cls(solution.x / scale)

    def scores(self, score_sets: Sequence[ArrayLike]) -> Array:
        """Return the combined scores [N, C] of K score sets."""
        stack = _stack(score_sets)
        if len(stack) != len(self.weights):
            raise InputError(
                "wrong number of score sets", f"{len(stack)} for {len(self.weights)} weights", "pass all sets"
            )
        return np.tensordot(self.weights, stack, axes=1)

    def log_proba(self, score_sets: Sequence[ArrayLike]) -> Array:
        """Return the combined log probabilities [N, C]."""
        return log_softmax(self.scores(score_sets))


def _stack(score_sets: Sequence[ArrayLike]) -> Array:
    """Return the score sets as one array [K, N, C]."""
    if len(score_sets) == 0:
        raise InputError("there are no scores to combine", "0 score sets", "pass at least one")
    first = finite("scores", score_sets[0], (None, None))
    return np.stack([first, *(finite("scores", scores, first.shape) for scores in score_sets[1:])])


def _pseudo_nll(weights: Array, stack: Array, labels: Labels) -> tuple[float, Array]:
    """Return the mean negative log-likelihood with one uniform pseudo-observation, and its gradient in the weights."""
    n = len(labels)
    share = 1.0 / (n + 1)
    log_p = _log_softmax(np.tensordot(weights, stack, axes=1), axis=1)
    rows = np.arange(n)
    value = -(1 - share) * log_p[rows, labels].mean() - share * log_p.mean()
    target = np.full_like(log_p, share / log_p.shape[1])
    target[rows, labels] += 1 - share
    gradient = np.einsum("knc,nc->k", stack, np.exp(log_p) - target) / n
    return float(value), gradient
