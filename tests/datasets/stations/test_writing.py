"""Restorations written back: observed cells untouched to the bit, filled ones flagged, with standard errors."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmgl_cli.datasets.stations import Restored, StationTable, read_stations, write_restored
from cmgl_cli.datasets.stations.restored import time_like
from cmgl_cli.errors import InputError, UsageError
from tests.datasets.stations.examples import STATIONS, days, jma, random_table, tidy

VALUES, DAYS = random_table(), days(30)


def restore(table, seed=0, share=1.0):
    """Return a pretended restoration that would also change observations, if anything let it."""
    random = np.random.default_rng(seed)
    values = random.normal(100, 1, table.values.shape)
    values[random.random(values.shape) >= share] = np.nan
    return Restored(table, values, random.uniform(0.5, 1, values.shape))


def rows_of(path, encoding="utf-8", delimiter=","):
    return list(csv.reader(io.StringIO(path.read_bytes().decode(encoding), newline=""), delimiter=delimiter))


def check_against(restored, path):
    """Read a written file: its fills are missing again, and everything observed is bit-identical."""
    again = read_stations(path)
    table = restored.table
    assert again.stations == table.stations and again.variables == table.variables and again.units == table.units
    assert np.array_equal(again.time, table.time) and again.frequency == table.frequency
    assert np.array_equal(again.values, table.values, equal_nan=True)
    if restored.filled.any():
        assert f"{restored.filled.sum()} cells filled by an earlier restoration" in " ".join(again.notes)


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_tidy_in_its_own_layout(tmp_path, delimiter, newline):
    text = tidy(VALUES, DAYS).replace(",", delimiter).replace("\n", newline)
    (tmp_path / "in.csv").write_bytes(text.encode("utf-8-sig"))
    table = read_stations(tmp_path / "in.csv")
    restored = restore(table, share=0.8)
    assert write_restored(tmp_path / "out.csv", restored) == (tmp_path / "out.csv",)
    check_against(restored, tmp_path / "out.csv")
    before, after = (
        rows_of(tmp_path / "in.csv", "utf-8-sig", delimiter),
        rows_of(tmp_path / "out.csv", "utf-8-sig", delimiter),
    )
    assert after[0] == [*before[0], "tmax_filled", "tmax_standard_error", "rain_filled", "rain_standard_error"]
    for old, new in zip(before[1:], after[1:], strict=True):
        i, t = "ABC".index(old[0]), DAYS.index(old[1])
        for k in range(2):
            flag, error = new[4 + 2 * k : 6 + 2 * k]
            if restored.filled[t, i, k]:
                assert old[2 + k] == "" and new[2 + k] == f"{restored.values[t, i, k]:.1f}"
                assert flag == "1" and error == f"{restored.standard_error[t, i, k]:.2f}"
            else:
                assert new[2 + k] == old[2 + k] and (flag, error) == ("0", "")
    assert (newline.encode() in (tmp_path / "out.csv").read_bytes()) and not (tmp_path / "out.csv.partial").exists()


def test_tidy_keeps_other_columns_texts_and_encoding(tmp_path):
    text = 'station,time,note,x,x_quality\n酒田,2020/1/1,"a, b",4.50,8\n酒田,2020/1/2,,-999,1\n酒田,2020/1/4,c,7,8\n'
    text += "".join(f"酒田,2020/1/{day},,5.25,8\n" for day in range(5, 9))
    (tmp_path / "in.csv").write_bytes(text.encode("cp932"))
    table = read_stations(tmp_path / "in.csv", encoding="cp932", variables=["x"])
    values = np.full(table.values.shape, 6.123)
    write_restored(tmp_path / "out.csv", Restored(table, values))
    lines = (tmp_path / "out.csv").read_bytes().decode("cp932").splitlines()
    assert lines[:5] == [
        "station,time,note,x,x_quality,x_filled,x_standard_error",
        '酒田,2020/1/1,"a, b",4.50,8,0,',
        "酒田,2020/1/2,,6.12,1,1,",
        "酒田,2020/1/3,,6.12,,1,",
        "酒田,2020/1/4,c,7,8,0,",
    ]


def test_rows_that_were_absent_are_added_in_order(tmp_path):
    for order in ("station", "time"):
        lines = tidy(np.round(random_table(missing=0), 1), DAYS, order=order).splitlines()
        dropped = [line for line in lines if line.startswith(("B,2020-02-22", "C,2020-03-01"))]
        (tmp_path / "in.csv").write_text("\n".join(line for line in lines if line not in dropped) + "\n")
        table = read_stations(tmp_path / "in.csv")
        write_restored(tmp_path / "out.csv", restore(table))
        assert [row[:2] for row in rows_of(tmp_path / "out.csv")] == [line.split(",")[:2] for line in lines]


def test_restoring_a_restored_file_again_changes_nothing_observed(tmp_path):
    (tmp_path / "in.csv").write_text(tidy(VALUES, DAYS))
    first = restore(read_stations(tmp_path / "in.csv"))
    write_restored(tmp_path / "one.csv", first)
    second = restore(read_stations(tmp_path / "one.csv"), seed=5)
    assert np.array_equal(second.filled, first.filled)
    write_restored(tmp_path / "two.csv", second)
    assert rows_of(tmp_path / "two.csv")[0] == rows_of(tmp_path / "one.csv")[0]
    check_against(second, tmp_path / "two.csv")


@pytest.mark.parametrize(
    "options", [{}, {"newline": "\n"}, {"bom": True}, {"quality": False}, {"names": ("酒田", "飛島", "にかほ")}]
)
@pytest.mark.parametrize("split", [False, True])
def test_jma_in_its_own_layout(tmp_path, options, split):
    dates = [day.split("-") if split else [day.replace("-", "/")] for day in DAYS]
    raw = jma(VALUES, dates, **options)
    (tmp_path / "in.csv").write_bytes(raw)
    table = read_stations(tmp_path / "in.csv")
    restored = restore(table, share=0.8)
    write_restored(tmp_path / "out.csv", restored)
    check_against(restored, tmp_path / "out.csv")
    encoding = "utf-8-sig" if options.get("bom") else "cp932"
    before, after = rows_of(tmp_path / "in.csv", encoding), rows_of(tmp_path / "out.csv", encoding)
    start = len(before) - 30
    assert len(after) - len(before) == (0 if options.get("quality", True) else 1)
    changed = 0
    for old, new in zip(before[start:], after[-30:], strict=True):
        assert len(new) == len(old) + 12
        changed += sum(one != two for one, two in zip(old, new, strict=False))
        assert all(one == "" for one, two in zip(old, new, strict=False) if one != two)
    assert changed == restored.filled.sum()
    again = restore(read_stations(tmp_path / "out.csv"), seed=3)
    write_restored(tmp_path / "again.csv", again)
    assert [len(row) for row in rows_of(tmp_path / "again.csv", encoding)] == [len(row) for row in after]


def test_jma_gets_lines_for_days_it_lacks(tmp_path):
    keep = [t for t in range(30) if t not in (3, 4)]
    for split in (False, True):
        dates = [DAYS[t].split("-") if split else [DAYS[t].replace("-", "/")] for t in keep]
        (tmp_path / "in.csv").write_bytes(jma(VALUES[keep], dates))
        restored = restore(read_stations(tmp_path / "in.csv"))
        write_restored(tmp_path / "out.csv", restored)
        line = rows_of(tmp_path / "out.csv", "cp932")[6 + 3]
        assert line[0] == ("2020" if split else "2020/02/23")
        assert len(rows_of(tmp_path / "out.csv", "cp932")) == 36
        assert np.array_equal(read_stations(tmp_path / "out.csv").values, restored.table.values, equal_nan=True)


def test_many_files_go_into_a_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text(tidy(VALUES[:12, :2], DAYS[:12]))
    (tmp_path / "in" / "b.csv").write_text(tidy(VALUES[12:], DAYS[12:]))
    inputs = [tmp_path / "in" / "a.csv", tmp_path / "in" / "b.csv"]
    restored = restore(read_stations(inputs))
    written = write_restored(tmp_path / "out", restored)
    assert written == (tmp_path / "out" / "a.csv", tmp_path / "out" / "b.csv")
    assert len(rows_of(written[0])) == 25 and len(rows_of(written[1])) == 55
    assert np.array_equal(read_stations(written).values, restored.table.values, equal_nan=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["csv", "netcdf"]))
def test_exports_are_bit_identical(tmp_path_factory, seed, layout):
    if layout == "netcdf":
        pytest.importorskip("xarray")
    random = np.random.default_rng(seed)
    values = random.normal(0, 10.0 ** random.integers(-3, 6), (4, 3, 2))
    values[random.random(values.shape) < 0.4] = np.nan
    time = np.array(days(4), dtype="datetime64[s]")
    table = StationTable(values, time, ("A", "B,x", "酒田"), ("x", "y"), "daily", units=("degC", ""))
    restored = restore(table, seed, share=0.7)
    path = tmp_path_factory.getbasetemp() / f"export.{layout}"
    write_restored(path, restored, layout)
    check_against(restored, path)


def test_netcdf_export_says_what_it_holds(tmp_path):
    xr = pytest.importorskip("xarray")
    (tmp_path / "in.csv").write_text(tidy(VALUES, DAYS))
    (tmp_path / "s.csv").write_text(STATIONS)
    restored = restore(read_stations(tmp_path / "in.csv", tmp_path / "s.csv"))
    write_restored(tmp_path / "out.nc", restored, "netcdf")
    with xr.open_dataset(tmp_path / "out.nc") as dataset:
        assert dataset.attrs["Conventions"] == "CF-1.8" and dataset.attrs["featureType"] == "timeSeries"
        assert dataset["tmax"].attrs["units"] == "degC" and dataset["station"].attrs["cf_role"] == "timeseries_id"
        assert dataset["tmax"].attrs["ancillary_variables"] == "tmax_filled tmax_standard_error"
        assert dataset["tmax_filled"].sum() == restored.filled[..., 0].sum()
        assert np.array_equal(dataset["tmax"].values.T, restored.complete[..., 0])
        assert dataset["latitude"].values.tolist() == [36, 36.5, 37]
        error = np.where(restored.filled[..., 1], restored.standard_error[..., 1], np.nan)
        assert np.array_equal(dataset["rain_standard_error"].values.T, error, equal_nan=True)


@pytest.mark.parametrize("packed", [False, True])
def test_netcdf_in_its_own_layout(tmp_path, packed):
    xr = pytest.importorskip("xarray")
    keep = [t for t in range(30) if t != 7]
    coords = {"time": np.array(DAYS, dtype="datetime64[ns]")[keep], "site": ["A", "B", "C"]}
    variables = {"t": (("site", "time"), VALUES[keep, :, 0].T.astype(np.float32), {"units": "K", "comment": "x"})}
    variables["other"] = ("site", [1, 2, 3])
    encoding = {"t": {"dtype": "int16", "scale_factor": 0.1, "_FillValue": -32768}} if packed else {}
    xr.Dataset(variables, coords, {"title": "mine"}).to_netcdf(tmp_path / "in.nc", encoding=encoding, engine="h5netcdf")
    restored = restore(read_stations(tmp_path / "in.nc"))
    write_restored(tmp_path / "out.nc", restored)
    with (
        xr.open_dataset(tmp_path / "in.nc", mask_and_scale=False) as before,
        xr.open_dataset(tmp_path / "out.nc", mask_and_scale=False) as after,
    ):
        assert (
            after.attrs["title"] == "mine"
            and after["t"].attrs["comment"] == "x"
            and after["t"].dims == before["t"].dims
        )
        assert after["t"].dtype == before["t"].dtype and after["other"].values.tolist() == [1, 2, 3]
        observed = restored.table.observed[keep][..., 0].T
        assert np.array_equal(after["t"].values[:, keep][observed], before["t"].values[observed])
        assert after["t_filled"].values.sum() == restored.filled.sum() and after.sizes["time"] == 30
    assert np.array_equal(read_stations(tmp_path / "out.nc").values, restored.table.values, equal_nan=True)


def test_npz_in_its_own_layout(tmp_path):
    keep = [t for t in range(30) if t != 7]
    arrays = {"values": VALUES[keep].astype(np.float32), "time": np.array(DAYS)[keep], "station_id": ["A", "B", "C"]}
    np.savez(tmp_path / "in.npz", modality=["x", "y"], extra=[1, 2], **arrays)
    restored = restore(read_stations(tmp_path / "in.npz"))
    write_restored(tmp_path / "out.npz", restored)
    with np.load(tmp_path / "out.npz") as file:
        assert file["values"].dtype == np.float32 and file["extra"].tolist() == [1, 2] and file["time"].tolist() == DAYS
        observed = restored.table.observed
        assert np.array_equal(file["values"][observed], VALUES.astype(np.float32)[observed])
        assert np.array_equal(file["filled"], restored.filled) and not np.isnan(file["values"]).any()
        spoilt = {**{name: file[name] for name in file.files}, "filled": np.zeros(3, bool)}
    check_against(restored, tmp_path / "out.npz")
    np.savez(tmp_path / "spoilt.npz", **spoilt)
    with pytest.raises(InputError, match="filled is bool"):
        read_stations(tmp_path / "spoilt.npz")


def test_refusals(tmp_path):
    (tmp_path / "in.csv").write_text(tidy(VALUES, DAYS))
    table = read_stations(tmp_path / "in.csv")
    restored = restore(table)
    with pytest.raises(InputError, match="does not fit"):
        Restored(table, restored.values[1:])
    with pytest.raises(InputError, match="never overwritten"):
        write_restored(tmp_path / "in.csv", restored)
    with pytest.raises(InputError, match="never overwritten"):
        write_restored(tmp_path / "in.csv", restored, "csv")
    with pytest.raises(UsageError, match="did you mean 'netcdf'"):
        write_restored(tmp_path / "x", restored, "necdf")
    (tmp_path / "in.csv").write_text(tidy(VALUES, DAYS) + "\n")
    with pytest.raises(InputError, match="changed since"):
        write_restored(tmp_path / "out.csv", restored)
    bare = StationTable(table.values, table.time, table.stations, table.variables, "daily")
    with pytest.raises(InputError, match="own layout is not known"):
        write_restored(tmp_path / "out.csv", restore(bare))
    assert not (tmp_path / "out.csv").exists()


def test_a_selected_part_fills_only_itself(tmp_path):
    (tmp_path / "in.csv").write_text(tidy(VALUES, DAYS))
    part = read_stations(tmp_path / "in.csv").select(["B"], ["rain"], "2020-02-25", "2020-03-05")
    write_restored(tmp_path / "out.csv", restore(part))
    before, after = rows_of(tmp_path / "in.csv"), rows_of(tmp_path / "out.csv")
    changed = [new for old, new in zip(before, after, strict=True) if old != new[:4] and old[0] != "station"]
    assert len(changed) == np.isnan(part.values).sum()
    assert all(row[0] == "B" and "2020-02-25" <= row[1] <= "2020-03-05" for row in changed)


@pytest.mark.parametrize(
    ("example", "written"),
    [
        ("2020-01-31", "2021-03-05"),
        ("2020/1/31", "2021/3/5"),
        ("20200131", "20210305"),
        ("2020-01-31T06:00:00Z", "2021-03-05T07:00:00Z"),
        ("2020/1/31 6:00", "2021/3/5 7:00"),
        ("2020-01", "2021-03"),
    ],
)
def test_new_times_look_like_the_old(example, written):
    assert time_like(example, np.datetime64("2021-03-05T07:00:00"), "hourly") == written


@pytest.mark.shared
@pytest.mark.parametrize("name", ["daily_2stations_ymd_single_col.csv", "monthly_4stations_9elements.csv"])
def test_genuine_downloads_with_gaps_made(shared_data, tmp_path, name):
    """Blank some genuine cells, restore, and compare the file with the genuine one cell by cell."""
    genuine = (shared_data / "jma_obsdl_samples" / name).read_bytes().decode("cp932")
    rows = list(csv.reader(io.StringIO(genuine, newline="")))
    blanked = [list(row) for row in rows]
    for line in (20, 33, 60):
        blanked[line][1] = ""
    (tmp_path / "in.csv").write_bytes("\n".join(",".join(row) for row in blanked).encode("cp932"))
    table = read_stations(tmp_path / "in.csv")
    assert np.isnan(table.values).sum() == 3
    write_restored(tmp_path / "out.csv", restore(table))
    written = rows_of(tmp_path / "out.csv", "cp932")
    for line, (old, new) in enumerate(zip(rows, written, strict=True)):
        assert new[: len(old)] == old or line in (20, 33, 60)
