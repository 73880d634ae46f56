"""The default restoration's hold-out: how often it is drawn, what is averaged, and bands that cover what is missing."""

import numpy as np
import pytest

from cmgl_cli.restoration import twofold_gaussian
from cmgl_cli.restoration.anomaly_model import Problem
from cmgl_cli.restoration.seasons import seasonal_basis
from cmgl_cli.restoration.structure import spatial_kernels
from cmgl_cli.restoration.twofold_gaussian import Draw, restore_gaussian


def problem(n_times, seed=0, n_stations=16):
    """Return a record of two correlated variables with a fifth of its cells missing, and the truth."""
    rng = np.random.default_rng(seed)
    place = rng.random((n_stations, 2))
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    root = np.linalg.cholesky(np.exp(-distance) + 1e-6 * np.eye(n_stations))
    weather = root @ rng.normal(size=(n_times, n_stations, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    season = 5 * np.cos(2 * np.pi * np.arange(n_times) / 12)[:, None, None]
    truth = season + weather + 0.3 * rng.normal(size=weather.shape)
    values = np.where(rng.random(truth.shape) < 0.2, np.nan, truth)
    basis = seasonal_basis(np.datetime64("2000-01") + np.arange(n_times))
    kernels = spatial_kernels(100 * distance, None, n_stations)
    return Problem(values, basis, kernels, 100 * place, np.zeros(2, dtype=bool)), truth


def test_few_hold_out_cells_are_drawn_again_and_many_are_not(monkeypatch):
    record, _ = problem(24)
    short = restore_gaussian(record, 12)
    assert len(short.choices) == twofold_gaussian.MAX_DRAWS
    monkeypatch.setattr(twofold_gaussian, "ENOUGH_CELLS", 10)
    assert len(restore_gaussian(record, 12).choices) == 1


def test_the_restoration_is_the_mean_over_the_choices_of_all_draws(monkeypatch):
    record, _ = problem(24)
    together = restore_gaussian(record, 12)
    gaps, alone = np.isnan(record.values), []
    monkeypatch.setattr(twofold_gaussian, "_widening", lambda draws, values: np.ones(2))
    for choices in together.choices:
        draw = Draw(gaps, record.values, record.values, choices)
        monkeypatch.setattr(twofold_gaussian, "_draws", lambda *_, draw=draw: [draw])
        alone.append(restore_gaussian(record, 12))
    np.testing.assert_allclose(together.values[gaps], np.mean([one.values for one in alone], axis=0)[gaps], rtol=1e-12)
    spread = np.sqrt(np.mean([one.standard_error**2 for one in alone], axis=0)) * together.widening
    np.testing.assert_allclose(together.standard_error[gaps], spread[gaps], rtol=1e-12)


def test_draws_hide_different_observed_cells():
    record, _ = problem(24)
    draws = twofold_gaussian._draws(record, 12, 0, 2)
    hidden = [draw.hidden for draw in draws]
    assert all((one & np.isnan(record.values)).sum() == 0 for one in hidden)
    assert all((one & two).sum() < 0.5 * one.sum() for one in hidden for two in hidden if one is not two)


def test_errors_are_widened_by_the_cells_of_all_draws():
    rng = np.random.default_rng(0)
    shape = (40, 50, 1)
    draws = []
    # the first draw's errors are as large as the model says, the second's twice as large
    for scale in (1.0, 2.0):
        hidden = rng.random(shape) < 0.5
        draws.append(Draw(hidden, scale * rng.normal(size=shape), np.ones(shape), None))
    wide = twofold_gaussian._widening(draws, np.zeros(shape))
    ratios = np.concatenate([np.abs(draw.restored[draw.hidden]) for draw in draws])
    level = (ratios <= 1.645 * wide).mean()
    assert level > 0.9 and level == pytest.approx(0.9, abs=0.02)


def test_bands_of_two_years_cover_what_is_missing_in_the_mean_over_records():
    covers = []
    for seed in range(4):
        record, truth = problem(24, seed)
        result = restore_gaussian(record, 12)
        gaps = np.isnan(record.values)
        covers.append((np.abs(result.values - truth) <= 1.645 * result.standard_error)[gaps].mean())
    assert 0.88 < np.mean(covers) < 0.96
