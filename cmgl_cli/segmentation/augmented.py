"""Further looks at training images: how they are made for the encoder, and how training takes them from an artifact."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from cmgl_cli.artifacts import Artifact, SampleTable
from cmgl_cli.datasets import Dataset, Sample
from cmgl_cli.errors import InputError, StaleError
from cmgl_cli.segmentation.augmentation import Augmentation
from cmgl_cli.segmentation.label_maps import LabelMaps, shrunk
from cmgl_cli.segmentation.pictures import small_picture


class AugmentedImages:
    """Copies of the training images that have masks, as an encoder reads them, one row a copy.

    Parameters
    ----------
    dataset : Dataset
    samples : sequence of Sample
        Those of the masks, in their order.
    maps : LabelMaps
    copies : int
        Of every image.
    seed : int

    Raises
    ------
    InputError
        No training image has a mask.
    """

    def __init__(self, dataset: Dataset, samples: Sequence[Sample], maps: LabelMaps, copies: int, seed: int):
        self._dataset, self._ignore, self._copies, self._seed = dataset, maps.ignore_label, copies, seed
        self._size, self._kind = int(maps.maps.shape[1]), maps.maps.dtype
        self._samples = [samples[row] for row in np.flatnonzero(maps.known & (maps.table.parts == "train")).tolist()]
        if not self._samples:
            raise InputError(
                "no training image has a mask, so there is nothing to look at again",
                f"{dataset.name}: {int(maps.known.sum())} masks of {len(samples)} images",
                "leave --augment out, or encode a split called train with masks",
            )
        # small copies of what the encoder was given, until their block is written
        self._seen: dict[int, np.ndarray] = {}

    @property
    def table(self) -> SampleTable:
        """Ids, splits and labels of the copies."""
        rows = [(sample, copy) for sample in self._samples for copy in range(self._copies)]
        return SampleTable.of(
            [f"{sample.id}#{copy}" for sample, copy in rows],
            [sample.split for sample, _ in rows],
            [sample.labels for sample, _ in rows],
            self._dataset.classes,
        )

    @property
    def fields(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and type of what `beside` returns."""
        square = (self._size, self._size)
        return {"mask": (square, self._kind), "picture": ((*square, 3), np.dtype(np.uint8))}

    def image(self, row: int) -> Image.Image:
        """Return a copy; may be called from threads."""
        sample, look = self._look(row)
        image = look.image(self._dataset.image(sample))
        self._seen[row] = small_picture(image, self._size)
        return image

    def beside(self, row: int) -> dict[str, np.ndarray]:
        """Return mask and picture of a copy whose image has been read; without truth where it could not be."""
        picture = self._seen.pop(row, None)
        mask = None
        if picture is not None:
            sample, look = self._look(row)
            mask = self._dataset.mask(sample)
        if picture is None or mask is None:
            square = (self._size, self._size)
            return {"mask": np.full(square, self._ignore, self._kind), "picture": np.zeros((*square, 3), np.uint8)}
        small = shrunk(look.mask(mask), self._size, self._dataset.ignore_label, self._ignore)
        return {"mask": small.astype(self._kind), "picture": picture}

    def _look(self, row: int) -> tuple[Sample, Augmentation]:
        sample = self._samples[row // self._copies]
        return sample, Augmentation.drawn(sample.id, row % self._copies, self._seed)


class AugmentedRows:
    """The copies of an artifact by the row of their image, for training.

    Parameters
    ----------
    augmented, features : Artifact
    ids : sequence of str
        Of the images, in the order of their rows.
    memory_bytes : int
        Kept in memory; more is read again.

    Raises
    ------
    StaleError
        Copies and images were encoded differently.
    """

    def __init__(self, augmented: Artifact, features: Artifact, ids: Sequence[str], memory_bytes: int):
        _require_alike(augmented, features)
        self._streams = {name: augmented.stream(name) for name in ("features", "mask", "picture")}
        self._room, self._kept = memory_bytes, dict[int, dict[str, np.ndarray]]()
        self._first, row_of = len(ids), {name: row for row, name in enumerate(ids)}
        self.source: dict[int, int] = {}
        self._copies: dict[int, list[int]] = {}
        names = augmented["id"]
        for copy in np.flatnonzero(augmented["valid"]).tolist():
            row = row_of.get(names[copy].rsplit("#", 1)[0])
            if row is not None:
                self.source[self._first + copy] = row
                self._copies.setdefault(row, []).append(self._first + copy)

    def turn(self, rows: np.ndarray, number: int) -> np.ndarray:
        """Return what stands for some images in pass `number`, int64 [B]: their own rows, or numbers of copies.

        An image and its copies take turns, each once before one comes again; where in its turns an image begins differs
        from image to image. Numbers of copies begin where rows end.
        """
        chosen = rows.astype(np.int64, copy=True)
        for place, row in enumerate(rows.tolist()):
            copies = self._copies.get(row, [])
            # neighbouring images are spread over the turns, so that every pass sees as many originals as the next
            turn = (number + row) % (len(copies) + 1)
            if turn:
                chosen[place] = copies[turn - 1]
        return chosen

    def read(self, number: int) -> dict[str, np.ndarray]:
        """Return ``features`` [N_p, d], ``mask`` [r, r] and ``picture`` [r, r, 3] of a copy."""
        if number in self._kept:
            return self._kept[number]
        found = {name: stream[number - self._first] for name, stream in self._streams.items()}
        size = sum(values.nbytes for values in found.values())
        if size <= self._room:
            self._kept[number] = found
            self._room -= size
        return found


def _require_alike(augmented: Artifact, features: Artifact) -> None:
    digests = [
        {name: item.identity.digests.get(name) for name in ("weights", "settings")} for item in (augmented, features)
    ]
    if digests[0] != digests[1] or augmented.stream("features").shape[1:] != features.stream("features").shape[1:]:
        raise StaleError(
            "images and further looks at them were encoded differently",
            f"{augmented.path} and {features.path}",
            f"run cmgl extract with the same encoder and tiles for both, or delete {augmented.path.name}",
        )
