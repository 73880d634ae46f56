"""Folders of the user's own: one folder a class, masks beside the images, or just images.

Layouts understood by `FolderDataset`, each level in brackets optional::

    ROOT/[SPLIT/]CLASS/*.jpg                 one folder a class
    ROOT/texts.json                          optional: {"CLASS": ["sentence", ...]}

    ROOT/images/[SPLIT/][CLASS/]*.jpg        with masks
    ROOT/masks/[SPLIT/][CLASS/]*.png         same path and stem as the image
    ROOT/classes.json                        {"classes": [names of mask values 0, 1, ...], ...}

``SPLIT`` is train, val or test in the usual spellings. Keys of ``classes.json`` besides ``classes``:
``ignore_index`` (a mask value without truth; if it is listed among the classes it is taken out of them),
``palette`` ([[r, g, b], ...] by mask value), ``background`` (true: value 0 is no class, the list starts at value
1), ``binary`` (true: any value but 0 is the one class).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cmgl_cli.datasets.files import FileDataset, list_files
from cmgl_cli.datasets.mask_values import MaskValues
from cmgl_cli.datasets.records import Sample
from cmgl_cli.datasets.splits import DEFAULT_FRACTIONS, assign_splits, canonical_split, is_split
from cmgl_cli.datasets.texts import read_json, read_texts
from cmgl_cli.errors import InputError, suggest


class FolderDataset(FileDataset):
    """Images in folders, by class or with masks (see the module for the layouts).

    Where there is no split, each class is divided into train, val and test, seeded (see `DEFAULT_FRACTIONS`).

    Parameters
    ----------
    home : Path
        The folder ROOT.
    masks : str
        Name of the folder of masks.
    classes : sequence of str, optional
        Mask classes, instead of ``classes.json``.
    ignore_index : int, optional
        Mask value without truth, with ``classes``.
    binary : bool
        Any mask value but 0 is the one class, with ``classes``.
    split_seed : int
        Seed of the division into splits.
    """

    name = "folder"

    def __init__(
        self,
        home: Path,
        *,
        masks: str = "masks",
        classes: Sequence[str] | None = None,
        ignore_index: int | None = None,
        binary: bool = False,
        split_seed: int = 0,
    ):
        super().__init__(home)
        self._seed, self._masks_home = split_seed, home / masks
        self._images_home = home / "images" if (home / "images").is_dir() else home
        self._files = [_Listed.of(path, size) for path, size in self._list_images(masks).items()]
        if self._masks_home.is_dir():
            self.task = "segmentation"
            about = _read_description(home) if classes is None else {"classes": list(classes), "binary": binary}
            self._describe_masks(about | ({} if ignore_index is None else {"ignore_index": ignore_index}))
        else:
            self.classes = tuple(sorted({file.label for file in self._files if file.label}))
        texts = home / "texts.json"
        self.texts = read_texts(texts) if texts.is_file() else {}

    def _list_images(self, masks: str) -> dict[str, int]:
        found = list_files(self._images_home)
        if self._images_home == self.home:
            found = {path: size for path, size in found.items() if not path.startswith(f"{masks}/")}
        return found

    def _describe_masks(self, about: dict[str, Any]) -> None:
        names, ignored = list(about["classes"]), about.get("ignore_index")
        binary = bool(about.get("binary"))
        if ignored == 0 and (binary or about.get("background")):
            raise _bad_description(self.home / "classes.json", "value 0 cannot be both background and ignored")
        self.mask_offset = int(binary or bool(about.get("background")))
        stored = list(range(len(names) + self.mask_offset))
        if ignored is not None and self.mask_offset <= ignored < len(stored):
            del names[ignored - self.mask_offset], stored[ignored]
        colours = np.array(about["palette"], dtype=np.uint8) if about.get("palette") else None
        self.classes = tuple(names)
        self.mask_values = MaskValues(
            (0, 255) if binary else tuple(stored), ignored, colours, threshold=0 if binary else None
        )

    def _list(self) -> Iterable[Sample]:
        without = {file.path: file.label for file in self._files if not file.split}
        chosen = assign_splits(without, DEFAULT_FRACTIONS, self._seed)
        masks = _by_stem(list_files(self._masks_home)) if self._masks_home.is_dir() else {}
        index = {name: i for i, name in enumerate(self.classes)}
        for file in self._files:
            split = file.split or chosen[file.path]
            labels = (index[file.label],) if file.label in index else ()
            sample = Sample(f"{split}/{file.inner}", split, labels, size=file.size)
            mask = masks.get(_stem(file.path))
            yield self._remember(sample, self._images_home / file.path, self._masks_home / mask if mask else None)


@dataclass(frozen=True, slots=True)
class _Listed:
    """A file found below the images folder: its path, what its folders say, and its size."""

    path: str
    split: str
    label: str
    inner: str
    size: int

    @classmethod
    def of(cls, path: str, size: int) -> "_Listed":
        *folders, name = path.split("/")
        split = canonical_split(folders.pop(0)) if folders and is_split(folders[0]) else ""
        return cls(path, split, folders[0] if folders else "", "/".join([*folders, name]), size)


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _by_stem(paths: Iterable[str]) -> dict[str, str]:
    stems: dict[str, str] = {}
    for path in paths:
        if stems.setdefault(_stem(path), path) != path:
            raise InputError(
                "two masks have the same name but for their suffix",
                f"{stems[_stem(path)]} and {path}",
                "keep one mask for each image",
            )
    return stems


_KEYS = {
    "classes": (list,),
    "ignore_index": (int, type(None)),
    "palette": (list, type(None)),
    "background": (bool,),
    "binary": (bool,),
}


def _read_description(home: Path) -> dict[str, Any]:
    """Read and check ``classes.json``."""
    path = home / "classes.json"
    if not path.is_file():
        raise InputError(
            "the masks of the folder have no class names",
            f"no {path}",
            'write there {"classes": ["name of value 0", "name of value 1"], "ignore_index": 255}',
        )
    about = read_json(path)
    if not isinstance(about, dict) or "classes" not in about:
        raise _bad_description(path, "expected an object with the key 'classes'")
    for key, value in about.items():
        if key not in _KEYS:
            raise _bad_description(path, f"unknown key {key!r}: {suggest(key, _KEYS)}")
        if not isinstance(value, _KEYS[key]):
            raise _bad_description(path, f"{key} = {value!r}")
    _check_description(path, about)
    return about


def _check_description(path: Path, about: dict[str, Any]) -> None:
    names, colours = about["classes"], about.get("palette") or []
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise _bad_description(path, "classes must be distinct names, at least one")
    if about.get("binary") and len(names) != 1:
        raise _bad_description(path, f"binary masks have one class, found {len(names)}")
    in_range = all(
        isinstance(row, list) and len(row) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in row)
        for row in colours
    )
    if not in_range or (colours and len(colours) < len(names) + bool(about.get("background"))):
        raise _bad_description(path, "palette must hold one [r, g, b] from 0 to 255 for each mask value")
    ignored = about.get("ignore_index")
    if ignored is not None and not 0 <= ignored <= 65535:
        raise _bad_description(path, f"ignore_index = {ignored}, expected 0 to 65535")


def _bad_description(path: Path, found: str) -> InputError:
    return InputError("the description of the classes cannot be used", f"{path}: {found}", "correct classes.json")


class ImagesDataset(FileDataset):
    """All images below a folder, without labels: one split, ``all``.

    Parameters
    ----------
    home : Path
        The folder.
    """

    name = "images"
    known_splits = ("all",)

    def _list(self) -> Iterable[Sample]:
        for path, size in list_files(self.home).items():
            yield self._remember(Sample(f"all/{path}", "all", size=size), self.home / path)
