"""The image policy: what each mode, depth and orientation becomes, and what is refused."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cmgl_cli.datasets import images, load_image, to_rgb
from cmgl_cli.datasets.images import align_mask, load_mask
from cmgl_cli.errors import CmglError, InputError
from tests.datasets.miniatures import picture, save

RGB = picture(0)


def pixels(image):
    assert image.mode == "RGB"
    return np.asarray(image)


def test_rgb_is_untouched():
    assert np.array_equal(pixels(to_rgb(Image.fromarray(RGB))), RGB)


def test_grey_and_palette_and_bilevel():
    grey = RGB[..., 0]
    assert np.array_equal(pixels(to_rgb(Image.fromarray(grey))), np.stack([grey] * 3, axis=-1))
    palette = Image.fromarray(RGB).quantize(8)
    assert np.array_equal(pixels(to_rgb(palette)), np.asarray(palette.convert("RGB")))
    bilevel = Image.fromarray(grey).convert("1")
    assert set(np.unique(pixels(to_rgb(bilevel)))) == {0, 255}


def test_alpha_is_composited_on_white():
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    rgba[:4, :, 3], rgba[4:8, :, 3] = 0, 51
    result = pixels(to_rgb(Image.fromarray(rgba))).astype(float)
    assert (result[:4] == 255).all() and np.array_equal(result[8:], RGB[8:])
    assert abs(result[4:8] - (0.2 * RGB[4:8] + 0.8 * 255)).max() <= 1


def test_transparent_palette_and_grey_alpha():
    palette = Image.fromarray(np.array([[0, 1]], np.uint8))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.info["transparency"] = 0
    assert pixels(to_rgb(palette)).tolist() == [[[255, 255, 255], [40, 50, 60]]]
    grey_alpha = Image.fromarray(np.array([[[0, 0], [100, 255]]], np.uint8), mode="LA")
    assert pixels(to_rgb(grey_alpha)).tolist() == [[[255] * 3, [100] * 3]]


def test_cmyk_jpeg(tmp_path):
    solid = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    Image.fromarray(solid).convert("CMYK").save(tmp_path / "x.jpg", quality=95)
    assert abs(pixels(load_image(tmp_path / "x.jpg")).astype(int) - solid).max() <= 6


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"x.{suffix}")
    assert pixels(load_image(tmp_path / f"x.{suffix}"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_integers_and_floats_that_need_guessing_are_refused(tmp_path):
    assert pixels(to_rgb(Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))))[0, :, 1].tolist() == [0, 128, 255]
    for values in ([[0, 70000]], [[-1, 5]]):
        with pytest.raises(InputError, match="expected 0 to 65535"):
            to_rgb(Image.fromarray(np.array(values, np.int32)))
    for values in ([[0.0, 1.5]], [[-0.1, 0.5]], [[np.nan, 0.5]]):
        Image.fromarray(np.array(values, np.float32)).save(tmp_path / "x.tif")
        with pytest.raises(InputError, match=r"x\.tif: floats"):
            load_image(tmp_path / "x.tif")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_first_frame_of_an_animation(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("black", "white")]
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:])
    assert pixels(load_image(tmp_path / f"x.{suffix}")).max() < 10


def test_one_pixel(tmp_path):
    save(np.array([[[1, 2, 3]]], np.uint8), tmp_path / "x.png")
    assert pixels(load_image(tmp_path / "x.png")).tolist() == [[[1, 2, 3]]]


ROTATED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", ROTATED)
def test_exif_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "x.png", exif=exif)
    shown = pixels(load_image(tmp_path / "x.png"))
    assert np.array_equal(shown, ROTATED[orientation](RGB))
    stored = RGB[..., 0] // 100
    aligned = align_mask(stored, tmp_path / "x.png", "mask")
    assert aligned.shape == shown.shape[:2]
    if orientation >= 5:  # the photograph lies on its side: a mask that lies with it is turned with it
        assert np.array_equal(aligned, ROTATED[orientation](stored))
        assert np.array_equal(align_mask(ROTATED[orientation](stored), tmp_path / "x.png", "mask"), aligned)
    with pytest.raises(InputError, match="another size"):
        align_mask(stored[1:], tmp_path / "x.png", "mask")


@pytest.mark.parametrize("orientation", [0, 9, 4711])
def test_nonsense_orientation_is_ignored(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(pixels(load_image(tmp_path / "x.png")), RGB)
    assert align_mask(RGB[..., 0], tmp_path / "x.png", "mask").shape == (16, 20)


def test_unreadable_files_are_named(tmp_path):
    whole = save(RGB, tmp_path / "whole.png").read_bytes()
    cases = {"cut.png": whole[: len(whole) // 2], "text.jpg": b"not an image", "empty.png": b"", "head.png": whole[:8]}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError) as caught:
            load_image(tmp_path / name)
        assert str(tmp_path / name) in caught.value.where
    with pytest.raises(InputError, match="missing"):
        load_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="cannot be read"):
        load_image(tmp_path)


def png_header(width, height):
    def chunk(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 100_000])
def test_decompression_bombs_are_refused_by_their_header(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(InputError, match="too large"):
        load_image(tmp_path / "bomb.png")
    with pytest.raises(InputError, match="too large"):
        load_mask(tmp_path / "bomb.png")


def test_the_limit_itself_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 320)
    save(RGB, tmp_path / "x.png")
    assert load_image(tmp_path / "x.png").size == (20, 16)
    monkeypatch.setattr(images, "MAX_PIXELS", 319)
    with pytest.raises(InputError, match="20 x 16 pixels"):
        load_image(tmp_path / "x.png")


SEEDS = []
for _format in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"):
    _buffer = io.BytesIO()
    Image.fromarray(RGB).save(_buffer, format=_format)
    SEEDS.append(_buffer.getvalue())


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=8), st.data())
def test_fuzzed_files_load_or_are_refused(tmp_path_factory, content, edits, data):
    broken = bytearray(content[: data.draw(st.integers(0, len(content)))])
    for place, value in edits:
        if broken:
            broken[place % len(broken)] = value
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(broken)
    for load in (load_image, load_mask):
        try:
            load(path)
        except CmglError as error:
            assert str(path) in error.where and error.fix
