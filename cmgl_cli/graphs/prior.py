"""From attention to penalty weights: the prior of the auxiliary modality (CM-GLasso, equations 4, 5 and 11)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from cmgl_cli.errors import InputError

Array = NDArray[np.float64]


def attention_prior(attention: ArrayLike) -> Array:
    """Return the cosine similarity of the nodes' attention maps, equation (5).

    Parameters
    ----------
    attention : array [C, p, ...] (or [p, N_p] for one class)
        Attention of every node over the patches, averaged over the samples of a class, equation (4); non-negative.

    Returns
    -------
    ndarray [C, p, p], float64
        Entries in [0, 1], unit diagonal, symmetric.

    Raises
    ------
    InputError
        If an entry is negative or not finite, or a node attends to nothing.
    """
    maps = np.asarray(attention, dtype=np.float64)
    if maps.ndim == 2:
        maps = maps[None]
    if maps.ndim < 3:
        raise InputError(
            "attention needs classes, nodes and patches", f"shape {maps.shape}", "pass an array [C, p, N_p]"
        )
    maps = maps.reshape(*maps.shape[:2], -1)
    if not np.isfinite(maps).all() or (maps < 0).any():
        raise InputError(
            "attention must be finite and non-negative", f"minimum {np.nanmin(maps):g}", "pass softmax weights"
        )
    norm = np.linalg.norm(maps, axis=2, keepdims=True)
    if (norm == 0).any():
        label, node, _ = np.argwhere(norm == 0)[0]
        raise InputError("a node attends to nothing", f"class {label}, node {node}", "drop the node or the class")
    unit = maps / norm
    prior = np.clip(unit @ unit.transpose(0, 2, 1), 0.0, 1.0)
    prior = (prior + prior.transpose(0, 2, 1)) / 2
    prior[:, np.arange(prior.shape[1]), np.arange(prior.shape[1])] = 1.0
    return prior


def prior_weights(prior: ArrayLike, k: ArrayLike, midpoint: ArrayLike = 0.5) -> Array:
    """Return the penalty weights ``W = 1 - 1 / (1 + exp(-k (P - midpoint)))``, equation (11), in stable form.

    Parameters
    ----------
    prior : array [C, p, p] or [p, p]
        Edge priors in [0, 1].
    k : float or array [C]
        Sharpness; 0 gives the uniform weight 1/2.
    midpoint : float or array [C]
        Prior at which the weight is 1/2; see `prior_midpoint` for a data-driven one.

    Returns
    -------
    ndarray like ``prior``, float64, in [0, 1]
    """
    values = np.asarray(prior, dtype=np.float64)
    sharpness, centre = np.asarray(k, dtype=np.float64), np.asarray(midpoint, dtype=np.float64)
    if not (np.isfinite(sharpness).all() and (sharpness >= 0).all()):
        raise InputError("sharpness must be finite and not negative", f"k = {k!r}", "use values in 0..50")
    if sharpness.ndim:
        sharpness = sharpness[:, None, None]
    if centre.ndim:
        centre = centre[:, None, None]
    return expit(-sharpness * (values - centre))


def prior_midpoint(prior: ArrayLike, quantile: float = 0.5) -> Array:
    """Return per class the given quantile of the off-diagonal priors [C]: a midpoint that diffuse attention needs."""
    values = np.asarray(prior, dtype=np.float64)
    rows, columns = np.triu_indices(values.shape[-1], 1)
    return np.quantile(np.atleast_3d(values.T).T[:, rows, columns], quantile, axis=1)


def penalty_scale(weights: ArrayLike) -> Array:
    """Return per class the factor p (p - 1) / sum of the off-diagonal weights [C].

    Multiplying gamma by it keeps the total penalty of a class that of W = 1, so that fits of different sharpness are
    compared at equal total penalty. A class whose weights are all zero has no such factor and raises `InputError`; a
    single node has no weights, and factor 1.
    """
    values = np.asarray(weights, dtype=np.float64)
    values = values[None] if values.ndim == 2 else values
    p = values.shape[-1]
    if p == 1:
        return np.ones(len(values))
    total = values.sum(axis=(1, 2)) - np.trace(values, axis1=1, axis2=2)
    if (total <= 0).any():
        raise InputError(
            "weights of a class are all zero", f"class {int(np.argmin(total))}", "lower k or set a weight floor"
        )
    return p * (p - 1) / total


@dataclass(frozen=True)
class PriorSummary:
    """Distribution of the off-diagonal priors of one class or of all.

    Attributes
    ----------
    quantiles : tuple of five floats
        Minimum, quartiles and maximum of the off-diagonal entries.
    spread : float
        Difference of the 95 % and the 5 % quantile.
    share_near_one : float
        Share of entries above 0.95.
    informative : bool
        False when the spread is below 0.05: such a prior shifts all penalties alike and says nothing about edges.
    """

    quantiles: tuple[float, float, float, float, float]
    spread: float
    share_near_one: float
    informative: bool


def summarize_prior(prior: ArrayLike) -> PriorSummary:
    """Summarise the off-diagonal entries of ``prior`` [C, p, p] or [p, p]."""
    values = np.asarray(prior, dtype=np.float64)
    if values.ndim not in (2, 3) or values.shape[-1] < 2:
        raise InputError("a prior needs at least two nodes", f"shape {values.shape}", "pass an array [C, p, p]")
    rows, columns = np.triu_indices(values.shape[-1], 1)
    entries = values[..., rows, columns].ravel()
    low, first, middle, third, high = (float(v) for v in np.quantile(entries, [0, 0.25, 0.5, 0.75, 1]))
    spread = float(np.quantile(entries, 0.95) - np.quantile(entries, 0.05))
    return PriorSummary((low, first, middle, third, high), spread, float((entries > 0.95).mean()), spread >= 0.05)
