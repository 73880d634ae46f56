"""The steps around each one as further variables: layout, exact conditionals, and what they bring to hours."""

import numpy as np
import pytest
from scipy.linalg import toeplitz

from cmgl_cli.restoration.anomaly_model import AnomalyModel, Problem
from cmgl_cli.restoration.holdout import _bare
from cmgl_cli.restoration.lags import MAX_LAGGED_COLUMNS, LaggedModel, affordable_reach, with_lags
from cmgl_cli.restoration.seasons import seasonal_basis
from cmgl_cli.restoration.structure import horizontal_distances, spatial_kernels
from cmgl_cli.restoration.table import Stations, Variable, restore_table


def advected(n_times=500, n_stations=10, seed=0):
    """Return hourly values [time, station, 2] of weather that drifts eastwards, time and stations."""
    rng = np.random.default_rng(seed)
    lat, lon = 50 + rng.random(n_stations), np.sort(4 * rng.random(n_stations))
    waves = rng.normal(size=(40, 4))
    hours = np.arange(n_times)[:, None]
    # one degree of longitude in five hours
    phase = [a * (lon[None] - 0.2 * hours) + b * lat[None] for a, b in zip(2 * waves[:, 0], waves[:, 1], strict=True)]
    field = sum(np.cos(p + 6 * w) * s for p, w, s in zip(phase, waves[:, 2], waves[:, 3], strict=True)) / 4
    noise = rng.normal(size=(2, n_times, n_stations))
    values = np.stack([10 + 3 * field + 0.5 * noise[0], 20 - 2 * field + 0.5 * noise[1]], axis=2)
    time = np.datetime64("2001-03-01T00", "h") + np.arange(n_times)
    return values, time, Stations([f"s{i}" for i in range(n_stations)], lat, lon)


def hidden_from(values, rate=0.2):
    gaps = np.random.default_rng(5).random(values.shape) < rate
    return np.where(gaps, np.nan, values), gaps


def problem_of(values, time, stations):
    distance = horizontal_distances(stations.latitude, stations.longitude)
    kernels = spatial_kernels(distance, None, values.shape[1])
    return Problem(values, seasonal_basis(time), kernels, None, np.zeros(values.shape[2], dtype=bool))


def test_rows_are_joined_by_the_rows_around_them():
    rows = np.arange(5 * 6, dtype=float).reshape(5, 6)
    joined = with_lags(rows, 2, 1).reshape(5, 3, 3, 2)
    plain = rows.reshape(5, 3, 2)
    assert np.array_equal(joined[:, :, 1], plain)
    assert np.array_equal(joined[1:, :, 0], plain[:-1]) and np.array_equal(joined[:-1, :, 2], plain[1:])
    assert np.isnan(joined[0, :, 0]).all() and np.isnan(joined[-1, :, 2]).all()


def test_a_gap_between_two_hours_is_filled_as_theory_says():
    values, time, stations = advected(n_times=200, n_stations=4)
    values[50, 1, 0] = np.nan
    model = LaggedModel(AnomalyModel(problem_of(values, time, stations)), 1)
    rho = 0.8
    # stations and variables independent: what is left is an autoregression, and its textbook interpolation
    autoregression = np.kron(np.kron(np.eye(4), toeplitz(rho ** np.arange(3))), np.eye(2))
    filled = model.means(autoregression, np.array([50]))[0, 1, 0]
    base, column = model.base, 2
    expected = rho / (1 + rho**2) * (base.rows[49, column] + base.rows[51, column])
    assert filled == pytest.approx(expected * base.spread[50, 1, 0] + base.mean[50, 1, 0])


def test_the_variance_of_an_autoregression_is_the_textbook_one():
    values, time, stations = advected(n_times=200, n_stations=4)
    values[50, 1, 0] = np.nan
    base = AnomalyModel(problem_of(values, time, stations))
    model = LaggedModel(base, 1)
    model.moment = model.structured = np.kron(np.kron(np.eye(4), toeplitz(0.8 ** np.arange(3))), np.eye(2))
    _, error = model.predict(np.array([0.5, 0.5]), np.array([True, True]))
    variance = (1 - 0.8**2) / (1 + 0.8**2) * base.spread[50, 1, 0] ** 2 + base.mean_variance[50, 1, 0]
    assert error[50, 1, 0] == pytest.approx(np.sqrt(variance))


def test_hours_are_filled_from_the_hours_around_them():
    values, time, stations = advected()
    observed, gaps = hidden_from(values)
    variables = [Variable("temperature"), Variable("pressure")]
    result = restore_table(observed, time, stations, variables, compare=("linear", "mvn-em"))
    assert np.all(result.diagnostics.settings["steps to either side"])
    error = np.sqrt([np.mean((result.values - values)[..., v][gaps[..., v]] ** 2) for v in range(2)])
    rows = {(row.variable, row.method): row.rmse for row in result.skill}
    for name, own in zip(("temperature", "pressure"), error, strict=True):
        assert own < 0.85 * min(rows[name, "linear"], rows[name, "mvn-em"])
    cover = (np.abs(result.values - values) <= 1.645 * result.standard_error)[gaps].mean()
    assert 0.84 < cover < 0.95
    assert np.array_equal(result.values[~gaps], values[~gaps])


def test_parts_of_a_record_are_filled_as_the_whole_is(monkeypatch):
    values, time, stations = advected(n_times=120)
    observed, _ = hidden_from(values)
    model = LaggedModel(AnomalyModel(problem_of(observed, time, stations)), 1)
    share, wanted = np.array([0.25, 0.5]), np.array([True, True])
    whole = model.predict(share, wanted)
    monkeypatch.setattr("cmgl_cli.restoration.lags.ROWS_AT_ONCE", 17)
    np.testing.assert_allclose(model.predict(share, wanted), whole, rtol=1e-9)


def test_months_are_not_joined_and_wide_networks_stay_as_they_are():
    values, _, stations = advected(n_times=60)
    observed, _ = hidden_from(values)
    months = np.datetime64("2001-01") + np.arange(60)
    result = restore_table(observed, months, stations, [Variable("a"), Variable("b")], compare=())
    assert not np.any(result.diagnostics.settings["steps to either side"])
    assert affordable_reach(12) == 2
    assert affordable_reach(MAX_LAGGED_COLUMNS // 3) == 1
    assert affordable_reach(MAX_LAGGED_COLUMNS) == 0


def test_lags_start_from_a_model_without_offsets_where_some_variables_have_them(monkeypatch):
    rng = np.random.default_rng(2)
    _, _, stations = advected(n_times=2)
    drift = np.cumsum(rng.normal(size=(300, 10)), axis=0) * 0.3
    common = rng.normal(size=(300, 1))
    values = np.stack([common + drift + 0.1 * rng.normal(size=drift.shape), common + rng.normal(size=drift.shape)], 2)
    started = []

    class Spied(LaggedModel):
        def __post_init__(self):
            super().__post_init__()
            started.append(bool(self.base.offset.any()))

    def spoilt(model, share, active):
        update(model, share, active)
        model.offset[:, 1::2] += 5.0 * active[1]

    update = AnomalyModel.update_offsets
    monkeypatch.setattr(AnomalyModel, "update_offsets", spoilt)
    monkeypatch.setattr("cmgl_cli.restoration.twofold_gaussian.LaggedModel", Spied)
    days = np.datetime64("2001-01-01") + np.arange(300)
    observed, _ = hidden_from(values)
    restore_table(observed, days, stations, [Variable("drifting"), Variable("white")], compare=())
    assert started and not any(started)


@pytest.mark.parametrize("period", [1, 12, 365])
def test_bare_cells_are_those_without_another_of_their_season(period):
    rng = np.random.default_rng(3)
    missing = rng.random((50, 4, 2)) < 0.6
    hidden = ~missing & (rng.random(missing.shape) < 0.5)
    season = (np.arange(50) % period) * 12 // period
    same = season[:, None] == season[None]
    gaps = missing | hidden

    def alone(gaps):
        return gaps & ~np.einsum("tu,usv->tsv", same, ~gaps)

    kept = rng.random(missing.shape) >= alone(missing).sum() / missing.sum()
    rng = np.random.default_rng(3)
    rng.random((50, 4, 2)), rng.random(missing.shape)
    assert np.array_equal(_bare(missing, hidden, period, rng), alone(gaps) & kept)
