"""Class matrices and class means drawn toward what they share, by the amounts a validation part asks for.

With few samples a class, its own precision is noisy and the common one is blunt; a convex combination of the two
beats both. So it is with means, all the more where the classes differ in their graphs alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cmgl_cli.errors import InputError
from cmgl_cli.heads.calibration import fit_temperature, log_softmax
from cmgl_cli.heads.checks import Array, class_labels, finite

WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Shares of the common matrix, and of the common mean, that are tried by default."""


def shrink(own: ArrayLike, common: ArrayLike | None = None, weight: float = 0.5) -> Array:
    """Return (1 - weight) * own + weight * common.

    Parameters
    ----------
    own : array_like, [C, p, p] or [C, p]
        Class precisions or covariances; or class means.
    common : array_like, [p, p] or [p], optional
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
    shape = (None, None) if np.ndim(own) == 2 else (None, None, None)  # noqa: PLR2004 (means, or matrices)
    stack = finite("the class means" if len(shape) == 2 else "matrices", own, shape)  # noqa: PLR2004
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
        The class matrices (or means, [C, p]) shrunk by it.
    losses : dict of float to float
        Validation loss of every weight that could be scored.
    """

    weight: float
    matrices: Array
    losses: dict[float, float]


@dataclass(frozen=True)
class Shares:
    """How far matrices and means are drawn toward what the classes share.

    Attributes
    ----------
    graph, means : float
        Shares of the common matrix and of the common mean, in [0, 1].
    """

    graph: float
    means: float


def choose_shares(
    matrices: ArrayLike,
    means: ArrayLike,
    score: Callable[[Array, Array], ArrayLike],
    labels: ArrayLike,
    given: tuple[float | None, float | None] = (None, None),
) -> Shares:
    """Choose how far to draw class matrices and class means together, on a validation part.

    One after the other: matrices at the classes' own means, means at these matrices, and matrices again where the means
    have moved.

    Parameters
    ----------
    matrices : array_like, [C, p, p]
    means : array_like, [C, p]
    score : callable
        Maps matrices and means to the scores [N, C] of the validation part; see `choose_shrinkage`.
    labels : array_like, int, [N]
    given : tuple of two floats or None
        Shares that are not to be chosen, of the matrices and of the means.

    Raises
    ------
    InputError
        As `choose_shrinkage`.
    """
    graph, shared = given

    def best_graph(centres: Array) -> float:
        return choose_shrinkage(matrices, lambda trial: score(trial, centres), labels).weight

    own = shrink(means, weight=0.0 if shared is None else shared)
    first = best_graph(own) if graph is None else graph
    if shared is not None:
        return Shares(first, shared)
    together = shrink(matrices, weight=first)
    moved = choose_shrinkage(means, lambda trial: score(together, trial), labels)
    if graph is None and moved.weight > 0:
        first = best_graph(moved.matrices)
    return Shares(first, moved.weight)


def choose_shrinkage(
    matrices: ArrayLike,
    score: Callable[[Array], ArrayLike],
    labels: ArrayLike,
    *,
    common: ArrayLike | None = None,
    weights: Sequence[float] = WEIGHTS,
) -> ShrinkageChoice:
    """Choose how far to draw the class matrices, or the class means, toward the common one, on a validation part.

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
