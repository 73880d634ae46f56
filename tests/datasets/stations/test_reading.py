"""Station tables read from every layout: the same table whatever the file, and named refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmgl_cli.datasets.stations import NO_FLAG, StationTable, detect_layout, diagnose, merge_tables, read_stations
from cmgl_cli.datasets.stations.grid import mask_sentinels
from cmgl_cli.datasets.stations.jma import read_cell
from cmgl_cli.datasets.stations.times import parse_time, recognise_frequency
from cmgl_cli.errors import CmglError, InputError, UsageError
from tests.datasets.stations.examples import STATIONS, days, jma, random_table, tidy

VALUES, DAYS = random_table(), days(30)


@pytest.fixture
def write(tmp_path):
    def writer(content, name="data.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return writer


def same(one, two):
    return np.array_equal(one, two, equal_nan=True)


# --- one table, many layouts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["station", "time"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tidy_csv(write, order, delimiter):
    text = tidy(VALUES, DAYS, order=order).replace(",", delimiter)
    table = read_stations(write(text), write(STATIONS, "stations.csv"))
    assert same(table.values, VALUES) and table.frequency == "daily" and table.stations == ("A", "B", "C")
    assert table.variables == ("tmax", "rain") and table.units == ("degC", "")
    assert table.time[0] == np.datetime64("2020-02-20") and np.datetime64("2020-02-29") in table.time
    assert table.names == ("Alpha", "Beta", "Gamma")
    assert table.coordinates[1].tolist() == [36.5, 140.5, 250] and np.isnan(table.elevation[2])
    assert table.notes == () and diagnose(table) == ()


@pytest.mark.parametrize(
    "options", [{}, {"newline": "\n"}, {"bom": True}, {"quality": False}, {"names": ("酒田", "飛島", "にかほ")}]
)
@pytest.mark.parametrize("split", [False, True])
def test_jma(write, options, split):
    dates = [day.split("-") if split else [day.replace("-", "/")] for day in DAYS]
    path = write(jma(VALUES, dates, **options))
    assert detect_layout(path) == "jma"
    table = read_stations(path)
    assert same(table.values, VALUES) and table.frequency == "daily"
    assert table.variables == ("temperature_mean", "precipitation_total") and table.units == ("degC", "mm")
    assert table.stations == options.get("names", ("酒田", "飛島", "東京"))
    if options.get("quality", True):
        assert same(table.quality == 8, ~np.isnan(VALUES)) and same(table.quality == 1, np.isnan(VALUES))


def test_jma_monthly_and_places_by_name(write):
    dates = [[str(2000 + i // 12), str(1 + i % 12)] for i in range(30)]
    places = "id,name_en,name_ja,lat,lon\n47587,SAKATA,酒田,38.9,139.8\n"
    places += "47999,TOBISHIMA,飛島,39.2,139.5\n1,TOKYO,東京,35.7,139.7\n"
    table = read_stations(write(jma(VALUES, dates)), write(places, "places.csv"))
    assert table.frequency == "monthly" and table.names == ("SAKATA", "TOBISHIMA", "TOKYO")
    assert table.latitude.tolist() == [38.9, 39.2, 35.7] and table.stations[0] == "酒田"


def test_jma_quality_and_symbols(write):
    content = jma(np.full((3, 1, 2), 5.0), [[day] for day in DAYS[:3]]).decode("cp932").split("\r\n")
    content[6] = content[6].replace("5.0,8", "5.0,2", 1)
    content[7] = content[7].replace("5.0,8,1", "5.0 ),,1", 1)
    table = read_stations(write("\r\n".join(content).encode("cp932")))
    assert np.isnan(table.values[0, 0, 0]) and table.quality[0, 0, 0] == 2
    assert table.values[1, 0, 0] == 5.0 and table.quality[1, 0, 0] == 5
    assert table.notes == ("1 values of quality 2 taken as missing (min_quality is 4)",)
    assert read_stations(write("\r\n".join(content).encode("cp932")), min_quality=2).values[0, 0, 0] == 5.0


@pytest.mark.parametrize(
    ("text", "value", "flag"),
    [
        ("4.5", 4.5, None),
        (" -0.4 )", -0.4, 5),
        ("12]", 12, 4),
        ("3 #", 3, 2),
        ("--", 0, None),
        ("×", np.nan, 1),
        ("", np.nan, None),
    ],
)
def test_jma_cells(text, value, flag):
    number, quality = read_cell(text)
    assert same(number, value) and quality == flag
    with pytest.raises(ValueError):
        read_cell("大雨")


def test_npz(tmp_path):
    arrays = {"values": VALUES.astype(np.float32), "time": np.array(DAYS), "station_id": ["A", "B", "C"]}
    arrays |= {"modality": ["tmax", "rain"], "unit": ["degC", "mm"], "lat": [1, 2, 3], "lon": [4.0, 5.0, 6.0]}
    np.savez(tmp_path / "x.npz", **arrays)
    table = read_stations(tmp_path / "x.npz")
    assert same(table.values.astype(np.float32), VALUES.astype(np.float32)) and table.units == ("degC", "mm")
    assert table.longitude.tolist() == [4, 5, 6] and table.frequency == "daily"
    assert read_stations(tmp_path / "x.npz", variables=["rain"]).values.shape == (30, 3, 1)
    for key in ("values", "time", "station_id", "modality"):
        np.savez(tmp_path / "y.npz", **{name: array for name, array in arrays.items() if name != key})
        with pytest.raises(InputError, match="without"):
            read_stations(tmp_path / "y.npz")
    for key, broken in (("values", VALUES[1:]), ("lat", [1, 2]), ("time", ["a"] * 30), ("values", VALUES.astype(str))):
        np.savez(tmp_path / "y.npz", **(arrays | {key: broken}))
        with pytest.raises(InputError):
            read_stations(tmp_path / "y.npz")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_netcdf(tmp_path, transposed, engine):
    xr = pytest.importorskip("xarray")
    dims = ("site", "time") if transposed else ("time", "site")
    variables = {
        name: (dims, VALUES[..., k].T if transposed else VALUES[..., k], {"units": unit})
        for k, (name, unit) in enumerate((("tmax", "degC"), ("rain", "mm")))
    }
    variables["tmax_qc"] = (dims, np.full(variables["rain"][1].shape, 3, np.int32))
    variables["ident"] = ("site", np.array(["A", "B", "C"]), {"cf_role": "timeseries_id"})
    variables["y"] = ("site", [36.0, 36.5, 37.0], {"standard_name": "latitude"})
    coords = {"time": np.array(DAYS, dtype="datetime64[ns]"), "lon": ("site", [140.0, 140.5, 141.0])}
    xr.Dataset(variables, coords).to_netcdf(tmp_path / "x.nc", engine=engine)
    table = read_stations(tmp_path / "x.nc")
    assert same(table.values, VALUES) and table.stations == ("A", "B", "C") and table.units == ("degC", "mm")
    assert table.latitude.tolist() == [36, 36.5, 37] and table.longitude.tolist() == [140, 140.5, 141]
    assert (table.quality[..., 0] == 3).all() and (table.quality[..., 1] == NO_FLAG).all()


def test_netcdf_calendars_and_what_is_no_table(tmp_path):
    xr = pytest.importorskip("xarray")
    pytest.importorskip("cftime")
    for calendar, fine in (("noleap", True), ("360_day", False)):
        times = xr.date_range("2020-02-27", periods=5, calendar=calendar, use_cftime=True)
        xr.Dataset({"x": (("time", "station"), np.ones((5, 2)))}, {"time": times}).to_netcdf(tmp_path / "x.nc")
        if fine:
            table = read_stations(tmp_path / "x.nc")
            assert table.inserted.sum() == 1 and table.stations == ("0", "1")
        else:
            with pytest.raises(InputError, match="calendar"):
                read_stations(tmp_path / "x.nc")


def test_netcdf_that_is_no_table(tmp_path):
    xr = pytest.importorskip("xarray")
    xr.Dataset({"x": (("a", "b"), np.ones((5, 2)))}).to_netcdf(tmp_path / "x.nc")
    with pytest.raises(InputError, match="no variable over time and station"):
        read_stations(tmp_path / "x.nc")
    (tmp_path / "y.nc").write_bytes(b"\x89HDF\r\n\x1a\n cut off")
    with pytest.raises(InputError, match=r"y\.nc"):
        read_stations(tmp_path / "y.nc")


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "time", "resolution", "offset"),
    [
        ("2020-02", "2020-02-01T00", "month", None),
        ("2020/2/9", "2020-02-09T00", "day", None),
        ("20200209", "2020-02-09T00", "day", None),
        ("2020-02-09 6:00", "2020-02-09T06", "hour", None),
        ("2020-02-09T06:00:00Z", "2020-02-09T06", "hour", 0),
        ("2020-02-09 24:00", "2020-02-10T00", "hour", None),
        ("2020020923", "2020-02-09T23", "hour", None),
        ("2020-02-09T06:00+09:00", "2020-02-09T06", "hour", 540),
    ],
)
def test_times(text, time, resolution, offset):
    moment, found, east = parse_time(text)
    assert (np.datetime64(moment), found, east) == (np.datetime64(time), resolution, offset)


@pytest.mark.parametrize(
    "text", ["", "2020", "2020-13", "2021-02-29", "09/02/2020", "2020-02-09 25:00", "24:00", "x", "0000-01"]
)
def test_times_that_are_none(text):
    with pytest.raises(ValueError):
        parse_time(text)


def axis(text, step, count, drop=()):
    times = np.datetime64(text, "s") + np.arange(count) * step
    return np.delete(times, drop)


def test_frequencies_are_recognised_with_gaps():
    hour, day = np.timedelta64(3600, "s"), np.timedelta64(86400, "s")
    assert recognise_frequency(axis("2020-01-01", hour, 99, [3, 4, 50]), "hour") == "hourly"
    assert recognise_frequency(axis("2020-01-01T09", day, 99, [3, 4, 50]), "hour") == "daily"
    months = np.arange("2000-01", "2010-01", dtype="datetime64[M]")
    assert recognise_frequency(np.delete(months, [5, 6]).astype("datetime64[s]"), "day") == "monthly"
    ends = ((months + 1).astype("datetime64[D]") - 1).astype("datetime64[s]")
    assert recognise_frequency(ends, "day") == "monthly"
    assert recognise_frequency(axis("2020-01-01", day, 1), "day") == "daily"


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        (axis("2020-01-01", np.timedelta64(600, "s"), 50), "10 minutes"),
        (axis("2020-01-01", np.timedelta64(10 * 3600, "s"), 50), "10 hours"),
        (axis("2020-01-01", np.timedelta64(7 * 86400, "s"), 50), "7 days"),
        (np.arange("1990", "2020", dtype="datetime64[Y]").astype("datetime64[s]"), "365 days"),
        (
            np.sort(np.append(axis("2020-01-01", np.timedelta64(86400, "s"), 9), np.datetime64("2020-01-03T07:00:01"))),
            "07:00:01",
        ),
    ],
)
def test_other_steps_are_refused_with_the_reason(times, reason):
    with pytest.raises(InputError, match=reason):
        recognise_frequency(times, "hour")


def test_gaps_become_missing_times(write):
    keep = [t for t in range(30) if t not in (4, 5, 20)]
    table = read_stations(write(tidy(VALUES[keep], [DAYS[t] for t in keep])))
    assert len(table.time) == 30 and np.flatnonzero(table.inserted).tolist() == [4, 5, 20]
    assert np.isnan(table.values[[4, 5, 20]]).all() and same(table.values[keep], VALUES[keep])
    assert "3 times of the daily axis" in table.notes[0]
    assert diagnose(table) == () or all(finding.kind == "no-coordinates" for finding in diagnose(table))


def test_summer_time(write):
    hours = [str(t).replace("T", " ") for t in np.datetime64("2021-10-31T00", "m") + 60 * np.arange(6)]
    twice = [*hours[:3], hours[2], *hours[3:]]
    values = random_table(times=7, stations=2, missing=0)
    with pytest.raises(InputError, match="clocks were set back"):
        read_stations(write(tidy(values, twice)))
    offsets = [f"{time}+02:00" for time in hours[:3]] + [f"{time}+01:00" for time in hours[2:]]
    table = read_stations(write(tidy(values, offsets)))
    assert len(table.time) == 7 and not table.inserted.any() and "UTC" in table.notes[0]
    assert table.time[0] == np.datetime64("2021-10-30T22:00")
    mixed = [*offsets[:3], *hours[2:]]
    with pytest.raises(InputError, match="some have none"):
        read_stations(write(tidy(values, mixed)))


def test_a_wrong_year_is_named(write):
    times = [*DAYS[:-1], "9020-03-20"]
    with pytest.raises(InputError, match="nothing between 2020-03-19"):
        read_stations(write(tidy(VALUES, times)))


def test_hourly_and_daily_mixed(write):
    hours = [str(t) for t in np.datetime64("2021-10-31T00", "m") + 60 * np.arange(240)]
    text = tidy(random_table(times=240, stations=2, missing=0), hours)
    text += "".join(f"D,{day}T09:00,1.0,2.0\n" for day in days(8, "2021-11-01"))
    with pytest.raises(InputError, match="D reports once a day, at 09:00"):
        read_stations(write(text))


def test_columns_of_words_and_parts_of_the_time_are_left_out(write):
    rows = [
        f"{place},2020-01-{d:02d},1,{d},{d / 2},NA,{way}"
        for place in "AB"
        for d, way in ((1, "NW"), (2, "NA"), (3, ""))
    ]
    path = write("Location,Date,month,Day,tmax,rain,WindDir9am\n" + "\n".join(rows) + "\n")
    table = read_stations(path)
    assert table.variables == ("tmax", "rain") and table.stations == ("A", "B")
    assert table.notes == ("WindDir9am: words where numbers should be, left out",)
    with pytest.raises(InputError, match="WindDir9am = 'NW'"):
        read_stations(path, variables=["tmax", "WindDir9am"])


def test_directions_are_named(write):
    rows = [f"A,2020-01-{d:02d},{d * 11},{d * 11},{d}" for d in range(1, 31)]
    table = read_stations(write("station,time,wind_dir,level,direct_sun\n" + "\n".join(rows) + "\n"))
    found = {finding.kind: finding.names for finding in diagnose(table)}
    assert found["direction"] == ("wind_dir",)


# --- refusals --------------------------------------------------------------------------------------------------------

GOOD = tidy(VALUES, DAYS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"   \n", "empty"),
        ("station,time,x\n", "no observations"),
        ("a,b,c\n1,2,3\n", "no column of stations"),
        ("station,b,c\n1,2,3\n", "no column of times"),
        ("station,year,month,day,x\nA,2020,1,1,3\n", "spread over several columns"),
        ("station,time,wind\nA,2020-01-01,NW\nA,2020-01-02,\n", "no variable"),
        ("station,time\nA,2020-01-01\n", "no variable"),
        ("station,time,x,x\nA,2020-01-01,1,2\n", "two columns have one name"),
        (GOOD + "A,2020-02-20,1,2\n", "A at 2020-02-20 00:00:00, row 2 and row 92"),
        (GOOD + "A,2020-05,1,2\n", "'2020-05' names a month"),
        (GOOD + "A,yesterday,1,2\n", "'yesterday' is not a time"),
        (GOOD + ",2020-02-20,1,2\n", "row 92"),
        (GOOD + "D,2020-02-20,1\n", "row 92: 3 cells, the header has 4"),
        (GOOD + "D,2020-02-20,abc,1\n", "row 92: tmax = 'abc'"),
        (GOOD + "D,2020-02-20,1_000,1\n", "1_000"),
        (GOOD.encode("utf-16"), "not UTF-8"),
        (GOOD.replace("station", "st\0tion"), "NUL"),
        ('station,time,x\nA,"2020-01-01,1\n', "quotes"),
    ],
)
def test_broken_files_are_refused_with_the_place(write, content, reason):
    with pytest.raises(InputError) as caught:
        read_stations(write(content))
    assert "data.csv" in caught.value.where and caught.value.fix
    assert reason in str(caught.value)


def test_encodings(write):
    text = GOOD.replace("A,", "酒田,")
    with pytest.raises(InputError, match="--encoding cp932"):
        read_stations(write(text.encode("cp932")))
    assert read_stations(write(text.encode("cp932")), encoding="cp932").stations[0] == "酒田"
    with pytest.raises(InputError, match="nonsense"):
        read_stations(write(text), encoding="nonsense")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("station,latitude,longitude\nA,1,2\nB,1,2\n", "C"),
        (STATIONS + "A,1,2,3,x\n", "listed twice"),
        (STATIONS.replace("36.0", "136.0"), "impossible latitude"),
        (STATIONS.replace("36.0", "north"), "'north'"),
        ("station,longitude\nA,1\n", "lacks a column"),
        (STATIONS + "D,1\n", "row 5"),
    ],
)
def test_broken_station_tables(write, content, reason):
    with pytest.raises(InputError, match=reason):
        read_stations(write(GOOD), write(content, "stations.csv"))


def test_lost_leading_zeros_are_guessed(write):
    text = GOOD.replace("A,", "050109,")
    with pytest.raises(InputError, match="leading zeros"):
        read_stations(write(text), write(STATIONS.replace("A,", "50109,"), "stations.csv"))


def test_options(write):
    assert read_stations(write(GOOD), variables=["rain"]).variables == ("rain",)
    with pytest.raises(UsageError, match="did you mean 'rain'"):
        read_stations(write(GOOD), variables=["rian"])
    with pytest.raises(UsageError, match="did you mean 'daily'"):
        read_stations(write(GOOD), frequency="dayly")
    with pytest.raises(UsageError, match="no input"):
        read_stations([])
    with pytest.raises(InputError, match="No such file"):
        read_stations(write(GOOD).with_name("none.csv"))


def test_coordinates_in_the_file_itself(write):
    rows = ["station,time,lat,lon,x", "A,2020-01-01,1,2,3", "A,2020-01-02,1,2,4"]
    table = read_stations(write("\n".join(rows)))
    assert table.variables == ("x",) and table.latitude.tolist() == [1] and table.longitude.tolist() == [2]
    with pytest.raises(InputError, match="changes its latitude"):
        read_stations(write("\n".join([*rows, "A,2020-01-03,9,2,4"])))


def test_quality_columns(write):
    table = read_stations(write("station,time,x,x_quality,y\nA,2020-01-01,1,3,2\nA,2020-01-02,,,2\n"))
    assert table.variables == ("x", "y") and table.quality[:, 0].tolist() == [[3, NO_FLAG], [NO_FLAG, NO_FLAG]]
    with pytest.raises(InputError, match="small integer"):
        read_stations(write("station,time,x,x_quality\nA,2020-01-01,1,0.5\n"))


# --- sentinels, diagnosis, merging, selection ------------------------------------------------------------------------


def test_sentinels_and_infinities_are_recognised_and_named(write):
    lines = GOOD.splitlines()
    for row, cell in ((3, "-999"), (9, "-999.0"), (12, "inf"), (14, "-99.9"), (16, "1e20")):
        parts = lines[row].split(",")
        parts[2] = cell
        lines[row] = ",".join(parts)
    table = read_stations(write("\n".join(lines)))
    assert np.isnan(table.values[2, 0, 0]) and not np.isinf(table.values).any() and np.nanmin(table.values) > -30
    assert table.notes == (
        "tmax: 1 infinite values taken as missing",
        "tmax: 2 values of -999 recognised as missing",
        "tmax: 1 values of -99.9 recognised as missing",
        "tmax: 1 values of 1e+20 recognised as missing",
    )


def test_genuine_extremes_are_no_sentinels():
    rain = np.append(np.linspace(0, 60, 200), 99.9).reshape(-1, 1, 1)
    pressure = np.append(np.linspace(985, 1030, 200), [999.0, 999.9] * 5).reshape(-1, 1, 1)
    cold = np.append(np.linspace(-95, -20, 200), [-99.0]).reshape(-1, 1, 1)
    for values in (rain, pressure, cold):
        kept = values.copy()
        assert mask_sentinels(kept, ["x"]) == [] and same(kept, values)
    gust = np.append(np.linspace(0, 40, 200), [999.9] * 3).reshape(-1, 1, 1)
    assert mask_sentinels(gust, ["x"]) == ["x: 3 values of 999.9 recognised as missing"]


def test_diagnosis_names_everything(write):
    values = random_table(times=30, stations=4, variables=3, missing=0)
    values[:, 3], values[:, :, 2], values[:, 1, 0], values[7] = np.nan, np.nan, np.nan, np.nan
    values[:, :, 1][~np.isnan(values[:, :, 1])] = 5.0
    places = "station,lat,lon\nA,1,2\nB,1,2\nC,,\nD,3,4\n"
    text = tidy(values, DAYS, header="station,time,tmax,rain,sun")
    found = {f.kind: f for f in diagnose(read_stations(write(text), write(places, "s.csv")))}
    assert found["dead-station"].names == ("D",) and found["empty-variable"].names == ("sun",)
    assert found["never-observed"].names == ("tmax at B",) and found["constant"].names == ("rain = 5",)
    assert found["empty-time"].names == ("2020-02-27",) and found["no-coordinates"].names == ("C",)
    assert found["same-place"].names == ("A and B",) and found["same-place"].sentence.startswith("1 place shared")


def test_one_station_one_variable_hardly_anything(write):
    table = read_stations(write("station,time,x\nA,2020-01-01,\nA,2020-01-02,3\n"))
    assert table.values.shape == (2, 1, 1) and same(table.values.ravel(), [np.nan, 3])


def test_merging_files(write):
    whole = read_stations(write(GOOD))
    early, late = write(tidy(VALUES[:18], DAYS[:18]), "a.csv"), write(tidy(VALUES[15:], DAYS[15:]), "b.csv")
    merged = read_stations([early, late])
    assert same(merged.values, whole.values) and merged.source.paths == (early, late)
    gap = read_stations([write(tidy(VALUES[:10], DAYS[:10]), "a.csv"), write(tidy(VALUES[12:], DAYS[12:]), "b.csv")])
    assert np.flatnonzero(gap.inserted).tolist() == [10, 11]
    full = random_table(missing=0)
    early = write(tidy(full[:18], DAYS[:18]), "a.csv")
    changed = full.copy()
    changed[16, 1, 0] = 77
    with pytest.raises(InputError, match=r"tmax at B, 2020-03-07 .*77\.0 in b\.csv"):
        read_stations([early, write(tidy(changed[15:], DAYS[15:]), "b.csv")])
    with pytest.raises(InputError, match="in mm"):
        read_stations([early, write(tidy(VALUES, DAYS).replace("degC", "mm"), "b.csv")])
    months = write("station,time,tmax (degC)\nA,2020-01,1\nA,2020-02,1\n", "b.csv")
    with pytest.raises(InputError, match="monthly"):
        read_stations([early, months])


def test_merging_side_by_side(write):
    one = write(tidy(VALUES[:, :1], DAYS), "a.csv")
    two = write(tidy(VALUES[:, 1:], DAYS, names="BC"), "b.csv")
    assert same(read_stations([one, two]).values, VALUES)
    single = read_stations(one)
    assert merge_tables([single]) is single


def test_select():
    table = StationTable(
        VALUES,
        np.array(DAYS, dtype="datetime64[s]"),
        ("A", "B", "C"),
        ("x", "y"),
        "daily",
        latitude=np.array([1.0, 2, 3]),
    )
    part = table.select(stations=["C", "A"], variables=["y"], start="2020-02-25", end="2020-02")
    assert same(part.values, VALUES[5:10][:, [2, 0]][:, :, [1]]) and part.latitude.tolist() == [3, 1]
    with pytest.raises(UsageError, match="station 'Z'"):
        table.select(stations=["Z"])
    with pytest.raises(UsageError, match="no time of the table"):
        table.select(start="2021-01-01")
    with pytest.raises(UsageError, match="not a date"):
        table.select(start="soon")


def test_tables_that_contradict_themselves():
    time = np.array(DAYS, dtype="datetime64[s]")
    with pytest.raises(InputError, match="another shape"):
        StationTable(VALUES[1:], time, ("A", "B", "C"), ("x", "y"), "daily")
    with pytest.raises(InputError, match="occurs twice"):
        StationTable(VALUES, time, ("A", "B", "A"), ("x", "y"), "daily")
    with pytest.raises(InputError, match="infinite"):
        StationTable(np.where(np.isnan(VALUES), np.inf, VALUES), time, ("A", "B", "C"), ("x", "y"), "daily")


# --- the genuine files -----------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "shape", "frequency", "first", "last"),
    [
        ("daily_1station_6elements_ymd_split.csv", (3718, 1, 6), "daily", [7.0, 12.3, 1.9, 9.1, 0, 0], 2.3),
        ("daily_2stations_ymd_single_col.csv", (670, 2, 4), "daily", [4.0, 0.3, 7.3, -0.4], 9.5),
        ("daily_3stations_tmax_ymd_split.csv", (13971, 3, 1), "daily", [23.9], 24.1),
        (
            "monthly_4stations_9elements.csv",
            (107, 4, 8),
            "monthly",
            [27.5, 11.9, -3.4, 2.5, -0.2, 5.3, 228.5, 27.5],
            108.0,
        ),
        ("tiny_daily_jmastats_dummy.csv", (1, 1, 2), "daily", [29.1, 4.5], 29.1),
        ("tokyo_daily_20131020-20141019_all_elements.csv", (365, 1, 19), "daily", [0.0, 0, 3.9, 15.9, 92], 9.7),
    ],
)
def test_genuine_downloads(shared_data, name, shape, frequency, first, last):
    table = read_stations(shared_data / "jma_obsdl_samples" / name)
    assert table.values.shape == shape and table.frequency == frequency
    assert table.values[0, 0, : len(first)].tolist() == first and table.values[-1, 0, 0] == last
    assert set(np.unique(table.quality)) <= {NO_FLAG, 0, 1, 2, 4, 5, 8}
    assert (table.quality[table.observed] >= 4).all()


@pytest.mark.shared
def test_genuine_ten_day_file_is_refused_with_the_reason(shared_data):
    with pytest.raises(InputError, match="2024/1/1 to 2024/1/10"):
        read_stations(shared_data / "jma_obsdl_samples" / "tenday_5stations_literal.csv")


@pytest.mark.shared
def test_genuine_archives(shared_data):
    folder = shared_data / "stations"
    japan = read_stations(folder / "jma_monthly.npz", folder / "jma_monthly_stations.csv")
    assert japan.values.shape == (1680, 157, 3) and japan.units == ("degC", "h", "mm") and japan.notes == ()
    found = {finding.kind: finding.names for finding in diagnose(japan)}
    assert found["no-coordinates"] == ("47821", "89532")
    assert japan.names[0] == "WAKKANAI" and japan.elevation[0] == 3
    colorado = read_stations(folder / "colorado_monthly.npz", folder / "colorado_monthly_stations.csv")
    part = colorado.select(start="1961-01", end="1990-12")
    assert part.values.shape == (360, 376, 3) and not np.isnan(colorado.elevation).any()


# --- fuzz ------------------------------------------------------------------------------------------------------------

FILES = {
    "csv": GOOD.encode(),
    "jma": jma(VALUES, [[day] for day in DAYS]),
    "split": jma(VALUES, [day.split("-") for day in DAYS], newline="\n"),
}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=0, max_size=4)), max_size=6),
    st.floats(0, 1),
    st.booleans(),
)
def test_fuzzed_files_are_read_or_refused(tmp_path_factory, kind, edits, keep, cut):
    raw = bytearray(FILES[kind])
    for place, patch in edits:
        at = int(place * len(raw))
        raw[at : at + len(patch)] = patch
    if cut:
        raw = raw[: int(keep * len(raw))]
    path = tmp_path_factory.getbasetemp() / "fuzzed.csv"
    path.write_bytes(raw)
    try:
        table = read_stations(path)
    except CmglError as error:
        assert "fuzzed.csv" in error.where or "impossible" in error.what or "occurs twice" in error.what
    else:
        assert not np.isinf(table.values).any()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.lists(
            st.sampled_from(
                ["station", "time", "x", "A", "2020-01-01", "1", "", "-999", "nan", "inf", "2020-01", "\n"]
            ),
            max_size=5,
        ),
        max_size=6,
    )
)
def test_fuzzed_cells_are_read_or_refused(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "cells.csv"
    path.write_text("\n".join(",".join(row) for row in rows))
    try:
        read_stations(path)
    except CmglError as error:
        assert error.what and error.fix
