"""Folders of a dataset: what lies in them, never leaving them, and the datasets whose images are files there.

Nothing here trusts a list. A listed name must be relative and stay below its folder, and a symbolic link is
followed only to a place inside the folder it was found in. The folders of a layout may themselves be links:
they are what the user pointed at.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from cmgl_cli.datasets.images import IMAGE_SUFFIXES, align_mask, load_image, load_mask
from cmgl_cli.datasets.records import Dataset, Sample
from cmgl_cli.errors import InputError, UsageError, is_plain


def list_files(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> dict[str, int]:
    """List the files below a folder without opening them.

    Parameters
    ----------
    folder : Path
        Where to look, at any depth; hidden files and folders are left out.
    suffixes : frozenset of str
        Endings wanted, in lower case.

    Returns
    -------
    dict of str to int
        Relative path with forward slashes -> bytes, sorted by path.

    Raises
    ------
    InputError
        If the folder cannot be listed, or a link leads out of it.
    """
    home = folder.resolve()
    try:
        found = dict(_walk(home, home, "", suffixes))
    except OSError as error:
        raise InputError(
            "a folder of the dataset cannot be listed",
            f"{folder}: {error.strerror}",
            "check that it exists and that you may read it",
        ) from error
    return dict(sorted(found.items()))


def _walk(home: Path, folder: Path, prefix: str, suffixes: frozenset[str]) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            _require_text(folder, entry.name)
            is_image = os.path.splitext(entry.name)[1].lower() in suffixes
            if entry.is_symlink() and (is_image or entry.is_dir()):
                _refuse_escape(home, Path(entry.path))
            if entry.is_dir():
                yield from _walk(home, Path(entry.path), f"{prefix}{entry.name}/", suffixes)
            elif is_image and entry.is_file():
                yield prefix + entry.name, entry.stat().st_size


def _require_text(folder: Path, name: str) -> None:
    """Refuse a name that could be opened, but neither stored nor printed."""
    if not is_plain(name):
        raise InputError(
            "a file name of the dataset is not plain UTF-8", f"{ascii(str(folder))}: {ascii(name)}", "rename the file"
        )


def _refuse_escape(home: Path, link: Path) -> None:
    target = link.resolve()
    if not target.is_relative_to(home) or home.is_relative_to(target) or link.parent.is_relative_to(target):
        raise InputError(
            "a symbolic link leads out of the dataset's folder",
            f"{link} -> {target}",
            "copy the file into the folder, or make the folder itself the link",
        )


def checked_name(name: str, source: Path | str) -> str:
    """Return a name from a dataset's list, refused unless it stays below the folder it is relative to.

    Raises
    ------
    InputError
        If it is empty, absolute, or climbs with ``..``; the list is named.
    """
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or "\\" in name or not is_plain(name) or ":" in parts[0]:
        raise InputError(
            "a list of the dataset names a path outside the dataset",
            f"{source}: {name!r}",
            "get the list again from the page of the dataset",
        )
    return name


def read_lines(path: Path) -> list[str]:
    """Read the non-empty lines of a small UTF-8 text file, stripped.

    Raises
    ------
    InputError
        If it is missing or not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not UTF-8 text: {error}"
        raise InputError("a list of the dataset cannot be read", f"{path}: {reason}", "get the file again") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_pairs(path: Path, count: int = 2) -> list[list[str]]:
    """Read lines of ``count`` fields separated by blanks; the last field may contain blanks.

    Raises
    ------
    InputError
        If a line has fewer fields.
    """
    rows = [line.split(maxsplit=count - 1) for line in read_lines(path)]
    for number, row in enumerate(rows, start=1):
        if len(row) != count:
            raise InputError(
                f"a line of a list has {len(row)} fields, expected {count}",
                f"{path}, line {number}",
                "get the file again",
            )
    return rows


class FileDataset(Dataset):
    """A dataset whose images, and masks where it has them, are files.

    Subclasses yield samples from ``_list`` and call ``_remember`` for each.

    Parameters
    ----------
    home : Path
        The folder that holds the published layout.
    """

    def __init__(self, home: Path):
        self.home = home
        self._image_paths: dict[str, Path] = {}
        self._mask_paths: dict[str, Path] = {}

    def _remember(self, sample: Sample, image: Path, mask: Path | None = None) -> Sample:
        self._image_paths[sample.id] = image
        if mask is not None:
            self._mask_paths[sample.id] = mask
        return sample

    def path(self, sample: Sample) -> Path:
        """Return the image file of a sample.

        Raises
        ------
        UsageError
            If the sample is not of this dataset.
        """
        self.samples()
        if sample.id not in self._image_paths:
            raise UsageError(
                f"the sample is not in the dataset {self.name}", sample.id, "take samples from this dataset"
            )
        return self._image_paths[sample.id]

    def image(self, sample: Sample) -> Image.Image:
        """Decode the image file of a sample (see `Dataset.image`)."""
        return load_image(self.path(sample))

    @property
    def has_masks(self) -> bool:
        """Whether any sample has a mask file."""
        self.samples()
        return bool(self._mask_paths)

    def mask(self, sample: Sample) -> np.ndarray | None:
        """Decode the mask file of a sample (see `Dataset.mask`)."""
        image_path, mask_path = self.path(sample), self._mask_paths.get(sample.id)
        if mask_path is None:
            return None
        return align_mask(self._decode_mask(mask_path, sample), image_path, mask_path)

    def _mask_size(self, sample: Sample) -> int | None:
        path = self._mask_paths.get(sample.id)
        return path.stat().st_size if path is not None and path.is_file() else None

    def _decode_mask(self, path: Path, sample: Sample) -> np.ndarray:
        """Read a mask file as indices of ``mask_classes``, as it is stored."""
        values = load_mask(path, self.mask_values.colours, grey=self.mask_values.threshold is not None)
        try:
            return self.mask_values.decode(values)
        except InputError as error:
            raise InputError(error.what, f"{path}: {error.where}", error.fix) from error
