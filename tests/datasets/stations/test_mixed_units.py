"""Stations in another unit than the others are recognised; mountains, and both real records, are not."""

import numpy as np
import pytest

from cmgl_cli.datasets.stations import StationTable, diagnose, read_stations
from cmgl_cli.datasets.stations.mixed_units import CONVERSIONS, mixed_units


def network(quantity, n_stations=8, seed=0):
    """Return a daily year of one variable at stations that differ a little, a fifth missing."""
    rng = np.random.default_rng(seed)
    day = np.arange(365)[:, None]
    shared, own, place = rng.normal(size=(365, 1)), rng.normal(size=(365, n_stations)), rng.normal(size=n_stations)
    if quantity == "temperature":
        values = 12 - 11 * np.cos(2 * np.pi * day / 365) + 3 * shared + own + 2 * place
    else:
        values = np.maximum(0, 3 + 4 * shared + own) * np.exp(0.1 * (place if quantity == "length" else place / 3))
    values[rng.random(values.shape) < 0.2] = np.nan
    return values


def native(conversion):
    """Return a network in the unit that a conversion leads to."""
    values = network(conversion.quantity)
    other = {"K": lambda x: x + 273.15, "degF": lambda x: 1.8 * x + 32}
    return other.get(conversion.into, lambda x: x)(values)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("conversion", CONVERSIONS, ids=lambda c: f"{c.unit} among {c.into}")
def test_one_station_in_another_unit_is_named_with_the_conversion(conversion, known):
    values = native(conversion)
    assert mixed_units(values, conversion.into if known else "") == []
    values[:, 3] = (values[:, 3] - conversion.shift) / conversion.factor
    before = values.copy()
    (suspect,) = mixed_units(values, conversion.into if known else "")
    assert suspect.station == 3 and suspect.conversion == conversion
    assert not suspect.others[0] <= suspect.mean <= suspect.others[1]
    assert np.array_equal(values, before, equal_nan=True)


def test_other_units_than_the_variables_are_left_out():
    values = network("temperature")
    values[:, 3] += 273.15
    assert mixed_units(values, "degC") and not mixed_units(values, "degF") and not mixed_units(values, "hPa")


@pytest.mark.parametrize("shift", [-30.0, -15.0, 15.0, 40.0])
def test_a_station_far_from_the_others_is_no_suspect(shift):
    values = network("temperature")
    values[:, 3] += shift
    assert mixed_units(values, "degC") == []


@pytest.mark.parametrize("factor", [0.2, 0.5, 2.0, 4.0])
def test_a_dry_or_wet_place_is_no_suspect(factor):
    values = network("length")
    values[:, 3] *= factor
    assert mixed_units(values, "mm") == []


def test_a_station_with_winters_alone_is_no_suspect():
    values = network("temperature")
    values[60:330, 3] = np.nan
    assert mixed_units(values, "degC") == []


@pytest.mark.parametrize("kept", [(0, 0), (1, 365), (3, 365), (8, 3)])
def test_too_little_to_compare_is_no_suspect(kept):
    stations, times = kept
    values = network("temperature")[:times, :stations]
    values[:, :1] += 273.15
    assert mixed_units(values) == []
    assert mixed_units(np.full((40, 6), np.nan)) == [] and mixed_units(np.zeros((40, 6))) == []


def test_the_finding_names_station_variable_values_and_mend():
    values = np.stack([network("temperature"), network("length")], axis=2)
    values[:, 3, 0] += 273.15
    time = np.datetime64("2001-01-01", "s") + np.arange(365) * np.timedelta64(86400, "s")
    names = tuple(f"s{i}" for i in range(8))
    table = StationTable(values, time, names, ("warm", "rain"), "daily", latitude=np.arange(8.0), longitude=np.zeros(8))
    (finding,) = diagnose(table)
    assert finding.kind == "mixed-units" and "convert" in finding.sentence and "--exclude" in finding.sentence
    assert "warm at s3" in finding.names[0] and "K among degC" in finding.names[0]


@pytest.mark.shared
@pytest.mark.parametrize("record", ["colorado", "jma"])
@pytest.mark.parametrize("known", [False, True])
def test_no_false_alarm_on_real_records(shared_data, record, known):
    table = read_stations([shared_data / "stations" / f"{record}_monthly.npz"])
    for k, unit in enumerate(table.units):
        for part in (table.values[..., k], table.values[-360:, ..., k], table.values[-24:, ::5, k]):
            assert mixed_units(part, unit if known else "") == []


def test_a_station_with_hardly_any_common_times_is_no_suspect():
    values = network("temperature")
    values[:, 3] += 273.15
    values[60:, 3] = np.nan
    assert [suspect.station for suspect in mixed_units(values)] == [3]
    values[5:, 3] = np.nan
    assert mixed_units(values) == []


def test_a_station_among_the_others_as_it_stands_is_no_suspect():
    values = network("length")
    values[:, 3] /= 10
    assert [suspect.station for suspect in mixed_units(values, "mm")] == [3]
    # drier still, and in no other unit: so dry a place may well be
    values[:, 5] /= 50
    assert mixed_units(values, "mm") == []
