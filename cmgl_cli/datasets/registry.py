"""The table of datasets, and where on disk they are looked for."""

import importlib
import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmgl_cli.datasets.layouts import LAYOUTS
from cmgl_cli.datasets.records import Dataset, Task
from cmgl_cli.errors import InputError, UsageError, suggest

ROOT_VARIABLE = "CMGL_DATA"


@dataclass(frozen=True)
class DatasetSpec:
    """One entry of the table of datasets.

    Parameters
    ----------
    name : str
        Name on the command line.
    title : str
        What it is, in a line.
    task : {"classification", "segmentation"}
        What the benchmark is about.
    loader : str
        ``module:Class`` below ``cmgl_cli.datasets``, imported when the dataset is opened.
    page : str
        Where to get it; empty for generated and own data.
    published : str
        Folder the published archive unpacks to, relative to where it is unpacked.
    expects : tuple of str
        Files and folders (or patterns) that must exist below that folder; ``a|b`` where either will do.
    layout : str
        The tree expected, for people.
    """

    name: str
    title: str
    task: Task
    loader: str
    page: str = ""
    published: str = ""
    expects: tuple[str, ...] = ()
    layout: str = ""

    @property
    def bundled(self) -> bool:
        """Whether it comes with the package and needs no folder."""
        return not self.expects and not self.own

    @property
    def own(self) -> bool:
        """Whether it is the user's own data, at a place only they know."""
        return self.name in ("folder", "images", "npz")

    def load(self) -> type[Dataset]:
        """Import and return the class that reads it."""
        module, _, name = self.loader.partition(":")
        return getattr(importlib.import_module(f"cmgl_cli.datasets.{module}"), name)

    def candidates(self, root: Path) -> tuple[Path, ...]:
        """Return the folders in which the dataset is looked for below ``root``, the first found wins."""
        places = [root / self.name / self.published, root / self.name, root / self.published, root]
        return tuple(dict.fromkeys(places))

    def missing(self, home: Path) -> tuple[str, ...]:
        """Return what the layout expects below ``home`` and is not there."""
        return tuple(entry for entry in self.expects if not any(_exists(home, option) for option in entry.split("|")))

    def locate(self, root: Path) -> Path | None:
        """Return the folder that holds the dataset, or None."""
        return next((home for home in self.candidates(root) if home.is_dir() and not self.missing(home)), None)


def _exists(home: Path, pattern: str) -> bool:
    return next(home.glob(pattern), None) is not None


@dataclass(frozen=True)
class FoundDataset:
    """Whether a dataset was found: the spec, its folder (None if not), and what its nearest candidate lacks."""

    spec: DatasetSpec
    path: Path | None
    missing: tuple[str, ...]


DATASETS: Mapping[str, DatasetSpec] = {entry["name"]: DatasetSpec(**entry) for entry in LAYOUTS}


def data_root(root: Path | str | None = None) -> Path:
    """Return where data are looked for: the given folder, else ``$CMGL_DATA``, else ``./data``."""
    return Path(root or os.environ.get(ROOT_VARIABLE) or "data").expanduser()


def dataset_spec(name: str) -> DatasetSpec:
    """Return the table's entry of that name.

    Raises
    ------
    UsageError
        If there is none; the nearest name is suggested.
    """
    if name not in DATASETS:
        raise UsageError(f"there is no dataset {name!r}", f"dataset: {name}", suggest(name, DATASETS))
    return DATASETS[name]


def open_dataset(name: str, root: Path | str | None = None, **options: Any) -> Dataset:
    """Open a dataset by name.

    Parameters
    ----------
    name : str
        A key of `DATASETS`.
    root : path, optional
        Folder to look in (default ``$CMGL_DATA``, then ``./data``): the dataset may lie in it under its own
        name or its published folder's, or be the folder itself. For ``folder``, ``images`` and ``npz`` the
        data themselves, without a default.
    **options
        Options of the dataset's class.

    Returns
    -------
    Dataset
        With its samples listed on first use.

    Raises
    ------
    UsageError
        If the name or an option is unknown.
    InputError
        If the data are not found (everything looked for, and where, is listed) or not in the published layout.
    """
    spec = dataset_spec(name)
    reader = spec.load()
    _check_options(spec, reader, options)
    if spec.bundled:
        return reader(**options)
    home = _own_home(spec, root) if spec.own else spec.locate(data_root(root))
    if home is None:
        raise _not_found(spec, data_root(root))
    return reader(home, **options)  # type: ignore[call-arg]


def has_masks(name: str, root: Path | str | None = None, **options: Any) -> bool:
    """Return whether a dataset comes with masks, at most by looking for a folder: nothing is listed or decoded."""
    spec = dataset_spec(name)
    if spec.name == "folder":
        return root is not None and (Path(root).expanduser() / str(options.get("masks", "masks"))).is_dir()
    return spec.task == "segmentation" or (spec.bundled and spec.load().has_masks is not Dataset.has_masks)


def find_datasets(root: Path | str | None = None) -> list[FoundDataset]:
    """Look for every dataset that comes in a published layout.

    Returns
    -------
    list of FoundDataset
        In the order of the table; bundled ones have neither path nor anything missing.
    """
    base = data_root(root)
    return [
        FoundDataset(spec, home, () if spec.bundled or home else spec.missing(_nearest(spec, base)))
        for spec in DATASETS.values()
        if not spec.own
        for home in [None if spec.bundled else spec.locate(base)]
    ]


def _nearest(spec: DatasetSpec, root: Path) -> Path:
    return min(spec.candidates(root), key=lambda home: len(spec.missing(home)))


def _own_home(spec: DatasetSpec, root: Path | str | None) -> Path:
    if root is None:
        raise UsageError(
            f"the dataset {spec.name!r} needs the place of your data",
            "no root was given",
            f"add --root {'FILE.npz' if spec.name == 'npz' else 'FOLDER'}",
        )
    home = Path(root).expanduser()
    found = home.is_file() if spec.name == "npz" else home.is_dir()
    if not found:
        kind = "file" if spec.name == "npz" else "folder"
        raise InputError(
            f"there is no such {kind}", str(home), f"name the {kind} that holds your images with --root, or --images"
        )
    return home


def _not_found(spec: DatasetSpec, root: Path) -> InputError:
    nearest = _nearest(spec, root)
    looked = ", ".join(str(home) for home in spec.candidates(root))
    return InputError(
        f"the dataset {spec.name} was not found",
        f"looked in {looked} for {', '.join(spec.expects)}; nearest {nearest} lacks {', '.join(spec.missing(nearest))}",
        f"get it from {spec.page} and unpack it into {root / spec.name}, "
        f"or name its folder with --root or ${ROOT_VARIABLE}",
    )


def _check_options(spec: DatasetSpec, reader: type[Dataset], options: Mapping[str, Any]) -> None:
    known = list(_option_names(reader))
    for option in options:
        if option not in known:
            fix = suggest(option, known) if known else "it has none"
            raise UsageError(
                f"the dataset {spec.name} has no option {option!r}", f"{option} = {options[option]!r}", fix
            )


def _option_names(reader: type[Dataset]) -> Iterator[str]:
    parameters = inspect.signature(reader).parameters.values()
    return (parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY)
