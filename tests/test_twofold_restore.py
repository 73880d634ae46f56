"""Station records through the command line: gaps filled, observed cells untouched, every layout, every mistake."""

import csv

import numpy as np
import pytest

from cmgl_cli.artifacts import open_artifact
from tests.cli_helpers import cmgl

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
    command = ["twofold-restore", "--input", "records.csv", "--stations", "stations.csv", "--export", "filled.csv"]
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
    command = ["twofold-restore", "--input", "records.csv", "--stations", "stations.csv", "--no-compare", "--json"]
    for pattern in ("mcar:0.2", "outage:0.3:6"):
        lines = cmgl(*command, "--simulate", pattern).json["errors on the simulated gaps"]
        assert all(line["cells"] > 0 and line["RMSE"] > 0 for line in lines)


def test_netcdf_is_exported(record):
    xarray = pytest.importorskip("xarray")
    cmgl("twofold-restore", "--input", "records.csv", "--stations", "stations.csv", "--no-compare", "--export", "f.nc")
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
