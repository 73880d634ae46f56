"""The bundled encoder: small, loaded like any other, and good enough for its own digits."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cmgl_cli.datasets import open_dataset
from cmgl_cli.encoders import encode_stream, load_encoder
from cmgl_cli.encoders.sources import BUILTIN

FOLDER = BUILTIN["builtin:tiny"]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("builtin:tiny", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def record():
    return json.loads((FOLDER / "training.json").read_text())


@pytest.fixture(scope="module")
def probe_accuracy(encoder):
    """Per cent right on the digits' test split: logistic regression on mean tokens, strength chosen on val."""
    digits = open_dataset("digits")
    features, labels = {}, {}
    for split in ("train", "val", "test"):
        samples = digits.samples(split)
        items = [(sample.id, lambda sample=sample: digits.image(sample)) for sample in samples]
        features[split] = np.concatenate(
            [b.tokens.mean(axis=1) for b in encode_stream(encoder, items, dtype="float32")]
        )
        labels[split] = np.array([sample.labels[0] for sample in samples])
    probes = [
        make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=3000)).fit(
            features["train"], labels["train"]
        )
        for strength in 10.0 ** np.arange(-4, 3)
    ]
    best = max(probes, key=lambda probe: probe.score(features["val"], labels["val"]))
    return 100 * best.score(features["test"], labels["test"])


def test_it_is_small_and_an_ordinary_siglip_checkpoint(encoder):
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sum(files.values()) <= 4_000_000
    assert {"config.json", "preprocessor_config.json", "model.safetensors", "training.json"} <= set(files)
    assert json.loads((FOLDER / "config.json").read_text())["model_type"] == "siglip_vision_model"
    assert encoder.image_size == (112, 112) and encoder.patch_grid == (8, 8) and encoder.width == 128


def test_a_linear_probe_on_its_patches_reads_the_digits(probe_accuracy):
    assert probe_accuracy >= 95


def test_the_record_belongs_to_the_shipped_weights(encoder, record, probe_accuracy):
    assert record["weights_digest"] == encoder.weights_digest
    assert abs(record["figures"]["probe"]["test"] - probe_accuracy) < 0.5
    assert record["digits"] == len(open_dataset("digits").samples("train"))
