"""Nodes of training samples from probes that never saw them.

Probes fit their training samples better than new ones, so class means estimated on those samples lie too far
apart and class covariances are too small. With K folds, the z of a sample comes from a distiller trained on
the other folds. New samples are still seen by the reference distiller, trained on all of them, and the folds'
probes are other functions than its own, even from the same initial weights. So every fold is mapped into the
reference's coordinates by the affine map that predicts the reference's z best (least squares, with a small
ridge) on the samples that fold was trained on; a held-out sample takes no part in fitting its own map.
`Alignment.agreement` says how much of each node survives. Without the map, or with one that only rescales each
node, the sample is a mixture of K unrelated coordinate systems. The map is a regression, so it shrinks what the
fold does not know of the reference's nodes: the price of aligning (docs/distill.md has the measurement).
"""

from dataclasses import dataclass

import numpy as np

from cmgl_cli.errors import InputError, UsageError


@dataclass(frozen=True)
class Alignment:
    """The affine map from one fold's z to the reference's.

    Attributes
    ----------
    matrix : ndarray of float64, [p, p]
        Right factor.
    offset : ndarray of float64, [p]
        Added afterwards.
    agreement : ndarray of float64, [p]
        Share of the variance of each reference node that the map explains on the samples it was fitted on (R^2).
    """

    matrix: np.ndarray
    offset: np.ndarray
    agreement: np.ndarray

    def apply(self, z: np.ndarray) -> np.ndarray:
        """Return z [n, p] of the fold in the reference's coordinates, float64."""
        return z @ self.matrix + self.offset


def align(z_fold: np.ndarray, z_reference: np.ndarray, ridge: float = 1e-3) -> Alignment:
    """Fit the affine map from a fold's z to the reference's z of the same samples.

    Parameters
    ----------
    z_fold, z_reference : ndarray, [n, p]
        Nodes of samples that both were trained on.
    ridge : float
        Relative to the mean variance of the fold's nodes.

    Raises
    ------
    InputError
        Another number of samples, fewer than two, or values that are not finite.
    """
    if len(z_fold) != len(z_reference) or len(z_fold) < 2 or not np.isfinite([z_fold.sum(), z_reference.sum()]).all():
        raise InputError(
            "a fold cannot be aligned with the reference",
            f"{z_fold.shape} and {z_reference.shape} nodes",
            "give the same samples to both, at least two, without NaN",
        )
    x, y = z_fold.astype(np.float64), z_reference.astype(np.float64)
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    xc, yc = x - x_mean, y - y_mean
    gram = xc.T @ xc
    gram[np.diag_indices_from(gram)] += ridge * np.trace(gram) / len(gram)
    matrix = np.linalg.solve(gram, xc.T @ yc)
    total = np.maximum((yc**2).sum(axis=0), np.finfo(np.float64).tiny)
    agreement = 1 - ((yc - xc @ matrix) ** 2).sum(axis=0) / total
    return Alignment(matrix, y_mean - x_mean @ matrix, agreement)


def cross_fitted(
    z_reference: np.ndarray, z_folds: np.ndarray, folds: np.ndarray, ridge: float = 1e-3
) -> tuple[np.ndarray, np.ndarray]:
    """Return every sample's z from the fold that never saw it, in the reference's coordinates.

    Parameters
    ----------
    z_reference : ndarray, [n, p]
        Nodes from the distiller trained on all n samples.
    z_folds : ndarray, [K, n, p]
        Nodes of all samples from each fold's distiller.
    folds : ndarray of int, [n]
        The fold that each sample was held out of (`fold_assignment`).
    ridge : float
        As in `align`.

    Returns
    -------
    z : ndarray of float64, [n, p]
    agreement : ndarray of float64, [K, p]
        `Alignment.agreement` of each fold.

    Raises
    ------
    InputError
        Fold numbers that do not fit `z_folds`, or as in `align`.
    """
    if folds.shape != z_reference.shape[:1] or not 0 <= folds.min() <= folds.max() < len(z_folds):
        raise InputError(
            "the folds do not fit their nodes",
            f"{len(z_folds)} folds, fold numbers {folds.min()} to {folds.max()}, {len(z_reference)} samples",
            "give one fold number a sample, below the number of folds",
        )
    z, agreement = np.empty(z_reference.shape), np.empty(z_folds.shape[::2])
    for k, z_fold in enumerate(z_folds):
        held_out = folds == k
        alignment = align(z_fold[~held_out], z_reference[~held_out], ridge)
        z[held_out], agreement[k] = alignment.apply(z_fold[held_out]), alignment.agreement
    return z, agreement


def fold_assignment(labels: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Deal samples out to folds, class by class where there is one class a sample.

    Parameters
    ----------
    labels : ndarray, [n] or [n, C]
        Class numbers, or presences (dealt out at random).
    n_folds : int
        K.
    seed : int
        Seed.

    Returns
    -------
    ndarray of int64, [n]
        The fold of each sample; sizes differ by at most one overall, and by at most one within each class.

    Raises
    ------
    UsageError
        Fewer than two folds, or more folds than samples.
    """
    if not 2 <= n_folds <= len(labels):
        raise UsageError(
            "cross-fitting takes from two folds up to one a sample",
            f"{n_folds} folds, {len(labels)} samples",
            "give another number of folds",
        )
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    if labels.ndim == 1:
        order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), dtype=np.int64)
    folds[order] = np.arange(len(labels)) % n_folds
    return folds
