"""What a dataset is: samples, images, masks, and a fingerprint of all of it.

Labels and mask values share one list of classes. Where masks have a background of their own,
``mask_offset`` is 1: mask value 0 is the background and value ``1 + i`` is class ``i``; elsewhere mask
values are class indices. ``ignore_label`` marks pixels without truth in either case.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from cmgl_cli.datasets.mask_values import MaskValues
from cmgl_cli.errors import InputError, UsageError, is_plain, suggest

Task = Literal["classification", "segmentation"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a dataset, without its pixels.

    Parameters
    ----------
    id : str
        Unique and stable within the dataset, path-like: ``"train/000123"``.
    split : str
        The split it belongs to.
    labels : tuple of int
        Indices into the dataset's classes, ascending; empty where the dataset has no image labels.
    captions : tuple of str
        Sentences written for this image.
    size : int or None
        Bytes on disk; None for images held in arrays, and for listed files that are missing.
    """

    id: str
    split: str
    labels: tuple[int, ...] = ()
    captions: tuple[str, ...] = ()
    size: int | None = None


def _require_plain_id(dataset: str, name: str) -> None:
    """Refuse an id that leads elsewhere when files are written by it, or that cannot be stored."""
    parts = name.split("/")
    if ".." in parts or name.startswith("/") or not is_plain(name):
        raise InputError(
            "an id of the dataset is no plain path", f"{dataset}: {ascii(name)}", "give samples plain names"
        )


class Dataset(ABC):
    """Images with labels, captions and masks where there are any; subclasses say where they come from.

    Attributes
    ----------
    name : str
        Name in the registry.
    task : {"classification", "segmentation"}
        What the published benchmark is about.
    classes : tuple of str
        Class names; labels index into them.
    known_splits : tuple of str
        Splits the layout can have; those with samples are in ``splits``.
    groups : mapping of str to tuple of str
        Names for unions of splits, such as ``trainaug``.
    mask_offset : int
        1 where mask value 0 is a background outside ``classes``, else 0.
    texts : mapping of str to tuple of str
        Class texts shipped with the dataset; empty where there are none.
    """

    name: str
    task: Task = "classification"
    classes: tuple[str, ...] = ()
    known_splits: tuple[str, ...] = ("train", "val", "test")
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    mask_offset: int = 0
    texts: Mapping[str, tuple[str, ...]] = {}

    @abstractmethod
    def _list(self) -> Iterable[Sample]:
        """Yield all samples in a deterministic order, opening no image."""

    @abstractmethod
    def image(self, sample: Sample) -> Image.Image:
        """Decode the image of a sample, as RGB in displayed orientation.

        Raises
        ------
        InputError
            If the file is missing, unreadable, truncated or too large; file and reason are named.
        """

    def mask(self, sample: Sample) -> np.ndarray | None:
        """Return the class of each pixel, or None where the sample has no mask.

        Returns
        -------
        ndarray of uint8 or int32, shape [height of the image, width of the image], or None
            Indices into ``mask_classes``, ``ignore_label`` where there is no truth.

        Raises
        ------
        InputError
            If the mask is unreadable, has another size than its image, or holds values outside the classes.
        """
        return None

    @property
    def has_masks(self) -> bool:
        """Whether this dataset, as it was found, has masks."""
        return False

    @property
    def mask_classes(self) -> tuple[str, ...]:
        """Names of the mask values 0, 1, ...: the classes, preceded by the background where there is one."""
        return ("background",) * self.mask_offset + self.classes

    @cached_property
    def mask_values(self) -> MaskValues:
        """How this dataset writes classes into mask files."""
        return MaskValues.identity(len(self.mask_classes))

    @property
    def ignore_label(self) -> int | None:
        """Mask value of pixels without truth; None where every pixel has a class."""
        return self.mask_values.ignore_label

    @property
    def palette(self) -> np.ndarray | None:
        """The dataset's own colours, uint8 [len(mask_classes), 3]; None where it has none."""
        return self.mask_values.palette

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        samples = tuple(self._list())
        seen: set[str] = set()
        for sample in samples:
            _require_plain_id(self.name, sample.id)
            if sample.id in seen:
                raise InputError(
                    "an image is listed twice", f"{self.name}: {sample.id}", "remove one of the two lines or files"
                )
            seen.add(sample.id)
        return samples

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have samples, in the order of the dataset."""
        present = dict.fromkeys(sample.split for sample in self._samples)
        ordered = [split for split in self.known_splits if split in present]
        return tuple(ordered + [split for split in present if split not in ordered])

    def samples(self, split: str | None = None) -> tuple[Sample, ...]:
        """Return the samples of one split (or group of splits), or of all.

        Raises
        ------
        UsageError
            If the dataset has no split of that name.
        InputError
            If the split exists and is empty here.
        """
        if split is None:
            found = self._samples
        else:
            names = self._resolve_split(split)
            found = tuple(sample for sample in self._samples if sample.split in names)
        if not found:
            raise InputError(
                f"the dataset {self.name} has no images" + (f" in split {split!r}" if split else ""),
                f"splits with images: {', '.join(self.splits) or 'none'}",
                "choose one of those, or complete the dataset: `cmgl datasets` shows the layout it expects",
            )
        return found

    def _resolve_split(self, split: str) -> tuple[str, ...]:
        known = {*self.known_splits, *self.splits, *self.groups}
        if split not in known:
            raise UsageError(
                f"the dataset {self.name} has no split {split!r}", f"split: {split}", suggest(split, known)
            )
        return self.groups.get(split, (split,))

    def present_classes(self, sample: Sample) -> tuple[int, ...]:
        """Return the mask values present in a sample: from its mask, or from its labels where it has none."""
        mask = self.mask(sample)
        if mask is None:
            return tuple(label + self.mask_offset for label in sample.labels)
        return tuple(int(value) for value in np.unique(mask) if value != self.ignore_label)

    def require_classes(self, samples: Sequence[Sample], classes: Iterable[str] | None = None) -> None:
        """Check that each of the named classes (all by default) has a sample.

        Raises
        ------
        UsageError
            If a name is not a class of this dataset.
        InputError
            If a class has none; all such classes are named.
        """
        present = {label for sample in samples for label in sample.labels}
        empty = []
        for name in self.classes if classes is None else classes:
            if name not in self.classes:
                raise UsageError(f"{self.name} has no class {name!r}", f"class: {name}", suggest(name, self.classes))
            if self.classes.index(name) not in present:
                empty.append(name)
        if empty:
            raise InputError(
                f"{len(empty)} of the classes of {self.name} have no sample",
                f"without samples: {', '.join(empty)}",
                "add images of these classes, raise --limit, or leave the classes out",
            )

    def encode_mask(self, mask: np.ndarray) -> Image.Image:
        """Turn class indices into a mask image in the dataset's own file convention.

        Parameters
        ----------
        mask : ndarray of integers, shape [height, width]
            Values as ``mask`` returns them.

        Returns
        -------
        PIL.Image.Image
            A palette image where the dataset has colours, else grey; 16 bit grey beyond 256 values.
        """
        return self.mask_values.encode(mask)

    def fingerprint(self, samples: Sequence[Sample]) -> str:
        """Return the SHA-256 of what was chosen: ids, splits, labels, captions and image sizes or pixels.

        Cheap: no image file is opened, so an edit that keeps a file's size goes unnoticed. Neither time
        stamps nor the place of the files enter.
        """
        digest = hashlib.sha256(json.dumps([self.name, self.classes, len(samples)]).encode())
        for sample in samples:
            record = [sample.id, sample.split, sample.labels, sample.captions, sample.size]
            digest.update(json.dumps(record).encode())
            for block in self._pixels(sample):
                digest.update(block)
        return digest.hexdigest()

    def mask_fingerprint(self, samples: Sequence[Sample]) -> str:
        """Return the SHA-256 of what masks are read from: their sizes on disk, and how values are read."""
        values = self.mask_values
        palette = None if values.colours is None else values.colours.tolist()
        record = [self.mask_classes, values.stored, values.ignored, values.threshold, palette]
        digest = hashlib.sha256(json.dumps([*record, self.fingerprint(samples)]).encode())
        for sample in samples:
            digest.update(json.dumps(self._mask_size(sample)).encode())
        return digest.hexdigest()

    def _mask_size(self, sample: Sample) -> int | None:
        """Return the bytes of a sample's mask file; None where it has none, or it is held in arrays."""
        return None

    def _pixels(self, sample: Sample) -> Iterator[bytes]:
        """Yield the bytes of images that are held in arrays; files are known by their size."""
        return iter(())
