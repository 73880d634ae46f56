"""What fits are judged by: Gaussian log-likelihood and the extended BIC."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmgl_cli.errors import InputError

Array = NDArray[np.float64]


def log_likelihood(precision: ArrayLike, covariance: ArrayLike) -> Array:
    """Return logdet Omega_c - tr(Sigma_c Omega_c) of each class [C]: twice the mean log-density up to a constant."""
    omega, sigma = np.asarray(precision, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    sign, determinant = np.linalg.slogdet(omega)
    if (sign <= 0).any():
        raise InputError(
            "a precision matrix is not positive definite",
            f"class {int(np.argmin(sign))}",
            "pass the precision of a fit",
        )
    return determinant - np.einsum("cij,cij->c", sigma, omega)


def ebic_per_class(precision: ArrayLike, covariance: ArrayLike, n: ArrayLike, gamma: float = 0.5) -> Array:
    """Return the extended BIC of each class [C]; see `ebic`."""
    omega = np.asarray(precision, dtype=np.float64)
    omega = omega[None] if omega.ndim == 2 else omega
    sigma = np.asarray(covariance, dtype=np.float64).reshape(omega.shape)
    counts = np.broadcast_to(np.asarray(n, dtype=np.float64), omega.shape[:1])
    if not (np.isfinite(counts).all() and (counts > 0).all()):
        raise InputError("eBIC needs the number of samples of every class", f"n = {n!r}", "pass positive counts")
    edges = np.triu(omega != 0, 1).sum(axis=(1, 2))
    return -counts * log_likelihood(omega, sigma) + edges * (np.log(counts) + 4 * gamma * np.log(omega.shape[-1]))


def ebic(precision: ArrayLike, covariance: ArrayLike, n: ArrayLike, gamma: float = 0.5) -> float:
    """Return the extended BIC (Foygel and Drton 2010), summed over classes.

        sum_c { n_c [tr(Sigma_c Omega_c) - logdet Omega_c] + |E_c| log n_c + 4 gamma |E_c| log p }

    Parameters
    ----------
    precision, covariance : array [C, p, p] or [p, p]
        |E_c| counts the non-zero off-diagonal pairs of ``precision``.
    n : int or array [C]
        Samples of each class.
    gamma : float
        Extension parameter; 0 is the BIC.
    """
    return float(ebic_per_class(precision, covariance, n, gamma).sum())
