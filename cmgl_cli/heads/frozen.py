"""Scores that training does not change: computed once an image, and honest about images the graphs have seen.

Graphs score the images that they were fitted on better than others, so a decoder trained beside such scores trusts them
too much. With cross-fits, an image of the training part is scored by graphs fitted without it and its sequence; every
other image by the graphs themselves.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cmgl_cli.heads.caching import ScoreCache
from cmgl_cli.heads.evidence import GraphEvidence, PatchInputs


@dataclass(frozen=True)
class CrossFits:
    """Graphs without each fold of the training images.

    Attributes
    ----------
    evidence : sequence of GraphEvidence
        One a fold, fitted on the others.
    fold : mapping of int to int
        Row of a training image to its fold.
    """

    evidence: Sequence[GraphEvidence]
    fold: Mapping[int, int]


class FrozenScoring(nn.Module, ABC):
    """A decoder part of whose logits are scores that nothing trains.

    Subclasses say in `likelihood` what these are, and take them from `frozen`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cache = ScoreCache()
        # no submodules: they take part in training only, and a stored decoder has no use for them
        self._others: list[FrozenScoring] = []
        self._fold: Mapping[int, int] = {}

    @abstractmethod
    def likelihood(self, inputs: PatchInputs) -> Tensor:
        """Return the scores of a batch, [B, ...], by this decoder's own graphs."""

    def cross_fit(self, others: "Sequence[FrozenScoring]", fold: Mapping[int, int]) -> None:
        """Let an image that `fold` names be scored by that one of `others`, whose graphs were fitted without it."""
        self._others, self._fold = list(others), fold

    def frozen(self, inputs: PatchInputs) -> Tensor:
        """Return the scores of a batch, from memory where they have been computed."""
        return self.cache.scores(inputs.rows, lambda: self._computed(inputs))

    def _computed(self, inputs: PatchInputs) -> Tensor:
        owners = [self._fold.get(row, -1) for row in inputs.rows or ()]
        if not any(owner >= 0 for owner in owners):
            return self.likelihood(inputs)
        parts: dict[int, Tensor] = {}
        for owner in sorted(set(owners)):
            chosen = torch.tensor([place for place, other in enumerate(owners) if other == owner])
            scorer = self if owner < 0 else self._others[owner].to(inputs.observations.device)
            for place, scores in zip(chosen.tolist(), scorer.likelihood(inputs.of(chosen)), strict=True):
                parts[place] = scores
        return torch.stack([parts[place] for place in range(len(owners))])
