"""Independent pieces of work on all cores: threads, since the compiled kernels leave the interpreter alone."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")


class Stopped(Exception):
    """Raised by work that has been told to stop."""


def available_workers() -> int:
    """Return the cores this process may use, at most OMP_NUM_THREADS where that is a number."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(usable, int(wanted)) if wanted.isdigit() and int(wanted) > 0 else usable


def run_each(
    work: Callable[[int], T], indices: Sequence[int], on_done: Callable[[int, T], None], workers: int, stop: Event
) -> None:
    """Call ``work`` for every index, and ``on_done`` (in this thread) with every outcome as soon as it is there.

    BLAS is held to one thread a worker, whatever their number, so that it has no influence on a single bit. On any
    exception, of the work or an interrupt, ``stop`` is set and the rest is not begun; what runs should look at ``stop``
    often and raise `Stopped`.
    """
    with threadpool_limits(1, user_api="blas"):
        if min(workers, len(indices)) <= 1:
            for index in indices:
                on_done(index, work(index))
            return
        with ThreadPoolExecutor(min(workers, len(indices)), thread_name_prefix="cell") as pool:
            futures = {pool.submit(work, index): index for index in indices}
            try:
                for future in as_completed(futures):
                    on_done(futures[future], future.result())
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
