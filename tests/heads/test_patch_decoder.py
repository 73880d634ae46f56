"""Patches as observations: shares, streamed moments against weighted ones, and the decoder they give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmgl_cli.errors import InputError
from cmgl_cli.heads import GraphDiscriminant
from cmgl_cli.heads.patch_decoder import PatchMoments, patch_membership, patch_scores, with_common
from tests.heads.problems import precisions


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(4, 17), st.integers(4, 17), st.integers(0, 999))
def test_membership_matches_a_loop(h: int, w: int, height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).choice([0, 1, 2, 255], (height, width))
    expected = np.zeros((h * w, 3))
    total = np.zeros(h * w)
    for i in range(height):
        for j in range(width):
            patch = int((i + 0.5) * h / height) * w + int((j + 0.5) * w / width)
            total[patch] += 1
            if mask[i, j] != 255:
                expected[patch, mask[i, j]] += 1
    np.testing.assert_allclose(patch_membership(mask, (h, w), 3), expected / total[:, None])


def weighted_problem(seed: int = 0):
    rng = np.random.default_rng(seed)
    images = [rng.normal(size=(n, 4)) + 1e4 for n in (9, 16, 9)]
    shares = [rng.random((len(u), 3)) * (rng.random((len(u), 3)) < 0.5) for u in images]
    for share in shares:
        share[:, 2] = 0
    return images, shares


def test_streamed_moments_equal_weighted_ones_even_far_from_zero() -> None:
    images, shares = weighted_problem()
    moments = PatchMoments(3, 4)
    for patches, share in zip(images, shares, strict=True):
        moments.update(patches, share)
    everything, weight = np.concatenate(images), np.concatenate(shares)
    for c in range(2):
        np.testing.assert_allclose(moments.means[c], np.average(everything, axis=0, weights=weight[:, c]))
        expected = np.cov(everything.T, aweights=weight[:, c], ddof=0)
        np.testing.assert_allclose(moments.covariances[c], expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(moments.weight, weight.sum(0))
    within = np.average(moments.covariances[:2], axis=0, weights=moments.weight[:2])
    np.testing.assert_allclose(moments.pooled, within)


def test_order_of_the_images_does_not_matter() -> None:
    images, shares = weighted_problem(1)
    forward, backward = PatchMoments(3, 4), PatchMoments(3, 4)
    for order, moments in ((1, forward), (-1, backward)):
        for patches, share in list(zip(images, shares, strict=True))[::order]:
            moments.update(patches, share)
    np.testing.assert_allclose(forward.covariances, backward.covariances, rtol=1e-8, atol=1e-9)


def test_absent_and_scarce_classes() -> None:
    images, shares = weighted_problem(2)
    moments = PatchMoments(3, 4)
    for patches, share in zip(images, shares, strict=True):
        moments.update(patches, share)
    np.testing.assert_array_equal(moments.images, [3, 3, 0])
    assert moments.scarce(3) == [2] and moments.scarce(4) == [0, 1, 2]
    assert np.isfinite(moments.means).all() and (moments.covariances[2] == 0).all()
    assert moments.priors.min() > 0 and moments.priors.sum() == pytest.approx(1)


def test_with_common_replaces_the_named_classes_only() -> None:
    omega = precisions(3, 4)
    mixed = with_common(omega, np.eye(4), [1])
    np.testing.assert_array_equal(mixed[1], np.eye(4))
    np.testing.assert_array_equal(mixed[[0, 2]], omega[[0, 2]])
    assert (omega[1] != np.eye(4)).any(), "the input stays as it is"


def test_scores_keep_images_and_patches_apart() -> None:
    rng = np.random.default_rng(0)
    model = GraphDiscriminant(precisions(3, 4), rng.normal(size=(3, 4)), [0.5, 0.3, 0.2])
    patches = rng.normal(size=(2, 5, 4))
    scores = patch_scores(model, patches)
    for b in range(2):
        np.testing.assert_allclose(scores[b], model.scores(patches[b]))


def test_off_diagonals_alone_can_segment() -> None:
    """Two textures of equal mean and variance, told apart by the sign of one correlation."""
    rng = np.random.default_rng(3)
    cov = np.array([[[1, 0.9], [0.9, 1]], [[1, -0.9], [-0.9, 1]]])
    truth = rng.integers(0, 2, (30, 16))
    draws = np.stack([rng.multivariate_normal([0, 0], c, (30, 16)) for c in cov])
    patches = np.where(truth[..., None] == 0, draws[0], draws[1])
    moments = PatchMoments(2, 2)
    for u, labels in zip(patches, truth, strict=True):
        moments.update(u, np.eye(2)[labels])
    full = GraphDiscriminant.from_covariances(moments.covariances, moments.means, moments.priors)
    bare = GraphDiscriminant.from_covariances(moments.covariances * np.eye(2), moments.means, moments.priors)
    accuracy = [(patch_scores(model, patches).argmax(-1) == truth).mean() for model in (full, bare)]
    assert accuracy[0] > 0.8 and accuracy[1] < 0.65


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: patch_membership(np.zeros((2, 8), int), (4, 4), 2), "smaller than the patch grid"),
        (lambda: patch_membership(np.full((4, 4), 9), (4, 4), 2), "label 9 of 2"),
        (lambda: PatchMoments(2, 3).update([[0, 0, np.nan]], [[1, 0]]), "row 0"),
        (lambda: PatchMoments(2, 3).update(np.zeros((2, 3)), np.zeros((3, 2))), "membership has the wrong shape"),
        (
            lambda: patch_scores(GraphDiscriminant(precisions(2, 3), np.zeros((2, 3))), np.zeros((4, 3))),
            "add the missing axis",
        ),
    ],
)
def test_refuses_bad_input_and_names_it(call, named: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert named in str(caught.value)
