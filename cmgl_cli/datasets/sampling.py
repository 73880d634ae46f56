"""Smaller sets of samples for trials: seeded and stratified."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from cmgl_cli.datasets.records import Sample
from cmgl_cli.datasets.splits import proportional, rank_key
from cmgl_cli.errors import UsageError


def subset(samples: Sequence[Sample], limit: int | None, seed: int = 0) -> tuple[Sample, ...]:
    """Choose at most ``limit`` samples, stratified by split and label, in their original order.

    A sample with several labels counts under the rarest of them, so that rare classes survive small limits.

    Parameters
    ----------
    samples : sequence of Sample
        What to choose from.
    limit : int or None
        Number of samples wanted; None keeps all.
    seed : int
        Seed of the choice.

    Returns
    -------
    tuple of Sample
        ``min(limit, len(samples))`` samples.

    Raises
    ------
    UsageError
        If ``limit`` is below 1.
    """
    if limit is None or limit >= len(samples):
        return tuple(samples)
    if limit < 1:
        raise UsageError("a subset needs at least one sample", f"limit = {limit}", "give --limit 1 or more")
    frequency = Counter(label for sample in samples for label in sample.labels)
    members: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        members[sample.split, min(sample.labels, key=lambda label: (frequency[label], label), default=-1)].append(index)
    counts = proportional({key: len(rows) for key, rows in members.items()}, limit)
    chosen: list[int] = []
    for key, rows in members.items():
        chosen += sorted(rows, key=lambda row: rank_key(seed, samples[row].id))[: counts[key]]
    return tuple(samples[index] for index in sorted(chosen))
