"""Spoilt station records through the command line: refused with the reason, or filled and named."""

import csv

import numpy as np
import pytest

from cmgl_cli.artifacts import open_artifact
from tests.cli_helpers import cmgl

HEADER = ["station", "time", "warm", "rain"]
PLACES = [[f"s{i}", 35 + i / 10, 139 + (i % 3) / 5, 20 * i] for i in range(6)]


def months(count=30):
    return [f"{2000 + i // 12}-{i % 12 + 1:02d}" for i in range(count)]


def records(times=None, n_stations=6, seed=0, missing=0.1):
    """Return tidy rows of two variables that follow one another."""
    rng = np.random.default_rng(seed)
    times = times or months()
    shared = rng.normal(size=len(times))
    rows = []
    for station in range(n_stations):
        for t, time in enumerate(times):
            warm, wet = 15 + station + 3 * shared[t] + 0.3 * rng.normal(), max(0.0, 5 - 4 * shared[t])
            rows.append([f"s{station}", time, *(f"{x:.2f}" if rng.random() > missing else "" for x in (warm, wet))])
    return rows


def write(name, header, rows, encoding="utf-8"):
    with open(name, "w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("places.csv", ["station", "latitude", "longitude", "elevation"], PLACES)


def restore(*more, code=0, places="places.csv"):
    where = ["--stations", places] if places else []
    command = ["twofold-restore", "--input", "r.csv", *where, "--no-compare", "--no-figures", *more]
    outcome = cmgl(*command, code=code)
    if code == 0:
        with open_artifact("artifacts/r/restored.h5") as found:
            values, filled = found["values"], found["filled"]
            seen = np.isfinite(values).any(axis=(0, 1))
            assert np.isfinite(values[..., seen]).all() and (found["standard_error"][filled] >= 0).all()
            assert not filled[..., ~seen].any()
    else:
        assert "mend:" in outcome.err and not any(__import__("pathlib").Path(".").rglob("restored.h5"))
    return outcome.err


def changed(column, where, value):
    return [[*row[:column], value, *row[column + 1 :]] if where(row) else row for row in records()]


def of(station):
    return lambda row: row[0] == station


SPOILT = {
    "a dead station": (lambda: [r if r[0] != "s2" else [*r[:2], "", ""] for r in records()], ["s2"]),
    "a variable never observed at a station": (lambda: changed(3, of("s4"), ""), ["rain at s4"]),
    "a variable observed nowhere": (lambda: changed(3, lambda row: True, ""), ["rain", "left empty"]),
    "a constant column": (lambda: changed(3, lambda row: True, "3.0"), ["rain = 3"]),
    "nothing at one time": (lambda: [r if r[1] != "2001-03" else [*r[:2], "", ""] for r in records()], ["2001-03"]),
    "-999 for missing": (lambda: changed(2, lambda row: row[1] == "2000-05", "-999"), ["-999"]),
    "infinite values": (lambda: changed(2, lambda row: row[:2] == ["s1", "2000-03"], "inf"), ["infinit"]),
    "one station": (lambda: records(n_stations=1), []),
    "one variable": (lambda: [[*row[:3], ""] for row in records()], []),
    "almost nothing observed": (lambda: records(missing=0.97), []),
}


@pytest.mark.parametrize("case", SPOILT, ids=list(SPOILT))
def test_spoilt_records_are_filled_and_the_fault_is_named(case):
    make, words = SPOILT[case]
    write("r.csv", HEADER, make())
    told = restore()
    assert all(word in told for word in words), told


REFUSED = {
    "a cell twice": (lambda: [*records(), ["s1", "2000-03", "1.0", "2.0"]], ["s1", "2000-03"]),
    "a number that is none": (lambda: changed(2, lambda row: row[:2] == ["s1", "2000-03"], "warm?"), ["warm?"]),
    "daily among monthly": (lambda: [*records(), ["s1", "2000-03-17", "1.0", "2.0"]], ["names a month"]),
    "nothing observed at all": (lambda: records(missing=1.1), ["observ"]),
}


@pytest.mark.parametrize("case", REFUSED, ids=list(REFUSED))
def test_unusable_records_are_refused_with_the_reason(case):
    make, words = REFUSED[case]
    write("r.csv", HEADER, make())
    told = restore(code=3)
    assert all(word in told for word in words), told


def test_an_empty_file_and_a_wrong_encoding_are_refused():
    open("r.csv", "w").close()
    assert "r.csv" in restore(code=3)
    write("r.csv", ["station", "time", "気温"], [["東京", "2000-01", "1.0"]], encoding="utf-16")
    assert "r.csv" in restore(code=3)


def test_a_station_that_the_table_does_not_know_is_named():
    write("r.csv", HEADER, [*records(), ["s77", "2000-03", "1.0", "2.0"]])
    assert "s77" in cmgl("twofold-restore", "--input", "r.csv", "--stations", "places.csv", code=None).err


def test_without_coordinates_it_works_and_says_what_is_lost():
    write("r.csv", HEADER, records())
    assert "no coordinates" in restore(places=None)


def test_a_station_in_kelvin_is_named_and_used_as_it_is():
    rows = [[*r[:2], f"{float(r[2]) + 273.15:.2f}" if r[0] == "s3" and r[2] else r[2], r[3]] for r in records()]
    write("r.csv", HEADER, rows)
    told = restore()
    assert "warm at s3" in told and "K among degC" in told
    with open_artifact("artifacts/r/restored.h5") as found:
        at = found["station"].tolist().index("s3")
        assert found["values"][:, at, 0].min() > 250


def test_a_variable_without_gaps_is_not_called_uncalibrated():
    write("r.csv", HEADER, [[*r[:2], r[2] or "15.0", r[3]] for r in records()])
    told = restore()
    assert "warm:" not in told and "calibrated" not in told


def test_two_stations_at_one_place_are_named():
    write("r.csv", HEADER, records())
    write("same.csv", ["station", "latitude", "longitude", "elevation"], [*PLACES[:5], ["s5", *PLACES[4][1:]]])
    assert "s4 and s5" in restore(places="same.csv")


def test_hours_over_a_daylight_saving_jump_and_leap_days():
    hours = [str(np.datetime64("2020-03-28T00", "h") + i).replace("T", " ") + ":00" for i in range(72)]
    write("r.csv", HEADER, records(hours))
    restore()
    days = [str(np.datetime64("2020-02-20") + i) for i in range(40)]
    write("r.csv", HEADER, records(days))
    restore()
    with open_artifact("artifacts/r/restored.h5") as found:
        assert "2020-02-29T00:00:00" in found["time"].tolist()
    jumped = [hour for hour in hours if "03-29 02" not in hour]
    write("r.csv", HEADER, records(jumped))
    restore()
    write("r.csv", HEADER, [*records(jumped), *records(["2020-03-29 03:00"])])
    assert "2020-03-29" in cmgl("twofold-restore", "--input", "r.csv", code=3).err


def test_fills_respect_bounds_and_observations_stay():
    write("r.csv", HEADER, records())
    restore("--bounds", "warm=17:18,rain=0:")
    with open_artifact("artifacts/r/restored.h5") as found:
        warm, filled = found["values"][..., 0], found["filled"][..., 0]
        assert warm[filled].min() >= 17 and warm[filled].max() <= 18
        assert warm[~filled].min() < 17 and warm[~filled].max() > 18


@pytest.mark.parametrize("text, hint", [("rain", "rain=0:"), ("rain=5:1", "rain=0:"), ("ran=0:", "rain")])
def test_bounds_that_are_none_are_refused(text, hint):
    write("r.csv", HEADER, records())
    assert hint in restore("--bounds", text, code=2)


def test_mixed_units_are_refused():
    write("r.csv", ["station", "time", "warm [degC]"], [row[:3] for row in records()])
    write("q.csv", ["station", "time", "warm [K]"], [["s9", *row[1:3]] for row in records(n_stations=1)])
    told = cmgl("twofold-restore", "--input", "r.csv,q.csv", code=3).err
    assert "mixed" in told and "degC" in told and "K" in told
