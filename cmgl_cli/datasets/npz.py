"""Images in an ``.npz`` file of the user's own.

An `.npz` file holds either one set of arrays or one a split:

=========  ==========================================  =====================================================
array      names understood                            content
=========  ==========================================  =====================================================
images     ``images``, ``x``                           [N, H, W], [N, H, W, 1], [.., 3] or [.., 4]
labels     ``labels``, ``y`` (optional)                [N] or [N, 1] class indices
masks      ``masks`` (optional)                        [N, H, W] class indices
captions   ``captions`` (optional)                     [N] strings
ids        ``ids``, ``file`` (optional)                [N] strings, unique within a split
split      ``split`` (optional)                        [N] strings
classes    ``classes`` (optional)                      [K] strings, for all splits
(ignore)   ``ignore_label`` (optional)                 one integer: mask value of pixels without truth
=========  ==========================================  =====================================================

With one set a split, each name is joined to the split on either side: ``x_train``, ``y_train``,
``file_train``, ``test_images``, ``test_labels``. Objects (pickles) are refused.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cmgl_cli.datasets.arrays import ArrayDataset
from cmgl_cli.datasets.mask_values import MaskValues
from cmgl_cli.datasets.numpy_files import load_arrays
from cmgl_cli.datasets.records import Sample
from cmgl_cli.datasets.splits import DEFAULT_FRACTIONS, assign_splits, canonical_split
from cmgl_cli.errors import InputError

_NAMES = {
    "images": ("images", "x"),
    "labels": ("labels", "y"),
    "masks": ("masks",),
    "captions": ("captions",),
    "ids": ("ids", "file"),
}


class NpzDataset(ArrayDataset):
    """Images from an ``.npz`` file (see the module for the arrays it may hold).

    Where no split is given, each class is divided into train, val and test, seeded (see `DEFAULT_FRACTIONS`).

    Parameters
    ----------
    home : Path
        The file.
    split_seed : int
        Seed of that division.
    """

    name = "npz"

    def __init__(self, home: Path, *, split_seed: int = 0):
        super().__init__()
        self.home, self._seed = home, split_seed
        self._file = _read_arrays(home)
        self.task = "segmentation" if self._arrays("masks") else "classification"
        ignored = int(self._file["ignore_label"]) if "ignore_label" in self._file else None
        self.classes = self._named_classes(ignored)
        self.mask_values = MaskValues.identity(len(self.classes), ignored)

    def _arrays(self, role: str) -> list[np.ndarray]:
        return [part[role] for part in self._parts().values() if role in part]

    def _named_classes(self, ignored: int | None) -> tuple[str, ...]:
        truth = self._arrays("labels") + [masks[masks != ignored] for masks in self._arrays("masks")]
        highest = max((int(values.max()) for values in truth if values.size), default=-1)
        named = self._file.get("classes")
        classes = [str(i) for i in range(highest + 1)] if named is None else [str(name) for name in named]
        if highest >= len(classes) or any(values.min(initial=0) < 0 for values in truth):
            raise _bad(self.home, "labels", f"values outside 0 to {len(classes) - 1}, the highest {highest}")
        return tuple(classes)

    def _parts(self) -> dict[str, dict[str, np.ndarray]]:
        """Return split -> role -> array; the split is "" where the file holds one set."""
        parts: dict[str, dict[str, np.ndarray]] = {}
        for key, array in self._file.items():
            for role, names in _NAMES.items():
                for name in names:
                    if key == name:
                        parts.setdefault("", {})[role] = array
                    elif key.startswith(f"{name}_"):
                        parts.setdefault(key.removeprefix(f"{name}_"), {})[role] = array
                    elif key.endswith(f"_{name}"):
                        parts.setdefault(key.removesuffix(f"_{name}"), {})[role] = array
        return {split: _checked_part(self.home, split, part) for split, part in parts.items() if "images" in part}

    def _list(self) -> Iterable[Sample]:
        parts = self._parts()
        if not parts:
            raise InputError(
                "the file holds no images",
                f"{self.home}: arrays {', '.join(self._file) or 'none'}",
                "name the image array 'images' ([N, H, W] or [N, H, W, 3]), or 'images_train' and so on",
            )
        for split, part in parts.items():
            yield from self._list_part(split, part)

    def _list_part(self, split: str, part: dict[str, np.ndarray]) -> Iterable[Sample]:
        count = len(part["images"])
        names = [str(name) for name in part["ids"]] if "ids" in part else [f"{row:06d}" for row in range(count)]
        labels: list[tuple[int, ...]] = [()] * count
        if "labels" in part:
            labels = [(int(label),) for label in part["labels"]]
        splits = self._row_splits(split, names, labels)
        for row, name in enumerate(names):
            prefix = f"{splits[row]}/"
            captions = (str(part["captions"][row]),) if "captions" in part else ()
            sample = Sample(prefix + name.removeprefix(prefix), splits[row], labels[row], captions)
            yield self._hold(sample, part["images"][row], part["masks"][row] if "masks" in part else None)

    def _row_splits(self, split: str, names: list[str], labels: list[tuple[int, ...]]) -> list[str]:
        if split:
            return [canonical_split(split)] * len(names)
        if "split" in self._file:
            given = self._file["split"]
            if given.shape != (len(names),):
                raise _bad(self.home, "split", f"shape {given.shape}, expected ({len(names)},)")
            return [canonical_split(str(value)) for value in given]
        chosen = assign_splits(dict(zip(names, labels, strict=True)), DEFAULT_FRACTIONS, self._seed)
        return [chosen[name] for name in names]


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        arrays = load_arrays(path)
        if "" in arrays:
            raise ValueError("a single array, not an .npz file")
        return arrays
    except (OSError, ValueError) as error:
        raise InputError(
            "the .npz file cannot be read", f"{path}: {error}", "save plain arrays with numpy.savez_compressed"
        ) from error


def _checked_part(path: Path, split: str, part: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    images = part["images"]
    where = f"images of {split}" if split else "images"
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3, 4)) or 0 in images.shape[1:]:
        raise _bad(path, where, f"shape {images.shape}, expected [N, H, W] or [N, H, W, 1 | 3 | 4]")
    checked = {**part, "images": _storable(path, where, images[..., 0] if images.shape[3:] == (1,) else images)}
    if "labels" in part:
        labels = part["labels"].reshape(len(part["labels"]), -1)
        if labels.dtype.kind not in "iu" or labels.shape[1] != 1:
            raise _bad(path, "labels", f"{labels.dtype} of shape {part['labels'].shape}, expected integers [N]")
        checked["labels"] = labels[:, 0]
    for role, array in checked.items():
        if len(array) != len(images):
            raise _bad(path, role, f"{len(array)} rows for {len(images)} images")
    if "masks" in part and (part["masks"].shape != images.shape[:3] or part["masks"].dtype.kind not in "iu"):
        raise _bad(path, "masks", f"{part['masks'].dtype} of shape {part['masks'].shape}, expected integers [N, H, W]")
    return checked


def _storable(path: Path, where: str, images: np.ndarray) -> np.ndarray:
    """Bring pixel values to uint8, by their type where it tells, else by their range."""
    if images.dtype == np.uint8:
        return images
    if images.dtype == bool:
        return images.astype(np.uint8) * 255
    low, high = images.min(initial=0), images.max(initial=0)
    if images.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.round(images * 255).astype(np.uint8)
    if images.dtype == np.uint16:
        return np.round(images / 257).astype(np.uint8)
    if images.dtype.kind in "iu" and low >= 0 and high <= 255:
        return images.astype(np.uint8)
    expected = "uint8, uint16, bool, integers up to 255 or floats in [0, 1]"
    raise _bad(path, where, f"{images.dtype} from {low} to {high}, expected {expected}")


def _bad(path: Path, array: str, found: str) -> InputError:
    return InputError("an array of the .npz file cannot be used", f"{path}: {array}: {found}", "save the file again")
