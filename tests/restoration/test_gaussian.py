"""Conditional normals, EM, seasons, structure and offsets against closed forms and simulation."""

import numpy as np
import pytest

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.anomaly_model import AnomalyModel, Problem
from cmgl_cli.restoration.climatology import fit_climatology
from cmgl_cli.restoration.gaussian import (
    ConditionalNormal,
    conditional_fill,
    conditional_means,
    em_covariance,
    inverse,
)
from cmgl_cli.restoration.holdout import transplanted_gaps
from cmgl_cli.restoration.offsets import OffsetModel, fit_offsets, smooth_offsets
from cmgl_cli.restoration.seasons import seasonal_basis, seasonal_means, seasonal_spreads
from cmgl_cli.restoration.structure import fit_structure, horizontal_distances, spatial_kernels


def random_covariance(n, rng):
    factor = rng.normal(size=(n, n + 4))
    return factor @ factor.T / n


@pytest.mark.parametrize("rate", [0.2, 0.8])
def test_fill_is_the_conditional_normal(rate):
    rng = np.random.default_rng(0)
    covariance = random_covariance(7, rng)
    rows = rng.multivariate_normal(np.zeros(7), covariance, size=12)
    rows[rng.random(rows.shape) < rate] = np.nan
    rows[0] = np.nan
    copy = rows.copy()
    fill = conditional_fill(rows, covariance)
    for row, values, variance in zip(rows, fill.values, fill.variance, strict=True):
        gap, seen = np.isnan(row), ~np.isnan(row)
        gain = covariance[np.ix_(gap, seen)] @ np.linalg.pinv(covariance[np.ix_(seen, seen)])
        np.testing.assert_allclose(values[gap], gain @ row[seen], atol=1e-9)
        expected = covariance[np.ix_(gap, gap)] - gain @ covariance[np.ix_(seen, gap)]
        np.testing.assert_allclose(variance[gap], np.diagonal(expected), atol=1e-9)
        np.testing.assert_array_equal(values[seen], row[seen])
    np.testing.assert_array_equal(rows, copy)


def test_leave_one_out_is_the_conditional_normal_of_each_cell():
    rng = np.random.default_rng(1)
    covariance = random_covariance(6, rng)
    rows = rng.normal(size=(5, 6))
    rows[rng.random(rows.shape) < 0.3] = np.nan
    rows[0, 1:] = np.nan
    rows[1] = 1.0
    result = ConditionalNormal(rows, covariance).leave_one_out()
    for t, c in zip(*np.nonzero(np.isfinite(rows)), strict=True):
        without = rows[t].copy()
        without[c] = np.nan
        alone = conditional_fill(without[None], covariance)
        assert result.residual[t, c] == pytest.approx(rows[t, c] - alone.values[0, c])
        assert result.variance[t, c] == pytest.approx(alone.variance[0, c])
    assert np.isnan(result.residual[np.isnan(rows)]).all()


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.8])
def test_what_is_asked_for_alone_agrees_with_the_whole(rate):
    rng = np.random.default_rng(9)
    covariance = random_covariance(9, rng)
    rows = rng.normal(size=(20, 9))
    rows[rng.random(rows.shape) < rate] = np.nan
    rows[4:6, :] = np.where(np.isnan(rows[3]), np.nan, rng.normal(size=(2, 9)))
    whole = conditional_fill(rows, covariance)
    np.testing.assert_allclose(conditional_means(rows, covariance), whole.values, atol=1e-12)
    wanted = np.arange(9) % 3 == 1
    part, everything = ConditionalNormal(rows, covariance, wanted), ConditionalNormal(rows, covariance)
    np.testing.assert_allclose(part.fill().values, whole.values, atol=1e-12)
    np.testing.assert_allclose(part.fill().variance[:, wanted], whole.variance[:, wanted], atol=1e-12)
    for name in ("residual", "variance"):
        one, other = getattr(part.leave_one_out(), name), getattr(everything.leave_one_out(), name)
        np.testing.assert_allclose(one[:, wanted], other[:, wanted], atol=1e-12)
    np.testing.assert_allclose(everything.moment(), plain_moment(rows, covariance), atol=1e-12)


def plain_moment(rows, covariance):
    """The expected second moment, row by row by the textbook's formula."""
    total = np.zeros_like(covariance)
    for row in rows:
        gap, seen = np.isnan(row), ~np.isnan(row)
        gain = covariance[np.ix_(gap, seen)] @ np.linalg.pinv(covariance[np.ix_(seen, seen)])
        filled = row.copy()
        filled[gap] = gain @ row[seen]
        total += np.outer(filled, filled)
        total[np.ix_(gap, gap)] += covariance[np.ix_(gap, gap)] - gain @ covariance[np.ix_(seen, gap)]
    return total / len(rows)


def test_em_recovers_the_covariance_and_complete_rows_need_one_step():
    rng = np.random.default_rng(2)
    covariance = random_covariance(4, rng)
    rows = rng.multivariate_normal(np.zeros(4), covariance, size=4000)
    complete, _ = em_covariance(rows, np.eye(4), n_iter=5)
    np.testing.assert_allclose(complete, rows.T @ rows / len(rows), atol=1e-12)
    rows[rng.random(rows.shape) < 0.3] = np.nan
    estimate, _ = em_covariance(rows, np.eye(4), n_iter=60, tol=1e-6)
    np.testing.assert_allclose(estimate, covariance, atol=0.15)


def test_inverse_refuses_what_is_not_positive_definite():
    with pytest.raises(InputError):
        inverse(np.diag([1.0, -1.0]))


def months(years):
    return np.arange("1990-01", f"{1990 + years}-01", dtype="datetime64[M]")


def test_full_years_of_months_give_monthly_means():
    time = months(6)
    basis = seasonal_basis(time)
    assert basis.values.shape == (72, 12)
    values = np.random.default_rng(0).normal(size=(72, 3, 2))
    means = seasonal_means(values, basis)
    expected = values.reshape(6, 12, 3, 2).mean(axis=0)
    np.testing.assert_allclose(means[:12], expected, atol=1e-2)


def test_short_records_get_no_year_and_hours_get_a_day():
    month = np.arange("2000-01-01", "2000-01-31", dtype="datetime64[D]")
    assert seasonal_basis(month).values.shape[1] == 1
    hours = np.arange("2000-01-01T00", "2000-01-11T00", dtype="datetime64[h]")
    assert seasonal_basis(hours).diurnal.sum() == 6


def test_shrunk_means_are_nearer_to_the_truth_on_short_records():
    rng = np.random.default_rng(3)
    time = months(2)
    basis = seasonal_basis(time)
    truth = 5 * np.cos(2 * np.pi * np.arange(24) / 12)[:, None, None] + rng.normal(size=(1, 40, 1))
    noise = rng.normal(size=(24, 1, 1)) + 0.7 * rng.normal(size=(24, 40, 1))
    fits = fit_climatology(truth + noise, basis).mean, seasonal_means(truth + noise, basis)
    own = [fit - truth for fit in fits]
    local = [((x - x.mean(axis=1, keepdims=True)) ** 2).mean() for x in own]
    assert local[0] < 0.5 * local[1]


def test_dead_series_takes_its_mean_from_position():
    rng = np.random.default_rng(4)
    height = rng.random((30, 1))
    values = 10 - 6 * height[None] + 0.1 * rng.normal(size=(36, 30, 1))
    values[:, 4] = np.nan
    means = fit_climatology(values, seasonal_basis(months(3)), height).mean
    assert means[:, 4, 0].mean() == pytest.approx(10 - 6 * height[4, 0], abs=0.3)


def test_spreads_follow_the_season_and_the_series():
    rng = np.random.default_rng(5)
    basis = seasonal_basis(months(40))
    season = 1 + 0.5 * np.cos(2 * np.pi * np.arange(480) / 12)
    series = np.array([0.5, 1.0, 2.0])
    values = rng.normal(size=(480, 3, 1)) * season[:, None, None] * series[None, :, None]
    spread = seasonal_spreads(values, basis)
    ratio = spread[..., 0] / (season[:, None] * series)
    assert np.abs(ratio / ratio.mean() - 1).max() < 0.25


def test_structure_recovers_lengths_and_signs():
    rng = np.random.default_rng(6)
    lat, lon = 40 + rng.random(40), rng.random(40)
    distance = horizontal_distances(lat, lon)
    kernel = np.exp(-distance / 40)
    modality = np.array([[1.0, -0.7], [-0.7, 1.0]])
    truth = np.kron(kernel, modality) + 0.1 * np.eye(80)
    rows = rng.multivariate_normal(np.zeros(80), truth, size=3000)
    fitted = fit_structure(rows, 2, spatial_kernels(distance, None, 40)).covariance()
    assert np.linalg.eigvalsh(fitted)[0] > 0
    near = np.abs(fitted - truth)
    assert near.mean() < 0.05


def test_distance_of_one_degree():
    distance = horizontal_distances(np.array([0.0, 1.0]), np.array([0.0, 0.0]))
    assert distance[0, 1] == pytest.approx(111.195, abs=0.01)


def test_smoother_is_the_gaussian_posterior():
    rng = np.random.default_rng(7)
    model = OffsetModel(np.array([3.0, 40.0]), np.array([0.5, 0.3]), 0.4)
    lag = np.abs(np.arange(30)[:, None] - np.arange(30)[None])
    prior = 0.5 * np.exp(-lag / 3.0) + 0.3 * np.exp(-lag / 40.0)
    residual = rng.normal(size=(30, 2))
    residual[10:18, 0] = np.nan
    noise = 0.5 + rng.random((30, 2))
    mean, variance = smooth_offsets(residual, noise, model)
    for s in range(2):
        seen = np.isfinite(residual[:, s])
        total = prior[np.ix_(seen, seen)] + 0.4 * np.diag(noise[seen, s])
        gain = prior[:, seen] @ np.linalg.inv(total)
        np.testing.assert_allclose(mean[:, s], gain @ residual[seen, s], atol=1e-8)
        np.testing.assert_allclose(variance[:, s], np.diagonal(prior - gain @ prior[seen]), atol=1e-8)


def test_offsets_of_white_noise_are_small_and_of_drift_are_found():
    rng = np.random.default_rng(8)
    white = rng.normal(size=(400, 20))
    assert fit_offsets(white).variances.sum() < 0.05
    drift = np.repeat(rng.normal(size=(4, 20)), 100, axis=0)
    model = fit_offsets(white + drift)
    assert 0.6 < model.variances.sum() < 1.4 and model.scales.max() >= 40


def test_holdout_hides_observed_cells_in_the_shape_of_the_gaps():
    missing = np.zeros((120, 10, 2), bool)
    missing[36:42, 3] = True
    hidden = transplanted_gaps(missing, 12, np.random.default_rng(0))
    assert not (hidden & missing).any() and hidden.any()
    runs = hidden[:, 3].all(axis=1).sum()
    assert runs >= 6 and hidden.mean() < 0.2


def test_holdout_leaves_an_observation_of_every_month_where_the_gaps_do():
    missing = np.zeros((24, 40, 1), bool)
    missing[:12] = np.random.default_rng(0).random((12, 40, 1)) < 0.5
    left = ~(missing | transplanted_gaps(missing, 12, np.random.default_rng(1)))
    assert (left[:12] | left[12:]).all()


def test_a_station_without_some_month_does_not_undo_the_climatology_of_the_others():
    rng = np.random.default_rng(0)
    time = np.datetime64("2001-01") + np.arange(24)
    basis = seasonal_basis(time)
    own = 0.5 * rng.normal(size=(30, 2))
    angle = 2 * np.pi * np.arange(24) / 12
    truth = own[:, 0] * np.cos(angle)[:, None] + own[:, 1] * np.sin(angle)[:, None]
    values = (truth + 0.3 * rng.normal(size=truth.shape))[..., None]
    values[[3, 15], :4] = np.nan
    fit = fit_climatology(values, basis)
    error = fit.mean[..., 0] - truth
    assert np.sqrt((error[:, 4:] ** 2).mean()) < 0.25
    assert fit.variance[3, :4].min() > 1.2 * fit.variance[3, 4:].max()


def test_the_variance_of_the_climatology_is_that_of_its_error():
    rng = np.random.default_rng(1)
    basis = seasonal_basis(months(2))
    spread = np.array([2.0, 1.0, 1.0, 0.5, 0.5, *[0.1] * 7])
    truth = np.einsum("tp,sp->ts", basis.values, spread * rng.normal(size=(200, 12)))
    values = truth + 0.8 * rng.normal(size=truth.shape)
    values[rng.random(values.shape) < 0.3] = np.nan
    fit = fit_climatology(values[..., None], basis)
    ratio = (fit.mean[..., 0] - truth) ** 2 / fit.variance[..., 0]
    assert 0.85 < ratio.mean() < 1.2


def test_no_weather_is_taken_for_climate_where_the_neighbours_tell():
    rng = np.random.default_rng(2)
    time, n = months(2), 40
    place = rng.random((n, 2))
    patterns = np.stack([np.cos(7 * place[:, 0]), np.cos(7 * place[:, 1])])
    complete = (rng.normal(size=(24, 2)) @ patterns + 0.1 * rng.normal(size=(24, n)))[..., None]
    values = complete.copy()
    values[:12][rng.random((12, n, 1)) < 0.5] = np.nan
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    problem = Problem(values, seasonal_basis(time), spatial_kernels(100 * distance, None, n), None, np.zeros(1, bool))
    model = AnomalyModel(problem)
    model.run_em(4)
    whole = fit_climatology(complete, problem.basis).mean
    before = np.square(model.mean - whole).mean()
    model.refine_means(np.ones(1, bool))
    assert np.square(model.mean - whole).mean() < 0.85 * before
    assert np.array_equal(np.isnan(model.rows), np.isnan(values[..., 0]))
