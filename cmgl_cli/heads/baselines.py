"""What a user would try without graphs, on the same frozen features and tuned as hard as our own.

Every hyperparameter is chosen by the validation part (least negative log-likelihood at the best temperature, the
criterion of our own choices too); models are fitted on the training part alone; the test part is scored once.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from cmgl_cli.errors import InputError
from cmgl_cli.heads.checks import Array, Labels, class_labels, finite
from cmgl_cli.heads.comparison import Row, Scored, Split, row
from cmgl_cli.heads.gaussian import class_moments, regularised_discriminant
from cmgl_cli.heads.shrinkage import validation_loss

LOGISTIC_C = tuple(10.0**power for power in np.arange(-5, 3.5, 0.5))
"""Inverse strengths of the ridge penalty, ascending; the path ends once two steps in a row do not help."""
RIDGES = (0.0, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 0.6)
POOLINGS = (0.0, 0.01, 0.03, 0.1, 0.3, 0.6)
METRICS = ("cosine", "euclidean")
NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100)
SHARPNESS = (0.0, 5.0, 15.0, 40.0)
"""Votes are weighted exp(-sharpness * distance / mean distance of the nearest); 0 is the plain vote."""


class Parts(NamedTuple):
    """One feature matrix cut along a split, with the training and validation labels: what a baseline may see."""

    train: Array
    validation: Array
    test: Array
    train_labels: Labels
    validation_labels: Labels
    n_classes: int


class Fitted(NamedTuple):
    """Scores of the validation and test part under the chosen hyperparameters."""

    validation: Array
    test: Array
    chosen: dict[str, float | int | str]


Baseline = Callable[[Parts, int], Fitted]


def pool_patches(tokens: ArrayLike, mask: ArrayLike | None = None, block: int = 256) -> tuple[Array, Array]:
    """Return the mean and the standard deviation over patches of each image, [N, d] each.

    Parameters
    ----------
    tokens : array_like, [N, N_p, d]
        Patch tokens; read in blocks of rows, so a memory-mapped array is fine.
    mask : array_like, bool, [N, N_p], optional
        True where a patch is real, for encoders with a variable grid.
    block : int
        Images converted to float64 at a time.

    Raises
    ------
    InputError
        If an image has no real patch or a token is not finite.
    """
    array = np.asarray(tokens)
    real_all = None if mask is None else np.asarray(mask, dtype=bool)
    means, spreads = [], []
    for start in range(0, len(array), block):
        chunk = finite(f"tokens from row {start} on", array[start : start + block], (None, None, None))
        real = np.ones(chunk.shape[:2]) if real_all is None else real_all[start : start + block].astype(float)
        if (real.sum(1) == 0).any():
            raise InputError("an image has no patch", f"row {start + int(real.sum(1).argmin())}", "drop that image")
        share = (real / real.sum(1, keepdims=True))[:, :, None]
        mean = (share * chunk).sum(1)
        means.append(mean)
        spreads.append(np.sqrt((share * (chunk - mean[:, None]) ** 2).sum(1)))
    return np.concatenate(means), np.concatenate(spreads)


def compare(
    features: Mapping[str, ArrayLike],
    z: ArrayLike,
    labels: ArrayLike,
    split: Split,
    *,
    seed: int = 0,
    proxy_logits: ArrayLike | None = None,
    only: Iterable[str] | None = None,
) -> list[Row]:
    """Fit and judge every baseline: one table line for each method and kind of feature.

    Parameters
    ----------
    features : mapping of str to array_like, [N, d]
        Pooled features by name, such as ``{"mean": ..., "mean+std": ...}`` from `pool_patches`: each goes through
        logistic regression, kNN and the nearest class mean.
    z : array_like, [N, p]
        Node vectors: logistic regression, LDA and QDA.
    labels : array_like, int, [N]
        Classes 0..C-1, where C is one more than the largest label (or the width of `proxy_logits`).
    split : Split
        Rows of the three parts.
    seed : int
        For the solvers that draw numbers.
    proxy_logits : array_like, [N, C], optional
        Logits of the proxy head that trained the nodes.
    only : iterable of str, optional
        Names of the methods wanted; all by default.

    Returns
    -------
    list of Row

    Raises
    ------
    InputError
        If a row is not finite, labels do not fit, or there are fewer than two classes.
    """
    n_samples = len(np.asarray(labels))
    n_classes = int(np.max(labels, initial=-1)) + 1 if proxy_logits is None else int(np.shape(proxy_logits)[1])
    targets = class_labels(labels, n_samples, n_classes)
    wanted = set(only) if only is not None else {*POOLED, *NODES, "proxy head"}
    truth = targets[split.validation], targets[split.test]
    rows = []
    for method, name, matrix in _jobs(features, z, wanted):
        parts = _cut(finite(name, matrix, (n_samples, None)), targets, split, n_classes)
        start = time.perf_counter()
        fitted = (POOLED | NODES)[method](parts, seed)
        seconds = time.perf_counter() - start
        rows.append(row(Scored(method, name, fitted.validation, fitted.test, seconds, fitted.chosen), *truth))
    if proxy_logits is not None and "proxy head" in wanted:
        logits = finite("proxy_logits", proxy_logits, (n_samples, n_classes))
        rows.append(row(Scored("proxy head", "Z", logits[split.validation], logits[split.test]), *truth))
    return rows


def logistic_regression(parts: Parts, seed: int, strengths: Sequence[float] = LOGISTIC_C) -> Fitted:
    """Multinomial logistic regression on standardised features, penalty chosen along an ascending path of C."""
    scaler = StandardScaler().fit(parts.train)
    train, validation, test = (scaler.transform(part) for part in (parts.train, parts.validation, parts.test))
    model = LogisticRegression(C=strengths[0], max_iter=1000, warm_start=True, random_state=seed)
    best: tuple[float, Fitted] | None = None
    worse = 0
    for strength in strengths:
        model.set_params(C=strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train, parts.train_labels)
        scores = _log_proba(model, validation, parts)
        loss = validation_loss(scores, parts.validation_labels)
        worse = worse + 1 if best is not None and loss >= best[0] else 0
        if worse == 2:
            break
        if not worse:
            best = loss, Fitted(scores, _log_proba(model, test, parts), {"C": float(f"{strength:.3g}")})
    if best is None:
        raise InputError("there is no penalty to try", "strengths is empty", "pass at least one value of C")
    return best[1]


def nearest_neighbours(parts: Parts, seed: int) -> Fitted:
    """Nearest neighbours: metric, k and the sharpness of the votes' weights chosen."""
    largest = min(max(NEIGHBOURS), len(parts.train))

    def candidates() -> Iterator[Fitted]:
        for metric in METRICS:
            index = NearestNeighbors(n_neighbors=largest, metric=metric, algorithm="brute").fit(parts.train)
            found = index.kneighbors(parts.validation), index.kneighbors(parts.test)
            for k, sharpness in product([k for k in NEIGHBOURS if k <= largest], SHARPNESS):
                validation, test = (_votes(distance, near, k, sharpness, parts) for distance, near in found)
                yield Fitted(validation, test, {"k": k, "metric": metric, "sharpness": sharpness})

    return _best(candidates(), parts.validation_labels)


def nearest_mean(parts: Parts, seed: int) -> Fitted:
    """Distance to the nearest class mean, in the metric and scaling chosen."""
    scaler = StandardScaler().fit(parts.train)

    def candidates() -> Iterator[Fitted]:
        for metric, scaled in product(METRICS, (False, True)):
            train, *others = (
                _prepared(scaler.transform(part) if scaled else part, metric)
                for part in (parts.train, parts.validation, parts.test)
            )
            means = _class_means(train, parts)
            scores = [-((part**2).sum(1, keepdims=True) - 2 * part @ means.T + (means**2).sum(1)) for part in others]
            yield Fitted(scores[0], scores[1], {"metric": metric, "standardised": int(scaled)})

    return _best(candidates(), parts.validation_labels)


def linear_discriminant(parts: Parts, seed: int) -> Fitted:
    """Linear discriminant analysis, shrinkage toward the identity chosen."""
    return _discriminant(parts, [(1.0, ridge) for ridge in RIDGES])


def quadratic_discriminant(parts: Parts, seed: int) -> Fitted:
    """Quadratic discriminant analysis, shrinkage toward the pooled covariance and the identity chosen."""
    return _discriminant(parts, list(product(POOLINGS, RIDGES)))


POOLED: dict[str, Baseline] = {
    "logistic regression": logistic_regression,
    "kNN": nearest_neighbours,
    "nearest class mean": nearest_mean,
}
NODES: dict[str, Baseline] = {
    "logistic regression": logistic_regression,
    "LDA": linear_discriminant,
    "QDA": quadratic_discriminant,
}
"""Methods for pooled features, and for node vectors."""


def _jobs(features: Mapping[str, ArrayLike], z: ArrayLike, wanted: set[str]) -> Iterator[tuple[str, str, ArrayLike]]:
    """Yield method, name of the feature and its matrix."""
    for name, matrix in features.items():
        yield from ((method, name, matrix) for method in POOLED if method in wanted)
    yield from ((method, "z", z) for method in NODES if method in wanted)


def _cut(matrix: Array, targets: Labels, split: Split, n_classes: int) -> Parts:
    """Cut a feature matrix and the labels along the split."""
    train, validation, test = (matrix[rows] for rows in (split.train, split.validation, split.test))
    if len(np.unique(targets[split.train])) < 2:
        raise InputError("the training part holds one class", f"class {targets[split.train][0]}", "check the split")
    return Parts(train, validation, test, targets[split.train], targets[split.validation], n_classes)


def _log_proba(model: LogisticRegression, features: Array, parts: Parts) -> Array:
    """Return log probabilities over all C classes; one not seen in training shares one pseudo-sample among n + 1."""
    seen = model.predict_log_proba(features)
    share = 1.0 / (len(parts.train) + 1)
    scores = np.full((len(features), parts.n_classes), np.log(share / parts.n_classes))
    scores[:, model.classes_] = np.logaddexp(seen + np.log1p(-share), np.log(share / parts.n_classes))
    return scores


def _votes(distance: Array, neighbour: Labels, k: int, sharpness: float, parts: Parts) -> Array:
    """Return log shares of the (weighted) votes of the k nearest, with one vote spread over all classes."""
    near = distance[:, :k]
    unit = near.mean(1, keepdims=True)
    weight = np.exp(-sharpness * (near - near[:, :1]) / np.where(unit > 0, unit, 1.0))
    votes = np.full((len(near), parts.n_classes), 1.0 / parts.n_classes)
    rows = np.repeat(np.arange(len(near)), k)
    np.add.at(votes, (rows, parts.train_labels[neighbour[:, :k]].ravel()), weight.ravel())
    return np.log(votes / votes.sum(1, keepdims=True))


def _prepared(features: Array, metric: str) -> Array:
    """Scale rows to unit length for the cosine metric."""
    if metric == "euclidean":
        return features
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1.0)


def _class_means(train: Array, parts: Parts) -> Array:
    """Return class means [C, d]; the overall mean where a class has no sample."""
    onehot = np.eye(parts.n_classes)[parts.train_labels]
    count = onehot.sum(0)[:, None]
    return np.where(count > 0, onehot.T @ train / np.maximum(count, 1), train.mean(0))


def _discriminant(parts: Parts, grid: Sequence[tuple[float, float]]) -> Fitted:
    """Regularised discriminant analysis over a grid of (pooling, ridge); singular combinations are left out."""
    moments = class_moments(parts.train, parts.train_labels, parts.n_classes)

    def candidates() -> Iterator[Fitted]:
        for pooling, ridge in grid:
            try:
                model = regularised_discriminant(moments, pooling, ridge)
            except InputError:
                continue
            chosen: dict[str, float | int | str] = {"pooling": pooling, "ridge": ridge}
            yield Fitted(model.scores(parts.validation), model.scores(parts.test), chosen)

    return _best(candidates(), parts.validation_labels)


def _best(candidates: Iterable[Fitted], labels: Labels) -> Fitted:
    """Return the first candidate of least validation loss."""
    best, least = None, np.inf
    for candidate in candidates:
        loss = validation_loss(candidate.validation, labels)
        if loss < least:
            best, least = candidate, loss
    if best is None:
        raise InputError("no candidate could be fitted", "every covariance is singular", "drop constant nodes")
    return best
