"""Covariances pulled to what they would be without the error of their estimation."""

import math

import torch
from torch import Tensor

_FLOOR = 1e-5
"""Smallest eigenvalue, in units of their mean: the formula's bandwidths are proportional to the eigenvalues."""
_LEAST_ROWS = 1.2
"""Rows at least, in units of the columns: with fewer rows than columns another formula holds."""


def shrunk_to_diagonal(covariance: Tensor, share: float) -> Tensor:
    """Return a covariance ``(n, n)`` of which this share is its own diagonal."""
    return (1 - share) * covariance + share * torch.diag(covariance.diagonal())


def shrunk_spectrum(covariance: Tensor, n_rows: float) -> Tensor:
    """Return a sample covariance with its eigenvalues moved to where the true ones are, as far as rows can tell.

    Sampling spreads the eigenvalues: of 60 equal ones, 1000 rows show some as small as 0.57 and some as large as 1.55.
    The analytical non-linear formula takes that spread back eigenvalue by eigenvalue, from the density of all of them
    and its Hilbert transform, and so leaves alone an eigenvalue that lies apart from the others.

    Parameters
    ----------
    covariance : Tensor, shape (n, n)
        Symmetric.
    n_rows : float
        Independent rows that it was estimated from.

    Returns
    -------
    Tensor, shape (n, n)
        With the same eigenvectors.

    Notes
    -----
    Ledoit and Wolf, Analytical nonlinear shrinkage of large-dimensional covariance matrices, Annals of Statistics
    48(5), 2020, section 4 (Epanechnikov kernel, bandwidth ``n_rows ** (-1/3)``).
    """
    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
    values = values.clamp_min(_FLOOR * float(values.mean()))
    rows = max(n_rows, _LEAST_ROWS * len(values))
    width = rows ** (-1 / 3) * values
    apart = (values[:, None] - values) / width
    inside = 1 - apart**2 / 5
    density = (3 / (4 * math.sqrt(5)) * inside.clamp_min(0) / width).mean(1)
    # at the kernel's ends the factor before the logarithm is 0
    ratio = ((math.sqrt(5) - apart) / (math.sqrt(5) + apart)).abs().clamp(1e-12, 1e12)
    hilbert = -3 / (10 * math.pi) * apart + 3 / (4 * math.sqrt(5) * math.pi) * inside * torch.log(ratio)
    hilbert = (hilbert / width).mean(1)
    share = len(values) / rows
    spread = (math.pi * share * values * density) ** 2 + (1 - share - math.pi * share * values * hilbert) ** 2
    return (vectors * (values / spread)) @ vectors.mT
