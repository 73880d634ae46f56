"""Labelled images as decoders are trained and judged on them: batches of tokens, masks and small images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from cmgl_cli.artifacts import Artifact
from cmgl_cli.heads.appearance import fine_grid
from cmgl_cli.heads.segmentation_training import SegmentationBatch
from cmgl_cli.nodes.reader import Batch, BlockShuffledReader, ReaderPlan
from cmgl_cli.segmentation.augmented import AugmentedRows
from cmgl_cli.segmentation.label_maps import LabelMaps
from cmgl_cli.segmentation.views import PatchView

Pictures = Callable[[int], np.ndarray]
"""Row to its image, uint8 [r, r, 3]."""


@dataclass(frozen=True)
class SegmentationData:
    """Labelled images, ready for training: tokens, label maps and, for decoders that look at them, pictures.

    Attributes
    ----------
    view : PatchView
    features : Artifact
    maps : LabelMaps
    pictures : callable, optional
    memory_bytes : int
        Tokens kept in memory; more is read again every epoch.
    batch_size, seed : int
    augmented : AugmentedRows, optional
        Further looks at training images, which take turns with them.
    """

    view: PatchView
    features: Artifact
    maps: LabelMaps
    pictures: Pictures | None
    memory_bytes: int
    batch_size: int
    seed: int
    augmented: AugmentedRows | None = None

    def batches(self, rows: np.ndarray, *, shuffle: bool = True) -> "Epochs":
        """Return a function from the number of an epoch to its batches, with further looks where asked for."""
        reader = BlockShuffledReader(
            self.features.stream("features"),
            rows,
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            aligned={"mask": self.maps.maps},
            plan=ReaderPlan(memory_bytes=self.memory_bytes),
        )

        # masks finer than cells tell decoders little and cost as much again; they are judged by all there is
        size = self.maps.maps.shape[1]
        stride = max(1, size // max(fine_grid(self.view.grid, size))) if shuffle else 1

        def epoch(number: int, looks: bool = False) -> Iterator[SegmentationBatch]:
            for index, batch in enumerate(reader.epoch(number)):
                seen = self._seen(batch, number if looks else None)
                rows, columns = thinned(stride, number + index)
                masks = torch.from_numpy(seen.masks[:, rows, columns].astype(np.int64)).to(self.view.device)
                yield SegmentationBatch(self.view.inputs(seen.patches, seen.pictures, seen.numbers), masks)

        return epoch

    def _seen(self, batch: Batch, number: int | None) -> "_Seen":
        """Return a batch with its pictures; copies stand in where it is their turn in a pass."""
        rows, found = batch.indices.tolist(), dict[int, dict[str, np.ndarray]]()
        numbers = batch.indices
        if self.augmented is not None and number is not None:
            numbers = self.augmented.turn(numbers, number)
            found = {
                place: self.augmented.read(int(numbers[place])) for place in np.flatnonzero(numbers != rows).tolist()
            }
        patches, masks = batch.patches, batch.aligned["mask"]
        if found:
            patches, masks = patches.copy(), masks.copy()
        for place, copy in found.items():
            patches[place], masks[place] = copy["features"], copy["mask"]
        pictures = None
        if self.pictures is not None:
            pictures = np.stack(
                [found[place]["picture"] if place in found else self.pictures(row) for place, row in enumerate(rows)]
            )
        return _Seen(patches, masks, pictures, numbers)


class Epochs(Protocol):
    """Passes over some images, whose tokens are kept in memory."""

    def __call__(self, number: int, looks: bool = False) -> Iterator[SegmentationBatch]:
        """Return the batches of pass `number`, with further looks at the images in turn with these or without."""
        ...


class _Seen(NamedTuple):
    """What a batch shows: tokens, masks, pictures, and which images or copies these are."""

    patches: np.ndarray
    masks: np.ndarray
    pictures: np.ndarray | None
    numbers: np.ndarray


def thinned(stride: int, turn: int) -> tuple[slice, slice]:
    """Return which rows and columns of a mask stand for cells of `stride` by `stride` labels.

    An even number of labels has none in the middle: the four around it take turns. Always the same one would teach
    decoders to shift what they draw by half a label.
    """
    middles = (stride // 2, (stride - 1) // 2)
    return slice(middles[turn % 2], None, stride), slice(middles[turn // 2 % 2], None, stride)
