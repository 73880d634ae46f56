"""Ctrl-C in compiled code: it waits until Python may be interrupted.

An interrupt that arrives while a compiled function runs is raised when its arrays are handed to Python, in the midst of
making them: numba then ends in a SystemError or takes the process down.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_waiting: list[tuple[Any, ...]] = []
_deferring: list[Any] = []


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Let an interrupt wait for `deliver`, or for the end of the block.

    Threads other than the main one are never interrupted, and a handler that is not Python's is left alone.
    """
    before = signal.getsignal(signal.SIGINT)
    if _deferring or not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    # in this order nothing is left half done by an interrupt between two of these lines
    _waiting.clear()
    signal.signal(signal.SIGINT, lambda *arrived: _waiting.append(arrived))
    _deferring.append(before)
    try:
        yield
    finally:
        _deferring.clear()
        signal.signal(signal.SIGINT, before)
        if _waiting:
            arrived = _waiting[0]
            _waiting.clear()
            before(*arrived)


def deliver() -> None:
    """Do now what a waiting interrupt asks for, between two steps of a long solve."""
    if _waiting and threading.current_thread() is threading.main_thread():
        arrived = _waiting[0]
        _waiting.clear()
        _deferring[0](*arrived)
