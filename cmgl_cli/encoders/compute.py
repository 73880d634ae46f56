"""Where and in which arithmetic an encoder runs: device, dtype, matmul precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cmgl_cli.errors import UsageError, suggest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PRECISIONS = ("highest", "high", "medium")
ATTENTION = ("sdpa", "eager")


def choose_device(name: str) -> torch.device:
    """Return the device of ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; never another one than asked for.

    Raises
    ------
    UsageError
        For an unknown device, or a CUDA device this machine has not got.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError("unknown device", f"device: {name!r}", suggest(name, ["auto", "cpu", "cuda"]))
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (device.index or 0):
            raise UsageError(
                "no such CUDA device" if count else "CUDA was asked for and is not available",
                f"device: {name!r} ({count} CUDA devices, torch {torch.__version__})",
                "use --device cpu or --device auto, or install a CUDA build of torch",
            )
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype; ``auto`` is bfloat16 on CUDA and on CPUs that multiply bfloat16, else float32.

    The rule reads the processor's abilities and times nothing, so that one machine always chooses alike: the dtype is
    part of an artifact's identity.

    Raises
    ------
    UsageError
        For an unknown dtype.
    """
    if name == "auto":
        fast = device.type == "cuda" or cpu_multiplies_bfloat16()
        return torch.bfloat16 if fast else torch.float32
    if name not in DTYPES:
        raise UsageError("unknown dtype", f"dtype: {name!r}", suggest(name, ["auto", *DTYPES]))
    return DTYPES[name]


def cpu_multiplies_bfloat16() -> bool:
    """Return whether the CPU has bfloat16 dot products (avx512_bf16) or matrix tiles (AMX)."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def check_choice(option: str, value: str, known: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of ``known``.

    Raises
    ------
    UsageError
        Otherwise, with a suggestion.
    """
    if value not in known:
        raise UsageError(f"unknown {option}", f"{option}: {value!r}", suggest(value, known))
    return value


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Set torch's precision of float32 matrix products for a while; the caller's own choice comes back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
