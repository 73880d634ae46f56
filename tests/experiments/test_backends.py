"""Backends: the same results wherever cells run, workers killed among them, and clear words where one is missing."""

import builtins
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError

from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.experiments import EXPERIMENTS, Journal, Request, run_cells, workers
from tests.cli_helpers import cmgl

MATRIX = EXPERIMENTS["matrix"]
KILLED = "killed.once"


def dies_once(cell, chain):
    """Run a cell of the matrix experiment; the first time the fourth one is asked for, its worker is killed."""
    mark = chain.run.folder / KILLED
    if cell["matrix"] == "no edges" and not mark.exists():
        mark.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return MATRIX.run(cell, chain)


@pytest.mark.slow
def test_dask_with_a_worker_killed_in_the_middle_gives_the_results_of_one_process(tmp_path, chain):
    cells = MATRIX.cells(Request(quick=True, seeds=1, data=chain))
    alone = run_cells(MATRIX, cells, chain, Journal(tmp_path / "alone.jsonl", {}))
    journal = Journal(tmp_path / "dask.jsonl", {})
    experiment = replace(MATRIX, run=dies_once)
    together = run_cells(experiment, cells, chain, journal, parallel=workers("dask", 2))
    assert Path(chain.run.folder / KILLED).read_text() != str(os.getpid())
    assert together.cells == alone.cells
    for name in alone.names():
        if name != "seconds":
            assert together.column(name).tolist() == alone.column(name).tolist()
    assert all(cell in Journal(tmp_path / "dask.jsonl", {}) for cell in cells)


def test_killed_workers_of_other_backends_are_explained():
    with pytest.raises(UsageError, match="fewer --jobs"), workers("threading", 2):
        raise TerminatedWorkerError("a worker was terminated")


@pytest.mark.parametrize("backend, package", [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_package_is_named(monkeypatch, backend, package):
    real = builtins.__import__

    def without(name, *arguments, **named):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="pip install"), workers(backend, 2):
        pass


def test_a_scheduler_is_dasks_and_must_answer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cmgl_cli.experiments.backends.CONNECT_SECONDS", 0.5)
    with pytest.raises(InputError, match="no dask scheduler"), workers("dask", 1, "tcp://127.0.0.1:9"):
        pass
    command = ["experiment", "twofold-synthetic", "--quick", "--scheduler", "tcp://127.0.0.1:9"]
    assert "--backend dask" in cmgl(*command, code=2).err


def test_cells_that_want_the_same_artifact_at_once_wait_for_one_another(tmp_path, chain):
    stages = {**chain.run.stages, "distill": replace(chain.run.stages["distill"], key_width=9)}
    fresh = replace(chain, run=replace(chain.run, stages=stages))
    cells = MATRIX.cells(Request(quick=True, seeds=1, data=fresh))
    made = {path.name for path in fresh.cells.glob("*.h5")}
    together = run_cells(MATRIX, cells, fresh, Journal(tmp_path / "j", {}), parallel=workers("threading", 4))
    new = {path.name for path in fresh.cells.glob("*.h5")} - made
    assert sorted(name.split("-")[0] for name in new) == ["classification", "graphs", "nodes", "prior"]
    alone = run_cells(MATRIX, cells, fresh, Journal(tmp_path / "k", {}))
    assert together.column("NLL").tolist() == alone.column("NLL").tolist()
