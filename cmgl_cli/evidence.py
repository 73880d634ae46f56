"""What graphs are fitted to, whatever it came from: observations of nodes, or covariances of the user's own."""

from collections.abc import Callable, Mapping

import numpy as np

from cmgl_cli.errors import UsageError
from cmgl_cli.graphs import JointResult, Stability, correlation, edge_stability, resampled
from cmgl_cli.heads import GraphDiscriminant
from cmgl_cli.matrices import OwnCovariances
from cmgl_cli.observations import ImageScorer, PatchScorer
from cmgl_cli.sufficient import Study, deviations, fold_correlations

Folds = list[tuple[np.ndarray, np.ndarray]]
Fit = Callable[[np.ndarray], JointResult]


class Evidence:
    """Correlations, and what the criteria of a search need beside them.

    Attributes
    ----------
    correlations, scale : ndarray, [C, p, p] and [C, p]
        What is fitted, and the standard deviations taken out of it.
    counts : ndarray of int64 [C], or None
        Observations a class, where known.
    classes : ndarray of str, [C]
    modality : str
        ``image``, ``text`` or ``given``.
    sampled : bool
        Whether there are samples behind the matrices that can be held out or drawn again.
    """

    sampled = False

    def __init__(self, covariances: np.ndarray, counts: np.ndarray | None, classes: np.ndarray, modality: str):
        self.correlations, self.scale = correlation(covariances), deviations(covariances)
        self.counts, self.classes, self.modality = counts, classes, modality

    def folds(self) -> Folds:
        """Return (train, test) matrices a fold, both in the units of the training part."""
        raise _needs_samples("held-out likelihood")

    def resamples(self, number: int, seed: int) -> list[np.ndarray]:
        """Return the correlations [C, p, p] of subsamples."""
        raise _needs_samples("stability")

    def accuracy(self, result: JointResult) -> float:
        """Return the share of the validation images that a fit classifies rightly."""
        raise _needs_samples("the validation score")

    def edge_frequencies(self, fit: Fit, number: int, seed: int, advance: Callable[[], None]) -> Stability:
        """Return how often each edge comes back when `fit` sees subsamples; `advance` is called after each."""
        raise _needs_samples("--stability")

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what the artifact holds of it."""
        counts = np.zeros(len(self.classes)) if self.counts is None else self.counts
        return {
            "classes": self.classes,
            "modality": np.array([self.modality], dtype=object),
            "covariance": self.correlations,
            "scale": self.scale,
            "counts": counts.astype(np.int64),
        }


class Given(Evidence):
    """Covariances computed elsewhere."""

    def __init__(self, own: OwnCovariances):
        super().__init__(own.covariance, own.counts, np.array(own.classes, dtype=object), "given")
        self._nodes = own.nodes

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what the artifact holds of it, node names included."""
        return {**super().arrays(), "nodes": np.array(self._nodes, dtype=object)}


class Observed(Evidence):
    """Observations of nodes: their transform, and their moments fold by fold."""

    sampled = True

    def __init__(self, study: Study):
        self._study, self._statistics = study, study.statistics()
        whole = self._statistics.whole
        super().__init__(whole.covariances(), whole.counts, study.table.classes, study.modality)
        self._means = whole.means
        self._scorer: tuple[ImageScorer | PatchScorer, np.ndarray] | None = None

    def folds(self) -> Folds:
        """Return (train, test) matrices a fold, both in the units of the training part."""
        return fold_correlations(self._statistics.moments)

    def resamples(self, number: int, seed: int) -> list[np.ndarray]:
        """Return the correlations [C, p, p] of subsamples of images."""
        if self._study.kind == "patch":
            raise UsageError(
                "stability draws subsamples of images, and patches are not stored",
                "fit-graphs (patch): select = stability",
                "use --observations image, or another --select",
            )
        return list(resampled(*self._study.training_scores(self._statistics.transform), number, seed=seed))

    def edge_frequencies(self, fit: Fit, number: int, seed: int, advance: Callable[[], None]) -> Stability:
        """Return how often each edge comes back when `fit` sees subsamples of images."""
        z, labels = self._study.training_scores(self._statistics.transform)
        return edge_stability(z, labels, fit, number, seed=seed, on_resample=lambda index, total: advance())

    def accuracy(self, result: JointResult) -> float:
        """Return the share of the validation images that a fit classifies rightly."""
        if self._scorer is None:
            self._scorer = self._study.validation_scorer(self._statistics.transform)
        scorer, labels = self._scorer
        precision = np.asarray(result.precision) / (self.scale[:, :, None] * self.scale[:, None, :])
        scores = scorer.scores({"": GraphDiscriminant(precision, self._means)})[""]
        return float((scores.argmax(axis=1) == labels).mean())

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what the artifact holds of it: also means, transform and what the transform did."""
        groups: Mapping[str, Mapping] = {
            "transform": self._statistics.transform.to_arrays(),
            "normality": {key: np.array(value) for key, value in self._statistics.normality.items()},
        }
        named = {f"{group}/{key}": values for group, arrays in groups.items() for key, values in arrays.items()}
        return {**super().arrays(), "means": self._means, **named}


def _needs_samples(what: str) -> UsageError:
    return UsageError(
        f"{what} needs the samples, not only their covariances",
        "fit-graphs: covariance is given",
        "use --select ebic with n_samples in the file, or fit nodes",
    )
