"""Graphs of the classes of masks: what a class is observed by, and the moments of that.

A class is observed in the cells it covers, parts of patches, with nodes for what the pixels look like, for the patch,
and for the patch's surroundings (`heads.appearance`, `heads.context`). Or by its patches alone, by their mean in an
image, or by the images that show it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from cmgl_cli.artifacts import Artifact
from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.evidence import Evidence, Folds
from cmgl_cli.graphs import Moments, Nonparanormal, correlation, draws, shapiro_pass_rate
from cmgl_cli.heads.appearance import APPEARANCE_NODES, cell_grid, cell_observations
from cmgl_cli.heads.context import with_context
from cmgl_cli.heads.patch_decoder import patch_membership
from cmgl_cli.nodes.distillation import Distiller
from cmgl_cli.observations import image_observations, patch_observations
from cmgl_cli.segmentation.label_maps import LabelMaps
from cmgl_cli.segmentation.pictures import Pictures
from cmgl_cli.segmentation.views import PatchView
from cmgl_cli.sufficient import fold_correlations, merged, subsampled

LEAST_SHARE = 0.05
"""A class that covers less of a cell or patch than this is not observed there."""
LEAST_IMAGES = 2
SAMPLE_ROWS = 200_000
NORMALITY_ROWS = 2000
BLOCK_ROWS = 16
NEUTRAL = 0.5
"""Prior of edges that no attention speaks of: it leaves the penalty as it is."""


@dataclass(frozen=True)
class Region:
    """One image: observations [m, q], the classes they belong to [m], and their weights [m]."""

    row: int
    values: np.ndarray
    classes: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class RegionSource:
    """Images whose masks say what belongs to which class.

    Attributes
    ----------
    nodes, features : Artifact
    maps : LabelMaps
    grid : tuple of int
        Patch rows and columns, the same for all images.
    kind : {"patch", "mean", "image"}
        "patch": every cell (without pictures: every patch) once for each class in it, weighted by the class's share of
        it. "mean": one observation a class, the mean of these in an image. "image": z, once for every class in it.
    windows : tuple of int
        Surroundings of a patch that are part of its observation; none for "image".
    pictures : Pictures, optional
        The images themselves; left out, there are no nodes that see pixels.
    """

    nodes: Artifact
    features: Artifact
    maps: LabelMaps
    grid: tuple[int, int]
    kind: str
    windows: tuple[int, ...]
    pictures: Pictures | None = None

    @property
    def appearance(self) -> int:
        """Number of nodes that see pixels."""
        return 0 if self.pictures is None or self.kind == "image" else APPEARANCE_NODES

    @property
    def names(self) -> list[str]:
        """Names of all nodes."""
        p = self.nodes.stream("image/z").shape[1]
        scales = ["", *(f" around {window}" if window else " of image" for window in self.windows)]
        looks = [f"look {i}" for i in range(self.appearance)]
        return looks + [f"node {i}{scale}" for scale in scales for i in range(p)]

    def transform(self, rows: np.ndarray, seed: int) -> Nonparanormal:
        """Return the transform of the probes' nodes, fitted to at most about 200,000 of their observations."""
        if self.kind == "image":
            return Nonparanormal("pooled").fit(image_observations(self.nodes, "image")[0][rows])
        rng = np.random.default_rng(seed)
        each = max(1, SAMPLE_ROWS // max(1, len(rows)))
        drawn = [
            values[np.sort(rng.permutation(len(values))[:each])]
            for _, values in patch_observations(self.nodes, self.features, rows)
        ]
        return Nonparanormal("pooled").fit(np.concatenate(drawn))

    def regions(self, rows: np.ndarray, transform: Nonparanormal) -> Iterator[Region]:
        """Yield the transformed observations of every image, their surroundings and looks included."""
        for row, values in self._values(rows, transform):
            cells = cell_grid(self.grid) if self.appearance else self.grid
            shares = patch_membership(self.maps.maps[row], cells, len(self.maps.classes), self.maps.ignore_label)
            present = np.flatnonzero(shares.sum(axis=0) > 0)
            if self.kind == "patch":
                cell, label = np.nonzero(shares >= LEAST_SHARE)
                yield Region(row, values[cell], label, shares[cell, label])
            elif self.kind == "mean":
                weights = shares[:, present] / shares[:, present].sum(axis=0)
                yield Region(row, weights.T @ values, present, np.ones(len(present)))
            else:
                yield Region(row, np.repeat(values, len(present), axis=0), present, np.ones(len(present)))

    def _values(self, rows: np.ndarray, transform: Nonparanormal) -> Iterator[tuple[int, np.ndarray]]:
        """Yield row and observations [m, q] of every image."""
        if self.kind == "image":
            z = transform.transform(image_observations(self.nodes, "image")[0][rows])
            yield from ((int(row), values[None]) for row, values in zip(rows, z, strict=True))
            return
        view = self._view(transform)
        source = self.features.stream("features")
        for start in range(0, source.shape[0], BLOCK_ROWS):
            wanted = rows[(rows >= start) & (rows < start + BLOCK_ROWS)]
            if not len(wanted):
                continue
            images = None if self.pictures is None else np.stack([self.pictures(int(row)) for row in wanted])
            inputs = view.inputs(source[start : start + BLOCK_ROWS][wanted - start], images)
            with torch.no_grad():
                joined = (
                    cell_observations(inputs, self.windows)
                    if self.appearance
                    else with_context(inputs.observations, inputs.grid, self.windows)
                )
            for row, values in zip(wanted, joined.double().numpy(), strict=True):
                yield int(row), values

    def _view(self, transform: Nonparanormal) -> PatchView:
        probes = {key: value for key, value in self.nodes.group("weights").items() if not key.startswith("proxy/")}
        return PatchView(Distiller.from_arrays(probes).eval(), transform, self.grid, torch.device("cpu"))


class RegionEvidence(Evidence):
    """Moments of the regions of the training images, fold by fold.

    Classes with fewer observations than nodes, or seen in one image only, are not fitted: they take the mean graph.

    Parameters
    ----------
    source : RegionSource
    train, held_out : ndarray of int
        Rows to learn from, and to look at the transform with.
    folds, sequences : ndarray of int, [n]
        Fold of every training row: drawn at random, for held-out likelihood, and keeping sequences whole.
    seed : int
    on_image : callable
        Called after every image.

    Raises
    ------
    InputError
        No class has enough observations.
    """

    sampled = True

    def __init__(  # noqa: PLR0913 (what a pass over the images needs)
        self,
        source: RegionSource,
        train: np.ndarray,
        held_out: np.ndarray,
        folds: np.ndarray,
        sequences: np.ndarray,
        *,
        seed: int,
        on_image: Callable[[], None],
    ):
        self._source, self._all_classes = source, source.maps.classes
        self._transform = source.transform(train, seed)
        self._train, self._shows = train, np.zeros((len(train), len(self._all_classes)), dtype=bool)
        moments, of_sequences = (
            [Moments(len(self._all_classes), len(source.names)) for _ in range(int(assigned.max()) + 1)]
            for assigned in (folds, sequences)
        )
        position = {row: i for i, row in enumerate(train.tolist())}
        for row, part in self._of_images():
            moments[folds[position[row]]].merge(part)
            of_sequences[sequences[position[row]]].merge(part)
            self._shows[position[row]] = part.counts > 0
            on_image()
        whole = merged(moments)
        enough = (whole.counts >= len(source.names)) & (self._shows.sum(axis=0) >= LEAST_IMAGES)
        self._kept = np.flatnonzero(enough)
        if not len(self._kept):
            raise InputError(
                "no class of the masks has as many observations as there are nodes",
                f"{len(train)} training images, {len(source.names)} nodes",
                "distil fewer nodes (--nodes), choose --windows none, or give more images with masks",
            )
        self._whole = whole
        self._moments = [fold.of(self._kept) for fold in moments]
        self._of_sequences, self._sequences = of_sequences, sequences
        fitted = whole.of(self._kept)
        super().__init__(fitted.covariances(), fitted.counts, self._all_classes[self._kept], "image")
        self._normality = self._looked_at(held_out)

    @property
    def borrowed(self) -> np.ndarray:
        """Whether a class takes the mean graph, bool [M]."""
        return ~np.isin(np.arange(len(self._all_classes)), self._kept)

    def folds(self) -> Folds:
        """Return (train, test) matrices a fold, both in the units of the training part."""
        return fold_correlations(self._moments)

    def without_sequences(self) -> Iterator[Moments]:
        """Yield the moments of all classes [M] without each fold of sequences."""
        for left_out in range(len(self._of_sequences)):
            yield merged([part for fold, part in enumerate(self._of_sequences) if fold != left_out])

    @property
    def sequence_folds(self) -> np.ndarray:
        """Fold of every image of the nodes [n], whole sequences together; -1 where it is not trained on."""
        folds = np.full(len(self._source.nodes["image/valid"]), -1, dtype=np.int64)
        folds[self._train] = self._sequences
        return folds

    @property
    def n_sequence_folds(self) -> int:
        """Number of such folds."""
        return len(self._of_sequences)

    @property
    def kept(self) -> np.ndarray:
        """Classes with a graph of their own, int64."""
        return self._kept

    def resamples(self, number: int, seed: int) -> Iterator[np.ndarray]:
        """Yield the correlations [C, q, q] of subsamples of images, each with two images of every class at least."""
        rng, shows = np.random.default_rng(seed), self._shows[:, self._kept]
        drawn = []
        for rows in draws(np.zeros(len(self._train), dtype=np.int64), number, seed=seed):
            chosen = np.zeros(len(self._train), dtype=bool)
            chosen[rows] = True
            for label in range(len(self._kept)):
                lacking = LEAST_IMAGES - int((chosen & shows[:, label]).sum())
                if lacking > 0:
                    chosen[rng.choice(np.flatnonzero(~chosen & shows[:, label]), lacking, replace=False)] = True
            drawn.append(self._train[chosen])
        for moments in subsampled(self._of_images, drawn):
            yield correlation(moments.of(self._kept).covariances())

    def prior(self, prior: np.ndarray) -> np.ndarray:
        """Return priors [C, q, q] of those of the image classes [c, p, p].

        The nodes of a window are those of the patch, so their edges have its priors; nodes that see pixels have no
        attention and a neutral one; a background, which has no texts, takes the mean.
        """
        missing = len(self._all_classes) - len(prior)
        whole = np.concatenate([prior.mean(axis=0, keepdims=True)] * missing + [prior])[self._kept]
        scales, first = 1 + len(self._source.windows), self._source.appearance
        out = np.full((len(whole), len(self._source.names), len(self._source.names)), NEUTRAL)
        out[:, first:, first:] = np.tile(whole, (1, scales, scales))
        return out

    def for_all(self, values: np.ndarray) -> np.ndarray:
        """Return one row a class [M, ...] of one a fitted class; the others take the mean: positive definite too."""
        values = np.asarray(values)
        out = np.repeat(values.mean(axis=0, keepdims=True), len(self._all_classes), axis=0)
        out[self._kept] = values
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what the artifact holds of it: also means, transform, and what the nodes see."""
        whole = self._whole
        overall = whole.counts @ whole.means / whole.counts.sum()
        named = {f"transform/{key}": values for key, values in self._transform.to_arrays().items()}
        named |= {f"normality/{key}": np.array(value) for key, value in self._normality.items()}
        return {
            "classes": self._all_classes,
            "modality": np.array([self.modality], dtype=object),
            "covariance": self.for_all(self.correlations),
            "scale": self.for_all(self.scale),
            "counts": whole.counts.round().astype(np.int64),
            "means": np.where((whole.counts > 0)[:, None], whole.means, overall),
            "nodes": np.array(self._source.names, dtype=object),
            "borrowed": self.borrowed,
            "windows": np.array(self._source.windows, dtype=np.int64),
            "appearance": np.array([self._source.appearance]),
            **named,
        }

    def _of_images(self) -> Iterator[tuple[int, Moments]]:
        """Yield row and moments of the regions of every training image."""
        for region in self._source.regions(self._train, self._transform):
            part = Moments(len(self._all_classes), len(self._source.names))
            if len(region.values):
                part.update(region.values, region.classes, region.weights)
            yield region.row, part

    def _looked_at(self, rows: np.ndarray) -> dict[str, float]:
        """Return Shapiro-Wilk pass rates of the probes' nodes within classes, on images the transform never saw."""
        first, p = self._source.appearance, self._source.nodes.stream("image/z").shape[1]
        rng = np.random.default_rng(0)
        values, labels = [], []
        for region in self._source.regions(rows, self._transform):
            chosen = rng.permutation(len(region.values))[: max(1, NORMALITY_ROWS // max(1, len(rows)))]
            values.append(region.values[chosen, first : first + p])
            labels.append(region.classes[chosen])
        if not values or np.bincount(np.concatenate(labels), minlength=1).max(initial=0) < LEAST_IMAGES + 1:
            return {}
        return {"after": shapiro_pass_rate(np.concatenate(values), np.concatenate(labels))}


def parsed_windows(text: str, kind: str) -> tuple[int, ...]:
    """Return the windows of a setting: odd sides in patches, 0 for the whole image, or none.

    Raises
    ------
    UsageError
        Something else is written.
    """
    if kind == "image" or text.strip() == "none":
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and (int(part) % 2 or part == "0") and part != "1" for part in parts):
        raise UsageError(
            "cannot use these windows",
            f"fit-graphs: windows = {text!r}",
            "write odd sides in patches (3, 5...), 0 for the whole image, or none",
        )
    return tuple(int(part) for part in parts)
