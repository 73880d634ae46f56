"""Cells in threads: the same bits as one after another, every exception out, no work after it."""

from threading import Event

import numpy as np
import pytest

from cmgl_cli.graphs import Grid, select_joint
from cmgl_cli.graphs.concurrency import Stopped, available_workers, run_each

from .problems import covariances

BITS = ("k", "ebic", "edges", "common_ratio", "gap", "heldout", "final_edges", "final_ebic", "instability", "score")


@pytest.mark.parametrize("criterion", ["ebic", "heldout", "stability", "score"])
@pytest.mark.parametrize("n_classes", [1, 3])
def test_threads_change_no_bit(criterion, n_classes):
    rng = np.random.default_rng(0)
    sigma, other, third = (covariances(rng, n_classes, 8, 40) for _ in range(3))
    grid = Grid(k=(0, 5, 20), rho=(0.05, 0.1, 0.2), gamma=(0.05, 0.2), criterion=criterion)
    more = {
        "folds": [(sigma, other), (other, third)] if criterion == "heldout" else None,
        "score": (lambda fit: float(np.abs(fit.precision).sum())) if criterion == "score" else None,
    }
    prior, counts = np.clip(np.abs(other), 0, 1), [40] * n_classes
    found = [
        select_joint(
            sigma, prior, counts, grid, workers=workers,
            resamples=iter([other, third]) if criterion == "stability" else None, **more,
        )
        for workers in (1, 3)
    ]  # fmt: skip
    for one, many in zip(found[0].cells, found[1].cells, strict=True):
        assert (one.rho, one.gamma) == (many.rho, many.gamma) and many.seconds > 0
        for name in BITS:
            np.testing.assert_array_equal(getattr(one, name), getattr(many, name))
    np.testing.assert_array_equal(found[0].result.precision, found[1].result.precision)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_comes_out_and_ends_the_rest(workers):
    begun, stop = [], Event()

    def work(index):
        begun.append(index)
        if index == 1:
            raise ValueError("cell 1")
        if index > 1 and stop.wait(5):
            raise Stopped
        return index

    done = []
    with pytest.raises(ValueError, match="cell 1"):
        run_each(work, range(50), lambda index, outcome: done.append((index, outcome)), workers, stop)
    assert len(begun) <= 4 and set(done) <= {(0, 0)} and (workers == 1 or stop.is_set())


def test_an_exception_of_the_caller_stops_the_workers():
    stop = Event()

    def refuse(index, outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_each(lambda index: index if index == 0 or not stop.wait(5) else index, range(20), refuse, 2, stop)
    assert stop.is_set()


@pytest.mark.parametrize(("value", "most"), [("1", 1), ("1,2", 1), ("", None), ("zero", None), ("0", None)])
def test_workers_heed_the_usual_variable(monkeypatch, value, most):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    free = available_workers()
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert available_workers() == (most or free) >= 1
