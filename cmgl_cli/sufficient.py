"""What a fit sees of the observations: a transform, and counts, means and covariances fold by fold."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cmgl_cli.artifacts import Artifact, SampleTable
from cmgl_cli.console import Console
from cmgl_cli.errors import UsageError
from cmgl_cli.graphs import Moments, Nonparanormal, correlation, draws, resampled, shapiro_pass_rate
from cmgl_cli.observations import ImageScorer, PatchScorer, image_observations, patch_observations, patch_sample

NORMALITY_SAMPLES = 2000
SUBSAMPLE_BYTES = 2**29
LEAST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Statistics:
    """What the fit sees of the observations.

    Attributes
    ----------
    transform : Nonparanormal
    moments : list of Moments
        One a fold; merged they are the whole.
    normality : dict
        Shapiro-Wilk pass rates on held-out observations, before and after the transform.
    """

    transform: Nonparanormal
    moments: list[Moments]
    normality: dict[str, float]

    @property
    def whole(self) -> Moments:
        """All folds together."""
        return merged(self.moments)


@dataclass(frozen=True)
class Study:
    """Where observations come from, and how they are transformed.

    Attributes
    ----------
    inputs : mapping
        The open artifacts: nodes, and features or text_features for patch observations.
    kind : {"image", "patch"}
        One observation an image, or one a patch.
    modality : {"image", "text"}
    scope : {"pooled", "class", "none"}
        Of the nonparanormal transform.
    seed : int
    console : Console
        Told of progress.
    n_folds : int
        Folds of the moments; a sample stays whole.
    """

    inputs: Mapping[str, Artifact]
    kind: str
    modality: str
    scope: str
    seed: int
    console: Console
    n_folds: int = 5

    def statistics(self) -> Statistics:
        """Fit the transform on the training part and accumulate its moments, fold by fold.

        Raises
        ------
        InputError
            A class without training observations, or a constant node.
        UsageError
            Patch observations without patch tokens.
        """
        train, held_out = self._parts()
        folds = _folds(self.table.label[train], self.n_folds, np.random.default_rng(self.seed))
        collect = self._from_patches if self.kind == "patch" else self._from_images
        return collect(train, held_out, folds)

    @property
    def table(self) -> SampleTable:
        """The samples of the modality."""
        return SampleTable.read(self.inputs["nodes"], self.modality)

    def training_scores(self, transform: Nonparanormal) -> tuple[np.ndarray, np.ndarray]:
        """Return normal scores [n, p] and labels [n] of the training images of one class each."""
        train, _ = self._parts()
        z, labels = image_observations(self.inputs["nodes"], self.modality)
        rows = train[labels[train] >= 0]
        return self._transformed(transform, z[rows], labels[rows]), labels[rows]

    def resamples(self, transform: Nonparanormal, number: int, seed: int) -> Iterator[np.ndarray]:
        """Yield the correlations [C, p, p] of subsamples of the training images, drawn within classes."""
        if self.kind == "image":
            yield from resampled(*self.training_scores(transform), number, seed=seed)
            return
        train, _ = self._parts()
        # images that show several classes are drawn as a class of their own
        drawn = [train[rows] for rows in draws(self.table.label[train] + 1, number, seed=seed)]
        for moments in subsampled(lambda: self._of_images(train, transform), drawn):
            yield correlation(moments.covariances())

    def validation_scorer(self, transform: Nonparanormal) -> tuple[ImageScorer | PatchScorer, np.ndarray]:
        """Return what scores the single-labelled validation images, and their labels.

        Raises
        ------
        UsageError
            There are none, or the observations are those of texts.
        """
        table, rows = self.table, self._parts()[1]
        rows = rows[table.label[rows] >= 0]
        if not len(rows) or self.modality != "image":
            raise UsageError(
                "the validation score needs validation images of one class each",
                f"{self.inputs['nodes'].path}: {len(rows)} {self.modality} samples in the validation part",
                "use --select held-out",
            )
        n_classes, nodes = len(table.classes), self.inputs["nodes"]
        scorer = (
            PatchScorer(nodes, self._features(), transform, rows, n_classes)
            if self.kind == "patch"
            else ImageScorer(nodes, transform, rows, n_classes)
        )
        return scorer, table.label[rows]

    def _parts(self) -> tuple[np.ndarray, np.ndarray]:
        table = self.table
        usable = self.inputs["nodes"][f"{self.modality}/valid"] & table.labelled
        train = np.flatnonzero(usable & (table.parts == "train"))
        table.require_classes(train, "training observation")
        return train, np.flatnonzero(usable & (table.parts == "validation"))

    def _from_images(self, train: np.ndarray, held_out: np.ndarray, folds: np.ndarray) -> Statistics:
        table = self.table
        z, _ = image_observations(self.inputs["nodes"], self.modality)
        transform = Nonparanormal(self.scope).fit(z[train], table.label[train] if self.scope == "class" else None)
        moments = [Moments(len(table.classes), z.shape[1]) for _ in range(self.n_folds)]
        presence = table.presence[train]
        for label in range(len(table.classes)):
            member = presence[:, label]
            transformed = transform.transform(z[train[member]], label if self.scope == "class" else None)
            for fold in range(self.n_folds):
                chosen = folds[member] == fold
                if chosen.any():
                    moments[fold].update(transformed[chosen], np.full(int(chosen.sum()), label))
        return Statistics(transform, moments, self._normality(transform, z[held_out], table.label[held_out]))

    def _from_patches(self, train: np.ndarray, held_out: np.ndarray, folds: np.ndarray) -> Statistics:
        table, nodes, features = self.table, self.inputs["nodes"], self._features()
        sample = patch_sample(nodes, features, train, self.seed)
        labels = table.label[sample.rows] if self.scope == "class" else None
        transform = Nonparanormal(self.scope).fit(sample.values, labels)
        moments = [Moments(len(table.classes), sample.values.shape[1]) for _ in range(self.n_folds)]
        fold_of = dict(zip(train.tolist(), folds.tolist(), strict=True))
        with self.console.progress("fit-graphs: patches", len(train), "images") as ticker:
            for row, part in self._of_images(train, transform):
                moments[fold_of[row]].merge(part)
                ticker.advance()
        if not len(held_out):
            return Statistics(transform, moments, {})
        held = patch_sample(nodes, features, held_out, self.seed)
        return Statistics(transform, moments, self._normality(transform, held.values, table.label[held.rows]))

    def _of_images(self, rows: np.ndarray, transform: Nonparanormal) -> Iterator[tuple[int, Moments]]:
        """Yield row and moments of the patches of every image."""
        table = self.table
        presence = table.presence
        for row, observations in patch_observations(self.inputs["nodes"], self._features(), rows):
            part = Moments(len(table.classes), observations.shape[1])
            for label in np.flatnonzero(presence[row]):
                values = transform.transform(observations, int(label) if self.scope == "class" else None)
                part.update(values, int(label))
            yield row, part

    def _features(self) -> Artifact:
        role = "text_features" if self.modality == "text" else "features"
        if role not in self.inputs:
            raise UsageError(
                "patch observations need the patch tokens",
                f"{self.inputs['nodes'].path.parent}: no {role} artifact",
                "give --features FILE, or use --observations image",
            )
        return self.inputs[role]

    def _normality(self, transform: Nonparanormal, z: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Return the pass rates within classes on observations the transform never saw."""
        single = np.flatnonzero(labels >= 0)
        # drawn at random: patches come image by image, and the first ones belong to a few images only
        chosen = np.sort(np.random.default_rng(self.seed).permutation(single)[:NORMALITY_SAMPLES])
        z, labels = z[chosen], labels[chosen]
        if np.bincount(labels, minlength=1).max(initial=0) < 3:
            return {}
        after = self._transformed(transform, z, labels)
        return {"before": shapiro_pass_rate(z, labels), "after": shapiro_pass_rate(after, labels)}

    def _transformed(self, transform: Nonparanormal, z: np.ndarray, labels: np.ndarray) -> np.ndarray:
        if self.scope != "class":
            return transform.transform(z)
        out = np.empty(z.shape)
        for label in np.unique(labels):
            out[labels == label] = transform.transform(z[labels == label], int(label))
        return out


def _folds(labels: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Return the fold of every training sample, stratified by class; a sample stays whole."""
    folds = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        folds[rng.permutation(rows)] = np.arange(len(rows)) % n_folds
    return folds


def merged(moments: list[Moments]) -> Moments:
    """Return the moments of all folds together."""
    whole = Moments(*moments[0].means.shape)
    for part in moments:
        whole.merge(part)
    return whole


def subsampled(images: Callable[[], Iterator[tuple[int, Moments]]], drawn: Sequence[np.ndarray]) -> Iterator[Moments]:
    """Yield the moments of every subsample of images, which are streamed once for as many as memory holds.

    Parameters
    ----------
    images : callable
        Starts a pass that yields row and moments of every image.
    drawn : sequence of ndarray of int
        Rows of the images in each subsample.
    """
    waiting = [set(rows.tolist()) for rows in drawn]
    while waiting:
        kept: list[Moments] = []
        group = waiting
        for row, part in images():
            if not kept:
                group = waiting[: max(1, SUBSAMPLE_BYTES // part.scatter.nbytes)]
                kept = [Moments(*part.means.shape) for _ in group]
            for members, moments in zip(group, kept, strict=True):
                if row in members:
                    moments.merge(part)
        yield from kept
        waiting = waiting[len(group) :]


def deviations(covariances: np.ndarray) -> np.ndarray:
    """Return the standard deviations [C, p] of covariances [C, p, p]."""
    return np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))


def fold_correlations(moments: list[Moments]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (train, test) matrices a fold, both in the units of the training part."""
    pairs = []
    for index, fold in enumerate(moments):
        if (fold.counts < 2).any():
            continue
        others = merged([part for other, part in enumerate(moments) if other != index])
        if (others.counts == 0).any():
            continue
        train = others.covariances()
        scale = deviations(train)
        if (scale <= LEAST_DEVIATION).any():
            continue  # a class seen in one image only: what is the same all over it has no variance
        test = fold.covariances() / (scale[:, :, None] * scale[:, None, :])
        pairs.append((correlation(train), test))
    if not pairs:
        raise UsageError(
            "held-out likelihood needs at least two training samples a class and fold",
            f"fit-graphs: folds = {len(moments)}",
            "use fewer --folds, or --select ebic --select-k ebic",
        )
    return pairs
