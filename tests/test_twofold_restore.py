"""Station records through the command line: gaps filled, observed cells untouched, every layout, every mistake."""

import csv
import time

import numpy as np
import pytest

from cmgl_cli.artifacts import open_artifact, read_header
from cmgl_cli.restoration.record_network import year_groups
from cmgl_cli.stages.twofold_restore import _variable
from tests.cli_helpers import cmgl, start

STATIONS, MONTHS = 8, 72


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Write two correlated monthly variables at eight stations with a tenth of the cells missing, as tidy CSV."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    season = 10 * np.sin(np.arange(MONTHS) * 2 * np.pi / 12)
    shared = rng.standard_normal(MONTHS)
    with open("records.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["station", "time", "temperature", "rain"])
        for station in range(STATIONS):
            for month in range(MONTHS):
                noise = rng.standard_normal(2) * 0.3
                warm = 15 + station + season[month] + shared[month] + noise[0]
                wet = max(0.0, 50 - 20 * shared[month] - 40 * (month % 6 == 0) + 5 * noise[1] - 30 * (month % 12 == 0))
                cells = [f"{value:.2f}" if rng.random() > 0.1 else "" for value in (warm, wet)]
                writer.writerow([f"s{station}", f"{2000 + month // 12}-{month % 12 + 1:02d}", *cells])
    with open("stations.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["station", "latitude", "longitude", "elevation"])
        for station in range(STATIONS):
            writer.writerow([f"s{station}", 35 + station / 10, 139 + (station % 3) / 5, 20 * station])
    return tmp_path


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_gaps_are_filled_and_observations_stay_bit_for_bit(record):
    command = [
        "twofold-restore",
        "--input",
        "records.csv",
        "--stations",
        "stations.csv",
        "--export",
        "filled.csv",
        "--no-figures",
    ]
    outcome = cmgl(*command, "--json")
    skill = {(row["variable"], row["method"]): row["RMSE"] for row in outcome.json["skill on held-out observations"]}
    assert skill["temperature", "default"] < skill["temperature", "climatology"]
    with open_artifact(record / "artifacts" / "records" / "restored.h5", verify=True) as found:
        values, filled, error = found["values"], found["filled"], found["standard_error"]
        assert np.isfinite(values).all() and 0.05 < filled.mean() < 0.15
        assert (error[filled] > 0).all() and not error[~filled].any()
        assert values[..., found["variable"].tolist().index("rain")].min() >= 0
    before = {(row["station"], row["time"]): row for row in rows("records.csv")}
    after = {(row["station"], row["time"]): row for row in rows("filled.csv")}
    assert before.keys() <= after.keys()
    for key, row in before.items():
        for name in ("temperature", "rain"):
            assert not row[name] or float(after[key][name]) == float(row[name])
            assert after[key][name]
    assert "up to date" in cmgl(*command).err


def test_simulated_gaps_are_scored(record):
    command = [
        "twofold-restore",
        "--input",
        "records.csv",
        "--stations",
        "stations.csv",
        "--no-compare",
        "--no-figures",
        "--json",
    ]
    for pattern in ("mcar:0.2", "outage:0.3:6"):
        lines = cmgl(*command, "--simulate", pattern).json["errors on the simulated gaps"]
        assert all(line["cells"] > 0 and line["RMSE"] > 0 for line in lines)


def test_netcdf_is_exported(record):
    xarray = pytest.importorskip("xarray")
    cmgl("twofold-restore", "--input", "records.csv", "--stations", "stations.csv", "--no-figures", "--export", "f.nc")
    with xarray.open_dataset("f.nc") as found:
        assert {"temperature", "rain"} <= set(found.data_vars)
        assert not np.isnan(found["temperature"].values).any()


BAD = {
    "no input": ([], 2, "--input"),
    "missing file": (["--input", "nothing.csv"], 3, "nothing.csv"),
    "unknown method": (["--input", "records.csv", "--method", "kriging"], 2, "climatology-kriging"),
    "unknown station": (["--input", "records.csv", "--exclude", "s99"], 2, "s9"),
    "bad pattern": (["--input", "records.csv", "--simulate", "half"], 2, "mcar:0.3"),
    "bad share": (["--input", "records.csv", "--simulate", "mcar:1.5"], 2, "mcar:0.3"),
}


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
def test_bad_input_is_explained(record, case):
    arguments, code, hint = BAD[case]
    assert hint in cmgl("twofold-restore", *arguments, code=code).err
    assert not list(record.rglob("*.h5"))


def test_figures_are_drawn_of_chosen_stations(record):
    command = [
        "twofold-restore",
        "--input",
        "records.csv",
        "--stations",
        "stations.csv",
        "--end",
        "2002-12",
        "--show",
        "s3,s5",
    ]
    cmgl(*command)
    drawn = {path.name for path in (record / "artifacts" / "records").glob("*.png")}
    assert drawn == {f"restored-{name}.png" for name in ("spatial-graph", "modality-graph", "gaps", "skill")}
    assert "s9" in cmgl(*command[:-1], "s99", code=2).err


TRAIN = ["twofold-restore", "--input", "records.csv", "--train", "--folds", "2", "--no-figures", "--end", "2003-12"]


def test_networks_are_trained_and_applied(record):
    rows = cmgl(*TRAIN, "--epochs", "2", "--json").json["networks"]
    assert [row["years left out"] for row in rows] == ["2000-2001", "2002-2003", "none"]
    folder = record / "artifacts" / "records"
    with open_artifact(folder / "network.h5", "network", verify=True) as found:
        assert sum(values[0].size for values in found.group("parameters").values()) == 183
        assert found["losses"].shape == (3, 2) and found["held_out"].shape == (3, 3)
        assert [row["best epoch"] for row in rows] == found["held_out"].argmin(axis=1).tolist()
    command = ["twofold-restore", "--input", "records.csv", "--no-compare", "--no-figures"]
    cmgl(*command, "--model", folder / "network.h5", "-o", "by-network.h5")
    cmgl(*command, "-o", "by-default.h5")
    with open_artifact("by-network.h5") as one, open_artifact("by-default.h5") as other:
        assert set(one.group("skill")["method"]) == {"network"}
        gaps = one["filled"]
        assert np.isfinite(one["values"]).all() and not np.array_equal(one["values"][gaps], other["values"][gaps])
        assert np.array_equal(one["values"][~gaps], other["values"][~gaps])
    bad = ["--model", folder / "network.h5", "-o", "x.h5"]
    assert "train anew" in cmgl(*command, *bad, "--variables", "rain", code=3).err
    assert "--model" in cmgl(*command, *bad, "--method", "knn", code=2).err


@pytest.mark.slow
def test_training_killed_goes_on_to_the_same_bits(record):
    command = [*TRAIN, "--epochs", "4", "--name", "killed"]
    checkpoint = record / "artifacts" / "killed" / "network.checkpoint.partial.h5"
    process = start(*command, folder=record)
    end = time.time() + 120
    while not checkpoint.exists() and time.time() < end:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert checkpoint.exists() and not checkpoint.with_name("network.h5").exists()
    assert "going on after" in cmgl(*command).err
    cmgl(*TRAIN, "--epochs", "4", "--name", "whole")
    digests = [read_header(record / "artifacts" / name / "network.h5")[1] for name in ("killed", "whole")]
    assert digests[0] == digests[1] and not checkpoint.exists()


@pytest.mark.parametrize("groups, expected", [(0, 1), (1, 1), (2, 3), (8, 4)])
def test_no_network_is_left_without_a_year_to_learn_from(groups, expected):
    found = year_groups(np.array([2000, 2000, 2001, 2002]), groups)
    assert len(found) == expected and not found[-1]
    assert all(len(group) < 3 for group in found)


@pytest.mark.parametrize(
    ("name", "unit", "values", "bounds"),
    [
        ("rain", "", [0.0, 3.0], (0.0, None)),
        ("Humidity3pm", "", [7.0, 99.0], (0.0, 100.0)),
        ("RH", "", [7.0, 103.0], (0.0, None)),
        ("specific_humidity", "", [0.002, 0.02], (None, None)),
        ("specific_humidity", "g/kg", [1.0, 50.0], (None, None)),
        ("cloud", "%", [5.0, 100.0], (0.0, 100.0)),
        ("temperature", "", [-3.0, 41.0], (None, None)),
        ("empty", "%", [np.nan, np.nan], (None, None)),
    ],
)
def test_bounds_are_those_that_observations_show(name, unit, values, bounds):
    variable = _variable(name, unit, np.array(values))
    assert (variable.lower, variable.upper) == bounds
