"""Open an artifact: check that it is one, that it is sound, and hand out its arrays.

A file may come from anywhere: what `safety` refuses is refused before a value is read.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cmgl_cli.artifacts.digest import PRIVATE, content_digest
from cmgl_cli.artifacts.identity import Identity, json_object
from cmgl_cli.artifacts.safety import (
    PLAIN_FILTERS,
    PLAIN_SLACK,
    STRUCTURE_BYTES,
    UNREADABLE,
    Inspection,
    open_hdf5,
    printable,
    read_values,
    unreadable,
    unsafe,
)
from cmgl_cli.artifacts.schemas import SCHEMAS, Schema
from cmgl_cli.errors import InputError
from cmgl_cli.limits import bounded_memory, too_large

HEADER = ("schema", "schema_version", "stage", "stage_version", "config", "inputs", "digests", "content_digest")


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
        try:
            self.identity = Identity.from_attributes(file.attrs)
            self.digest = str(file.attrs["content_digest"])
            self.provenance: dict[str, Any] = json_object(file.attrs.get("provenance", "{}"))
            # files from before the header had a digest are held against their content's only
            self._header = str(file.attrs.get("header_digest", self.identity.header_digest(self.digest)))
        except UNREADABLE as error:
            raise unreadable(path, f"root attributes: {printable(str(error))}") from error
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
        return read_values(self.path, name, self._dataset(name))

    def __contains__(self, name: object) -> bool:
        return name in self._datasets

    def __iter__(self) -> Iterator[str]:
        return iter(self._datasets)

    def __len__(self) -> int:
        return len(self._datasets)

    def stream(self, name: str) -> h5py.Dataset:
        """Return a handle that reads only the rows it is sliced for."""
        return self._dataset(name)

    def about(self, name: str) -> str:
        """Return what the file itself says of a data set; empty where it says nothing."""
        try:
            return printable(str(self._dataset(name).attrs.get("about", "")))
        except UNREADABLE as error:
            raise unreadable(self.path, f"attributes of {name!r}: {printable(str(error))}") from error

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
        except UNREADABLE as error:
            raise unreadable(self.path, printable(str(error))) from error
        header = self.identity.header_digest(self.digest)
        if self._header != header:
            raise self._damaged("header", self._header, header)
        if found != self.digest:
            raise self._damaged("content", self.digest, found)

    def _damaged(self, what: str, stored: str, found: str) -> InputError:
        return InputError(
            f"the {what} does not match its digest: the file was damaged or edited",
            f"{self.path}: stored {printable(stored)[:19]}, found {found[:19]}",
            f"make it again: cmgl {printable(self.stage)} --force",
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
    path = Path(path)
    with _open_file(path) as file:
        found = Inspection(path, PLAIN_FILTERS, PLAIN_SLACK).walk(file)
        return {name: read_values(path, name, dataset) for name, dataset in found.items()}


def require_plain(path: str | Path) -> None:
    """Check that an HDF5 file of somebody's, NetCDF-4 among them, can be read whole by a library that trusts it.

    Raises
    ------
    InputError
        Not HDF5, truncated, or unsafe.
    """
    path = Path(path)
    with _open_file(path) as file:
        for name, dataset in Inspection(path, PLAIN_FILTERS, PLAIN_SLACK).walk(file).items():
            reason = too_large(dataset.nbytes, dataset.id.get_storage_size())
            if reason:
                raise unsafe(path, f"{name} {reason}")


def _open_file(path: Path) -> h5py.File:
    if not path.exists():
        raise InputError("the artifact does not exist", str(path), "run the stage that writes it, or give another path")
    if path.is_dir():
        raise InputError("expected an artifact, found a folder", str(path), "give the path of an .h5 file")
    try:
        return open_hdf5(path, "r")
    except UNREADABLE as error:
        raise unreadable(path, str(error)) from error


def _check_header(path: Path, file: h5py.File, schema: str | None) -> None:
    try:
        missing = [name for name in HEADER if name not in file.attrs]
    except UNREADABLE as error:
        raise unreadable(path, f"root attributes: {error}") from error
    if missing:
        raise InputError(
            "an HDF5 file, but not a cmgl artifact",
            f"{path}: root attribute {missing[0]!r} is missing",
            "give a file that cmgl wrote",
        )
    try:
        with bounded_memory(STRUCTURE_BYTES):
            dict(file.attrs)
        identity = Identity.from_attributes(file.attrs)
        json_object(file.attrs.get("provenance", "{}"))
    except UNREADABLE as error:
        raise unreadable(path, f"root attributes: {error}") from error
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
    walked = Inspection(path).walk(file)
    found = {name: dataset for name, dataset in walked.items() if not name.startswith(PRIVATE)}
    schema: Schema = SCHEMAS[str(file.attrs["schema"])]
    schema.check({name: (dataset.shape, dataset.dtype) for name, dataset in found.items()}, str(path))
    return dict(sorted(found.items()))
