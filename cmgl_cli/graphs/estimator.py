"""`JointGraphicalLasso`: the engine behind scikit-learn's interface."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from cmgl_cli.graphs.covariance import class_covariances, correlation
from cmgl_cli.graphs.criteria import log_likelihood
from cmgl_cli.graphs.joint import fit_joint
from cmgl_cli.graphs.nonparanormal import Nonparanormal


class JointGraphicalLasso(BaseEstimator):
    """Common and class-specific sparse precision matrices of labelled samples.

    Parameters
    ----------
    rho, gamma : float
        Penalties of the common and the specific parts.
    weights : array [C, p, p], [p, p] or float
        W in [0, 1].
    nonparanormal : bool
        Transform every node to normal scores first.
    solver : str
        See `fit_joint`.
    tol : float
        Certified relative gap.
    max_iter : int

    Attributes
    ----------
    classes_ : ndarray [C]
    precision_, covariance_ : ndarray [C, p, p]
        Estimated precision and the correlation it was fitted to.
    common_ : ndarray [p, p]
    specific_ : ndarray [C, p, p]
    location_, scale_ : ndarray [C, p]
        Mean and standard deviation of every class in the (transformed) sample.
    result_ : JointResult
    n_iter_ : int
    n_features_in_ : int
    """

    def __init__(
        self,
        rho: float = 0.1,
        gamma: float = 0.1,
        weights: Any = 1.0,
        nonparanormal: bool = False,
        solver: str = "auto",
        tol: float = 1e-6,
        max_iter: int = 5000,
    ):
        self.rho, self.gamma, self.weights = rho, gamma, weights
        self.nonparanormal, self.solver, self.tol, self.max_iter = nonparanormal, solver, tol, max_iter

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> "JointGraphicalLasso":
        """Fit to ``X`` [N, p] with class labels ``y`` [N]; without labels all samples are one class."""
        values = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self.classes_, labels = self._labels(y, len(values))
        if self.nonparanormal:
            self.transform_ = Nonparanormal().fit(values)
            values = self.transform_.transform(values)
        covariance = class_covariances(values, labels, len(self.classes_))
        self.location_ = np.array([values[labels == c].mean(0) for c in range(len(self.classes_))])
        self.covariance_ = correlation(covariance)
        self.scale_ = np.sqrt(np.einsum("cii->ci", covariance))
        self.result_ = fit_joint(
            self.covariance_,
            self.weights,
            self.rho,
            self.gamma,
            tol=self.tol,
            max_iter=self.max_iter,
            solver=self.solver,
        )
        self.precision_, self.common_ = self.result_.precision, self.result_.common
        self.specific_, self.n_iter_ = self.result_.specific, max(1, self.result_.n_iter)
        return self

    def score(self, X: ArrayLike, y: ArrayLike | None = None) -> float:
        """Return the mean Gaussian log-likelihood per sample in nats, each sample under its own class."""
        check_is_fitted(self)
        values = validate_data(self, X, dtype=np.float64, reset=False)
        if self.nonparanormal:
            values = self.transform_.transform(values)
        labels = np.zeros(len(values), dtype=np.int64) if y is None else np.searchsorted(self.classes_, np.asarray(y))
        total = 0.0
        for c in np.unique(labels):
            centred = (values[labels == c] - self.location_[c]) / self.scale_[c]
            scatter = centred.T @ centred / len(centred)
            fit = float(log_likelihood(self.precision_[c][None], scatter[None])[0])
            log_scale = 2 * np.log(self.scale_[c]).sum() + values.shape[1] * np.log(2 * np.pi)
            total += 0.5 * len(centred) * (fit - log_scale)
        return total / len(values)

    def _labels(self, y: ArrayLike | None, n_samples: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        if y is None:
            return np.zeros(1, dtype=np.int64), np.zeros(n_samples, dtype=np.int64)
        labels = np.asarray(y)
        check_classification_targets(labels)
        classes, index = np.unique(labels, return_inverse=True)
        return classes, index.astype(np.int64)
