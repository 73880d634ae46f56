"""Marginal transform to normal scores: ``z~ = Phi^{-1}((rank - 1/2) / n)`` (CM-GLasso, equations 7 and 8).

The transform of a node is its training distribution function followed by the normal quantile. It is kept as a
monotone piecewise linear function through at most ``max_knots`` knots, so that a fit on millions of observations
stays storable. With n <= max_knots every rank is a knot and the transform is exact on the training sample.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import shapiro

from cmgl_cli.errors import InputError

SCOPES = ("pooled", "class", "none")
Array = NDArray[np.float64]


class Nonparanormal:
    """Rank-based transform of every node to standard normal scores, equations (7, 8).

    Parameters
    ----------
    scope : {"pooled", "class", "none"}
        ``pooled`` fits one transform to all samples; ``class`` one per class, so that every class has mean zero and
        a sample must be transformed once per hypothesis (with `log_jacobian` in the score). ``none`` leaves values as
        they are, for comparison.
    max_knots : int
        Largest number of knots kept per node. They are equally spaced in the normal score, so that a thinned
        transform differs from the exact one by at most ``2 * Phi^{-1}(1 - 1/(2 n)) / (max_knots - 1)`` standard
        deviations (0.005 for n = 10^6 and the default).

    Attributes
    ----------
    knots_ : ndarray [G, p, K], float64
        Observed values, ascending; G = 1 (pooled) or C (class). Short rows are padded with their last value.
    scores_ : ndarray [G, p, K], float64
        Normal scores of the knots; ties have the score of their average rank.
    counts_ : ndarray [G], int64
        Number of training samples behind each group.
    """

    def __init__(self, scope: str = "pooled", max_knots: int = 2049):
        if scope not in SCOPES:
            raise InputError(
                "unknown scope of the nonparanormal transform", f"scope = {scope!r}", f"use one of {SCOPES}"
            )
        if max_knots < 3:
            raise InputError("too few knots", f"max_knots = {max_knots}", "use at least 3")
        self.scope, self.max_knots = scope, max_knots

    def fit(self, z: ArrayLike, labels: ArrayLike | None = None) -> "Nonparanormal":
        """Learn the transform from ``z`` [N, p]; ``labels`` [N] in 0..C-1 are needed for class scope only.

        Raises
        ------
        InputError
            If z is not a finite matrix, a node is constant (named by its index), or a class has fewer than 2 samples.
        """
        values = _matrix(z)
        groups = _split(values, labels) if self.scope == "class" else [values]
        tables = [_group_knots(group, self.max_knots, index, self.scope) for index, group in enumerate(groups)]
        width = max(knots.shape[1] for knots, _ in tables)
        self.knots_ = np.stack([_pad(knots, width) for knots, _ in tables])
        self.scores_ = np.stack([_pad(scores, width) for _, scores in tables])
        self.counts_ = np.array([len(group) for group in groups], dtype=np.int64)
        return self

    def transform(self, z: ArrayLike, label: int | None = None) -> Array:
        """Return the normal scores [N, p] of ``z`` [N, p], clipped to the range of the training sample.

        Class scope needs ``label``, the class whose transform is applied.
        """
        values, group = self._checked(z), self._group(label)
        if self.scope == "none":
            return values.copy()
        columns = [
            np.interp(values[:, j], self.knots_[group, j], self.scores_[group, j]) for j in range(values.shape[1])
        ]
        return np.stack(columns, axis=1)

    def log_jacobian(self, z: ArrayLike, label: int | None = None) -> Array:
        """Return sum_j log dT_j/dz_j at ``z`` [N, p] as [N], in nats: the change of variables of a density.

        The slope is that of a coarse version of the transform, with about sqrt(n) intervals of equal probability: the
        slope between neighbouring order statistics does not converge. Beyond the training range the outermost slope
        is continued. Class scope needs ``label``.
        """
        values, group = self._checked(z), self._group(label)
        total = np.zeros(len(values))
        if self.scope == "none":
            return total
        for j in range(values.shape[1]):
            x, y = _coarse(self.knots_[group, j], self.scores_[group, j], int(self.counts_[group]))
            interval = np.clip(np.searchsorted(x, values[:, j], side="right") - 1, 0, len(x) - 2)
            total += np.log(np.diff(y) / np.diff(x))[interval]
        return total

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as plain arrays: ``knots``, ``scores``, ``counts``, ``max_knots``, ``class_scope``.

        Scope ``none`` has an ``identity`` beside them.
        """
        self._check_fitted()
        identity = {"identity": np.array(True)} if self.scope == "none" else {}
        return identity | {
            "knots": self.knots_.copy(),
            "scores": self.scores_.copy(),
            "counts": self.counts_.copy(),
            "max_knots": np.array(self.max_knots),
            "class_scope": np.array(self.scope == "class"),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> "Nonparanormal":
        """Rebuild a fitted transform from `to_arrays`; equal to the original bit for bit."""
        missing = {"knots", "scores", "counts", "max_knots", "class_scope"} - set(arrays)
        if missing:
            raise InputError(
                "incomplete state of a nonparanormal transform",
                f"missing: {sorted(missing)}",
                "pass all of to_arrays()",
            )
        scope = "class" if bool(np.asarray(arrays["class_scope"])) else "pooled"
        if bool(np.asarray(arrays.get("identity", False))):
            scope = "none"
        self = cls(scope, int(np.asarray(arrays["max_knots"])))
        self.knots_ = np.array(arrays["knots"], dtype=np.float64)
        self.scores_ = np.array(arrays["scores"], dtype=np.float64)
        self.counts_ = np.array(arrays["counts"], dtype=np.int64)
        return self

    def _check_fitted(self) -> None:
        if not hasattr(self, "knots_"):
            raise InputError("the nonparanormal transform is not fitted", type(self).__name__, "call fit first")

    def _checked(self, z: ArrayLike) -> Array:
        self._check_fitted()
        values = _matrix(z)
        if values.shape[1] != self.knots_.shape[1]:
            raise InputError(
                "number of nodes differs from the fit",
                f"{values.shape[1]} against {self.knots_.shape[1]}",
                "transform the nodes the fit saw",
            )
        return values

    def _group(self, label: int | None) -> int:
        if self.scope != "class":
            return 0
        if label is None or not 0 <= int(label) < len(self.knots_):
            raise InputError(
                "class scope needs the class whose transform is applied",
                f"label = {label!r}",
                f"pass a label in 0..{len(self.knots_) - 1}",
            )
        return int(label)


def shapiro_pass_rate(
    z: ArrayLike, labels: ArrayLike | None = None, level: float = 0.05, max_samples: int = 5000
) -> float:
    """Return the share of (class, node) pairs whose Shapiro-Wilk test keeps normality at ``level``.

    Meant for held-out data: on the sample the ranks came from it is one by construction.

    Parameters
    ----------
    z : array [N, p]
        Values or normal scores.
    labels : array [N] of int, optional
        Tests run within classes when given; classes with fewer than 3 samples are left out.
    level : float
        Significance level.
    max_samples : int
        Larger groups are thinned evenly to this size (the p-value is not calibrated beyond 5,000).
    """
    values = _matrix(z)
    groups = [values] if labels is None else _split(values, labels, minimum=0)
    passed = []
    for group in groups:
        if len(group) < 3:
            continue
        thinned = group[np.linspace(0, len(group) - 1, min(len(group), max_samples)).astype(int)]
        passed += [np.ptp(column) > 0 and shapiro(column).pvalue > level for column in thinned.T]
    if not passed:
        raise InputError(
            "no class has enough samples for a normality test",
            f"N = {len(values)}",
            "pass at least 3 samples of a class",
        )
    return float(np.mean(passed))


def _matrix(z: ArrayLike) -> Array:
    values = np.asarray(z, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] == 0 or values.shape[1] == 0:
        raise InputError("expected a matrix of samples by nodes", f"shape {values.shape}", "pass an array [N, p]")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise InputError(
            "values are not finite",
            f"sample {row}, node {column}: {values[row, column]}",
            "remove or impute the sample",
        )
    return values


def _split(values: Array, labels: ArrayLike | None, minimum: int = 2) -> list[Array]:
    if labels is None:
        raise InputError("class scope needs labels", "labels = None", "pass labels [N] in 0..C-1")
    classes = np.asarray(labels)
    if classes.shape != (len(values),) or classes.dtype.kind not in "iu" or classes.min() < 0:
        raise InputError(
            "labels do not fit the samples",
            f"shape {classes.shape}, dtype {classes.dtype}",
            f"pass {len(values)} integers in 0..C-1",
        )
    groups = [values[classes == c] for c in range(int(classes.max()) + 1)]
    for c, group in enumerate(groups):
        if len(group) < minimum:
            raise InputError(
                "a class has too few samples for its own transform",
                f"class {c}: {len(group)} samples",
                "use scope='pooled' or drop the class",
            )
    return groups


def _group_knots(values: Array, max_knots: int, group: int, scope: str) -> tuple[Array, Array]:
    """Return knots and scores [p, K] of one group of samples [n, p]."""
    n, p = values.shape
    if n <= max_knots:
        positions = np.arange(n)
    else:
        grid = np.linspace(ndtri(0.5 / n), ndtri(1 - 0.5 / n), max_knots)
        positions = np.unique(np.clip(np.rint(n * ndtr(grid) - 0.5), 0, n - 1).astype(np.int64))
    knots, scores = np.empty((p, len(positions))), np.empty((p, len(positions)))
    for j in range(p):
        ordered = np.sort(values[:, j])
        if ordered[0] == ordered[-1]:
            where = (
                f"node {j}" + (f" of class {group}" if scope == "class" else "") + f": every value is {ordered[0]:g}"
            )
            raise InputError(
                "a node is constant, so it has no ranks",
                where,
                "drop the node, or use scope='pooled' if it varies over classes",
            )
        knots[j] = ordered[positions]
        below = np.searchsorted(ordered, knots[j], side="left")
        upto = np.searchsorted(ordered, knots[j], side="right")
        scores[j] = ndtri((below + upto) / (2.0 * n))  # average 1-based rank is (below + upto + 1) / 2, minus one half
    return knots, scores


def _pad(rows: Array, width: int) -> Array:
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), mode="edge")


def _coarse(x: Array, y: Array, count: int) -> tuple[Array, Array]:
    """Thin one node's knots to about sqrt(n) intervals of equal probability; at least one interval remains."""
    n_intervals = int(np.clip(np.sqrt(count), 1, 64))
    probability = np.linspace(ndtr(y[0]), ndtr(y[-1]), n_intervals + 1)
    chosen = np.clip(np.searchsorted(ndtr(y), probability), 0, len(x) - 1)
    chosen[0], chosen[-1] = 0, len(x) - 1
    coarse, first = np.unique(x[chosen], return_index=True)
    return coarse, y[chosen][first]
