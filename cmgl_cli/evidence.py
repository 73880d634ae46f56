"""What graphs are fitted to, whatever it came from: observations of nodes, or covariances of the user's own."""

from collections.abc import Iterator, Mapping

import numpy as np

from cmgl_cli.errors import UsageError
from cmgl_cli.graphs import JointResult, Moments, conditional_sample, correlation, resampled
from cmgl_cli.heads import GraphDiscriminant
from cmgl_cli.matrices import OwnCovariances
from cmgl_cli.observations import ImageScorer, PatchScorer
from cmgl_cli.sufficient import Study, deviations, fold_correlations

SAMPLE_BYTES = 2**30
Folds = list[tuple[np.ndarray, np.ndarray]]


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

    def resamples(self, number: int, seed: int) -> Iterator[np.ndarray]:
        """Yield the correlations [C, p, p] of subsamples."""
        raise _needs_samples("stability")

    def accuracy(self, result: JointResult) -> float:
        """Return the share of the validation images that a fit classifies rightly."""
        raise _needs_samples("the validation score")

    def prior(self, prior: np.ndarray) -> np.ndarray:
        """Return the prior of every edge [C, p, p] of what the prior artifact says."""
        return prior

    def for_all(self, values: np.ndarray) -> np.ndarray:
        """Return one row a class of the artifact, of one a class that was fitted."""
        return np.asarray(values)

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
    """Covariances computed elsewhere.

    Given the covariance and the number of samples, Gaussian samples have a known law (`conditional_sample`): draws
    from it take the place of the samples nobody handed over.
    """

    def __init__(self, own: OwnCovariances, n_folds: int, seed: int):
        super().__init__(own.covariance, own.counts, np.array(own.classes, dtype=object), "given")
        self._nodes, self._n_folds, self._seed = own.nodes, n_folds, seed
        ranks = np.linalg.matrix_rank(self.correlations, tol=1e-9, hermitian=True)
        self.sampled = own.counts is not None and bool(
            (own.counts > ranks).all()
            and own.counts.min() >= 2 * n_folds
            and own.counts.sum() * len(own.nodes) * 8 <= SAMPLE_BYTES
        )

    def folds(self) -> Folds:
        """Return (train, test) matrices a fold of drawn samples."""
        values, labels = self._samples()
        moments = [Moments(len(self.classes), values.shape[1]) for _ in range(self._n_folds)]
        # the rows of a draw are exchangeable, so every n-th is as good as a random fold
        fold = np.arange(len(values)) % self._n_folds
        for index, part in enumerate(moments):
            part.update(values[fold == index], labels[fold == index])
        return fold_correlations(moments)

    def resamples(self, number: int, seed: int) -> Iterator[np.ndarray]:
        """Yield the correlations [C, p, p] of subsamples of drawn samples."""
        return resampled(*self._samples(), number, seed=seed)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what the artifact holds of it, node names included."""
        return {**super().arrays(), "nodes": np.array(self._nodes, dtype=object)}

    def _samples(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.sampled or self.counts is None:
            raise _needs_samples("holding out and subsampling")
        rng = np.random.default_rng(self._seed)
        drawn = [conditional_sample(s, int(n), rng) for s, n in zip(self.correlations, self.counts, strict=True)]
        return np.concatenate(drawn), np.repeat(np.arange(len(drawn)), self.counts)


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

    def resamples(self, number: int, seed: int) -> Iterator[np.ndarray]:
        """Yield the correlations [C, p, p] of subsamples of images."""
        return self._study.resamples(self._statistics.transform, number, seed)

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
        f"{what} needs samples, and none can be drawn from these covariances",
        "fit-graphs: n_samples is missing, or less than the rank of a covariance or two a fold, or too large to draw",
        "correct n_samples in the file, use --select ebic, or fit nodes",
    )
