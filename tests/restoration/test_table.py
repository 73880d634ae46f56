"""The call a stage makes: what it keeps, fills, bounds, reports and refuses."""

import numpy as np
import pytest

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.blocks import neighbourhoods
from cmgl_cli.restoration.matrix_methods import MATRIX_METHODS, fill_with_matrices
from cmgl_cli.restoration.peers import PEERS
from cmgl_cli.restoration.seasons import seasonal_basis
from cmgl_cli.restoration.table import Stations, Variable, keep_physical, restore_table
from cmgl_cli.restoration.windows import from_windows, to_windows

VARIABLES = [Variable("temperature"), Variable("rain", lower=0.0)]


def record(n_times=72, n_stations=14, seed=0):
    rng = np.random.default_rng(seed)
    lat, lon = 40 + 2 * rng.random(n_stations), 2 * rng.random(n_stations)
    distance = np.hypot(lat[:, None] - lat[None], lon[:, None] - lon[None])
    root = np.linalg.cholesky(np.exp(-distance / 1.5) + 1e-6 * np.eye(n_stations))
    weather = rng.normal(size=(n_times, n_stations)) @ root.T
    season = 10 * np.cos(2 * np.pi * np.arange(n_times) / 12)[:, None]
    warm = season + 15 - 2 * weather + 0.2 * rng.normal(size=weather.shape)
    rain = np.maximum(4 + 1.5 * weather + 0.3 * rng.normal(size=weather.shape), 0) ** 2
    time = np.datetime64("1990-01") + np.arange(n_times)
    names = [f"s{i}" for i in range(n_stations)]
    return np.stack([warm, rain], axis=2), time, Stations(names, lat, lon, np.zeros(n_stations))


def with_gaps(values, rate=0.2, seed=1):
    rng = np.random.default_rng(seed)
    gaps = rng.random(values.shape) < rate
    gaps[20:26, -1] = True
    return np.where(gaps, np.nan, values), gaps


def test_default_keeps_observations_beats_climatology_and_covers():
    values, time, stations = record()
    observed, gaps = with_gaps(values)
    copy = observed.copy()
    result = restore_table(observed, time, stations, VARIABLES)
    np.testing.assert_array_equal(observed, copy)
    assert np.array_equal(result.filled, gaps) and np.isfinite(result.values).all()
    assert np.array_equal(result.values[~gaps], observed[~gaps])
    assert (result.standard_error[~gaps] == 0).all() and (result.standard_error[gaps] > 0).all()
    assert result.values[..., 1].min() >= 0
    error = (result.values - values)[gaps]
    cover = (np.abs(error) <= 1.645 * result.standard_error[gaps]).mean()
    assert 0.82 < cover < 0.97
    rows = {(row.variable, row.method): row.rmse for row in result.skill}
    for variable in ("temperature", "rain"):
        assert rows[variable, "default"] < 0.6 * rows[variable, "climatology"]
    assert result.graphs.modality_weights[0, 1] < 0
    assert result.graphs.spatial_weights.min() > 0


def test_same_seed_same_bits():
    values, time, stations = record()
    observed, _ = with_gaps(values)
    one, two = (restore_table(observed, time, stations, VARIABLES, compare=()) for _ in range(2))
    assert np.array_equal(one.values, two.values) and np.array_equal(one.standard_error, two.standard_error)


@pytest.mark.parametrize("method", [*PEERS, "graph-lowpass"])
def test_every_peer_fills_every_gap(method):
    values, time, stations = record(n_times=36, n_stations=10)
    observed, gaps = with_gaps(values)
    result = restore_table(observed, time, stations, VARIABLES, method=method, compare=())
    assert np.isfinite(result.values).all()
    assert np.array_equal(result.values[~gaps], observed[~gaps])
    assert result.values[..., 1].min() >= 0


@pytest.mark.parametrize("method", MATRIX_METHODS)
def test_every_matrix_method_fills_every_gap(method):
    values, time, _ = record(n_times=30, n_stations=8)
    observed, gaps = with_gaps(values)
    filled = fill_with_matrices(method, observed, seasonal_basis(time), 12, epochs=1)
    assert np.isfinite(filled).all() and np.array_equal(filled[~gaps], observed[~gaps])


def test_hard_records_are_filled_and_reported():
    values, time, stations = record()
    observed, _ = with_gaps(values)
    observed[:, 2] = np.nan
    observed[:, 5, 1] = np.nan
    observed[:, 7, 0] = 3.0
    observed[40] = np.nan
    stations.latitude[9], stations.longitude[9] = stations.latitude[8], stations.longitude[8]
    result = restore_table(observed, time, stations, VARIABLES, compare=("knn",))
    report = result.diagnostics
    assert np.isfinite(result.values).all()
    assert report.dead_stations == ["s2"] and report.dead_series == [("s5", "rain")]
    assert report.constant_series == [("s7", "temperature")] and report.empty_times == [40]
    assert report.same_place == [("s8", "s9")]
    assert result.standard_error[:, 2, 0].min() > result.standard_error[:, 4, 0].max() * 0.3


@pytest.mark.parametrize("n_stations, n_variables", [(1, 2), (2, 1), (6, 1)])
def test_tiny_networks(n_stations, n_variables):
    values, time, stations = record(n_stations=n_stations)
    observed, _ = with_gaps(values[..., :n_variables])
    result = restore_table(observed, time, stations, VARIABLES[:n_variables], compare=("climatology", "knn"))
    assert np.isfinite(result.values).all()


def test_without_coordinates_it_works_and_says_what_is_lost():
    values, time, stations = record()
    observed, _ = with_gaps(values)
    result = restore_table(observed, time, Stations(stations.names), VARIABLES, compare=("climatology",))
    assert np.isfinite(result.values).all()
    assert any("no coordinates" in note for note in result.diagnostics.notes)


def test_one_month_of_days():
    values, _, stations = record(n_times=30)
    observed, _ = with_gaps(values, 0.1)
    time = np.datetime64("2001-06-01") + np.arange(30)
    assert np.isfinite(restore_table(observed, time, stations, VARIABLES, compare=()).values).all()


def test_bounds_and_order_move_filled_cells_only():
    values = np.array([[[5.0, 3.0], [9.0, -2.0]]])
    filled = np.array([[[True, False], [True, True]]])
    variables = [Variable("tmin"), Variable("tmax", lower=-1.0)]
    result = keep_physical(values, filled, variables, [("tmin", "tmax")])
    np.testing.assert_allclose(result, [[[3.0, 3.0], [4.0, 4.0]]])


def test_bad_records_are_refused():
    values, time, stations = record(n_times=24)
    with pytest.raises(InputError, match="unknown method"):
        restore_table(values, time, stations, VARIABLES, method="magic")
    with pytest.raises(InputError, match="shapes"):
        restore_table(values[:, :3], time, stations, VARIABLES)
    with pytest.raises(InputError, match="no observation"):
        restore_table(values * np.nan, time, stations, VARIABLES)
    broken = values.copy()
    broken[3, 2, 1] = np.inf
    with pytest.raises(InputError, match="s2, rain"):
        restore_table(broken, time, stations, VARIABLES)
    with pytest.raises(InputError, match="regular"):
        restore_table(values, np.delete(np.append(time, time[-1] + 1), 5), stations, VARIABLES)


def test_windows_there_and_back():
    values = np.random.default_rng(0).normal(size=(31, 4, 3))
    matrices, mask = to_windows(values, 12)
    assert matrices.shape == (3, 4, 36) and mask.all()
    np.testing.assert_allclose(from_windows(matrices, 31, 12), values)
    np.testing.assert_allclose(matrices[0, 2].reshape(3, 12).T.numpy(), values[:12, 2])


def test_neighbourhoods_partition_the_stations():
    points = np.random.default_rng(0).random((101, 2))
    blocks = neighbourhoods(points, 20)
    assert sorted(np.concatenate(blocks).tolist()) == list(range(101)) and max(map(len, blocks)) <= 20


def test_wide_networks_are_restored_in_blocks(monkeypatch):
    monkeypatch.setattr("cmgl_cli.restoration.blocks.MAX_COLUMNS", 16)
    values, time, stations = record()
    observed, gaps = with_gaps(values)
    result = restore_table(observed, time, stations, VARIABLES, compare=("climatology",))
    rows = {(row.variable, row.method): row.rmse for row in result.skill}
    assert rows["temperature", "default"] < 0.7 * rows["temperature", "climatology"]
    assert "block 1" in result.diagnostics.settings
    assert np.array_equal(result.values[~gaps], observed[~gaps])


def test_a_variable_that_nobody_observed_stays_empty():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(60, 4, 2))
    values[..., 1] = np.nan
    values[3:6, 1, 0] = np.nan
    time = np.datetime64("2000-01") + np.arange(60)
    result = restore_table(
        values, time, Stations(list("abcd")), [Variable("t"), Variable("rain", lower=0.0)], compare=()
    )
    assert np.isfinite(result.values[..., 0]).all() and result.filled[..., 0].sum() == 3
    assert np.isnan(result.values[..., 1]).all() and np.isnan(result.standard_error[..., 1]).all()
    assert not result.filled[..., 1].any()
    assert any("rain" in note and "left empty" in note for note in result.diagnostics.notes)
