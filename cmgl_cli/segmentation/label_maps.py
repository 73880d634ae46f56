"""The masks artifact as stages use it: label maps row by row beside the features, checked to belong together."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmgl_cli.artifacts import Artifact, SampleTable
from cmgl_cli.errors import InputError, StaleError

COUNTED_ROWS = 64


@dataclass(frozen=True)
class LabelMaps:
    """Masks of the images of a features or nodes artifact, in its order.

    Attributes
    ----------
    maps : array-like, int, [n, r, r]
        Indices into `classes`, or `ignore_label`; rows are read when they are sliced.
    known : ndarray of bool, [n]
    classes : ndarray of str, [M]
        The image classes, after a background of their own where the masks have one.
    offset : int
        1 where there is such a background: mask value = image label + offset.
    ignore_label : int
    palette : ndarray of uint8, [M, 3], or None
    table : SampleTable
        With the classes in each mask as labels, where the dataset has no image labels of its own.
    """

    maps: Any
    known: np.ndarray
    classes: np.ndarray
    offset: int
    ignore_label: int
    palette: np.ndarray | None
    table: SampleTable

    @classmethod
    def read(cls, masks: Artifact, ids: np.ndarray, where: object) -> "LabelMaps":
        """Open the masks of the samples `ids` of the artifact at `where`.

        Raises
        ------
        StaleError
            The masks are those of other samples.
        """
        table = SampleTable.read(masks)
        if len(ids) != len(table) or (table.ids != ids).any():
            raise StaleError(
                "masks and features are of different samples",
                f"{masks.path}: {len(table)} masks; {where}: {len(ids)} samples",
                "run cmgl extract again with the same --split, --limit and --seed for both",
            )
        names = masks["mask_classes"]
        return cls(
            maps=masks.stream("mask"),
            known=masks["known"],
            classes=names,
            offset=len(names) - len(table.classes),
            ignore_label=int(masks["ignore_label"][0]),
            palette=masks["palette"].astype(np.uint8) if "palette" in masks else None,
            table=table,
        )

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of pixels of each class [M] in some rows.

        Raises
        ------
        InputError
            None of them has a pixel of any class.
        """
        counts = np.zeros(len(self.classes), dtype=np.int64)
        for start in range(0, len(self.known), COUNTED_ROWS):
            wanted = rows[(rows >= start) & (rows < start + COUNTED_ROWS)] - start
            if len(wanted):
                block = self.maps[start : start + COUNTED_ROWS][wanted]
                counts += np.bincount(block[block != self.ignore_label], minlength=len(counts))
        if not counts.any():
            raise InputError(
                "the masks of the training images show no class", f"{len(rows)} masks", "check masks and ignore label"
            )
        return counts


def require_one_grid(features: Artifact) -> tuple[int, int]:
    """Return the patch grid that all images share.

    Raises
    ------
    InputError
        Grids differ, or the encoder's preprocessing crops, so that patches do not cover the mask.
    """
    rule = json.loads(features.identity.digests["settings"]).get("preprocessing", {})
    if rule.get("do_center_crop"):
        raise InputError(
            "the encoder's preprocessing cuts the borders off, so patches and masks do not cover each other",
            f"{features.path}: encoder {features.config['encoder']}, do_center_crop: true",
            'set "do_center_crop": false and "size": {"height": ..., "width": ...} in its preprocessor_config.json, '
            "or take an encoder that resizes (SigLIP 2)",
        )
    grids = np.unique(features["grid"][features["valid"]], axis=0)
    if len(grids) != 1:
        raise InputError(
            "label maps need one patch grid for all images",
            f"{features.path}: {len(grids)} different grids",
            "encode with an encoder of fixed resolution",
        )
    return int(grids[0, 0]), int(grids[0, 1])


def shrunk(mask: np.ndarray, size: int, ignored: int | None, ignore: int) -> np.ndarray:
    """Return a label map [size, size] by the label at the centre of each cell; `ignored` becomes `ignore`."""
    rows, columns = (((np.arange(size) + 0.5) * length / size).astype(np.int64) for length in mask.shape)
    small = mask[rows[:, None], columns[None]]
    return small if ignored is None else np.where(small == ignored, ignore, small)
