"""Hold-out cells that look like the record's own gaps: the gaps themselves, moved in time."""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_MOST, _LEAST, _SHIFTS, _PERIODS = 0.15, 0.08, 12, 4


def transplanted_gaps(missing: Mask, period: int, rng: np.random.Generator) -> Mask:
    """Return observed cells to hide, True where hidden, in the shapes of the gaps.

    The whole pattern of gaps is rolled by whole periods (then by any number of steps, where those do not suffice), so
    that outages stay outages and a gap in January stays one. In records of few years it is rolled by any number of
    steps at once: a whole year would leave a station with no January at all, where in truth one of its two is observed,
    and pulls the climatology towards itself. Rows that have gaps of their own lose a quarter of the
    stations struck, complete rows lose all of them; blocks of time are dropped until at most 15 % of the observed
    cells are hidden.

    Parameters
    ----------
    missing : ndarray of bool, shape (n_times, n_stations, n_variables)
        The record's gaps.
    period : int
        Steps of a year (or of a day), where the record is longer than that; else 1.
    rng : Generator
        Source of the shifts.
    """
    n_times = len(missing)
    observed = ~missing
    hidden = np.zeros_like(missing)
    own: Mask = np.greater(missing.reshape(n_times, -1).mean(axis=1), 0.05)
    n_whole = n_times // period if n_times >= _PERIODS * period else 0
    whole = rng.permutation(np.arange(1, max(1, n_whole)))[:_SHIFTS] * period
    for shift in [*whole, *rng.permutation(np.arange(1, max(2, n_times)))[:_SHIFTS]]:
        struck = np.roll(missing, shift, axis=0) & observed
        spared: Mask = np.greater(rng.random(missing.shape[1]), 0.25)
        struck &= ~(own[:, None, None] & spared[None, :, None])
        hidden |= struck & ~_bare(missing, struck | hidden, period, rng)
        if hidden.sum() >= _LEAST * observed.sum():
            break
    return _thinned(hidden | _scattered(hidden, observed, rng), observed, rng)


def _bare(missing: Mask, hidden: Mask, period: int, rng: np.random.Generator) -> Mask:
    """Return the hidden cells that would leave their series without an observation in their twelfth of the year.

    They are much harder to fill than others. As large a share of them may stay as there is among the record's own gaps.
    """
    season = (np.arange(len(missing)) % period) * 12 // period

    def alone(gaps: Mask) -> Mask:
        seen = np.zeros((12, *missing.shape[1:]), dtype=bool)
        for k in range(12):
            seen[k] = (~gaps[season == k]).any(axis=0)
        return gaps & ~seen[season]

    share = alone(missing).sum() / max(int(missing.sum()), 1)
    return alone(missing | hidden) & (rng.random(missing.shape) >= share)


def _scattered(hidden: Mask, observed: Mask, rng: np.random.Generator) -> Mask:
    """Return a few single cells where gaps are too rare to judge by."""
    shortfall = max(0.0, 0.01 * observed.sum() - hidden.sum()) / max(observed.sum(), 1)
    return observed & (rng.random(observed.shape) < shortfall)


def _thinned(hidden: Mask, observed: Mask, rng: np.random.Generator) -> Mask:
    blocks = np.array_split(np.arange(len(hidden)), min(24, len(hidden)))
    allowed = _MOST * observed.sum()
    for block in rng.permutation(len(blocks)):
        if hidden.sum() <= allowed:
            break
        hidden[blocks[block]] = False
    return hidden
