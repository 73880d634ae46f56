"""Encode a stream of images: decoding in threads beside the encoder, batches that fit, bad images marked."""

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image

from cmgl_cli.encoders.encoder import Tokens
from cmgl_cli.encoders.mirroring import AnyEncoder
from cmgl_cli.encoders.preprocessing import Pixels
from cmgl_cli.errors import InputError, UsageError

Loader = Callable[[], Image.Image]
OnError = Callable[[Hashable, Exception], None]
Log = Callable[[str], None]

# A batch to start from, for 196 patches of width 768 (ViT-B/16 at 224 px); others in proportion.
_START = {"cpu": 16, "cuda": 256}
_REFERENCE = 196 * 768
_MOST_WORKERS = 16


@dataclass(frozen=True)
class EncodedBatch:
    """One batch of a stream, in the order of its input.

    Attributes
    ----------
    keys : list
        The keys of the items, one a row.
    tokens : ndarray (B, N_p, d), float16 or float32
        Patch tokens; a row of NaN where the image could not be read, zeros where padded.
    valid : ndarray (B,), bool
        Whether the image could be read.
    mask : ndarray (B, N_p), bool
        Where there is a patch; all False in an invalid row.
    grids : ndarray (B, 2), int32
        Rows and columns of patches; zeros in an invalid row.
    """

    keys: list[Any]
    tokens: np.ndarray
    valid: np.ndarray
    mask: np.ndarray
    grids: np.ndarray


def encode_stream(
    encoder: AnyEncoder,
    items: Iterable[tuple[Hashable, Loader]],
    *,
    batch_size: int | str = "auto",
    workers: int | None = None,
    dtype: str = "float16",
    on_error: OnError | None = None,
    log: Log | None = None,
) -> Iterator[EncodedBatch]:
    """Yield the patch tokens of a stream of images, decoding ahead in threads while the encoder works.

    Parameters
    ----------
    encoder : Encoder, TiledEncoder or MirroredEncoder
        From `load_encoder`.
    items : iterable of (key, loader)
        ``loader()`` opens one RGB image; it is called in a worker thread. Read lazily, a bounded number ahead.
    batch_size : int or "auto"
        Rows of a batch. ``auto`` starts from a size that suits the device and halves it, for what is left of the
        stream, whenever memory does not suffice; a number is kept, and not enough memory is an error.
    workers : int, optional
        Decoding threads; by default one a core, at most 16.
    dtype : str
        ``float16`` (what is stored) or ``float32``.
    on_error : callable, optional
        Called with the key and the error of an image that cannot be read; the row is then marked and the stream goes
        on. Without it the error is raised.
    log : callable, optional
        Called with a sentence for everything decided on the way.

    Yields
    ------
    EncodedBatch
        Every key once, in the order given. The last batch may be smaller.

    Raises
    ------
    UsageError
        For an unknown option value, or a batch that does not fit into memory.
    InputError
        When a token is not finite, or overflows float16.
    """
    size = _start_size(encoder, batch_size)
    if dtype not in ("float16", "float32"):
        raise UsageError("unknown dtype of stored tokens", f"dtype: {dtype!r}", "use float16 or float32")
    threads = _worker_count(workers)
    tell = log or (lambda message: None)
    tell(f"encoding on {encoder.device} in {encoder.dtype}, batches of {size}, {threads} decoding threads")
    batcher = _Batcher(encoder, size, halve=batch_size == "auto", log=tell)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        decoded = _decode_ahead(pool, encoder, iter(items), ahead=2 * size + threads)
        try:
            while batch := list(islice(decoded, size)):
                yield _encode_rows(batcher, batch, np.dtype(dtype), on_error)
        finally:
            pool.shutdown(cancel_futures=True)


def _start_size(encoder: AnyEncoder, batch_size: int | str) -> int:
    if batch_size == "auto":
        start = _START[encoder.device.type] * _REFERENCE / (encoder.n_patches * encoder.width)
        return int(min(max(start, 1), 4 * _START[encoder.device.type]))
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UsageError("the batch size is no positive number", f"batch_size: {batch_size!r}", "use auto or 1, 2, ...")
    return batch_size


def _worker_count(workers: int | None) -> int:
    if workers is None:
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(usable, _MOST_WORKERS)
    if workers < 1:
        raise UsageError("the number of workers is not positive", f"workers: {workers}", "use 1 or more")
    return workers


def _decode_ahead(
    pool: ThreadPoolExecutor, encoder: AnyEncoder, items: Iterator[tuple[Hashable, Loader]], ahead: int
) -> Iterator[tuple[Hashable, Pixels | Exception]]:
    """Yield (key, pixels or the error) in order, with at most ``ahead`` images decoded in advance."""

    def decode(loader: Loader) -> Pixels | Exception:
        try:
            return encoder.preprocess(loader())
        except Exception as error:  # any reader may fail in any way on a broken file; the caller decides
            return error

    queue: deque[tuple[Hashable, Future[Pixels | Exception]]] = deque()
    queue.extend((key, pool.submit(decode, loader)) for key, loader in islice(items, ahead))
    while queue:
        key, future = queue.popleft()
        yield key, future.result()
        queue.extend((key, pool.submit(decode, loader)) for key, loader in islice(items, 1))


def _encode_rows(
    batcher: "_Batcher",
    batch: list[tuple[Hashable, Pixels | Exception]],
    dtype: np.dtype,
    on_error: OnError | None,
) -> EncodedBatch:
    keys = [key for key, _ in batch]
    valid = np.array([isinstance(pixels, Pixels) for _, pixels in batch])
    for key, pixels in batch:
        if isinstance(pixels, Exception):
            if on_error is None:
                raise pixels
            on_error(key, pixels)
    encoder = batcher.encoder
    tokens = np.full((len(batch), encoder.n_patches, encoder.width), np.nan, dtype=dtype)
    mask = np.zeros((len(batch), encoder.n_patches), dtype=bool)
    grids = np.zeros((len(batch), 2), dtype=np.int32)
    if valid.any():
        encoded = batcher.encode([pixels for _, pixels in batch if isinstance(pixels, Pixels)])
        with np.errstate(over="ignore"):
            tokens[valid] = encoded.values
        mask[valid], grids[valid] = encoded.mask, encoded.grids
        _check_finite(tokens, valid, keys)
    return EncodedBatch(keys, tokens, valid, mask, grids)


def _check_finite(tokens: np.ndarray, valid: np.ndarray, keys: list[Any]) -> None:
    bad = valid & ~np.isfinite(tokens).all(axis=(1, 2))
    if bad.any():
        raise InputError(
            f"{bad.sum()} images have tokens that are not finite in {tokens.dtype}",
            f"image: {keys[int(np.argmax(bad))]!r}",
            "compute with --dtype float32 or bfloat16; if it stays, the checkpoint's weights are damaged",
        )


@dataclass
class _Batcher:
    """Encode in pieces that fit into memory."""

    encoder: AnyEncoder
    size: int
    halve: bool
    log: Log = field(repr=False)

    def encode(self, pixels: list[Pixels]) -> Tokens:
        pieces: list[Tokens] = []
        start = 0
        while start < len(pixels):
            piece = self._try(pixels[start : start + self.size])
            if piece is None:
                self._halve()
                continue
            pieces.append(piece)
            start += len(piece.values)
        fields = ("values", "mask", "grids")
        return Tokens(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in fields))

    def _try(self, pixels: list[Pixels]) -> Tokens | None:
        """Encode, or return None when memory does not suffice (and let go of what the failed attempt holds)."""
        try:
            return self._constant_shape(pixels)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        if self.encoder.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _constant_shape(self, pixels: list[Pixels]) -> Tokens:
        """Fill a short batch up on CUDA, where the matrix product chosen, and so the rounding, depends on the shape."""
        short = self.size - len(pixels)
        if self.encoder.device.type != "cuda" or short == 0:
            return self.encoder.encode(pixels)
        full = self.encoder.encode(pixels + [pixels[-1]] * short)
        return Tokens(full.values[:-short], full.mask[:-short], full.grids[:-short])

    def _halve(self) -> None:
        if self.size == 1 or not self.halve:
            raise UsageError(
                "memory does not suffice for the batch",
                f"batch_size: {self.size}, device: {self.encoder.device}",
                "use a smaller encoder or dtype" if self.size == 1 else "use --batch-size auto, or a smaller number",
            )
        self.size //= 2
        self.log(f"out of memory: batches of {self.size} from here on")


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    message = str(error).lower()
    return "can't allocate memory" in message or "not enough memory" in message or "out of memory" in message
