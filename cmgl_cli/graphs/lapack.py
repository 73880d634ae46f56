"""Cholesky factor, inverse and tridiagonal form in place, callable from compiled code: LAPACK's as scipy brings it.

numba has no inverse from a Cholesky factor and no tridiagonal form. Routines bound by the name of a symbol, not by an
address, leave compiled code cacheable.
"""

from typing import Any

import llvmlite.binding
import numpy as np
from numba import njit, types
from numba.core.typing import signature
from numba.extending import get_cython_function_address

for _name in ("dpotrf", "dpotri", "dsytrd", "dorgtr"):
    llvmlite.binding.add_symbol(f"cmgl_{_name}", get_cython_function_address("scipy.linalg.cython_lapack", _name))
_byte, _int, _double = types.CPointer(types.uint8), types.CPointer(types.int32), types.CPointer(types.float64)
_signature = signature(types.void, _byte, _int, _double, _int, _int)
_potrf: Any = types.ExternalFunction("cmgl_dpotrf", _signature)
_potri: Any = types.ExternalFunction("cmgl_dpotri", _signature)
_sytrd: Any = types.ExternalFunction(
    "cmgl_dsytrd", signature(types.void, _byte, _int, _double, _int, *[_double] * 4, _int, _int)
)
_orgtr: Any = types.ExternalFunction(
    "cmgl_dorgtr", signature(types.void, _byte, _int, _double, _int, _double, _double, _int, _int)
)
_BLOCK = 32
_UPPER = 85  # the letter; column-major "U" is the lower triangle of a C-contiguous array


@njit(cache=True, nogil=True)
def factor(matrix):
    """Overwrite the lower triangle of a symmetric [p, p] by its Cholesky factor; return log det, or NaN."""
    p = matrix.shape[0]
    if p == 0:
        return 0.0
    letter, size, info = np.array([_UPPER], np.uint8), np.array([p], np.int32), np.zeros(1, np.int32)
    _potrf(letter.ctypes, size.ctypes, matrix.ctypes, size.ctypes, info.ctypes)
    if info[0] != 0:
        return np.nan
    total = 0.0
    for i in range(p):
        total += np.log(matrix[i, i])
    return 2.0 * total


@njit(cache=True, nogil=True)
def invert(matrix):
    """Overwrite a Cholesky factor (`factor`) by the inverse [p, p] of what it factors, both triangles."""
    p = matrix.shape[0]
    letter, size, info = np.array([_UPPER], np.uint8), np.array([p], np.int32), np.zeros(1, np.int32)
    _potri(letter.ctypes, size.ctypes, matrix.ctypes, size.ctypes, info.ctypes)
    for i in range(p):
        for j in range(i):
            matrix[j, i] = matrix[i, j]


@njit(cache=True, nogil=True)
def tridiagonal(matrix, diagonal, beside):
    """Write Q M Q^T of a symmetric M [p, p] to ``diagonal`` [p] and ``beside`` [p - 1], and Q over M."""
    p = matrix.shape[0]
    letter, size, info = np.array([_UPPER], np.uint8), np.array([p], np.int32), np.zeros(1, np.int32)
    tau, work, room = np.empty(p), np.empty(_BLOCK * p), np.array([_BLOCK * p], np.int32)
    _sytrd(
        letter.ctypes, size.ctypes, matrix.ctypes, size.ctypes, diagonal.ctypes, beside.ctypes, tau.ctypes,
        work.ctypes, room.ctypes, info.ctypes,
    )  # fmt: skip
    _orgtr(
        letter.ctypes, size.ctypes, matrix.ctypes, size.ctypes, tau.ctypes, work.ctypes, room.ctypes, info.ctypes
    )  # fmt: skip
