"""The engine: cells once each, stored at once, torn lines dropped, tables that can be checked by hand."""

import json
from dataclasses import replace

import joblib
import numpy as np
import pytest
from joblib.parallel import ThreadingBackend
from matplotlib.figure import Figure

from cmgl_cli.errors import UsageError
from cmgl_cli.experiments import Journal, Request, Results, chosen, paired_gains, run_cells, summary_tables, workers
from cmgl_cli.experiments.engine import Experiment
from cmgl_cli.experiments.tables import to_csv, to_latex, to_markdown


def grid(request):
    return [{"rate": rate, "method": m, "seed": s} for rate in (0.1, 0.3) for m in ("own", "peer") for s in range(3)]


def score(cell, data):
    data.append(cell)
    if cell == data[0] and len(data) > 5:
        raise RuntimeError("asked twice for one cell")
    return {"error": (1.0 if cell["method"] == "own" else 2.0) + cell["seed"], "other": float("nan")}


TOY = Experiment("toy", "", 1, grid, score, (), "method", ("rate",), "error", "own", lambda results: Figure())
SCOPE = {"experiment": "toy", "version": 1}


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "toy.jsonl"


def test_a_killed_run_goes_on_where_it_was(journal):
    cells = grid(Request())
    calls = []
    run_cells(TOY, cells[:5], calls, Journal(journal, SCOPE))
    whole = journal.read_text()
    journal.write_text(whole + '{"scope": {"experiment": "toy"')
    results = run_cells(TOY, cells, calls, Journal(journal, SCOPE))
    assert calls == cells
    assert results.column("error").tolist() == [score(cell, [None])["error"] for cell in cells]
    assert np.isnan(results.column("other")).all()
    assert journal.read_text().startswith(whole) and len(journal.read_text().splitlines()) == len(cells)


def test_another_version_or_data_set_starts_afresh(journal):
    run_cells(TOY, grid(Request()), [], Journal(journal, SCOPE))
    assert grid(Request())[0] not in Journal(journal, {**SCOPE, "version": 2})
    assert grid(Request())[0] not in Journal(journal, {**SCOPE, "data": "sha256:1"})
    assert grid(Request())[0] in Journal(journal, SCOPE)


def double(cell, data):
    return {"error": 2.0 * cell["seed"]}


@pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
def test_cells_run_side_by_side_with_the_same_results(journal, backend):
    experiment = Experiment("toy", "", 1, grid, double, (), "method", ("rate",), "error", "own", lambda r: Figure())
    results = run_cells(experiment, grid(Request()), None, Journal(journal, SCOPE), parallel=workers(backend, 2))
    assert results.column("error").tolist() == [2.0 * cell["seed"] for cell in grid(Request())]


class Together(ThreadingBackend):
    """Hands results back only together, as ray's backend does."""

    supports_return_generator = False


def test_a_backend_without_single_results_keeps_round_by_round(journal):
    joblib.register_parallel_backend("together", Together)
    cells = grid(Request())

    def fails(cell, data):
        if cell == cells[5]:
            raise RuntimeError("in the third round of two")
        return double(cell, data)

    experiment = Experiment("toy", "", 1, grid, fails, (), "method", ("rate",), "error", "own", lambda r: Figure())
    with pytest.raises(RuntimeError, match="third round"):
        run_cells(
            experiment, cells, None, Journal(journal, SCOPE), parallel=joblib.parallel_config("together", n_jobs=2)
        )
    assert [cell in Journal(journal, SCOPE) for cell in cells] == [True] * 4 + [False] * 8
    whole = replace(experiment, run=double)
    results = run_cells(
        whole, cells, None, Journal(journal, SCOPE), parallel=joblib.parallel_config("together", n_jobs=2)
    )
    assert results.column("error").tolist() == [2.0 * cell["seed"] for cell in cells]


def test_only_some_cells():
    cells = grid(Request())
    assert len(chosen(cells, ())) == 12
    assert len(chosen(cells, ("rate=0.1", "rate=0.3", "method=own"))) == 6
    with pytest.raises(UsageError, match="peer"):
        chosen(cells, ("method=pear",))
    with pytest.raises(UsageError, match="rate"):
        chosen(cells, ("rat=0.1",))


def test_tables_by_hand():
    cells = grid(Request())
    metrics = [{"error": (1.0 if cell["method"] == "own" else 2.0) + cell["seed"]} for cell in cells]
    results = Results(tuple(cells), tuple(metrics))
    (table,) = summary_tables(TOY, results)
    assert table.header == ("method", "rate 0.1", "rate 0.3")
    assert table.rows[0] == ("own", "2.000 ± 0.8165", "2.000 ± 0.8165")
    (gain,) = paired_gains(TOY, results)
    paired = [100 * (own / peer - 1) for own, peer in ((1, 2), (2, 3), (3, 4))]
    assert gain.rows[1][1] == f"{np.mean(paired):+.1f} ± {np.std(paired):.1f} %"
    assert "| own | 2.000 ± 0.8165 |" in to_markdown([table])
    assert r"own & 2.000 $\pm$ 0.8165" in to_latex([table])
    assert to_csv(results).splitlines()[:2] == ["rate,method,seed,error", "0.1,own,0,1.0"]


def test_journal_lines_are_plain_json(journal):
    Journal(journal, SCOPE).add({"seed": 1}, {"error": np.float64(0.5), "none": np.nan})
    entry = json.loads(journal.read_text())
    assert entry == {"scope": SCOPE, "cell": {"seed": 1}, "metrics": {"error": 0.5, "none": None}}


def refuses(cell, data):
    raise UsageError("cannot", "here", "mend")


def test_an_error_names_the_cell(journal):
    experiment = Experiment("toy", "", 1, grid, refuses, (), "method", ("rate",), "error", "own", lambda r: Figure())
    with pytest.raises(UsageError, match="cell rate=0.1, method=own, seed=0: here"):
        run_cells(experiment, grid(Request()), None, Journal(journal, SCOPE))
