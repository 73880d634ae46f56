"""A parent that has imported everything, and forks a child for every run: a kill costs milliseconds, not seconds.

Run as a script it is that parent; `Nursery` is the handle that tests hold. A child runs one command exactly as the
`cmgl` script does, with its own folder, output files and limits, and may be killed at a moment or at a call.
"""

import atexit
import ctypes
import json
import mmap
import os
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

SHIM = Path(__file__).with_name("shim.c")
NOTHING, KILL_BEFORE, KILL_TORN, DISK_FULL, NO_FALLOCATE = range(5)
LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Fate:
    """What befalls a run.

    Attributes
    ----------
    after : float or None
        Seconds until SIGKILL.
    mode, at : int
        What happens at which call that changes files below the folder (needs the shim).
    memory : int or None
        Bytes of address space beyond what the parent has.
    signal : int
        Sent in place of SIGKILL.
    """

    after: float | None = None
    mode: int = NOTHING
    at: int = 0
    memory: int | None = None
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Report:
    """How a run ended: exit code (minus the signal), seconds, file calls counted, memory added, and what it said."""

    code: int
    seconds: float
    calls: int
    memory: int
    out: str
    err: str
    timed_out: bool = False


class Nursery:
    """A running parent."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.counts_calls = _build_shim(folder / "shim.so")
        preload = {"LD_PRELOAD": str(folder / "shim.so")} if self.counts_calls else {}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, **threads, **preload, "HF_HUB_OFFLINE": "1", "PYTHONFAULTHANDLER": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, arguments: Sequence[object], fate: Fate = Fate(), warm: bool = False) -> Report:
        """Run one command in `folder`; with `warm`, in the parent itself, so that children find everything ready."""
        texts = [str(argument) for argument in arguments]
        order = {"folder": str(folder), "arguments": texts, "warm": warm, "spool": str(self._folder), **vars(fate)}
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the parent died"
        spoken = {name: (self._folder / name).read_text(errors="replace") for name in ("out", "err")}
        return Report(**json.loads(answer), **spoken)

    def close(self) -> None:
        """End the parent."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)


def _build_shim(target: Path) -> bool:
    """Compile the library that counts file calls; return whether this machine can."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or "linux" not in sysconfig.get_platform():
        return False
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(target), str(SHIM), "-ldl"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class _State(ctypes.Structure):
    _fields_ = [
        ("count", ctypes.c_long),
        ("at", ctypes.c_long),
        ("mode", ctypes.c_long),
        ("folder", ctypes.c_char * 4000),
    ]


def _shared_state() -> _State:
    """Return the memory that children share with the parent; tell the shim of it, where it is loaded."""
    state = _State.from_buffer(mmap.mmap(-1, ctypes.sizeof(_State)))
    share = getattr(ctypes.CDLL(None), "faults_share", None)
    if share is not None:
        share(ctypes.byref(state))
    return state


def serve() -> None:
    """Import everything; then run what is asked for until the pipe ends."""
    import importlib

    from cmgl_cli.steps import STEPS

    for room in {step.module for step in STEPS} | {"cmgl_cli.cli", "cmgl_cli.about", "cmgl_cli.reports"}:
        importlib.import_module(room)
    state = _shared_state()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        order = json.loads(line)
        if order["warm"]:
            answer = _warm(order)
        else:
            answer = _watch(_fork(order, state), order, state)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _warm(order: dict) -> dict:
    from typer.testing import CliRunner

    from cmgl_cli.cli import app

    before, start = os.getcwd(), time.perf_counter()
    os.chdir(order["folder"])
    result = CliRunner().invoke(app, order["arguments"])
    os.chdir(before)
    for name, text in (("out", result.stdout), ("err", result.stderr)):
        Path(order["spool"], name).write_text(text)
    return {"code": result.exit_code, "seconds": time.perf_counter() - start, "calls": 0, "memory": 0}


def _fork(order: dict, state: _State) -> int:
    """Return the child's number to the parent; the child runs its command and ends."""
    state.count = 0
    state.folder = os.fsencode(order["folder"])
    state.mode, state.at = order["mode"], order["at"]
    child = os.fork()
    if child:
        return child
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(os.path.join(order["spool"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if order["memory"] is not None:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (used + order["memory"],) * 2)
    os.chdir(order["folder"])
    # after a fork torch makes its thread pool anew, and breaks where two threads ask for it at once: asked for here
    sys.modules["torch"].set_num_threads(1)
    sys.argv = ["cmgl", *order["arguments"]]
    from cmgl_cli.cli import main

    try:
        main()
    except SystemExit as end:
        _end(end.code if isinstance(end.code, int) else int(end.code is not None))
    _end(0)


def _end(code: int) -> NoReturn:
    """End as the script does, with what Python and HDF5 do at exit, but without taking the parent's heap apart."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).exit(code)
    raise AssertionError("exit returned")


def _watch(child: int, order: dict, state: _State) -> dict:
    start = time.perf_counter()
    handle = os.pidfd_open(child)
    limit = order["after"] if order["after"] is not None else LIMIT_SECONDS
    ended = bool(select.select([handle], [], [], limit)[0])
    if not ended:
        os.kill(child, order["signal"] if order["after"] is not None else signal.SIGKILL)
        if not select.select([handle], [], [], LIMIT_SECONDS)[0]:
            os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    os.close(handle)
    seconds, code = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
    own = int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
    return {
        "code": code,
        "seconds": seconds,
        "calls": state.count,
        "memory": max(0, usage.ru_maxrss * 1024 - own),
        "timed_out": not ended and order["after"] is None,
    }


if __name__ == "__main__":
    serve()
