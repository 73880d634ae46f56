"""Every family: tokens, dropped tokens, preprocessing and padding equal what transformers itself computes."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor

from cmgl_cli.encoders import load_encoder
from cmgl_cli.encoders.preprocessing import FloatResize
from cmgl_cli.errors import InputError, UsageError
from tests.encoders.checkpoints import IMAGE, MAKERS, PATCH, SMALL

FIXED = [family for family in MAKERS if family != "siglip2"]
SIDE = IMAGE // PATCH


def load(folder, **options):
    return load_encoder(str(folder), device="cpu", **{"dtype": "float32", **options})


def vision_tower(model):
    for name in ("vision_model", "vit"):
        model = getattr(model, name, model)
    return model


def reference(family, model, pixels):
    """Patch tokens by transformers' own forward pass of the full model's tower, the norm and the slice written out."""
    tower = vision_tower(model)
    with torch.no_grad():
        hidden = tower(torch.from_numpy(np.stack(pixels))).last_hidden_state
        if family == "clip":
            hidden = tower.post_layernorm(hidden)
    drop = {"siglip": 0, "clip": 1, "dinov2": 1, "dinov2_with_registers": 4, "dinov3_vit": 5, "vit": 1}[family]
    return hidden[:, drop:].numpy()


@pytest.mark.parametrize("family", FIXED)
def test_tokens_equal_the_full_models_vision_tower(family, checkpoint, images):
    folder, model = checkpoint(family)
    encoder = load(folder)
    pixels = [encoder.preprocess(image) for image in images]
    tokens = encoder.encode(pixels)
    assert tokens.values.shape == (len(images), SIDE * SIDE, SMALL["hidden_size"])
    assert tokens.values.dtype == np.float32
    assert encoder.patch_grid == (SIDE, SIDE) and encoder.image_size == (IMAGE, IMAGE)
    assert encoder.n_patches == SIDE * SIDE and encoder.width == SMALL["hidden_size"]
    assert tokens.mask.all() and (tokens.grids == SIDE).all()
    expected = reference(family, model, [p.values for p in pixels])
    np.testing.assert_allclose(tokens.values, expected, rtol=0, atol=2e-6)


# transformers has DINOv3's processor for torchvision only; it is compared with float resizing below.
@pytest.mark.parametrize("family", [family for family in MAKERS if family != "dinov3_vit"])
def test_preprocessing_is_the_checkpoints_pil_processor_to_the_bit(family, checkpoint, images):
    folder, _ = checkpoint(family)
    encoder, processor = load(folder), AutoImageProcessor.from_pretrained(folder, backend="pil")
    for image in images:
        expected = processor(images=image, return_tensors="np")["pixel_values"][0]
        np.testing.assert_array_equal(encoder.preprocess(image).values, expected)


def test_dinov3_resizes_in_floating_point(checkpoint, images):
    folder, _ = checkpoint("dinov3_vit")
    encoder = load(folder)
    assert isinstance(encoder.preprocessor.processor, FloatResize)
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.5])
    for image in images:
        planes = [
            np.asarray(Image.fromarray(np.asarray(band, dtype=np.float32)).resize((IMAGE, IMAGE), Image.BILINEAR))
            for band in image.split()
        ]
        expected = ((np.stack(planes, axis=-1) / 255 - mean) / std).transpose(2, 0, 1)
        np.testing.assert_allclose(encoder.preprocess(image).values, expected, atol=5e-6)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "LA"])
def test_images_that_are_not_rgb_are_refused(mode, checkpoint):
    encoder = load(checkpoint("siglip")[0])
    with pytest.raises(InputError, match=mode):
        encoder.preprocess(Image.new(mode, (20, 20)))


def test_naflex_grids_masks_and_padding(checkpoint, images):
    folder, model = checkpoint("siglip2")
    encoder = load(folder)
    assert encoder.patch_grid is None and encoder.image_size is None and encoder.n_patches == 20
    pixels = [encoder.preprocess(image) for image in images]
    tokens = encoder.encode(pixels)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    for row, image in enumerate(images):
        inputs = processor(images=image, return_tensors="pt")
        rows, columns = inputs["spatial_shapes"][0].tolist()
        count = rows * columns
        assert tokens.grids[row].tolist() == [rows, columns]
        assert tokens.mask[row].sum() == count and tokens.mask[row, :count].all()
        assert (tokens.values[row, count:] == 0).all()
        # Without any padding at all the same tokens come out: what is padded is masked out of attention.
        with torch.no_grad():
            alone = vision_tower(model)(
                pixel_values=inputs["pixel_values"][:, :count],
                pixel_attention_mask=torch.ones(1, count, dtype=torch.int32),
                spatial_shapes=inputs["spatial_shapes"],
            ).last_hidden_state[0]
        np.testing.assert_allclose(tokens.values[row, :count], alone.numpy(), atol=3e-6)
    assert len({tuple(grid) for grid in tokens.grids.tolist()}) > 1


def test_naflex_takes_max_num_patches_and_the_others_refuse_it(checkpoint, images):
    encoder = load(checkpoint("siglip2")[0], max_num_patches=12)
    assert encoder.n_patches == 12
    tokens = encoder.encode([encoder.preprocess(image) for image in images])
    assert tokens.values.shape[1] == 12 and (tokens.grids.prod(axis=1) <= 12).all()
    assert encoder.settings["preprocessing"]["max_num_patches"] == 12
    with pytest.raises(UsageError, match="fixed number"):
        load(checkpoint("siglip")[0], max_num_patches=12)


def test_naflex_agrees_with_fixed_resolution(checkpoint, tmp_path):
    """The same weights, patch kernel permuted, as a fixed and as a NaFlex tower give a square image the same tokens."""
    source, _ = checkpoint("siglip")
    weights = load_file(source / "model.safetensors")
    vision = {key: value for key, value in weights.items() if key.startswith("vision_model.")}
    kernel = vision["vision_model.embeddings.patch_embedding.weight"]
    vision["vision_model.embeddings.patch_embedding.weight"] = kernel.permute(0, 2, 3, 1).reshape(len(kernel), -1)
    save_file(
        {key: value.contiguous() for key, value in vision.items()}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    config = {"model_type": "siglip2_vision_model", **SMALL, "patch_size": PATCH, "num_patches": SIDE * SIDE}
    (tmp_path / "config.json").write_text(json.dumps(config))
    preprocessor = json.loads((source / "preprocessor_config.json").read_text())
    preprocessor |= {"image_processor_type": "Siglip2ImageProcessor", "patch_size": PATCH, "max_num_patches": 20}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (IMAGE, IMAGE, 3), dtype=np.uint8))
    fixed, naflex = load(source), load(tmp_path, max_num_patches=SIDE * SIDE)
    one, other = (encoder.encode([encoder.preprocess(image)]).values for encoder in (fixed, naflex))
    np.testing.assert_allclose(one, other, atol=4e-6)


def test_another_input_size_than_the_configurations_interpolates_positions(checkpoint, tmp_path, images):
    source, model = checkpoint("siglip")
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    preprocessor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    preprocessor["size"] = {"height": 48, "width": 24}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    encoder = load(tmp_path)
    assert encoder.patch_grid == (6, 3) and encoder.n_patches == 18
    pixels = [encoder.preprocess(image) for image in images]
    with torch.no_grad():
        values = torch.from_numpy(np.stack([p.values for p in pixels]))
        expected = vision_tower(model)(values, interpolate_pos_encoding=True).last_hidden_state.numpy()
    np.testing.assert_allclose(encoder.encode(pixels).values, expected, atol=2e-6)


@pytest.mark.parametrize("family", MAKERS)
def test_bfloat16_and_eager_attention_stay_near_float32(family, checkpoint, images):
    folder, _ = checkpoint(family)
    encoders = [load(folder), load(folder, dtype="bfloat16"), load(folder, attention="eager")]
    exact, rounded, eager = (e.encode([e.preprocess(image) for image in images]).values for e in encoders)
    scale = np.abs(exact).max()
    assert 0 < np.abs(rounded - exact).max() < 0.1 * scale
    np.testing.assert_allclose(eager, exact, atol=1e-5 * scale)
    assert len({encoder.weights_digest for encoder in encoders}) == 1
    assert len({json.dumps(encoder.settings) for encoder in encoders}) == 3
