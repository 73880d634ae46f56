"""Labelled images as decoders are trained and judged on them: batches of tokens, masks and small images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from cmgl_cli.artifacts import Artifact
from cmgl_cli.heads.appearance import fine_grid
from cmgl_cli.heads.segmentation_training import SegmentationBatch
from cmgl_cli.nodes.reader import BlockShuffledReader, ReaderPlan
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
    """

    view: PatchView
    features: Artifact
    maps: LabelMaps
    pictures: Pictures | None
    memory_bytes: int
    batch_size: int
    seed: int

    def batches(self, rows: np.ndarray, *, shuffle: bool = True) -> Callable[[int], Iterator[SegmentationBatch]]:
        """Return a function from the number of an epoch to its batches."""
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

        def epoch(number: int) -> Iterator[SegmentationBatch]:
            for index, batch in enumerate(reader.epoch(number)):
                images = None
                if self.pictures is not None:
                    images = np.stack([self.pictures(int(row)) for row in batch.indices])
                rows, columns = thinned(stride, number + index)
                masks = torch.from_numpy(batch.aligned["mask"][:, rows, columns].astype(np.int64)).to(self.view.device)
                yield SegmentationBatch(self.view.inputs(batch.patches, images, batch.indices), masks)

        return epoch


def thinned(stride: int, turn: int) -> tuple[slice, slice]:
    """Return which rows and columns of a mask stand for cells of `stride` by `stride` labels.

    An even number of labels has none in the middle: the four around it take turns. Always the same one would teach
    decoders to shift what they draw by half a label.
    """
    middles = (stride // 2, (stride - 1) // 2)
    return slice(middles[turn % 2], None, stride), slice(middles[turn // 2 % 2], None, stride)
