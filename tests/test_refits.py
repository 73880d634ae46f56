"""The chosen fit on other moments."""

import numpy as np

from cmgl_cli.graphs import Grid, Moments, correlation, fit_joint, select_joint
from cmgl_cli.refits import REFIT_TOL, ChosenPoint, cross_fits
from cmgl_cli.sufficient import merged

C, P, FOLDS = 3, 5, 3


def folds(rng: np.random.Generator, missing: tuple[int, int] | None = None) -> list[Moments]:
    """Return the moments of each fold; class `missing[1]` occurs in fold `missing[0]` alone."""
    found = []
    for fold in range(FOLDS):
        moments = Moments(C, P)
        for label in range(C):
            if missing is not None and label == missing[1] and fold != missing[0]:
                continue
            moments.update(rng.normal(size=(60, P)) * (1 + label) + label, label)
        found.append(moments)
    return found


def without(parts: list[Moments]):
    return (merged([part for i, part in enumerate(parts) if i != fold]) for fold in range(len(parts)))


def whole_fit(parts: list[Moments], point: ChosenPoint) -> dict[str, np.ndarray]:
    whole = merged(parts)
    covariances = whole.covariances()
    result = point.fit(correlation(covariances))
    scale = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    return {"precision": result.precision, "common": result.common, "scale": scale, "means": whole.means}


POINT = ChosenPoint(np.full((C, P, P), 0.5), 0.1, np.full(C, 0.05), {"ridge": 0.01})


def test_a_fold_takes_no_part_in_its_own_graphs():
    parts, ticks = folds(np.random.default_rng(0)), []
    found = cross_fits(without(parts), np.arange(C), POINT, whole_fit(parts, POINT), lambda: ticks.append(1))
    assert len(ticks) == FOLDS and found["precision"].shape == (FOLDS, C, P, P)
    for fold, others in enumerate(without(parts)):
        covariances = others.covariances()
        expected = fit_joint(correlation(covariances), POINT.weights, 0.1, 0.05, ridge=0.01, tol=REFIT_TOL)
        np.testing.assert_allclose(found["precision"][fold], expected.precision, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["means"][fold], others.means, rtol=1e-6)
        np.testing.assert_allclose(found["scale"][fold] ** 2, np.diagonal(covariances, 0, 1, 2), rtol=1e-5)
    # what is in the fold makes no difference
    parts[0].update(np.full((500, P), 9.0) + np.random.default_rng(1).normal(size=(500, P)), 0)
    again = cross_fits(without(parts), np.arange(C), POINT, whole_fit(parts, POINT), lambda: None)
    np.testing.assert_array_equal(again["precision"][0], found["precision"][0])
    assert not np.allclose(again["precision"][1], found["precision"][1])


def test_a_class_that_is_nowhere_else_keeps_the_graph_of_all_folds():
    parts = folds(np.random.default_rng(0), missing=(1, 2))
    whole = whole_fit(parts, POINT)
    found = cross_fits(without(parts), np.arange(C), POINT, whole, lambda: None)
    np.testing.assert_allclose(found["precision"][1, 2], whole["precision"][2], rtol=1e-6)
    np.testing.assert_allclose(found["means"][1, 2], whole["means"][2], rtol=1e-6)
    assert not np.allclose(found["means"][1, 0], whole["means"][0])


def test_classes_that_were_not_fitted_stay_as_they_are():
    parts = folds(np.random.default_rng(0))
    point = ChosenPoint(POINT.weights[:2], POINT.rho, POINT.gamma[:2], POINT.options)
    whole = whole_fit(parts, POINT)
    found = cross_fits(without(parts), np.array([0, 2]), point, whole, lambda: None)
    np.testing.assert_allclose(found["precision"][:, 1], np.repeat(whole["precision"][1][None], FOLDS, 0), rtol=1e-6)


def test_the_point_of_a_search_has_its_penalties():
    parts = folds(np.random.default_rng(0))
    matrices = correlation(merged(parts).covariances())
    prior = np.random.default_rng(2).random((C, P, P))
    prior = (prior + prior.transpose(0, 2, 1)) / 2
    for scale_rho in (False, True):
        grid = Grid(k=(5.0,), rho=(0.1,), gamma=(0.05,), criterion="ebic", k_criterion="ebic", scale_rho=scale_rho)
        selection = select_joint(matrices, prior, np.full(C, 180), grid)
        options = {"scale_rho": scale_rho, "preserve_penalty": grid.preserve_penalty}
        again = ChosenPoint.of(selection, **options).fit(matrices)
        np.testing.assert_allclose(again.precision, selection.result.precision, atol=2e-2)
        assert again.objective <= selection.result.objective * (1 + 1e-3)
