"""Tiles: every patch is a mean over the windows that see it, each encoded alone, and lies where they lie."""

import numpy as np
import pytest
from PIL import Image

from cmgl_cli.encoders import TiledEncoder, encode_stream, load_encoder
from cmgl_cli.errors import UsageError


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return load_encoder(str(checkpoint("siglip")[0]), device="cpu", dtype="float32")


def alone(encoder, image, box):
    """Return the tokens of a part of an image on their grid, [h, w, d]."""
    return encoder.encode([encoder.preprocess(image.crop(box))]).values[0].reshape(*encoder.patch_grid, encoder.width)


def test_patches_are_weighted_means_over_the_windows_that_see_them(encoder):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (41, 60, 3), dtype=np.uint8)) for _ in range(3)]
    tiled, (h, w) = TiledEncoder(encoder, 3), encoder.patch_grid
    tokens = tiled.encode([tiled.preprocess(image) for image in images])
    assert tiled.patch_grid == (3 * h, 3 * w) and tokens.grids.tolist() == [[3 * h, 3 * w]] * 3 and tokens.mask.all()
    weight = np.array([[min(i + 1, h - i) * min(j + 1, w - j) for j in range(w)] for i in range(h)])[..., None]
    tops, lefts = (0, h // 2, h, h + h // 2, 2 * h), (0, w // 2, w, w + w // 2, 2 * w)
    for values, image in zip(tokens.values.reshape(3, 3 * h, 3 * w, encoder.width), images, strict=True):
        total, seen, windows = np.zeros_like(values), np.zeros((3 * h, 3 * w, 1)), np.zeros((3 * h, 3 * w))
        for i in tops:
            for j in lefts:
                top, bottom = round(i * 41 / (3 * h)), round((i + h) * 41 / (3 * h))
                left, right = round(j * 60 / (3 * w)), round((j + w) * 60 / (3 * w))
                total[i : i + h, j : j + w] += weight * alone(encoder, image, (left, top, right, bottom))
                seen[i : i + h, j : j + w] += weight
                windows[i : i + h, j : j + w] += 1
        assert windows.min() == 1 and windows.max() == 4 and weight.max() > weight.min()
        np.testing.assert_allclose(values, total / seen, atol=1e-5)


def test_a_corner_is_seen_by_its_own_window_alone(encoder):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    tiled, (h, w) = TiledEncoder(encoder, 2), encoder.patch_grid
    values = tiled.encode([tiled.preprocess(image)]).values.reshape(2 * h, 2 * w, encoder.width)
    corner = alone(encoder, image, (32, 32, 64, 64))
    np.testing.assert_allclose(values[-(h // 2) :, -(w // 2) :], corner[-(h // 2) :, -(w // 2) :], atol=1e-5)


def test_tiles_go_through_the_stream_whatever_the_batch(encoder, images):
    tiled = TiledEncoder(encoder, 2)
    items = [(i, lambda image=image: image) for i, image in enumerate(images)]
    one, many = (
        np.concatenate([batch.tokens for batch in encode_stream(tiled, items, batch_size=size)]) for size in (1, 4)
    )
    assert one.shape == (len(images), 4 * encoder.n_patches, encoder.width)
    np.testing.assert_array_equal(one, many)


def test_the_encoder_never_sees_more_windows_at_once_than_there_are_images(encoder, images, monkeypatch):
    tiled, seen = TiledEncoder(encoder, 4), []
    inputs = [tiled.preprocess(image) for image in images[:2]]
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda batch: seen.append(len(batch)) or encode(batch))
    tiled.encode(inputs)
    assert seen == [2] * 49


def test_the_settings_tell_tiles_apart(encoder):
    settings = TiledEncoder(encoder, 2).settings
    assert settings["tiles"] == 2 and settings["patch_grid"] == [2 * side for side in encoder.patch_grid]
    assert {key: value for key, value in settings.items() if key not in ("tiles", "patch_grid", "n_patches")} == {
        key: value for key, value in encoder.settings.items() if key not in ("patch_grid", "n_patches")
    }


@pytest.mark.parametrize(("family", "says"), [("siglip2", "max-patches"), ("clip", "do_center_crop")])
def test_encoders_whose_tiles_would_not_join_are_refused(family, says, checkpoint):
    encoder = load_encoder(str(checkpoint(family)[0]), device="cpu", dtype="float32")
    with pytest.raises(UsageError, match=says):
        TiledEncoder(encoder, 2)
