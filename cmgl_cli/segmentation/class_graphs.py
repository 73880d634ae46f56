"""The graphs of the masks' classes as decoders take them, in the units of the observations."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cmgl_cli.artifacts import Artifact
from cmgl_cli.errors import InputError
from cmgl_cli.heads.appearance import APPEARANCE_NODES
from cmgl_cli.heads.evidence import GraphEvidence
from cmgl_cli.heads.frozen import CrossFits
from cmgl_cli.heads.shrinkage import shrink

FITTED = ("precision", "common", "scale", "means")


def graph_evidence(graphs: Artifact, pixels: np.ndarray, seed: int) -> GraphEvidence:
    """Return the graphs of an artifact in the units of the observations, with the classes' shares of the pixels [M].

    Raises
    ------
    InputError
        The graphs are not those of the masks' classes, or of another version's nodes.
    """
    if len(graphs["scale"]) != len(pixels):
        raise InputError(
            "graphs and masks have different classes",
            f"{graphs.path}: {len(graphs['scale'])} classes; the masks: {len(pixels)}",
            "run: cmgl fit-graphs --observations region",
        )
    looks = int(graphs["appearance"][0]) if "appearance" in graphs else 0
    if looks not in (0, APPEARANCE_NODES):
        raise InputError(
            "these graphs are of an earlier cmgl, which saw pixels otherwise",
            f"{graphs.path}: {looks} nodes that see pixels, this version has {APPEARANCE_NODES}",
            "run: cmgl fit-graphs --observations region",
        )
    smoothed = pixels + 1.0
    return GraphEvidence(
        *_in_units({name: graphs.finite(name) for name in FITTED}),
        priors=smoothed / smoothed.sum(),
        windows=tuple(graphs["windows"].tolist()) if "windows" in graphs else (),
        appearance=looks,
        seed=seed,
    )


def cross_fitted(graphs: Artifact, evidence: GraphEvidence) -> CrossFits | None:
    """Return the graphs without each fold of the images, beside those of all; None where there are none."""
    if "crossfit/fold" not in graphs:
        return None
    stored = {name: graphs.finite(f"crossfit/{name}").astype(np.float64) for name in FITTED}
    folds, others = graphs["crossfit/fold"], []
    for fold in range(len(stored["scale"])):
        precision, common, means = _in_units({name: values[fold] for name, values in stored.items()})
        others.append(replace(evidence, precision=precision, common=common, means=means))
    return CrossFits(others, {int(row): int(folds[row]) for row in np.flatnonzero(folds >= 0)})


def _in_units(fitted: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precisions, common graph and means in the units of the observations."""
    scale = fitted["scale"]
    typical = np.sqrt((scale**2).mean(axis=0))
    return (
        fitted["precision"] / (scale[:, :, None] * scale[:, None, :]),
        fitted["common"] / np.outer(typical, typical),
        fitted["means"],
    )


def drawn_together(evidence: GraphEvidence, weight: float) -> GraphEvidence:
    """Return the graphs with the classes' covariances drawn toward their mean by a weight in [0, 1]."""
    covariances = np.linalg.inv(evidence.precision)
    pooled = np.einsum("c,cij->ij", evidence.priors / evidence.priors.sum(), covariances)
    precision = np.linalg.inv(shrink(covariances, pooled, weight))
    return replace(evidence, precision=(precision + precision.transpose(0, 2, 1)) / 2)
