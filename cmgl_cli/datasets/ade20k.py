"""ADE20K scene parsing, the 150-class challenge (Zhou et al., 2017)."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from cmgl_cli.datasets.files import FileDataset, list_files, read_lines
from cmgl_cli.datasets.mask_values import MaskValues
from cmgl_cli.datasets.records import Sample
from cmgl_cli.errors import InputError

_SPLITS = (("train", "training"), ("val", "validation"))


class Ade20k(FileDataset):
    """Scenes with masks of 150 classes.

    In the files 0 is "other" and ``1 + i`` is class ``i``; here "other" is ignored and the classes count from 0.
    With ``sceneCategories.txt`` the scene of each image is its caption.

    Parameters
    ----------
    home : Path
        The folder ``ADEChallengeData2016``.
    """

    name = "ade20k"
    task = "segmentation"
    known_splits = ("train", "val")

    def __init__(self, home: Path):
        super().__init__(home)
        self.classes = _read_classes(home / "objectInfo150.txt")

    @cached_property
    def mask_values(self) -> MaskValues:
        """Grey PNGs: value 0 has no truth, value ``1 + i`` is class ``i``."""
        return MaskValues(tuple(range(1, len(self.classes) + 1)), ignored=0)

    def _list(self) -> Iterable[Sample]:
        scenes = _read_scenes(self.home / "sceneCategories.txt")
        for split, folder in _SPLITS:
            images, annotations = self.home / "images" / folder, self.home / "annotations" / folder
            masks = list_files(annotations) if annotations.is_dir() else {}
            for path, size in (list_files(images) if images.is_dir() else {}).items():
                name = path.rpartition(".")[0]
                captions = (scenes[name],) if name in scenes else ()
                sample = Sample(f"{split}/{name}", split, captions=captions, size=size)
                mask = f"{name}.png"
                yield self._remember(sample, images / path, annotations / mask if mask in masks else None)


def _read_classes(path: Path) -> tuple[str, ...]:
    """Return the first synonym of each class from the tab-separated table ``Idx Ratio Train Val Name``."""
    rows = [line.split("\t") for line in read_lines(path)]
    names = [row[-1].split(",")[0].split(";")[0].strip() for row in rows[1:]]
    if (
        not rows
        or rows[0][0].strip() != "Idx"
        or [row[0].strip() for row in rows[1:]] != [str(i) for i in range(1, len(rows))]
    ):
        raise InputError("the class table of ade20k is damaged", str(path), "get the archive again")
    return tuple(names)


def _read_scenes(path: Path) -> dict[str, str]:
    """Return image -> scene, with blanks for underscores; empty where the file is absent."""
    lines = read_lines(path) if path.is_file() else []
    return {name: scene.strip().replace("_", " ") for name, _, scene in (line.partition(" ") for line in lines)}
