"""The restoration experiments: grids, hidden cells, and a quick run through the command line."""

import numpy as np
import pytest
import torch

from cmgl_cli.artifacts import open_artifact
from cmgl_cli.datasets.stations import StationTable
from cmgl_cli.experiments import EXPERIMENTS, Request
from cmgl_cli.experiments.twofold_stations import held_out, hidden_cells, shortened
from cmgl_cli.experiments.twofold_synthetic import METHODS, restored_by
from cmgl_cli.restoration import TrainingBatch
from cmgl_cli.restoration.synthetic import anti_correlated_signals, mcar_mask
from tests.cli_helpers import cmgl


def table(n_times=60, frequency="monthly", unit="M"):
    rng = np.random.default_rng(0)
    time = (np.datetime64("2000-01", unit) + np.arange(n_times)).astype("datetime64[s]")
    values = rng.normal(size=(n_times, 10, 2)) + rng.normal(size=(n_times, 1, 1))
    values[3, 2, 1] = np.nan
    names = tuple(f"s{i}" for i in range(10))
    return StationTable(values, time, names, ("a", "b"), frequency)


@pytest.mark.parametrize("n_times, first, every", [(60, 24, 36), (36, 12, 24)])
def test_gaps_lie_in_held_out_years(n_times, first, every):
    record = table(n_times)
    rows = np.concatenate(held_out(record))
    assert set(np.diff(rows)) <= {1, every - 11} and len(rows) % 12 == 0
    for pattern in ("MCAR", "outage"):
        hidden = hidden_cells(record, pattern, 0.3, 0)
        assert not np.delete(hidden, rows, axis=0).any() and (hidden <= record.observed).all()
        assert np.array_equal(hidden, hidden_cells(record, pattern, 0.3, 0))
        assert not np.array_equal(hidden, hidden_cells(record, pattern, 0.3, 1))


def test_outages_silence_whole_stations():
    record = table()
    hidden = hidden_cells(record, "outage", 0.3, 0) | ~record.observed
    for rows in held_out(record):
        assert sorted(hidden[rows].all(axis=2).sum(axis=0).tolist()) == [0] * 7 + [6] * 3


def test_short_daily_records_have_held_out_stretches():
    assert len(held_out(table(90, "daily", "D"))) == 2
    assert len(shortened(table(60), 2).time) == 24 and shortened(table(60), 0) is not None


def test_grids():
    cells = EXPERIMENTS["twofold-synthetic"].cells(Request())
    assert {cell["rate"] for cell in cells if cell["snr"] == 20} == {0.1, 0.2, 0.3, 0.4, 0.5}
    assert {cell["snr"] for cell in cells} == {5, 10, 15, 20} and {cell["fold"] for cell in cells} == set(range(5))
    assert len({tuple(sorted(cell.items())) for cell in cells}) == len(cells)
    cells = EXPERIMENTS["twofold-stations"].cells(Request(years=(0, 2), data=table()))
    assert {cell["method"] for cell in cells} >= {"default", "knn", "paper"}
    assert "climatology-kriging" not in {cell["method"] for cell in cells}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_restores_small_signals_without_reading_hidden_cells(method):
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(2):
        s = anti_correlated_signals(generator, n=14, m=18, n_signals=4)
        batches.append(TrainingBatch(s.observed.float(), mcar_mask((4, 14, 18), 0.3, generator), s.clean.float()))
    test = batches[0]
    broken = TrainingBatch(torch.where(test.mask, test.observed, 1e6), test.mask, test.target)
    one, two = (restored_by(method, batch, batches[1:], 1) for batch in (test, broken))
    assert one.shape == test.target.shape and bool(torch.isfinite(one).all())
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_the_command_writes_tables_and_a_figure_and_is_then_up_to_date(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = table(36)
    places = {"lat": np.linspace(30, 31, 10), "lon": np.linspace(130, 131, 10), "station_id": record.stations}
    months = np.datetime_as_string(record.time, "M")
    np.savez("r.npz", values=record.values, time=months, modality=["a", "b"], unit=["K", "K"], **places)
    command = ["experiment", "twofold-stations", "--input", "r.npz", "--quick"]
    assert "toy" not in cmgl("experiment", "--list").out
    outcome = cmgl(*command, "--json")
    folder = tmp_path / "artifacts" / "twofold-stations" / "experiments"
    rows = next(iter(outcome.json.values()))
    assert {row["method"] for row in rows} == {"default", "knn", "climatology"}
    for suffix in ("md", "csv", "tex", "png", "cells.jsonl"):
        assert (folder / f"twofold-stations.{suffix}").stat().st_size > 0
    with open_artifact(folder / "twofold-stations.h5", "experiment", verify=True) as found:
        assert found.group("metrics")["MSE"].shape == (3,)
    assert "up to date" in cmgl(*command).err
    (folder / "twofold-stations.h5").unlink()
    assert "3 of 3 cells are done already" in cmgl(*command).err


BAD = {
    "no name": ([], "twofold-synthetic"),
    "unknown name": (["twofold-station"], "twofold-stations"),
    "no record": (["twofold-stations"], "--input"),
    "unknown parameter": (["twofold-synthetic", "--quick", "--only", "rates=0.1"], "rate"),
}


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
def test_mistakes_are_explained(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    arguments, hint = BAD[case]
    assert hint in cmgl("experiment", *arguments, code=2).err
