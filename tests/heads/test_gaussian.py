"""Class moments and LDA / QDA against scikit-learn, and on classes too small for either."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis

from cmgl_cli.errors import InputError
from cmgl_cli.heads import class_moments, regularised_discriminant
from tests.heads.problems import draw, precisions

OMEGA, MEANS = precisions(3, 5, seed=2), np.random.default_rng(2).normal(size=(3, 5))
Z, LABELS = draw(OMEGA, MEANS, 40)
NEW, _ = draw(OMEGA, MEANS, 15, seed=8)


def test_pooling_one_is_lda() -> None:
    ours = regularised_discriminant(class_moments(Z, LABELS, 3), pooling=1.0, ridge=0.0)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(Z, LABELS)
    np.testing.assert_allclose(ours.predict_proba(NEW), theirs.predict_proba(NEW), rtol=1e-6)


def test_lda_ridge_is_shrinkage_of_the_unscaled_covariance() -> None:
    ours = regularised_discriminant(class_moments(Z, LABELS, 3), pooling=1.0, ridge=0.3)
    pooled = class_moments(Z, LABELS, 3).pooled
    expected = 0.7 * pooled + 0.3 * np.trace(pooled) / 5 * np.eye(5)
    np.testing.assert_allclose(np.linalg.inv(ours.precision[0]), expected, rtol=1e-8)


def test_pooling_zero_is_qda() -> None:
    ours = regularised_discriminant(class_moments(Z, LABELS, 3), pooling=0.0, ridge=0.0)
    own = np.stack([np.cov(Z[LABELS == c].T, bias=True) for c in range(3)])
    np.testing.assert_allclose(np.linalg.inv(ours.precision), own, rtol=1e-8)
    theirs = QuadraticDiscriminantAnalysis().fit(Z, LABELS)
    np.testing.assert_allclose(ours.means, theirs.means_)
    # Releases of scikit-learn divide by n or by n - 1; with 40 samples a class the decisions hardly differ.
    assert (ours.predict(NEW) == theirs.predict(NEW)).mean() > 0.95


def test_small_and_empty_classes_lean_on_the_others() -> None:
    keep = (LABELS != 2) | (np.cumsum(LABELS == 2) == 1)
    moments = class_moments(Z[keep], LABELS[keep], 4)
    np.testing.assert_array_equal(moments.count, [40, 40, 1, 0])
    np.testing.assert_array_equal(moments.covariances[2:], 0)
    np.testing.assert_allclose(moments.means[3], Z[keep].mean(0))
    for pooling in (0.1, 1.0):
        assert np.isfinite(regularised_discriminant(moments, pooling, 0.0).scores(NEW)).all()
    with pytest.raises(InputError, match="class 2"):
        regularised_discriminant(moments, 0.0, 0.0)


def test_refuses_nothing_and_nan() -> None:
    with pytest.raises(InputError, match="0 samples"):
        class_moments(np.zeros((0, 3)), [], 2)
    bad = Z.copy()
    bad[7, 1] = np.nan
    with pytest.raises(InputError, match="row 7"):
        class_moments(bad, LABELS, 3)
