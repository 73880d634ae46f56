"""Read the pickles CIFAR is published as, without letting a pickle run anything.

A pickle is a program. Here its instructions are first read through without running them, and any that plain
data do not need ends the matter. Then it runs in an unpickler that knows only the names by which numpy arrays are
rebuilt, and gives inert stand-ins for them: they collect bytes and never call numpy's own unpickling.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from cmgl_cli.errors import InputError

_INSTRUCTIONS = set(
    """
    PROTO FRAME STOP MARK POP GLOBAL STACK_GLOBAL REDUCE BUILD NONE NEWTRUE NEWFALSE
    BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINSTRING SHORT_BINSTRING
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 BINUNICODE SHORT_BINUNICODE
    EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 SETITEM SETITEMS APPEND APPENDS
    BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET
    """.split()
)
_PLAIN_DTYPES = {"b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"}


class _Dtype:
    """Stands in for ``numpy.dtype``: plain numbers only."""

    def __init__(self, code: str | bytes = "", align: Any = False, copy: Any = True):
        self.code = code.decode() if isinstance(code, bytes) else code
        if self.code not in _PLAIN_DTYPES:
            raise pickle.UnpicklingError(f"an array of dtype {self.code!r}")
        self.order = "<"

    def __setstate__(self, state: tuple) -> None:
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"byte order {order!r}")
        self.order = order


class _Array:
    """Stands in for ``numpy.ndarray``: takes shape, dtype and bytes, checks that they agree."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
            raise pickle.UnpicklingError("an array without plain bytes")
        values = np.frombuffer(raw, dtype=np.dtype(dtype.order + dtype.code))
        self.values = values.reshape(tuple(int(n) for n in shape), order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(raw: bytes | bytearray, dtype: _Dtype, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", bytes(raw)))
    return array


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoded as {encoding!r}")
    return text.encode("latin-1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,  # how Python 3 writes bytes in Python 2's protocol
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of arrays, lists, strings and numbers.

    Parameters
    ----------
    path : Path
        A pickle as Python 2 and numpy wrote it, or as Python 3 writes the same.

    Returns
    -------
    dict of str to value
        Byte strings at the top and in lists of strings stay bytes; keys are decoded.

    Raises
    ------
    InputError
        If the file is missing, is no pickled dictionary, or asks for anything but numpy arrays.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError("a batch of the dataset cannot be read", f"{path}: {error.strerror}", "restore it") from error
    try:
        _check_instructions(raw)
        content = _Unpickler(io.BytesIO(raw), encoding="bytes").load()
    except Exception as error:  # a hostile pickle can make the machine raise anything
        raise InputError(
            "a batch of the dataset is not a pickle of plain arrays",
            f"{path}: {error or type(error).__name__}",
            "get the archive again from the page of the dataset; never open this file with pickle",
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            "a batch of the dataset is not a dictionary", f"{path}: {type(content).__name__}", "get it again"
        )
    return {_text(key): value.values if isinstance(value, _Array) else value for key, value in content.items()}


def _check_instructions(raw: bytes) -> None:
    """Refuse instructions that data do not need, and memo places chosen to exhaust the memory."""
    for number, (instruction, argument, _) in enumerate(pickletools.genops(raw), start=1):
        if instruction.name not in _INSTRUCTIONS:
            raise pickle.UnpicklingError(f"it uses the instruction {instruction.name}")
        if instruction.name in ("BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > number:
            raise pickle.UnpicklingError(f"it fills place {argument} of its memo at instruction {number}")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
