"""Where cells run: in this process, in others on this machine, or on a cluster; joblib does it.

Cells and what they need travel by pickle to processes that this one started or that the user trusts; nothing is read
from a file that way. Artifacts that cells share lie in the experiment's folder, which all workers must see.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from cmgl_cli.errors import InputError, UsageError

INSTALL = {"dask": "cmgl[dask]", "ray": "ray[default]"}
CONNECT_SECONDS = 20


@contextmanager
def workers(backend: str, jobs: int, scheduler: str | None = None) -> Iterator[None]:
    """Let `joblib.Parallel` in this context run on a backend.

    Parameters
    ----------
    backend : str
        ``loky``, ``threading``, ``multiprocessing``, ``dask`` or ``ray``.
    jobs : int
        Cells at a time; 1 stays in this process, unless there is a cluster. Of dask without a scheduler: the worker
        processes that are started here.
    scheduler : str, optional
        Address of a running dask scheduler; its workers decide how many cells run at a time.

    Raises
    ------
    UsageError
        The backend is not installed, a scheduler is given to another one, or workers were killed again and again.
    InputError
        No scheduler answers at the address.
    """
    if scheduler and backend != "dask":
        raise UsageError(
            "only dask has a scheduler", f"--scheduler {scheduler} --backend {backend}", "add --backend dask"
        )
    with ExitStack() as stack:
        if backend == "dask":
            stack.enter_context(_dask(jobs, scheduler))
            stack.enter_context(joblib.parallel_config(backend="dask"))
        elif jobs > 1:
            if backend == "ray":
                _register_ray()
            single = {"inner_max_num_threads": 1} if backend == "loky" else {}
            stack.enter_context(joblib.parallel_config(backend=backend, n_jobs=jobs, **single))
        try:
            yield
        except TerminatedWorkerError as error:
            raise _killed(str(error)) from error


@contextmanager
def _dask(jobs: int, scheduler: str | None) -> Iterator[None]:
    """Connect to a scheduler, or start one here with a process of one thread a cell."""
    try:
        from distributed import Client, LocalCluster
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise _missing("dask") from None
    with ExitStack() as stack:
        if scheduler is None:
            local = LocalCluster(
                n_workers=jobs, threads_per_worker=1, dashboard_address=None, memory_limit=0, silence_logs="ERROR"
            )
            target = stack.enter_context(local)
        try:
            stack.enter_context(Client(scheduler or target, timeout=CONNECT_SECONDS))
        except (OSError, ValueError) as error:
            raise InputError(
                "no dask scheduler answers", f"{scheduler}: {error}", "start one: dask scheduler"
            ) from error
        try:
            yield
        except KilledWorker as error:
            raise _killed(str(error)) from error


def _register_ray() -> None:
    try:
        from ray.util.joblib import register_ray
    except ImportError:
        raise _missing("ray") from None
    register_ray()


def _missing(backend: str) -> UsageError:
    return UsageError(
        f"--backend {backend} needs a package that is not installed",
        f"cannot import {'distributed' if backend == 'dask' else backend}",
        f"run: pip install '{INSTALL[backend]}', or leave --backend out",
    )


def _killed(reason: str) -> UsageError:
    return UsageError(
        "a worker was killed, most often because memory ran out",
        " ".join(reason.split())[:300],
        "run the same command again, with fewer --jobs; finished cells are kept",
    )
