"""Matrices of the user's own, from npz, npy, CSV and HDF5: priors on edges, and covariances computed elsewhere.

Every value is held against what it has to be before anything is computed; messages name file, array and entry.
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmgl_cli.artifacts import read_plain
from cmgl_cli.datasets.numpy_files import load_arrays
from cmgl_cli.errors import InputError, suggest

SYMMETRY = 1e-6
NAMED = ("classes", "nodes")
KINDS = (".npz", ".npy", ".csv", ".h5", ".hdf5")
BARE = "matrix"


@dataclass(frozen=True)
class OwnPrior:
    """A prior of the user's own.

    Attributes
    ----------
    path : Path
    values : ndarray, [p, p] or [C, p, p], float64
        In [0, 1], symmetric; the diagonal is not used.
    classes, nodes : tuple of str
        Names, empty where the file gives none.
    """

    path: Path
    values: np.ndarray
    classes: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Digest of content and names."""
        return _digest(self.values, [self.classes, self.nodes])

    def for_classes(self, classes: Sequence[str], p: int, nodes: Sequence[str] = ()) -> np.ndarray:
        """Return the prior [C, p, p] in the order of `classes`; one matrix serves all classes.

        Raises
        ------
        InputError
            Another number of nodes or classes, or other names.
        """
        if self.values.shape[-1] != p:
            raise InputError(
                f"the prior has {self.values.shape[-1]} nodes, the observations have {p}",
                f"{self.path}: shape {self.values.shape}",
                f"give a prior of shape ({p}, {p}) or ({len(classes)}, {p}, {p})",
            )
        if self.nodes and nodes and tuple(nodes) != self.nodes:
            first = next(i for i, pair in enumerate(zip(self.nodes, nodes, strict=True)) if pair[0] != pair[1])
            raise InputError(
                "the prior names its nodes otherwise than the observations",
                f"{self.path}: node {first} is {self.nodes[first]!r}, expected {nodes[first]!r}",
                "bring rows and columns into the order of the observations' nodes",
            )
        if self.values.ndim == 2:
            return np.broadcast_to(self.values, (len(classes), p, p)).copy()
        if not self.classes:
            return self._in_given_order(len(classes))
        unknown = [name for name in classes if name not in self.classes]
        if unknown:
            raise InputError(
                f"the prior has no class {unknown[0]!r}",
                f"{self.path}: classes = {', '.join(self.classes[:10])}",
                suggest(unknown[0], self.classes),
            )
        return self.values[[self.classes.index(name) for name in classes]]

    def _in_given_order(self, n_classes: int) -> np.ndarray:
        if len(self.values) != n_classes:
            raise InputError(
                f"the prior has {len(self.values)} classes, the observations have {n_classes}",
                f"{self.path}: shape {self.values.shape}",
                "give one matrix for all classes, or one a class with their names in 'classes'",
            )
        return self.values


@dataclass(frozen=True)
class OwnCovariances:
    """Covariances or correlations computed elsewhere.

    Attributes
    ----------
    path : Path
    covariance : ndarray, [C, p, p], float64
        Symmetric positive semi-definite, positive variances.
    counts : ndarray of int64 [C], or None
        Samples behind each.
    classes, nodes : tuple of str
        ``0``, ``1``... and ``node0``... where the file gives none.
    """

    path: Path
    covariance: np.ndarray
    counts: np.ndarray | None
    classes: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Digest of content and names."""
        counts = [] if self.counts is None else self.counts.tolist()
        return _digest(self.covariance, [self.classes, self.nodes, counts])


def read_prior(path: Path) -> OwnPrior:
    """Read a prior: array ``prior`` (or the only matrix), optionally ``classes`` and ``nodes``; a cmgl prior too.

    Raises
    ------
    InputError
        Unreadable, not square, not finite, not symmetric, or outside [0, 1].
    """
    arrays = _read(path)
    key, values = _matrix(path, arrays, "prior")
    _require_square(path, key, values)
    _require_finite(path, key, values)
    p = values.shape[-1]
    values = values.copy()
    values[..., np.arange(p), np.arange(p)] = 1.0
    if values.min() < 0 or values.max() > 1:
        worst = np.unravel_index(np.argmax(np.maximum(-values, values - 1)), values.shape)
        raise InputError(
            "a prior must lie in [0, 1]",
            f"{path}: {_entry(key, worst)} = {values[worst]:g}",
            "rescale it: 1 is 'surely an edge', 0 'surely none', 0.5 'do not know'",
        )
    values = _symmetric(path, key, values)
    classes = _names(path, arrays, "classes", len(values) if values.ndim == 3 else 0)
    return OwnPrior(path, values, classes, _names(path, arrays, "nodes", p))


def read_covariances(path: Path) -> OwnCovariances:
    """Read ``covariance`` [C, p, p] or [p, p] (or the only matrix), ``n_samples``, ``classes``, ``nodes``.

    Raises
    ------
    InputError
        Unreadable, not square, not finite, not symmetric, not positive semi-definite, a node without variance, or
        counts or names that do not fit.
    """
    arrays = _read(path)
    key, values = _matrix(path, arrays, "covariance")
    _require_square(path, key, values)
    stack = values[None] if values.ndim == 2 else values
    classes = _names(path, arrays, "classes", len(stack)) or tuple(str(c) for c in range(len(stack)))
    nodes = _names(path, arrays, "nodes", stack.shape[1]) or tuple(f"node{i}" for i in range(stack.shape[1]))
    _require_finite(path, key, stack)
    stack = _symmetric(path, key, stack)
    variance = np.diagonal(stack, axis1=1, axis2=2)
    if (variance <= 0).any():
        c, i = (int(n) for n in np.argwhere(variance <= 0)[0])
        raise InputError(
            "a node has no variance",
            f"{path}: {key}[{c}, {i}, {i}] = {variance[c, i]:g} (class {classes[c]}, node {nodes[i]})",
            "drop the node or the class",
        )
    least = np.linalg.eigvalsh(stack)[:, 0] / variance.max(axis=1)
    if (least < -1e-8).any():
        c = int(least.argmin())
        raise InputError(
            "a covariance is not positive semi-definite",
            f"{path}: {key}[{c}] (class {classes[c]}): least eigenvalue {least[c] * variance[c].max():.3g}",
            "compute it from complete samples, or project it (set its negative eigenvalues to zero)",
        )
    return OwnCovariances(path, stack, _counts(path, arrays, len(stack)), classes, nodes)


def _read(path: Path) -> Mapping[str, np.ndarray]:
    if not path.exists():
        raise InputError("the file does not exist", str(path), "check the path")
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        raise InputError("unknown kind of file", f"{path}: suffix {suffix!r}", f"use one of {', '.join(KINDS)}")
    if suffix in {".h5", ".hdf5"}:
        return read_plain(path)
    if suffix == ".csv":
        return _read_csv(path)
    try:
        return {name or BARE: values for name, values in load_arrays(path).items()}
    except (OSError, ValueError) as error:
        raise InputError(
            "the file cannot be read", f"{path}: {error}", "save plain numbers, and names with dtype=str"
        ) from error


def _read_csv(path: Path) -> Mapping[str, np.ndarray]:
    """Read one matrix; a first row, and a first column, of names are understood."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("the file cannot be read", f"{path}: {error}", "save it as CSV in UTF-8") from error
    if not rows:
        raise InputError("the file is empty", str(path), "write one row of numbers a node")
    arrays = {}
    if not all(_is_number(cell) for cell in rows[0][1:] or rows[0]):
        names, rows = rows[0], rows[1:]
        labelled = bool(rows) and (len(rows[0]) == len(names) and len(rows) == len(names) - 1)
        arrays["nodes"] = np.array([name.strip() for name in (names[1:] if labelled else names)])
        rows = [row[1:] if labelled else row for row in rows]
    for number, row in enumerate(rows, 1):
        bad = next((cell for cell in row if not _is_number(cell)), None)
        if bad is not None or len(row) != len(rows[0]):
            problem = (
                f"{bad!r} is not a number" if bad is not None else f"{len(row)} values, the first has {len(rows[0])}"
            )
            raise InputError(
                "not a matrix of numbers", f"{path}: row {number} of the matrix: {problem}", "correct that row"
            )
    return {**arrays, BARE: np.array(rows, dtype=np.float64)}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _matrix(path: Path, arrays: Mapping[str, np.ndarray], key: str) -> tuple[str, np.ndarray]:
    """Return the array of that name, or the only one that could be meant."""
    found = key if key in arrays else next((name for name in (f"{key}s", BARE, "correlation") if name in arrays), None)
    square = [name for name, values in arrays.items() if values.ndim in (2, 3) and values.dtype.kind in "fiub"]
    found = found or (square[0] if len(square) == 1 else None)
    if found is None:
        raise InputError(
            f"there is no array {key!r}",
            f"{path} holds: {', '.join(arrays) or 'nothing'}",
            f"save it as np.savez(file, {key}=...)",
        )
    if arrays[found].dtype.kind not in "fiub":
        raise InputError(f"{found!r} must hold numbers", f"{path}: dtype {arrays[found].dtype}", "save it as float64")
    return found, arrays[found].astype(np.float64)


def _require_square(path: Path, key: str, values: np.ndarray) -> None:
    if values.ndim not in (2, 3) or values.shape[-1] != values.shape[-2] or values.size == 0:
        raise InputError(
            f"{key!r} must be square", f"{path}: {key} has shape {values.shape}", "give [p, p] or [C, p, p]"
        )


def _require_finite(path: Path, key: str, values: np.ndarray) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        first = tuple(bad[0])
        raise InputError(
            f"{len(bad)} values are not finite",
            f"{path}: {_entry(key, first)} = {values[first]}",
            "remove the samples or nodes that made them",
        )


def _symmetric(path: Path, key: str, values: np.ndarray) -> np.ndarray:
    """Return the mean of the matrices and their transposes; refuse more than rounding between them."""
    other = np.swapaxes(values, -1, -2)
    difference = np.abs(values - other)
    if difference.max() > SYMMETRY * max(1e-300, float(np.abs(values).max())):
        first = np.unravel_index(difference.argmax(), values.shape)
        mirrored = (*first[:-2], first[-1], first[-2])
        raise InputError(
            f"{key!r} is not symmetric",
            f"{path}: {_entry(key, first)} = {values[first]:g}, {_entry(key, mirrored)} = {values[mirrored]:g}",
            "give (M + M.T) / 2, if both halves mean the same",
        )
    return (values + other) / 2


def _entry(key: str, index: Iterable) -> str:
    return f"{key}[{', '.join(str(int(i)) for i in index)}]"


def _names(path: Path, arrays: Mapping[str, np.ndarray], key: str, length: int) -> tuple[str, ...]:
    if key not in arrays or (key == "classes" and length == 0):
        return ()
    names = tuple(str(name) for name in arrays[key].ravel())
    if len(names) != length or len(set(names)) != length:
        problem = f"{len(names)} names for {length}" if len(names) != length else "a name occurs twice"
        raise InputError(
            f"{key!r} does not fit the matrices", f"{path}: {key}: {problem}", f"give one name each of {key}"
        )
    return names


def _counts(path: Path, arrays: Mapping[str, np.ndarray], n_classes: int) -> np.ndarray | None:
    key = next((name for name in ("n_samples", "counts") if name in arrays), None)
    if key is None:
        return None
    values = arrays[key].ravel()
    if values.dtype.kind not in "fiu" or values.size not in (1, n_classes):
        raise InputError(
            f"{key!r} does not fit the matrices",
            f"{path}: {key} has shape {arrays[key].shape}, dtype {arrays[key].dtype}",
            f"give one number, or {n_classes}",
        )
    counts = np.broadcast_to(values, n_classes).astype(np.float64)
    if not (np.isfinite(counts).all() and (counts >= 2).all() and (counts == counts.round()).all()):
        worst = int(np.argmin(np.where(np.isfinite(counts) & (counts == counts.round()), counts, -np.inf)))
        raise InputError(
            f"{key!r} must hold whole numbers of at least 2",
            f"{path}: {key}[{worst}] = {counts[worst]:g}",
            "give the samples behind each covariance",
        )
    return counts.astype(np.int64)


def _digest(values: np.ndarray, names: object) -> str:
    digest = hashlib.sha256(json.dumps([values.shape, names], ensure_ascii=False).encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    return "sha256:" + digest.hexdigest()
