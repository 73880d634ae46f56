"""Whether a prior earns its place: held-out likelihoods of a grid in, the sharpness of every class out.

Three things make random priors look good, and each is met here:

* *Seen samples.* A prior made from the sample agrees with its noise, so only samples that neither fit nor prior saw
  may judge (`select_joint` takes a prior a fold).
* *Too large a penalty.* At one (rho, gamma) a sharp prior relieves some entries of their penalty; where that penalty
  is too large, relieving any entries helps. So a prior is held against the best fit *without* it over all cells.
* *Choosing the best of many.* The largest of many noisy gains is positive. So the gain that counts is measured on
  each fold with cell and k chosen on the other folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
CLASS_ERRORS = 1.0


@dataclass(frozen=True)
class Judgement:
    """What held-out samples say of a prior.

    Attributes
    ----------
    cell : int
        The cell to use.
    k : ndarray of int [C]
        Index of the sharpness to use, a class; that of the least sharpness where the prior is rejected.
    gain : ndarray [C]
        Held-out log-likelihood per sample over the best fit without the prior, cell and k chosen on the other folds.
    gain_error : ndarray [C]
        Its standard error over folds.
    total : tuple of two floats
        The same, averaged over the classes by their samples.
    accepted : bool
        Whether the total exceeds ``strictness`` of its errors.
    """

    cell: int
    k: Indices
    gain: Array
    gain_error: Array
    total: tuple[float, float]
    accepted: bool


def judge(
    heldout: Sequence[Array], share: Array, baseline: int, strictness: float = 2.0, shared: bool = False
) -> Judgement:
    """Choose cell and sharpness by held-out log-likelihood, and reject a prior that does not pay.

    Parameters
    ----------
    heldout : sequence of arrays [F, K, C], one a cell
        Held-out log-likelihood per sample; NaN where a k was not tried.
    share : array [C]
        Share of every class in the samples.
    baseline : int
        Index of the sharpness that stands for no prior.
    strictness : float
        The prior is used at all only if its total gain exceeds so many standard errors. A class then takes its own k
        if its gain there exceeds one standard error.
    shared : bool
        One k for all classes.

    Returns
    -------
    Judgement
    """
    table = np.stack(list(heldout))
    everything = np.arange(table.shape[1])
    without, best, pick = choose(table, everything, share, baseline, shared)
    columns = np.arange(len(share))
    if len(everything) > 1:
        nested = np.empty((len(everything), len(share)))
        for fold in everything:
            base, cell, k = choose(table, everything[everything != fold], share, baseline, shared)
            nested[fold] = table[cell, fold, k, columns] - table[base, fold, baseline]
    else:
        nested = table[best][:, pick, columns] - table[without][:, baseline]
    gain, error = mean_and_error(nested)
    total, total_error = mean_and_error(nested @ share)
    accepted = bool(total > strictness * total_error)
    kept = np.full(len(share), accepted)
    if not shared:
        mean, spread = mean_and_error(table[best][:, pick, columns] - table[without][:, baseline])
        kept &= mean > CLASS_ERRORS * spread
    k = np.where(kept, pick, baseline)
    cell = best if (k != baseline).any() else without
    return Judgement(cell, k, gain, error, (float(total), float(total_error)), accepted)


def mean_and_error(values: Array) -> tuple[Array, Array]:
    """Return mean and standard error over the first axis; a single value has no error."""
    error = values.std(0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.zeros(values.shape[1:])
    return values.mean(0), error


def choose(table: Array, folds: Indices, share: Array, baseline: int, shared: bool) -> tuple[int, int, Indices]:
    """Return the best cell without the prior, the best with it, and there the best k of every class, by these folds."""
    means = np.nan_to_num(table[:, folds].mean(1), nan=-np.inf)
    without = int((means[:, baseline] @ share).argmax())
    if shared:
        totals = means @ share
        best, k = np.unravel_index(totals.argmax(), totals.shape)
        return without, int(best), np.full(len(share), int(k))
    best = int((means.max(1) @ share).argmax())
    return without, best, means[best].argmax(0)
