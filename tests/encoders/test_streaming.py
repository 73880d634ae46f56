"""The stream: order, bad images, memory, and tokens that do not depend on how batches fall."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from cmgl_cli.encoders import encode_stream, load_encoder
from cmgl_cli.errors import InputError, UsageError


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return load_encoder(str(checkpoint("siglip")[0]), device="cpu", dtype="float32")


def pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    images = [Image.fromarray(rng.integers(0, 256, (30 + i % 7, 40, 3), dtype=np.uint8)) for i in range(count)]
    return [(f"image {i}", lambda image=image: image) for i, image in enumerate(images)]


def collect(encoder, items, **options):
    batches = list(encode_stream(encoder, items, **{"dtype": "float32", **options}))
    keys = [key for batch in batches for key in batch.keys]
    return keys, np.concatenate([b.tokens for b in batches]), np.concatenate([b.valid for b in batches])


def test_every_key_comes_once_in_order_with_its_own_tokens(encoder):
    items = pictures(13)
    keys, tokens, valid = collect(encoder, items, batch_size=4, workers=3)
    assert keys == [key for key, _ in items] and valid.all()
    for row, (_, loader) in enumerate(items):
        np.testing.assert_array_equal(tokens[row], encoder.encode([encoder.preprocess(loader())]).values[0])


@pytest.mark.parametrize("family", ["siglip", "siglip2", "dinov2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tokens_do_not_depend_on_the_batch_size(family, dtype, checkpoint):
    encoder = load_encoder(str(checkpoint(family)[0]), device="cpu", dtype=dtype)
    items = pictures(11)
    _, reference, _ = collect(encoder, items, batch_size=1)
    for batch_size in (2, 5, 11):
        _, tokens, _ = collect(encoder, items, batch_size=batch_size)
        np.testing.assert_array_equal(tokens, reference)


def broken():
    raise OSError("image file is truncated")


def test_a_bad_image_is_reported_marked_and_passed_over(encoder):
    items = pictures(7)
    items[2], items[6] = ("broken", broken), ("grey", lambda: Image.new("L", (9, 9)))
    seen = []
    batches = list(encode_stream(encoder, items, batch_size=3, on_error=lambda key, error: seen.append((key, error))))
    assert [key for key, _ in seen] == ["broken", "grey"]
    assert isinstance(seen[0][1], OSError) and isinstance(seen[1][1], InputError)
    assert [batch.valid.tolist() for batch in batches] == [[True, True, False], [True] * 3, [False]]
    assert np.isnan(batches[0].tokens[2]).all() and np.isfinite(batches[0].tokens[:2]).all()
    assert not batches[2].mask.any() and (batches[2].grids == 0).all() and batches[2].tokens.dtype == np.float16
    whole = collect(encoder, pictures(7), batch_size=3)[1]
    np.testing.assert_array_equal(batches[0].tokens[:2], whole[:2].astype(np.float16))


def test_without_on_error_a_bad_image_stops_the_stream(encoder):
    items = pictures(3)
    items[1] = ("broken", broken)
    with pytest.raises(OSError, match="truncated"):
        collect(encoder, items, batch_size=2)


def test_decoding_runs_ahead_but_not_without_bound(encoder):
    """No more images are decoded than two batches and the threads beyond what was asked for."""
    opened, lock = [], threading.Lock()
    image = Image.new("RGB", (32, 32))

    def loader():
        with lock:
            opened.append(1)
        return image

    stream = encode_stream(encoder, ((i, loader) for i in range(1000)), batch_size=4, workers=2)
    next(stream)
    stream.close()
    assert 4 < len(opened) <= 4 + 2 * 4 + 2


class Small:
    """An encoder with memory for a few images only."""

    def __init__(self, encoder, room, error):
        self._encoder, self.room, self.error, self.tried = encoder, room, error, []

    def __getattr__(self, name):
        return getattr(self._encoder, name)

    def encode(self, pixels):
        self.tried.append(len(pixels))
        if len(pixels) > self.room:
            raise self.error
        return self._encoder.encode(pixels)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_batches_are_halved_when_memory_is_short(error, encoder, monkeypatch):
    monkeypatch.setattr("cmgl_cli.encoders.streaming._START", {"cpu": 1, "cuda": 1})
    small, said = Small(encoder, 3, error), []
    items = pictures(20)
    keys, tokens, _ = collect(small, items, batch_size="auto", log=said.append)
    assert keys == [key for key, _ in items]
    np.testing.assert_array_equal(tokens, collect(encoder, items, batch_size=20)[1])
    halved = [line for line in said if "out of memory" in line]
    assert halved and all(count <= small.room for count in small.tried[len(halved) :])
    with pytest.raises(UsageError, match="does not suffice"):
        collect(Small(encoder, 3, error), items, batch_size=8)
    with pytest.raises(UsageError, match="does not suffice"):
        collect(Small(encoder, 0, error), items, batch_size="auto")


def test_other_errors_of_the_encoder_are_not_taken_for_a_lack_of_memory(encoder):
    with pytest.raises(RuntimeError, match="shapes"):
        collect(Small(encoder, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied")), pictures(2))


def test_tokens_beyond_float16_are_refused_and_fit_float32(checkpoint):
    encoder = load_encoder(str(checkpoint("siglip")[0]), device="cpu", dtype="float32")
    encoder._model.post_layernorm.weight.data.mul_(1e6)
    with pytest.raises(InputError, match="image 0"):
        list(encode_stream(encoder, pictures(2)))
    assert np.isfinite(collect(encoder, pictures(2))[1]).all()


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": "many"}, {"workers": 0}, {"dtype": "int8"}])
def test_unusable_options(options, encoder):
    with pytest.raises(UsageError):
        list(encode_stream(encoder, pictures(1), **options))


def test_an_empty_stream_yields_nothing(encoder):
    assert list(encode_stream(encoder, [])) == []
