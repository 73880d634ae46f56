"""Class moments, and the Gaussian classifiers without a graph: LDA and QDA with tuned shrinkage.

Both are points of regularised discriminant analysis (Friedman, 1989): class covariances drawn toward the pooled one by
`pooling` (1 is LDA, 0 is QDA), then toward a multiple of the identity by `ridge`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cmgl_cli.errors import InputError
from cmgl_cli.heads.checks import Array, Labels, class_labels, finite
from cmgl_cli.heads.discriminant import GraphDiscriminant


@dataclass(frozen=True)
class ClassMoments:
    """First and second moments of each class.

    Attributes
    ----------
    count : ndarray, int, [C]
    means : ndarray, [C, p]
        The overall mean where a class has no sample.
    covariances : ndarray, [C, p, p]
        Around the class mean, divided by the count; zero where a class has fewer than two samples.
    """

    count: Labels
    means: Array
    covariances: Array

    @property
    def pooled(self) -> Array:
        """Within-class covariance [p, p], classes weighted by their counts."""
        return np.tensordot(self.count / self.count.sum(), self.covariances, axes=1)

    @property
    def priors(self) -> Array:
        """Class frequencies [C] with one pseudo-sample a class, so that an unseen class stays possible."""
        smoothed = self.count + 1.0
        return smoothed / smoothed.sum()


def class_moments(z: ArrayLike, labels: ArrayLike, n_classes: int) -> ClassMoments:
    """Return counts, means and covariances of each class.

    Parameters
    ----------
    z : array_like, [N, p]
    labels : array_like, int, [N]
    n_classes : int
        C >= 2; classes without a sample are allowed.

    Raises
    ------
    InputError
        If there is no sample, a row is not finite or a label is out of range.
    """
    samples = finite("z", z, (None, None))
    targets = class_labels(labels, len(samples), n_classes)
    if len(samples) == 0:
        raise InputError("there is nothing to fit", "0 samples", "check the training part")
    count = np.bincount(targets, minlength=n_classes)
    means = np.tile(samples.mean(0), (n_classes, 1))
    covariances = np.zeros((n_classes, samples.shape[1], samples.shape[1]))
    for c in np.flatnonzero(count):
        members = samples[targets == c]
        means[c] = members.mean(0)
        centred = members - means[c]
        covariances[c] = centred.T @ centred / count[c]
    return ClassMoments(count, means, covariances)


def regularised_discriminant(moments: ClassMoments, pooling: float, ridge: float) -> GraphDiscriminant:
    """Return the Gaussian classifier with covariances drawn toward the pooled one, then toward the identity.

    Parameters
    ----------
    moments : ClassMoments
    pooling : float
        Share of the pooled covariance, in [0, 1]. A class of n_c samples weighs in with n_c times (1 - pooling), the
        whole training part with pooling, as Friedman has it: small classes lean on the pooled covariance more.
    ridge : float
        Share of (trace / p) times the identity, in [0, 1].

    Raises
    ------
    InputError
        If the result is not positive definite (ridge 0 with fewer samples than p, or a constant node).
    """
    weight = (1 - pooling) * moments.count + pooling * moments.count.sum()
    scatter = (1 - pooling) * moments.count[:, None, None] * moments.covariances
    scatter = scatter + pooling * moments.count.sum() * moments.pooled
    # A class without samples has weight 0 at pooling 0: the pooled covariance is all that is known about it.
    covariances = np.where(
        (weight > 0)[:, None, None], scatter / np.where(weight > 0, weight, 1)[:, None, None], moments.pooled
    )
    n_nodes = covariances.shape[1]
    level = np.trace(covariances, axis1=1, axis2=2) / n_nodes
    shrunk = (1 - ridge) * covariances + ridge * level[:, None, None] * np.eye(n_nodes)
    return GraphDiscriminant.from_covariances(shrunk, moments.means, moments.priors)
