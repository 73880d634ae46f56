"""Arrays from ``.npy`` and ``.npz`` files of anybody's: nothing unpickled, sizes checked before memory is taken."""

import io
import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from cmgl_cli.errors import is_plain
from cmgl_cli.limits import impossible, too_large

PLAIN_KINDS = "biufSUMm"
PLAIN_PACKING = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def load_arrays(source: Path | bytes) -> dict[str, np.ndarray]:
    """Read every array of a file.

    Parameters
    ----------
    source : path or bytes
        The file, or its content.

    Returns
    -------
    dict of str to ndarray
        By name; the one array of an ``.npy`` file has the empty name.

    Raises
    ------
    ValueError
        In one sentence: it is no such file, is damaged, holds objects (pickles) or structures, or claims more than it
        stores or than there is memory.
    OSError
        It cannot be opened.
    """
    with open(source, "rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        try:
            magic = file.read(len(np.lib.format.MAGIC_PREFIX))
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            if magic == np.lib.format.MAGIC_PREFIX:
                _check_array(file, "the array", size, size)
                file.seek(0)
                return {"": np.lib.format.read_array(file, allow_pickle=False)}
            return _read_archive(file)
        except OSError:
            raise
        except Exception as error:  # zip and numpy raise almost anything on hostile bytes
            raise ValueError(str(error) or type(error).__name__) from error


def _read_archive(file: IO[bytes]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        whole = too_large(sum(member.file_size for member in members), sum(member.compress_size for member in members))
        if whole:
            raise ValueError(f"the file {whole}")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if not is_plain(name) or name in arrays:
                raise ValueError(f"{ascii(name)} is no plain name, or comes twice")
            if member.compress_type not in PLAIN_PACKING:
                raise ValueError(f"{name} is packed otherwise than numpy packs")
            with archive.open(member) as opened:
                _check_array(opened, name, member.file_size, member.compress_size)
            with archive.open(member) as opened:
                arrays[name] = np.lib.format.read_array(opened, allow_pickle=False)
    return arrays


def _check_array(file: IO[bytes], name: str, size: int, stored: int) -> None:
    """Hold the header of one array against the bytes that follow it."""
    major, _ = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects (pickles), which can run code when read")
    if dtype.kind not in PLAIN_KINDS:
        raise ValueError(f"{name} holds {dtype}, not plain numbers or texts")
    claimed = math.prod(shape) * dtype.itemsize
    reason = impossible(claimed, stored) or too_large(claimed, stored)
    if not reason and claimed != size - file.tell():
        reason = f"has the shape of {claimed} bytes, but holds {size - file.tell()}"
    if reason:
        raise ValueError(f"{name} {reason}")
