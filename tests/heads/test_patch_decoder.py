"""Patches as observations: shares of classes, and what their edges alone can tell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmgl_cli.errors import InputError
from cmgl_cli.heads import GraphDiscriminant, class_moments
from cmgl_cli.heads.patch_decoder import patch_membership, patch_scores
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
    moments = class_moments(patches.reshape(-1, 2), truth.ravel(), 2)
    full = GraphDiscriminant.from_covariances(moments.covariances, moments.means, moments.priors)
    bare = GraphDiscriminant.from_covariances(moments.covariances * np.eye(2), moments.means, moments.priors)
    accuracy = [(patch_scores(model, patches).argmax(-1) == truth).mean() for model in (full, bare)]
    assert accuracy[0] > 0.8 and accuracy[1] < 0.65


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: patch_membership(np.zeros((2, 8), int), (4, 4), 2), "smaller than the patch grid"),
        (lambda: patch_membership(np.full((4, 4), 9), (4, 4), 2), "label 9 of 2"),
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
