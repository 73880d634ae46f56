"""What graphs are estimated from and score: one vector an image, or one vector a patch.

Reads artifacts and applies frozen probes; patch observations are streamed, never stored.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from cmgl_cli.artifacts import Artifact
from cmgl_cli.graphs import Nonparanormal
from cmgl_cli.heads import GraphDiscriminant
from cmgl_cli.nodes.distillation import Distiller
from cmgl_cli.nodes.padding import PatchValidity

BLOCK_ROWS = 64
SAMPLE_PATCHES = 200_000
MOMENT_BYTES = 2**30


@dataclass(frozen=True)
class PatchSample:
    """A random choice of patch observations: values [n, p], and the row each comes from [n]."""

    values: np.ndarray
    rows: np.ndarray


def image_observations(nodes: Artifact, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """Return z [n, p] in float64 and the single labels [n] of one modality."""
    return nodes.finite(f"{modality}/z").astype(np.float64), nodes[f"{modality}/label"]


def patch_observations(nodes: Artifact, features: Artifact, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (row, observations [N_p, p]) for ascending rows, reading the patch tokens block by block."""
    distiller = Distiller.from_arrays(
        {key: value for key, value in nodes.group("weights").items() if not key.startswith("proxy/")}
    )
    source = features.stream("features")
    validity = PatchValidity(features["grid"], source.shape[1])
    for start in range(0, source.shape[0], BLOCK_ROWS):
        wanted = rows[(rows >= start) & (rows < start + BLOCK_ROWS)]
        if not len(wanted):
            continue
        tokens = source[start : start + BLOCK_ROWS][wanted - start]
        with torch.inference_mode():
            observed = distiller.patch_observations(torch.from_numpy(tokens)).double().numpy()
        for row, values in zip(wanted, observed, strict=True):
            real = validity[slice(int(row), int(row) + 1)][0]
            yield int(row), values[real]


def patch_sample(nodes: Artifact, features: Artifact, rows: np.ndarray, seed: int) -> PatchSample:
    """Return at most 200,000 patch observations, the same number from every image, drawn with a seed."""
    rng = np.random.default_rng(seed)
    each = max(1, SAMPLE_PATCHES // max(1, len(rows)))
    values, owners = [], []
    for row, observed in patch_observations(nodes, features, rows):
        chosen = np.sort(rng.permutation(len(observed))[:each])
        values.append(observed[chosen])
        owners.append(np.full(len(chosen), row))
    return PatchSample(np.concatenate(values), np.concatenate(owners))


class ImageScorer:
    """Scores of images from their vectors z, for any number of discriminants.

    Parameters
    ----------
    nodes : Artifact
    transform : Nonparanormal
    rows : ndarray of int
    n_classes : int
    """

    def __init__(self, nodes: Artifact, transform: Nonparanormal, rows: np.ndarray, n_classes: int):
        z = image_observations(nodes, "image")[0][rows]
        self._jacobian: np.ndarray | None = None
        if transform.scope == "class":
            self._values, self._jacobian = class_scope(transform, z, n_classes)
        else:
            self._values = transform.transform(z)

    def scores(self, discriminants: Mapping[str, GraphDiscriminant]) -> dict[str, np.ndarray]:
        """Return scores [n, C] of every discriminant."""
        return {name: m.scores(self._values, log_jacobian=self._jacobian) for name, m in discriminants.items()}


class PatchScorer:
    """Scores of images from their patches, for any number of discriminants.

    With a pooled transform an image enters through its number of patches, their sum and the sum of their outer
    products, kept in memory when they fit into 1 GiB and streamed again otherwise. With a transform a class the
    patches themselves are scored, once per class.

    Parameters
    ----------
    nodes, features : Artifact
    transform : Nonparanormal
    rows : ndarray of int
        Ascending rows to score.
    n_classes : int
    """

    def __init__(self, nodes: Artifact, features: Artifact, transform: Nonparanormal, rows: np.ndarray, n_classes: int):
        self._nodes, self._features, self._transform = nodes, features, transform
        self._rows, self._n_classes = rows, n_classes
        p = nodes.stream("image/z").shape[1]
        self._keep = len(rows) * p * p * 8 <= MOMENT_BYTES
        self._kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def scores(self, discriminants: Mapping[str, GraphDiscriminant]) -> dict[str, np.ndarray]:
        """Return scores [n, C] of every discriminant, in one pass over the images."""
        parts: dict[str, list[np.ndarray]] = {name: [] for name in discriminants}
        if self._transform.scope == "class":
            for _, observed in patch_observations(self._nodes, self._features, self._rows):
                values, jacobian = class_scope(self._transform, observed, self._n_classes)
                for name, discriminant in discriminants.items():
                    parts[name].append(discriminant.scores(values, log_jacobian=jacobian).sum(axis=0, keepdims=True))
        else:
            for counts, first, second in self._moments():
                for name, discriminant in discriminants.items():
                    parts[name].append(discriminant.scores_from_moments(counts, first, second))
        return {name: np.concatenate(values) for name, values in parts.items()}

    def _moments(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        if self._kept:
            yield from self._kept
            return
        held: list[tuple[int, np.ndarray, np.ndarray]] = []
        for _, observed in patch_observations(self._nodes, self._features, self._rows):
            values = self._transform.transform(observed)
            held.append((len(values), values.sum(axis=0), values.T @ values))
            if len(held) == BLOCK_ROWS:
                yield self._block(held)
                held = []
        if held:
            yield self._block(held)

    def _block(self, held: list[tuple[int, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        counts, first, second = (np.array(column) for column in zip(*held, strict=True))
        if self._keep:
            self._kept.append((counts, first, second))
        return counts, first, second


def class_scope(transform: Nonparanormal, values: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return values transformed once a class [n, C, p], and the log-Jacobians [n, C] that make scores comparable."""
    transformed = np.stack([transform.transform(values, label) for label in range(n_classes)], axis=1)
    jacobian = np.stack([transform.log_jacobian(values, label) for label in range(n_classes)], axis=1)
    return transformed, jacobian
