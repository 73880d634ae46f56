"""PASCAL VOC 2012, segmentation part (Everingham et al., 2012), with the SBD additions where present."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from xml.parsers import expat

import numpy as np

from cmgl_cli.datasets.files import FileDataset, checked_name, list_files, read_lines
from cmgl_cli.datasets.mask_values import MaskValues
from cmgl_cli.datasets.records import Sample
from cmgl_cli.errors import InputError

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_VOID = 255


class Voc2012(FileDataset):
    """Photographs with masks of 20 classes and a background.

    ``train`` and ``val`` are the published lists. Where ``trainaug.txt`` is present, the images it adds are the
    split ``aug``, and ``trainaug`` is ``train`` and ``aug`` together; their masks are looked for in
    ``SegmentationClassAug`` too. Image labels are the objects of the XML annotations.

    Parameters
    ----------
    home : Path
        The folder ``VOCdevkit/VOC2012``.
    """

    name = "voc2012"
    task = "segmentation"
    classes = CLASSES
    known_splits = ("train", "val", "aug", "test")
    groups = {"trainaug": ("train", "aug"), "trainval": ("train", "val")}
    mask_offset = 1

    @cached_property
    def mask_values(self) -> MaskValues:
        """Palette PNGs: the index is the class, 255 is void."""
        return MaskValues.identity(len(self.mask_classes), _VOID, voc_palette())

    def _list(self) -> Iterable[Sample]:
        sizes = list_files(self.home / "JPEGImages")
        masks: dict[str, Path] = {}
        for folder in (self.home / "SegmentationClassAug", self.home / "SegmentationClass"):
            if folder.is_dir():
                masks |= {path.rpartition(".")[0]: folder / path for path in list_files(folder)}
        for name, split in self._names().items():
            file = f"{name}.jpg"
            sample = Sample(f"{split}/{name}", split, self._labels(name), size=sizes.get(file))
            yield self._remember(sample, self.home / "JPEGImages" / file, masks.get(name))

    def _names(self) -> dict[str, str]:
        """Return image -> split, from the lists; a name in several lists belongs to the first."""
        found: dict[str, str] = {}
        for split, listed in (("train", "train"), ("val", "val"), ("aug", "trainaug"), ("test", "test")):
            path = self.home / "ImageSets" / "Segmentation" / f"{listed}.txt"
            if path.is_file():
                for line in read_lines(path):
                    found.setdefault(checked_name(line, path), split)
        return found

    def _labels(self, name: str) -> tuple[int, ...]:
        path = self.home / "Annotations" / f"{name}.xml"
        if not path.is_file():
            return ()
        names = {object_name for object_name in read_object_names(path) if object_name in CLASSES}
        return tuple(sorted(CLASSES.index(object_name) for object_name in names))


def voc_palette() -> np.ndarray:
    """Return the PASCAL colour map, uint8 [256, 3]: the bits of the index dealt to r, g, b from the top bit down."""
    index = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def read_object_names(path: Path) -> list[str]:
    """Read the names of the objects in a VOC annotation.

    Document types and entities are refused: annotations have none, and they are how XML attacks a reader.

    Raises
    ------
    InputError
        If the file is not such XML.
    """
    stack: list[str] = []
    names: list[str] = []

    def start(tag: str, _: dict[str, str]) -> None:
        stack.append(tag)
        if stack == ["annotation", "object", "name"]:
            names.append("")

    def text(data: str) -> None:
        if stack == ["annotation", "object", "name"]:
            names[-1] += data

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which annotations never do")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.CharacterDataHandler = start, text
    parser.EndElementHandler = lambda _: stack.pop()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except (OSError, ValueError, expat.ExpatError) as error:
        raise InputError(
            "an annotation cannot be read", f"{path}: {error}", "get the file again from the page of the dataset"
        ) from error
    return [name.strip() for name in names]
