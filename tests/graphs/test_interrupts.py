"""Ctrl-C while compiled code runs: nothing breaks, and the interrupt is not lost."""

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from cmgl_cli.graphs import fit_joint
from cmgl_cli.graphs.interrupts import deliver, interrupts_deferred

FIT = """
import os, signal, sys, threading
import numpy as np
from cmgl_cli.graphs import fit_joint
signal.signal(signal.SIGINT, signal.default_int_handler)
C, p, solver = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rng = np.random.default_rng(0)
samples = rng.standard_normal((C, 3 * p, 4)) @ (2 * rng.standard_normal((4, p))) + rng.standard_normal((C, 3 * p, p))
sigma = np.stack([np.corrcoef(one.T) for one in samples])
fit_joint(sigma[:, :20, :20], 0.5, 0.1, 0.05, solver=solver)
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    for _ in range(1000):
        fit_joint(sigma, 0.5, 0.1, 0.05, solver=solver)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture(autouse=True)
def listens():
    """A shell's background job ignores Ctrl-C, and what it starts inherits that: these tests must not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_for_the_end_of_the_block_or_for_a_step():
    before, reached = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), interrupts_deferred():
        with interrupts_deferred():
            signal.raise_signal(signal.SIGINT)
        reached.append("end")
    with pytest.raises(KeyboardInterrupt), interrupts_deferred():
        deliver()
        signal.raise_signal(signal.SIGINT)
        reached.append("step")
        deliver()
        reached.append("never")
    assert reached == ["end", "step"] and signal.getsignal(signal.SIGINT) is before
    with interrupts_deferred():
        deliver()


def test_other_threads_and_ignored_interrupts_are_left_alone():
    seen = []

    def work():
        with interrupts_deferred():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_deferred():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("solver", ["splitting", "descent", "admm"])
def test_a_solve_in_steps_ends_at_the_next_one(solver):
    samples = np.random.default_rng(0).standard_normal((2, 40, 10)) @ np.linspace(0.1, 1, 100).reshape(10, 10)
    sigma, reached = np.stack([np.corrcoef(one.T) for one in samples]) + np.eye(10), []
    with pytest.raises(KeyboardInterrupt), interrupts_deferred():
        signal.raise_signal(signal.SIGINT)
        fit_joint(sigma, 0.5, 0.01, 0.01, solver=solver)
        reached.append("end")
    assert not reached
    assert fit_joint(sigma, 0.5, 0.01, 0.01, solver=solver).converged


@pytest.mark.parametrize(
    ("n_classes", "p", "solver"), [(1, 250, "auto"), (1, 60, "auto"), (3, 60, "auto"), (2, 40, "descent")]
)
def test_a_fit_that_is_interrupted_ends_as_python_ends(n_classes, p, solver):
    done = subprocess.run(
        [sys.executable, "-c", FIT, str(n_classes), str(p), solver], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "interrupted"), done.stderr[-500:]
