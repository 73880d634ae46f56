import numpy as np
import pytest

from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.nodes.crossfitting import align, cross_fitted, fold_assignment

RNG = np.random.default_rng(0)


def test_an_exact_affine_map_is_found():
    z = RNG.normal(size=(200, 4))
    mixing, offset = RNG.normal(size=(4, 4)), RNG.normal(size=4)
    alignment = align(z, z @ mixing + offset, ridge=0)
    np.testing.assert_allclose(alignment.matrix, mixing, atol=1e-10)
    fresh = RNG.normal(size=(5, 4))
    np.testing.assert_allclose(alignment.apply(fresh), fresh @ mixing + offset, atol=1e-9)
    np.testing.assert_allclose(alignment.agreement, 1)


def test_agreement_is_the_explained_share_and_survives_constant_nodes():
    z = RNG.normal(size=(5000, 3))
    z[:, 2] = 1.5
    reference = np.stack([z[:, 0] + RNG.normal(size=5000), RNG.normal(size=5000), z[:, 2]], axis=1)
    alignment = align(z, reference)
    assert alignment.agreement[0] == pytest.approx(0.5, abs=0.05)
    assert alignment.agreement[1] == pytest.approx(0, abs=0.01)
    np.testing.assert_allclose(alignment.apply(z)[:, 2], 1.5)


def test_permuted_and_flipped_probes_come_back():
    z = RNG.normal(size=(300, 5))
    order, sign = RNG.permutation(5), np.array([1, -1, 1, -1, 1])
    np.testing.assert_allclose(align(z[:, order] * sign, z, ridge=0).apply(z[:, order] * sign), z, atol=1e-9)


def test_folds_are_balanced_within_classes_and_seeded():
    labels = np.repeat([0, 1, 2], [50, 13, 4])
    folds = fold_assignment(labels, 5, seed=1)
    for c in range(3):
        counts = np.bincount(folds[labels == c], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(folds)) <= 1
    assert np.array_equal(folds, fold_assignment(labels, 5, seed=1))
    assert not np.array_equal(folds, fold_assignment(labels, 5, seed=2))
    presence = RNG.integers(0, 2, size=(67, 3))
    assert np.ptp(np.bincount(fold_assignment(presence, 5, seed=1))) <= 1


def test_bad_input_is_refused():
    for n_folds in (1, 11):
        with pytest.raises(UsageError, match="10 samples"):
            fold_assignment(np.zeros(10, int), n_folds, 0)
    with pytest.raises(InputError):
        align(np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(InputError):
        align(np.full((3, 2), np.nan), np.ones((3, 2)))


def test_cross_fitted_takes_each_sample_from_its_own_fold_and_its_map_from_the_others():
    z, folds = RNG.normal(size=(60, 3)), np.arange(60) % 3
    mixings = RNG.normal(size=(3, 3, 3))
    z_folds = np.stack([z @ np.linalg.inv(mixing) for mixing in mixings])
    z_reference = z.copy()
    aligned, agreement = cross_fitted(z_reference, z_folds, folds, ridge=0)
    np.testing.assert_allclose(aligned, z, atol=1e-8)
    assert agreement.shape == (3, 3)
    z_reference[0] = 1e6  # a sample's own reference node must not reach its cross-fitted one
    changed, _ = cross_fitted(z_reference, z_folds, folds, ridge=0)
    np.testing.assert_allclose(changed[folds == 0], z[folds == 0], atol=1e-8)
    with pytest.raises(InputError, match="0 to 2"):
        cross_fitted(z, z_folds[:2], folds)
