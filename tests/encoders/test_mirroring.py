"""Mirror images: patches are means over an image and its mirror image, and turn round with it."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from cmgl_cli.artifacts import open_artifact
from cmgl_cli.encoders import MirroredEncoder, TiledEncoder, encode_stream, load_encoder
from cmgl_cli.errors import UsageError
from tests.cli_helpers import cmgl


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return load_encoder(str(checkpoint("siglip")[0]), device="cpu", dtype="float32")


def on_grid(encoder, image):
    """Return an image's tokens on their grid, [h, w, d]."""
    return encoder.encode([encoder.preprocess(image)]).values[0].reshape(*encoder.patch_grid, encoder.width)


@pytest.mark.parametrize("tiles", [1, 2])
def test_patches_are_means_over_an_image_and_its_mirror_image(encoder, tiles):
    inner = encoder if tiles == 1 else TiledEncoder(encoder, tiles)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    found = on_grid(MirroredEncoder(inner), image)
    own, other = on_grid(inner, image), on_grid(inner, ImageOps.mirror(image))[:, ::-1]
    np.testing.assert_allclose(found, (own + other) / 2, atol=1e-6)
    assert np.abs(own - other).max() > 0.01
    np.testing.assert_allclose(on_grid(MirroredEncoder(inner), ImageOps.mirror(image))[:, ::-1], found, atol=1e-6)


def test_it_goes_through_the_stream_whatever_the_batch(encoder, images):
    both = MirroredEncoder(encoder)
    items = [(i, lambda image=image: image) for i, image in enumerate(images)]
    one, many = (
        np.concatenate([batch.tokens for batch in encode_stream(both, items, batch_size=size)]) for size in (1, 4)
    )
    assert one.shape == (len(images), encoder.n_patches, encoder.width)
    np.testing.assert_array_equal(one, many)


def test_encoders_whose_patches_vary_are_refused(checkpoint):
    naflex = load_encoder(str(checkpoint("siglip2")[0]), device="cpu", dtype="float32")
    with pytest.raises(UsageError, match="cannot average mirror images"):
        MirroredEncoder(naflex)


def test_the_command_says_how_tokens_were_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    smoke = ["extract", "--dataset", "smoke", "--encoder", "builtin:tiny"]
    cmgl(*smoke)
    with open_artifact("artifacts/smoke/features.h5") as found:
        assert "mirror" not in found.config
        plain = found["features"]
    cmgl(*smoke, "--mirror")
    with open_artifact("artifacts/smoke/features.h5") as found:
        assert found.config["mirror"] is True and '"mirror": true' in found.identity.digests["settings"]
        assert found["features"].shape == plain.shape and (found["features"] != plain).any()
