"""Further looks at training images: what they change and what they must not."""

import numpy as np
import pytest
from PIL import Image

from cmgl_cli.segmentation.augmentation import LEAST_SIDE, Augmentation

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
MASK = np.arange(40 * 60).reshape(40, 60)


def coded(mask):
    """Return an image whose colours tell each pixel's label."""
    return Image.fromarray(np.stack([mask // 256, mask % 256, 0 * mask], axis=-1).astype(np.uint8))


def test_nothing_drawn_changes_nothing():
    same = Augmentation()
    np.testing.assert_array_equal(np.asarray(same.image(IMAGE)), np.asarray(IMAGE))
    np.testing.assert_array_equal(same.mask(MASK), MASK)


def test_image_and_mask_are_cut_and_mirrored_alike():
    for copy in range(20):
        drawn = Augmentation.drawn("a.png", copy, 0)
        moved = Augmentation(drawn.side, drawn.left, drawn.top, drawn.mirrored)
        seen = np.asarray(moved.image(coded(MASK))).astype(int)
        np.testing.assert_array_equal(256 * seen[..., 0] + seen[..., 1], drawn.mask(MASK))
        height, width = drawn.mask(MASK).shape
        assert abs(height / 40 - drawn.side) <= 1 / 40 and abs(width / 60 - drawn.side) <= 1 / 60
        assert drawn.image(IMAGE).size == (width, height)
        # neighbours stay neighbours: one more to the right, or to the left where it is mirrored
        assert set(np.diff(drawn.mask(MASK), axis=1).ravel()) == {-1 if drawn.mirrored else 1}
        assert set(np.diff(drawn.mask(MASK), axis=0).ravel()) == {60}


def test_mirroring_twice_is_the_image():
    mirror = Augmentation(mirrored=True)
    np.testing.assert_array_equal(np.asarray(mirror.image(mirror.image(IMAGE))), np.asarray(IMAGE))
    np.testing.assert_array_equal(mirror.mask(MASK)[:, ::-1], MASK)


def test_light_does_what_it_says():
    grey = Image.fromarray(np.full((8, 8, 3), 102, dtype=np.uint8))  # 0.4
    light = Augmentation(gamma=2.0, gains=(1.0, 0.5, 2.0))
    assert np.asarray(light.image(grey))[0, 0].tolist() == [round(255 * value) for value in (0.16, 0.08, 0.32)]
    halves = Image.fromarray(np.repeat([[[51] * 3, [153] * 3]], 4, axis=0).astype(np.uint8))  # 0.2 and 0.6, mean 0.4
    assert np.unique(np.asarray(Augmentation(contrast=0.5).image(halves))).tolist() == [
        round(255 * 0.3),
        round(255 * 0.5),
    ]
    assert np.unique(np.asarray(Augmentation(contrast=3.0).image(halves))).tolist() == [0, 255]


def test_a_copy_depends_on_seed_name_and_number_only():
    assert Augmentation.drawn("a.png", 0, 0) == Augmentation.drawn("a.png", 0, 0)
    others = {Augmentation.drawn(*key) for key in [("a.png", 0, 0), ("a.png", 1, 0), ("b.png", 0, 0), ("a.png", 0, 1)]}
    assert len(others) == 4


def test_draws_lie_within_the_image_and_use_their_range():
    drawn = [Augmentation.drawn(f"{index}.png", 0, 0) for index in range(2000)]
    sides, ends = np.array([d.side for d in drawn]), np.array([[d.left + d.side, d.top + d.side] for d in drawn])
    assert sides.min() >= LEAST_SIDE and sides.max() <= 1 and ends.max() <= 1
    assert sides.mean() == pytest.approx((1 + LEAST_SIDE) / 2, abs=0.01)
    assert np.mean([d.mirrored for d in drawn]) == pytest.approx(0.5, abs=0.04)
    assert np.std(np.log([d.gamma for d in drawn])) == pytest.approx(0.35, abs=0.02)
    assert np.mean(np.log([d.gamma for d in drawn])) == pytest.approx(0, abs=0.03)
    assert np.std(np.log([d.gains for d in drawn]), axis=0) == pytest.approx(np.hypot(0.2, 0.1), abs=0.02)


def test_an_image_of_one_pixel_stays_one():
    one = Image.fromarray(np.full((1, 1, 3), 9, dtype=np.uint8))
    for copy in range(20):
        assert Augmentation.drawn("a.png", copy, 0).image(one).size == (1, 1)
