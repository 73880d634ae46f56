"""Years in another unit are recognised; odd years, and both real records, are not."""

import numpy as np
import pytest

from cmgl_cli.datasets.stations import StationTable, diagnose, read_stations
from cmgl_cli.datasets.stations import changed_units as changed_units_module
from cmgl_cli.datasets.stations.changed_units import changed_units
from cmgl_cli.datasets.stations.mixed_units import CONVERSIONS

STATIONS = 3


def record(quantity, unit="M", seed=0):
    """Return times and values of some years, a fifth missing; the record begins in May."""
    rng = np.random.default_rng(seed)
    time = np.arange(np.datetime64("1990-05", unit), np.datetime64("2002-05", unit)).astype("datetime64[s]")
    phase = (time - time.astype("datetime64[Y]")).astype(float) / (365.25 * 86400)
    season, noise = -np.cos(2 * np.pi * phase)[:, None], rng.normal(size=(len(time), STATIONS))
    if quantity == "temperature":
        values = 12 + 11 * season + 2 * noise
    else:
        values = np.maximum(0, 30 + 15 * season + 20 * noise)
    values[rng.random(values.shape) < 0.2] = np.nan
    return time, values


def converted(conversion, part, unit="M"):
    """Return a record in one unit, of which a part of the times is in another at station 1."""
    time, values = record(conversion.quantity, unit)
    values = {"K": lambda x: x + 273.15, "degF": lambda x: 1.8 * x + 32}.get(conversion.into, lambda x: x)(values)
    rows = part(time.astype("datetime64[Y]").astype(int) + 1970)
    values[rows, 1] = (values[rows, 1] - conversion.shift) / conversion.factor
    return time, values


TOLD = [("M", c) for c in CONVERSIONS if c.shift] + [("D", c) for c in CONVERSIONS if c.quantity != "speed"]


@pytest.mark.parametrize(("unit", "conversion"), TOLD, ids=lambda c: c if isinstance(c, str) else f"{c.unit}-{c.into}")
def test_a_unit_that_changes_midway_is_named_with_its_years(conversion, unit):
    time, values = converted(conversion, lambda year: year >= 1999, unit)
    before = values.copy()
    (change,) = changed_units(values, time, conversion.into)
    assert change.station == 1 and change.conversion == conversion
    assert set(change.years) <= {1999, 2000, 2001, 2002} and len(change.years) >= 3
    assert np.array_equal(values, before, equal_nan=True)


@pytest.mark.parametrize("quantity", ["temperature", "length"])
@pytest.mark.parametrize("unit", ["M", "D"])
def test_years_that_are_like_each_other_are_no_change(quantity, unit):
    for seed in range(5):
        assert changed_units(record(quantity, unit, seed)[1], record(quantity, unit, seed)[0]) == []


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_a_dry_or_wet_year_is_no_change(factor):
    time, values = record("length")
    values[time.astype("datetime64[Y]") == np.datetime64("1995")] *= factor
    assert changed_units(values, time, "mm") == []


@pytest.mark.parametrize("unit", ["M", "D"])
def test_years_are_compared_over_the_same_dates_and_nothing_is_dropped(monkeypatch, unit):
    time, values = converted(CONVERSIONS[0], lambda year: year >= 1999, unit)
    seen = []
    monkeypatch.setattr(changed_units_module, "mixed_units", lambda table, unit: seen.append(table) or [])
    changed_units(values, time, "degC")
    (table,) = [table for table in seen if np.nanmax(table) > 200]
    assert table.shape == ({"M": 12, "D": 366}[unit], 13)
    assert np.isfinite(table).sum() == np.isfinite(values[:, 1]).sum()
    march = {"M": 2, "D": 31 + 29}[unit]
    expected = values[time == np.datetime64("1995-03-01"), 1]
    np.testing.assert_array_equal(table[march, 5], expected[0])


def test_neither_speeds_nor_a_single_year_of_amounts_are_told():
    named = {(c.unit, c.into): c for c in CONVERSIONS}
    time, values = converted(named["kt", "m/s"], lambda year: year >= 1999, "D")
    assert changed_units(values, time, "m/s") == []
    time, values = converted(named["in", "mm"], lambda year: year == 1999, "D")
    assert changed_units(values, time, "mm") == []
    time, values = converted(named["in", "mm"], lambda year: (year == 1999) | (year == 2000), "D")
    assert [change.years for change in changed_units(values, time, "mm")] == [(1999, 2000)]


def test_four_years_have_no_majority():
    time, values = converted(CONVERSIONS[0], lambda year: year >= 1993)
    assert changed_units(values[:44], time[:44], "degC") == []
    assert changed_units(np.full((144, 3), np.nan), time) == []


def test_the_finding_names_station_variable_years_and_mend():
    time, values = converted(CONVERSIONS[0], lambda year: year == 1999)
    names, spare = ("a", "b", "c"), {"latitude": np.arange(3.0), "longitude": np.zeros(3)}
    table = StationTable(values[..., None], time, names, ("warm",), "monthly", units=("degC",), **spare)
    (finding,) = [finding for finding in diagnose(table) if finding.kind != "empty-time"]
    assert finding.kind == "changed-units" and "convert" in finding.sentence and "missing" in finding.sentence
    assert "warm at b in 1999" in finding.names[0] and "K among degC" in finding.names[0]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["colorado", "jma"])
@pytest.mark.parametrize("known", [False, True])
def test_no_false_alarm_on_real_records(shared_data, name, known):
    table = read_stations([shared_data / "stations" / f"{name}_monthly.npz"])
    for k, unit in enumerate(table.units):
        assert changed_units(table.values[..., k], table.time, unit if known else "") == []
