"""Open an artifact: check that it is one, that it is sound, and hand out its arrays.

A file may come from anywhere, so links that leave it, object references, virtual or external storage, and data
sets that claim more than their storage can hold are refused before a value is read.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cmgl_cli.artifacts.digest import PRIVATE, content_digest
from cmgl_cli.artifacts.identity import Identity
from cmgl_cli.artifacts.schemas import SCHEMAS, Schema
from cmgl_cli.errors import CmglError, InputError

HEADER = ("schema", "schema_version", "stage", "stage_version", "config", "inputs", "digests", "content_digest")
# deflate cannot shrink below 1/1032, so anything that claims more is not data but a trap
MOST_EXPANSION = 1032


class Artifact(Mapping):
    """An open artifact: a mapping from data set name to array, with its identity and provenance.

    ``artifact["z"]`` reads a whole data set; ``artifact.stream("features")`` gives a handle that reads the rows
    you slice. Use it as a context manager, or call `close`.

    Attributes
    ----------
    path : Path
    schema : str
    identity : Identity
        With `.config`, `.inputs` and `.digests`.
    provenance : dict
        Command, versions, time, host, device, duration: outside the identity.
    digest : str
        The content digest as stored; `verify` compares it with the content.
    """

    def __init__(self, path: Path, file: h5py.File):
        self.path, self._file = path, file
        self.identity = Identity.from_attributes(file.attrs)
        self.digest = str(file.attrs["content_digest"])
        self.provenance: dict[str, Any] = json.loads(file.attrs.get("provenance", "{}"))
        self._datasets = _checked_datasets(path, file)

    schema = property(lambda self: self.identity.schema)
    stage = property(lambda self: self.identity.stage)
    config = property(lambda self: self.identity.config)
    inputs = property(lambda self: self.identity.inputs)

    @property
    def arrays(self) -> "Artifact":
        """The arrays, by name: the artifact itself is that mapping."""
        return self

    def __getitem__(self, name: str) -> np.ndarray:
        """Read one whole data set; texts come as an array of `str`."""
        dataset = self._dataset(name)
        try:
            values = dataset.asstr()[()] if h5py.check_string_dtype(dataset.dtype) else dataset[()]
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(self.path, f"data set {name!r}: {error}") from error
        return np.asarray(values)

    def __contains__(self, name: object) -> bool:
        return name in self._datasets

    def __iter__(self) -> Iterator[str]:
        return iter(self._datasets)

    def __len__(self) -> int:
        return len(self._datasets)

    def stream(self, name: str) -> h5py.Dataset:
        """Return a handle that reads only the rows it is sliced for."""
        return self._dataset(name)

    def group(self, name: str) -> dict[str, np.ndarray]:
        """Read every data set below group `name`, keyed by the rest of its name."""
        return {key[len(name) + 1 :]: self[key] for key in self if key.startswith(name + "/")}

    def finite(self, name: str) -> np.ndarray:
        """Read one data set and refuse NaN and infinity, naming the first place."""
        values = self[name]
        bad = ~np.isfinite(values)
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"{int(bad.sum())} values are not finite in data set {name!r}",
                f"{self.path}: {name}{list(first)} = {values[first]}",
                f"make it again: cmgl {self.stage} --force",
            )
        return values

    def verify(self) -> None:
        """Recompute the content digest; raise `InputError` when it differs from the stored one."""
        try:
            found = content_digest(self._file)
        except (OSError, RuntimeError, ValueError) as error:
            raise _unreadable(self.path, str(error)) from error
        if found != self.digest:
            raise InputError(
                "the content does not match its digest: the file was damaged or edited",
                f"{self.path}: stored {self.digest[:19]}, found {found[:19]}",
                f"make it again: cmgl {self.stage} --force",
            )

    def close(self) -> None:
        """Close the file; handles from `stream` become invalid."""
        self._file.close()

    def __enter__(self) -> "Artifact":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _dataset(self, name: str) -> h5py.Dataset:
        if name not in self._datasets:
            raise InputError(
                f"no data set {name!r}", f"{self.path} ({self.schema}) has: {', '.join(self)}", "check the name"
            )
        return self._datasets[name]


def open_artifact(path: str | Path, schema: str | None = None, *, verify: bool = False) -> Artifact:
    """Open an artifact for reading.

    Parameters
    ----------
    path : path
    schema : str, optional
        Refuse any other schema.
    verify : bool
        Recompute the content digest first (reads the whole file).

    Raises
    ------
    InputError
        Missing, not HDF5, truncated, not an artifact, of another or of a newer schema, unsafe, or damaged.
    """
    path = Path(path)
    file = _open_file(path)
    try:
        _check_header(path, file, schema)
        artifact = Artifact(path, file)
        if verify:
            artifact.verify()
    except BaseException:
        file.close()
        raise
    return artifact


def read_header(path: str | Path, schema: str | None = None) -> tuple[Identity, str]:
    """Return identity and content digest of an artifact without touching its arrays; refuse another schema."""
    path = Path(path)
    with _open_file(path) as file:
        _check_header(path, file, schema)
        return Identity.from_attributes(file.attrs), str(file.attrs["content_digest"])


def read_plain(path: str | Path) -> dict[str, np.ndarray]:
    """Read every data set of an HDF5 file of the user's own, under the same guard as an artifact.

    Raises
    ------
    InputError
        Missing, not HDF5, truncated, or unsafe.
    """
    path, found = Path(path), dict[str, h5py.Dataset]()
    with _open_file(path) as file:
        try:
            _walk(path, file, "", found)
            return {
                name: np.asarray(values.asstr()[()] if h5py.check_string_dtype(values.dtype) else values[()])
                for name, values in found.items()
            }
        except CmglError:
            raise
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise _unreadable(path, str(error)) from error


def _open_file(path: Path) -> h5py.File:
    if not path.exists():
        raise InputError("the artifact does not exist", str(path), "run the stage that writes it, or give another path")
    if path.is_dir():
        raise InputError("expected an artifact, found a folder", str(path), "give the path of an .h5 file")
    try:
        # locking=False: readers of a published file never wait, and read-only folders work
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise _unreadable(path, str(error)) from error


def _check_header(path: Path, file: h5py.File, schema: str | None) -> None:
    try:
        missing = [name for name in HEADER if name not in file.attrs]
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable(path, f"root attributes: {error}") from error
    if missing:
        raise InputError(
            "an HDF5 file, but not a cmgl artifact",
            f"{path}: root attribute {missing[0]!r} is missing",
            "give a file that cmgl wrote",
        )
    try:
        identity = Identity.from_attributes(file.attrs)
        json.loads(file.attrs.get("provenance", "{}"))
    except (ValueError, TypeError, KeyError, RuntimeError, OSError) as error:
        raise _unreadable(path, f"root attributes: {error}") from error
    known = SCHEMAS.get(identity.schema)
    if known is None:
        raise InputError(
            f"unknown schema {identity.schema!r}",
            f"{path}; known: {', '.join(SCHEMAS)}",
            "upgrade cmgl: pip install -U cmgl",
        )
    if schema is not None and identity.schema != schema:
        raise InputError(
            f"expected a {schema} artifact, found {identity.schema}",
            f"{path}, written by cmgl {identity.stage}",
            f"give the file with schema {schema}, or leave the option away",
        )
    if identity.schema_version > known.version:
        raise InputError(
            f"schema {identity.schema} version {identity.schema_version} is newer than this cmgl knows "
            f"({known.version})",
            str(path),
            "upgrade cmgl: pip install -U cmgl",
        )


def _checked_datasets(path: Path, file: h5py.File) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}
    try:
        _walk(path, file, "", found)
    except CmglError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise _unreadable(path, str(error)) from error
    schema: Schema = SCHEMAS[str(file.attrs["schema"])]
    schema.check({name: (dataset.shape, dataset.dtype) for name, dataset in found.items()}, str(path))
    return dict(sorted(found.items()))


def _walk(path: Path, group: h5py.Group, prefix: str, found: dict[str, h5py.Dataset]) -> None:
    for key in group:
        name = prefix + key
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise _unsafe(path, f"{name} is a link")
        item = group[key]
        if isinstance(item, h5py.Group):
            if name.count("/") > 8:
                raise _unsafe(path, f"{name[:80]} is nested too deeply")
            _walk(path, item, name + "/", found)
        elif isinstance(item, h5py.Dataset):
            _check_dataset(path, name, item)
            if not name.startswith(PRIVATE):
                found[name] = item
        else:
            raise _unsafe(path, f"{name} is neither a group nor a data set")


def _check_dataset(path: Path, name: str, dataset: h5py.Dataset) -> None:
    if dataset.is_virtual or dataset.external:
        raise _unsafe(path, f"{name} keeps its data in other files")
    text = h5py.check_string_dtype(dataset.dtype)
    if dataset.shape is None or (dataset.dtype.kind not in "biuf" and text is None):
        raise _unsafe(path, f"{name} holds {dataset.dtype}, not plain numbers or texts")
    claimed, stored = dataset.nbytes, dataset.id.get_storage_size()
    if claimed > MOST_EXPANSION * stored + 2**16:
        raise _unsafe(path, f"{name} claims {claimed} bytes but stores {stored}")


def _unsafe(path: Path, reason: str) -> InputError:
    return InputError(
        "refused to read a file that cmgl did not write", f"{path}: {reason}", "make the artifact again with cmgl"
    )


def _unreadable(path: Path, reason: str) -> InputError:
    return InputError(
        "the file cannot be read: not HDF5, truncated, or damaged",
        f"{path}: {reason}",
        "make it again with the stage that writes it, or fetch it again",
    )
