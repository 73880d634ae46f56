r"""The generative classifier: one Gaussian graph a class, and the class under which an observation is likeliest.

.. math:: s(c \mid z) = \tfrac12 \log\det\Omega_c - \tfrac12 (z - m_c)^T \Omega_c (z - m_c) + \log\pi_c \qquad (18)

An image may be one observation (its node vector z) or many (one vector a patch). Summed over the patches of an image,
(18) depends on them only through their number, their sum and their second moment, so no patch matrix is ever stored.
"""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from cmgl_cli.errors import InputError
from cmgl_cli.heads.calibration import log_softmax
from cmgl_cli.heads.checks import Array, Labels, finite, positive_definite

BLOCK_ROWS = 1024
"""Images whose second moments are converted to float64 at a time: bounds the memory, not the result."""


class GraphDiscriminant:
    """Gaussian class-conditional classifier on precision matrices, equation (18).

    Parameters
    ----------
    precision : array_like, [C, p, p]
        Omega_c, symmetric positive definite; C >= 2.
    means : array_like, [C, p]
        m_c in the space of the observations.
    priors : array_like, [C], optional
        Class probabilities pi_c > 0, normalised here. Without them the classes are equally likely.

    Raises
    ------
    InputError
        If there is one class only, shapes disagree, an entry is not finite, a precision is not positive definite or a
        prior is not positive.
    """

    def __init__(self, precision: ArrayLike, means: ArrayLike, priors: ArrayLike | None = None):
        self._factors = positive_definite("precision", precision)
        self.precision: Array = np.array(precision, dtype=np.float64)
        n_classes, n_nodes = self._factors.shape[:2]
        if n_classes < 2:
            raise InputError("a classifier needs at least two classes", f"got {n_classes}", "add another class")
        self.means: Array = finite("means", means, (n_classes, n_nodes)).copy()
        self.log_priors: Array = _log_priors(priors, n_classes)
        self._half_logdet = np.log(np.diagonal(self._factors, axis1=1, axis2=2)).sum(1)

    @classmethod
    def from_covariances(cls, covariances: ArrayLike, means: ArrayLike, priors: ArrayLike | None = None) -> Self:
        """Build the classifier from covariance matrices [C, p, p] by inverting them."""
        positive_definite("covariances", covariances)
        inverse = np.linalg.inv(np.asarray(covariances, dtype=np.float64))
        return cls((inverse + inverse.transpose(0, 2, 1)) / 2, means, priors)

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.means)

    @property
    def n_nodes(self) -> int:
        """Number of graph nodes p."""
        return self.means.shape[1]

    def scores(self, z: ArrayLike, log_jacobian: ArrayLike | None = None) -> Array:
        """Score every class for every observation, equation (18).

        Parameters
        ----------
        z : array_like, [N, p] or [N, C, p]
            Transformed observations: one vector a sample, or one a sample and class where each class has a transform
            of its own.
        log_jacobian : array_like, [N, C], optional
            Log-determinants of those class transforms. With them the scores are densities of one and the same
            variable; without them scores under class-wise transforms cannot be compared.

        Returns
        -------
        ndarray, float64, [N, C]
            Log-densities up to a constant that all classes share.

        Raises
        ------
        InputError
            If a shape disagrees or a row of `z` is not finite (the row is named).
        """
        per_class = np.ndim(z) == 3
        shape = (None, self.n_classes, self.n_nodes) if per_class else (None, self.n_nodes)
        samples = finite("z", z, shape)
        scores = np.empty((len(samples), self.n_classes))
        for c, factor in enumerate(self._factors):
            whitened = ((samples[:, c] if per_class else samples) - self.means[c]) @ factor
            scores[:, c] = -0.5 * np.einsum("ij,ij->i", whitened, whitened)
        return self._finish(scores + self._half_logdet, log_jacobian)

    def scores_from_moments(
        self, n: ArrayLike, first: ArrayLike, second: ArrayLike, log_jacobian: ArrayLike | None = None
    ) -> Array:
        """Score every class for every image as the sum of (18) over its patches, from sufficient statistics.

        The class prior enters once an image, not once a patch.

        Parameters
        ----------
        n : array_like, [N]
            Number of patches of each image; may differ between images.
        first : array_like, [N, p]
            Sum of the patch observations of each image.
        second : array_like, [N, p, p]
            Sum of their outer products (not centred). Read in blocks of rows, so a memory-mapped array is fine.
        log_jacobian : array_like, [N, C], optional
            Sum over the patches of the class transforms' log-determinants.

        Returns
        -------
        ndarray, float64, [N, C]

        Raises
        ------
        InputError
            If a shape disagrees or a row is not finite.
        """
        sums = finite("first", first, (None, self.n_nodes))
        counts = finite("n", n, (len(sums),))
        offset = np.einsum("cij,cj->ci", self.precision, self.means)
        constant = self._half_logdet - 0.5 * np.einsum("ci,ci->c", offset, self.means)
        scores = counts[:, None] * constant + sums @ offset.T - 0.5 * self._traces(second, len(sums))
        return self._finish(scores, log_jacobian)

    def predict(self, z: ArrayLike, log_jacobian: ArrayLike | None = None) -> Labels:
        """Return the class of highest score for each observation, int64 [N]; ties go to the lower class."""
        return self.scores(z, log_jacobian).argmax(1)

    def log_proba(self, z: ArrayLike, temperature: float = 1.0, log_jacobian: ArrayLike | None = None) -> Array:
        """Return log class probabilities [N, C] of the scores divided by `temperature`."""
        return log_softmax(self.scores(z, log_jacobian), temperature)

    def predict_proba(self, z: ArrayLike, temperature: float = 1.0, log_jacobian: ArrayLike | None = None) -> Array:
        """Return class probabilities [N, C] of the scores divided by `temperature`."""
        return np.exp(self.log_proba(z, temperature, log_jacobian))

    def _traces(self, second: ArrayLike, n_samples: int) -> Array:
        """Return tr(Omega_c S_i) for every image i and class c, [N, C]."""
        moments = np.asarray(second)
        shape = (n_samples, self.n_nodes, self.n_nodes)
        if tuple(moments.shape) != shape:
            raise InputError("second has the wrong shape", f"got {moments.shape}, expected {shape}", "pass [N, p, p]")
        flat = self.precision.reshape(self.n_classes, -1).T
        traces = np.empty((n_samples, self.n_classes))
        for start in range(0, n_samples, BLOCK_ROWS):
            block = np.asarray(moments[start : start + BLOCK_ROWS], dtype=np.float64)
            traces[start : start + len(block)] = block.reshape(len(block), -1) @ flat
        if not np.isfinite(traces).all():
            row = int(np.argwhere(~np.isfinite(traces))[0][0])
            raise InputError("second holds NaN or infinite values", f"first in row {row}", "drop that sample")
        return traces

    def _finish(self, scores: Array, log_jacobian: ArrayLike | None) -> Array:
        """Add the class priors and, where given, the transforms' Jacobians."""
        scores = scores + self.log_priors
        return scores if log_jacobian is None else scores + finite("log_jacobian", log_jacobian, scores.shape)


def _log_priors(priors: ArrayLike | None, n_classes: int) -> Array:
    """Return log pi_c, zero for all classes where none are given."""
    if priors is None:
        return np.zeros(n_classes)
    values = finite("priors", priors, (n_classes,))
    if (values <= 0).any():
        worst = int(values.argmin())
        raise InputError(
            "class priors must be positive",
            f"class {worst} has {values[worst]:g}",
            "leave the class out, or add one to every class count",
        )
    return np.log(values / values.sum())
