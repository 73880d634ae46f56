"""Splits: their names, and the seeded division of datasets that come without any.

Every choice ranks names by the SHA-256 of seed and name. A rank does not depend on numpy's generators, on
the order of the files or on which other samples are there, so a split stays the same on every machine and
hardly moves when images are added.
"""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Mapping
from typing import TypeVar

Stratum = TypeVar("Stratum", bound=Hashable)

DEFAULT_FRACTIONS = {"train": 0.6, "val": 0.15, "test": 0.25}
"""Shares per class where a dataset has no split of its own."""

_CANONICAL = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def is_split(name: str) -> bool:
    """Whether a folder of this name is a split rather than a class."""
    return name.lower() in _CANONICAL


def canonical_split(name: str) -> str:
    """Return ``train``, ``val`` or ``test`` for the usual spellings of them, and other names as they are."""
    return _CANONICAL.get(name.lower(), name)


def rank_key(seed: int, name: str) -> bytes:
    """Return the SHA-256 digest of seed and name: sorting by it is the seeded shuffle used everywhere."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def assign_splits(strata: Mapping[str, Hashable], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Divide names among splits, stratum by stratum.

    Parameters
    ----------
    strata : mapping of str to hashable
        Name of each sample -> its stratum (its class).
    fractions : mapping of str to float
        Split -> its share; the shares sum to 1. Rounding favours the splits named first.
    seed : int
        Seed of the ranking.

    Returns
    -------
    dict of str to str
        Name -> split.
    """
    members: dict[Hashable, list[str]] = defaultdict(list)
    for name, stratum in strata.items():
        members[stratum].append(name)
    splits = {}
    for names in members.values():
        counts = proportional(dict(fractions), len(names))
        order = iter(sorted(names, key=lambda name: rank_key(seed, name)))
        splits.update({next(order): split for split, count in counts.items() for _ in range(count)})
    return splits


def proportional(weights: Mapping[Stratum, float], total: int) -> dict[Stratum, int]:
    """Divide ``total`` items in proportion to the weights, by the largest remainder (ties: first come)."""
    scale = total / sum(weights.values())
    counts = {key: int(weight * scale) for key, weight in weights.items()}
    remainders = sorted(weights, key=lambda key: counts[key] - round(weights[key] * scale, 9))
    for key in remainders[: total - sum(counts.values())]:
        counts[key] += 1
    return counts
