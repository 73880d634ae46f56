"""The chosen fit again on other moments: on subsamples, and without each fold of the images."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmgl_cli.graphs import JointResult, Moments, Selection, correlation, fit_joint, penalty_scale
from cmgl_cli.sufficient import LEAST_DEVIATION, deviations

REFIT_TOL = 1e-5


@dataclass(frozen=True)
class ChosenPoint:
    """Where a search ended.

    Attributes
    ----------
    weights : ndarray, [C, p, p]
    rho : float
    gamma : ndarray, [C]
    options : mapping
        Of `fit_joint`.
    """

    weights: np.ndarray
    rho: float
    gamma: np.ndarray
    options: Mapping[str, Any]

    @classmethod
    def of(cls, selection: Selection, *, scale_rho: bool, preserve_penalty: bool, **options: Any) -> "ChosenPoint":
        """Return the point of a search, its penalties in the units of `fit_joint`."""
        weights, best = np.asarray(selection.weights), selection.best
        scale = penalty_scale(weights) if preserve_penalty else np.ones(len(weights))
        return cls(weights, best.rho * (len(weights) if scale_rho else 1), best.gamma * scale, options)

    def fit(self, correlations: np.ndarray, classes: np.ndarray | None = None) -> JointResult:
        """Fit correlations [c, p, p] of all classes, or of the classes named by their places [c]."""
        chosen = np.arange(len(self.weights)) if classes is None else classes
        return fit_joint(
            correlations, self.weights[chosen], self.rho, self.gamma[chosen], tol=REFIT_TOL, **self.options
        )


def cross_fits(
    parts: Iterable[Moments],
    kept: np.ndarray,
    point: ChosenPoint,
    whole: Mapping[str, np.ndarray],
    on_fit: Callable[[], None],
) -> dict[str, np.ndarray]:
    """Return the graphs without each fold: ``precision``, ``scale``, ``means`` of all classes, and ``common``.

    Parameters
    ----------
    parts : iterable of Moments
        Of all M classes, without one fold after the other.
    kept : ndarray of int, [c]
        The classes that the point is about.
    point : ChosenPoint
    whole : mapping
        The fit on all folds, ``precision`` [M, q, q], ``scale`` and ``means`` [M, q], ``common`` [q, q]: what a class
        that is hardly seen outside a fold keeps there.
    on_fit : callable

    Returns
    -------
    dict
        float32, one row a fold.
    """
    rows: dict[str, list[np.ndarray]] = {"precision": [], "common": [], "scale": [], "means": []}
    for moments in parts:
        arrays = {name: np.array(whole[name], dtype=np.float64) for name in rows}
        places = _observed(moments, kept)
        if len(places):
            seen = kept[places]
            covariances = moments.of(seen).covariances()
            result = point.fit(correlation(covariances), places)
            arrays["precision"][seen], arrays["common"] = result.precision, result.common
            arrays["scale"][seen], arrays["means"][seen] = deviations(covariances), moments.means[seen]
        for name, values in arrays.items():
            rows[name].append(values.astype(np.float32))
        on_fit()
    return {name: np.stack(values) for name, values in rows.items()}


def _observed(moments: Moments, kept: np.ndarray) -> np.ndarray:
    """Return the places in `kept` of the classes with as many observations as nodes, all of which vary."""
    enough = moments.counts[kept] >= moments.means.shape[1]
    spread = np.zeros(len(kept), dtype=bool)
    if enough.any():
        spread[enough] = (deviations(moments.of(kept[enough]).covariances()) > LEAST_DEVIATION).all(axis=1)
    return np.flatnonzero(spread)
