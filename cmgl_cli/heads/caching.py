"""Scores that training does not change, computed once an image and not once an epoch."""

from collections.abc import Callable

import torch
from torch import Tensor

CACHE_BYTES = 2**30
"""Scores kept by one decoder; those of further images are computed anew every time."""


class ScoreCache:
    """Scores by image, kept as they were computed first.

    Parameters
    ----------
    limit : int
        Bytes kept at most.
    """

    def __init__(self, limit: int = CACHE_BYTES):
        self._room, self._kept = limit, dict[int, Tensor]()

    def scores(self, rows: tuple[int, ...] | None, compute: Callable[[], Tensor]) -> Tensor:
        """Return what `compute` returns for a batch, [B, ...], from memory where all its images are kept.

        Parameters
        ----------
        rows : tuple of int, or None
            Which images these are; None keeps nothing.
        compute : callable
            Must not depend on anything that is trained.
        """
        if rows is None:
            return compute()
        if all(row in self._kept for row in rows):
            return torch.stack([self._kept[row] for row in rows])
        with torch.no_grad():
            fresh = compute()
        size = fresh[0].numel() * fresh.element_size()
        for row, values in zip(rows, fresh, strict=True):
            if row not in self._kept and self._room >= size:
                self._kept[row] = values.clone()
                self._room -= size
        return fresh
