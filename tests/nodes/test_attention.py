import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmgl_cli.errors import InputError
from cmgl_cli.nodes.attention import AttentionMean, page_weights, resample_attention

RNG = np.random.default_rng(0)


def maps(n, p=3, n_patches=4):
    a = RNG.random((n, p, n_patches))
    return (a / a.sum(axis=2, keepdims=True)).astype(np.float16)


def test_streaming_mean_equals_the_mean_of_everything():
    a, labels = maps(20), np.arange(20) % 4
    mean = AttentionMean(4, 3, 4)
    for start in range(0, 20, 6):
        mean.update(a[start : start + 6], labels[start : start + 6])
    expected = [a[labels == c].astype(np.float64).mean(axis=0) for c in range(4)]
    np.testing.assert_allclose(mean.mean(), expected, rtol=1e-13)
    assert mean.mean().dtype == np.float64 and np.array_equal(mean.weights, [5, 5, 5, 5])


def test_a_sample_counts_for_every_class_present_in_it():
    a = maps(3)
    mean = AttentionMean(2, 3, 4)
    mean.update(a, np.array([[1, 0], [1, 1], [0, 1]]))
    np.testing.assert_allclose(mean.mean()[0], a[:2].astype(float).mean(axis=0))
    np.testing.assert_allclose(mean.mean()[1], a[1:].astype(float).mean(axis=0))


def test_pages_of_one_text_are_averaged_before_texts_are():
    a, text = maps(4), np.array([7, 7, 7, 9])
    mean = AttentionMean(1, 3, 4)
    mean.update(a, np.zeros(4, int), page_weights(text))
    expected = (a[:3].astype(float).mean(axis=0) + a[3]) / 2
    np.testing.assert_allclose(mean.mean()[0], expected, rtol=1e-12)


def test_classes_without_samples_are_named():
    mean = AttentionMean(3, 3, 4)
    mean.update(maps(2), np.array([0, 0]))
    with pytest.raises(InputError, match="dog, owl"):
        mean.mean(["cat", "dog", "owl"])


def test_pooled_classes_without_samples_take_the_mean_of_the_others():
    mean, maps = AttentionMean(3, 2, 4), np.random.default_rng(0).random((6, 2, 4))
    mean.update(maps, np.array([0, 2, 0, 0, 2, 2]))
    found = mean.mean(pooled=True)
    np.testing.assert_allclose(found[1], maps.mean(axis=0))
    np.testing.assert_allclose(found[[0, 2]], [maps[[0, 2, 3]].mean(axis=0), maps[[1, 4, 5]].mean(axis=0)])
    with pytest.raises(InputError, match="without samples"):
        AttentionMean(3, 2, 4).mean(pooled=True)


def test_misfits_are_refused():
    mean = AttentionMean(3, 3, 4)
    with pytest.raises(InputError, match="expected"):
        mean.update(maps(2, p=2), np.array([0, 1]))
    with pytest.raises(InputError, match="0 to 3"):
        mean.update(maps(2), np.array([0, 3]))


sides = st.integers(1, 9)


@given(h=sides, w=sides, rows=sides, columns=sides)
def test_resampling_keeps_the_sum_and_a_uniform_map_uniform(h, w, rows, columns):
    a = np.random.default_rng(h * 100 + w).random((2, h * w))
    np.testing.assert_allclose(resample_attention(a, (h, w), (rows, columns)).sum(axis=1), a.sum(axis=1))
    uniform = resample_attention(np.full(h * w, 1 / (h * w)), (h, w), (rows, columns))
    np.testing.assert_allclose(uniform, 1 / (rows * columns))


def test_resampling_by_hand():
    np.testing.assert_allclose(resample_attention(np.array([0.6, 0.4]), (1, 2), (1, 3)), [0.4, 1 / 3, 4 / 15])
    np.testing.assert_allclose(resample_attention(np.arange(4.0), (2, 2), (1, 1)), [6])
    np.testing.assert_allclose(resample_attention(np.array([1.0]), (1, 1), (2, 3)), np.full(6, 1 / 6))


def test_the_same_grid_maps_onto_itself_and_padding_is_ignored():
    a = RNG.random((3, 12))
    np.testing.assert_array_equal(resample_attention(a, (3, 4), (3, 4)), a)
    padded = np.concatenate([a, np.full((3, 5), 9.0)], axis=1)
    np.testing.assert_array_equal(resample_attention(padded, (3, 4), (3, 4)), a)
    with pytest.raises(InputError, match="4 x 4"):
        resample_attention(a, (4, 4), (3, 3))
