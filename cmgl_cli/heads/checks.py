"""What every head asks of its arrays before it computes, with errors that name the row or class at fault."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmgl_cli.errors import InputError

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def finite(name: str, value: ArrayLike, shape: tuple[int | None, ...]) -> Array:
    """Return `value` as float64 after checking its shape and that every entry is finite.

    Parameters
    ----------
    name : str
        How the array is called in an error.
    value : array_like
        Anything numpy understands; never modified.
    shape : tuple of int or None
        Expected shape, None where any length will do.

    Returns
    -------
    ndarray, float64

    Raises
    ------
    InputError
        If the shape differs, or an entry is NaN or infinite (the first such row is named).
    """
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise InputError(
            f"{name} has the wrong shape",
            f"got {array.shape}, expected ({wanted})",
            "check which stage wrote the array",
        )
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise InputError(
            f"{name} holds NaN or infinite values",
            f"first in row {row}",
            "drop that sample or class, or rerun the stage that computed it",
        )
    return array


def class_labels(labels: ArrayLike, n_samples: int, n_classes: int, name: str = "labels") -> Labels:
    """Return `labels` as int64 [n_samples] after checking that each lies in 0..n_classes-1.

    Raises
    ------
    InputError
        If the length differs, a label is out of range or is not a whole number, or fewer than two classes are asked
        for.
    """
    if n_classes < 2:
        raise InputError(
            "classification needs at least two classes", f"got {n_classes}", "add samples of another class"
        )
    array = np.asarray(labels)
    if array.shape != (n_samples,):
        raise InputError(
            f"{name} and samples differ in number",
            f"{array.shape} against {n_samples} samples",
            "pass one label a sample",
        )
    whole = array.astype(np.int64) if array.size else np.zeros(0, np.int64)
    wrong = (whole != array) | (whole < 0) | (whole >= n_classes)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{name} must be whole numbers in 0..{n_classes - 1}",
            f"row {row} is {array[row]!r}",
            "renumber the classes",
        )
    return whole


def positive_definite(name: str, matrices: ArrayLike) -> Array:
    """Return the Cholesky factors of a stack of precision matrices [C, p, p], after checking each of them.

    Raises
    ------
    InputError
        If a matrix is not symmetric (to 1e-8 of its largest entry) or not positive definite; its class is named.
    """
    stack = finite(name, matrices, (None, None, None))
    if stack.shape[1] != stack.shape[2]:
        raise InputError(f"{name} must be square", f"got {stack.shape}", "pass an array of shape [C, p, p]")
    factors = np.empty_like(stack)
    for index, matrix in enumerate(stack):
        if np.abs(matrix - matrix.T).max() > 1e-8 * np.abs(matrix).max():
            raise InputError(f"{name} is not symmetric", f"class {index}", "average it with its transpose")
        try:
            factors[index] = np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            lowest = float(np.linalg.eigvalsh(matrix)[0])
            raise InputError(
                f"{name} is not positive definite",
                f"class {index}, smallest eigenvalue {lowest:.3g}",
                "shrink it toward the common precision, or fit the graphs with a larger rho or gamma",
            ) from None
    return factors
