"""COCO 2014 (Lin et al., 2014): instances, captions, and masks drawn from the instances."""

import json
from array import array
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cmgl_cli.datasets.files import FileDataset, checked_name, list_files
from cmgl_cli.datasets.images import MAX_PIXELS, align_mask
from cmgl_cli.datasets.json_stream import stream_items
from cmgl_cli.datasets.records import Sample
from cmgl_cli.errors import InputError

_SPLITS = (("train", "train2014"), ("val", "val2014"))
FARTHEST = 100_000


class Coco2014(FileDataset):
    """Photographs with object labels of 80 classes, five captions each, and masks.

    A mask is drawn from the instances, crowds first, then larger before smaller ones, so that what lies in
    front stays visible; 0 is the background. Drawing needs pycocotools (``pip install 'cmgl[coco]'``).

    Parameters
    ----------
    home : Path
        The folder that holds ``train2014``, ``val2014`` and ``annotations``.
    """

    name = "coco2014"
    task = "segmentation"
    known_splits = ("train", "val")
    mask_offset = 1

    def __init__(self, home: Path):
        super().__init__(home)
        self._tables = {
            split: _InstanceTable(path)
            for split, folder in _SPLITS
            for path in [home / "annotations" / f"instances_{folder}.json"]
            if path.is_file()
        }
        named = {table.category_names for table in self._tables.values()}
        if len(named) != 1:
            raise InputError(
                "the two annotation files of coco2014 name different categories",
                str(home / "annotations"),
                "get the archive of annotations again",
            )
        self.classes = named.pop()
        self._rows: dict[str, int] = {}

    def _list(self) -> Iterable[Sample]:
        for split, folder in _SPLITS:
            if split not in self._tables:
                continue
            table = self._tables[split]
            captions = _read_captions(self.home / "annotations" / f"captions_{folder}.json")
            images = self.home / folder
            sizes = list_files(images) if images.is_dir() else {}
            for row in sorted(range(len(table.files)), key=table.files.__getitem__):
                name = checked_name(table.files[row], table.path)
                image_id = f"{split}/{name.rpartition('.')[0]}"
                self._rows[image_id] = row
                sample = Sample(image_id, split, table.labels(row), captions.get(table.ids[row], ()), sizes.get(name))
                yield self._remember(sample, images / name)

    @property
    def has_masks(self) -> bool:
        """Instances give every image a mask."""
        return True

    def mask(self, sample: Sample) -> np.ndarray:
        """Draw the instances of an image (see `Dataset.mask`).

        Raises
        ------
        InputError
            Also if pycocotools is not installed, or a segmentation is damaged.
        """
        path, table = self.path(sample), self._tables[sample.split]
        return align_mask(table.draw(self._rows[sample.id]), path, table.path)


class _InstanceTable:
    """An instances file: labels of each image, and where in the file its segmentations lie."""

    def __init__(self, path: Path):
        self.path = path
        self.ids, self.files, self._shapes = array("q"), [], array("q")
        images, categories = array("q"), array("q")
        offsets, lengths = array("q"), array("q")
        names: dict[int, str] = {}
        try:
            for item in stream_items(path):
                value = item.value
                if item.key == "images":
                    self.ids.append(value["id"])
                    self.files.append(str(value["file_name"]))
                    self._shapes.extend((value["height"], value["width"]))
                elif item.key == "annotations":
                    images.append(value["image_id"])
                    categories.append(value["category_id"])
                    offsets.append(item.offset)
                    lengths.append(item.length)
                elif item.key == "categories":
                    names[int(value["id"])] = str(value["name"])
        except (KeyError, TypeError, OverflowError) as error:
            raise _damaged(path, f"an entry without a usable {error}") from error
        self.category_names = tuple(names[key] for key in sorted(names))
        self._index(names, np.array(images), np.array(categories), np.stack([np.array(offsets), np.array(lengths)]))

    def _index(self, names: dict[int, str], images: np.ndarray, categories: np.ndarray, spans: np.ndarray) -> None:
        """Group annotations by image: those of image ``row`` are ``start[row]`` to ``start[row + 1]``."""
        ids, keys = np.array(self.ids, dtype=np.int64), np.array(sorted(names), dtype=np.int64)
        order = np.argsort(ids)
        rows = order[np.searchsorted(ids[order], images).clip(max=max(len(ids) - 1, 0))] if len(ids) else images
        classes = np.searchsorted(keys, categories)
        if not np.isin(images, ids).all() or not np.isin(categories, keys).all():
            raise _damaged(self.path, "an annotation of an unknown image or category")
        grouped = np.argsort(rows, kind="stable")
        self._classes, self._spans = classes[grouped], spans[:, grouped]
        self._start = np.searchsorted(rows[grouped], np.arange(len(ids) + 1))

    def labels(self, row: int) -> tuple[int, ...]:
        """Return the classes of one image, ascending."""
        return tuple(sorted({int(label) for label in self._classes[self._start[row] : self._start[row + 1]]}))

    def draw(self, row: int) -> np.ndarray:
        """Return the mask of one image, uint8 [height, width]."""
        height, width = self._shapes[2 * row], self._shapes[2 * row + 1]
        if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
            raise _damaged(self.path, f"image {self.ids[row]} of {height} x {width} pixels")
        mask = np.zeros((height, width), dtype=np.uint8)
        for annotation, label in sorted(self._annotations(row), key=partial(_drawing_order, path=self.path)):
            mask[_region(annotation, height, width, self.path)] = 1 + label
        return mask

    def _annotations(self, row: int) -> Iterable[tuple[dict[str, Any], int]]:
        with open(self.path, "rb") as file:
            for number in range(self._start[row], self._start[row + 1]):
                file.seek(self._spans[0, number])
                yield json.loads(file.read(self._spans[1, number])), int(self._classes[number])


def _drawing_order(entry: tuple[dict[str, Any], int], path: Path) -> tuple[bool, float]:
    annotation = entry[0]
    try:
        return not annotation.get("iscrowd"), -float(annotation.get("area", 0))
    except (TypeError, ValueError, OverflowError) as error:
        raise _damaged(path, f"area of annotation {annotation.get('id')}: {error}") from error


def _region(annotation: dict[str, Any], height: int, width: int, path: Path) -> np.ndarray:
    """Return the pixels of one instance, bool [height, width], from polygons or run lengths."""
    segmentation = annotation.get("segmentation")
    try:
        if isinstance(segmentation, list):
            return _fill_polygons(segmentation, height, width)
        if not isinstance(segmentation, dict) or list(segmentation["size"]) != [height, width]:
            raise ValueError(f"neither polygons nor run lengths of a {height} x {width} image")
        return expand_runs(segmentation["counts"], height, width)
    except InputError:
        raise
    except Exception as error:  # pycocotools raises bare Exceptions and whatever its C code trips over
        raise _damaged(path, f"segmentation of annotation {annotation.get('id')}: {error}") from error


def _fill_polygons(polygons: list, height: int, width: int) -> np.ndarray:
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise InputError(
            "the masks of COCO need pycocotools", "it is not installed", "pip install 'cmgl[coco]'"
        ) from error
    for polygon in polygons:
        # pycocotools walks along every edge, pixel by pixel, however far out it leads
        if not isinstance(polygon, list) or len(polygon) < 6 or not (np.abs(polygon) <= FARTHEST).all():
            raise ValueError("a polygon of fewer than three points, or far outside any image")
    runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return coco_mask.decode(runs).astype(bool)


def expand_runs(counts: list[int] | str, height: int, width: int) -> np.ndarray:
    """Expand COCO's run lengths: alternating lengths of 0 and 1 down the columns, as a list or compressed.

    They are checked before anything is drawn; pycocotools returns whatever was in memory where runs are too
    short.

    Parameters
    ----------
    counts : list of int or str
        Run lengths, the first of zeros.
    height, width : int
        Size of the image.

    Returns
    -------
    ndarray of bool, shape [height, width]
        The region.

    Raises
    ------
    ValueError
        If the runs do not cover the image exactly.
    """
    runs = np.array(_decompress(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    if runs.ndim != 1 or (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
        raise ValueError(f"run lengths that do not cover {height} x {width} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _decompress(text: str) -> list[int]:
    """Decode COCO's string of run lengths.

    Numbers come in groups of five bits, lowest first, as characters from 48 on; bit 6 says that another group
    follows, the top bit of the last group is the sign. From the third run on, a number is the difference to
    the run two before.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        group = ord(character) - 48
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    return runs


def _read_captions(path: Path) -> dict[int, tuple[str, ...]]:
    """Return image id -> captions in the order of the file; empty where there is no file."""
    found: dict[int, list[str]] = defaultdict(list)
    if path.is_file():
        try:
            for item in stream_items(path):
                if item.key == "annotations":
                    caption = str(item.value["caption"]).strip()
                    caption.encode("utf-8")  # JSON can spell halves of characters, which nothing can store
                    found[item.value["image_id"]].append(caption)
        except (KeyError, TypeError, UnicodeEncodeError) as error:
            raise _damaged(path, f"an entry without {error}") from error
    return {key: tuple(captions) for key, captions in found.items()}


def _damaged(path: Path, found: str) -> InputError:
    return InputError("an annotation file of coco2014 is damaged", f"{path}: {found}", "get the archive again")
