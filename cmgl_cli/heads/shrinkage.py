"""Class matrices drawn toward the one they share, by the amount a validation part asks for.

With few samples a class, its own precision is noisy and the common one is blunt; a convex combination of the two
beats both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cmgl_cli.errors import InputError
from cmgl_cli.heads.calibration import fit_temperature, log_softmax
from cmgl_cli.heads.checks import Array, class_labels, finite

WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Shares of the common matrix that are tried by default."""


def shrink(matrices: ArrayLike, common: ArrayLike | None = None, weight: float = 0.5) -> Array:
    """Return (1 - weight) * matrices + weight * common.

    Parameters
    ----------
    matrices : array_like, [C, p, p]
        Class precisions or covariances.
    common : array_like, [p, p], optional
        What the classes share; the mean over classes where it is not given, with which the result stays positive
        definite.
    weight : float
        Share of the common matrix, in [0, 1].

    Raises
    ------
    InputError
        If the weight lies outside [0, 1], shapes disagree or an entry is not finite.
    """
    if not 0 <= weight <= 1:
        raise InputError(
            "the shrinkage weight must lie in [0, 1]", f"got {weight}", "0 keeps, 1 replaces the classes' own"
        )
    stack = finite("matrices", matrices, (None, None, None))
    shared = stack.mean(0) if common is None else finite("common", common, stack.shape[1:])
    return (1 - weight) * stack + weight * shared


def validation_loss(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the negative log-likelihood of scores [N, C] at their best temperature: the criterion of all choices.

    It is smoother than accuracy on a small validation part, and the temperature makes scores of any scale comparable.
    """
    log_p = log_softmax(scores, fit_temperature(scores, labels))
    targets = class_labels(labels, *log_p.shape)
    return float(-log_p[np.arange(len(targets)), targets].mean())


@dataclass(frozen=True)
class ShrinkageChoice:
    """The shrinkage that a validation part preferred.

    Attributes
    ----------
    weight : float
        The chosen share of the common matrix.
    matrices : ndarray, [C, p, p]
        The class matrices shrunk by it.
    losses : dict of float to float
        Validation loss of every weight that could be scored.
    """

    weight: float
    matrices: Array
    losses: dict[float, float]


def choose_shrinkage(
    matrices: ArrayLike,
    score: Callable[[Array], ArrayLike],
    labels: ArrayLike,
    *,
    common: ArrayLike | None = None,
    weights: Sequence[float] = WEIGHTS,
) -> ShrinkageChoice:
    """Choose how far to draw the class matrices toward the common one, on a validation part.

    Parameters
    ----------
    matrices, common : array_like
        As in `shrink`.
    score : callable
        Maps shrunk matrices [C, p, p] to the scores [N, C] of the validation part. A weight for which it raises
        InputError (a combination that is not positive definite) is left out.
    labels : array_like, int, [N]
        Classes of the validation part.
    weights : sequence of float
        Candidates; among equals the larger share of the common matrix wins.

    Raises
    ------
    InputError
        If no candidate could be scored; the reason is that of the last one.
    """
    losses: dict[float, float] = {}
    failure: InputError | None = None
    for weight in weights:
        try:
            losses[weight] = validation_loss(score(shrink(matrices, common, weight)), labels)
        except InputError as error:
            failure = error
    if not losses:
        raise failure or InputError("there is no shrinkage weight to try", "weights is empty", "pass at least one")
    best = min(losses, key=lambda weight: (losses[weight], -weight))
    return ShrinkageChoice(best, shrink(matrices, common, best), losses)
