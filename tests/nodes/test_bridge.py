"""The bridge from tokens to nodes: it finds a map where there is one, and leaves its inputs as they are."""

import numpy as np
import pytest
import torch

from cmgl_cli.nodes.bridge import bridge
from cmgl_cli.nodes.distillation import Distiller

TEXTS, WIDTH, D, P, C = 60, 5, 6, 4, 2


@pytest.fixture
def task():
    """Return texts whose class decides one direction of their tokens, and a head that reads node 0 and node 1."""
    rng = np.random.default_rng(0)
    labels = np.arange(TEXTS) % C
    tokens = [rng.normal(size=(rng.integers(3, 9), WIDTH)).astype(np.float32) for _ in labels]
    for text, label in zip(tokens, labels, strict=True):
        text[:, 0] += 4.0 if label else -4.0
    distiller = Distiller(D, P, 3, seed=1).eval().requires_grad_(False)
    distiller.set_standardisation(rng.normal(size=D), rng.uniform(0.5, 2, size=D))
    head = np.eye(C, P) * 3, np.zeros(C)
    return tokens, labels, distiller, head


def test_texts_that_can_be_told_apart_are_recognised_through_frozen_probes(task):
    tokens, labels, distiller, head = task
    before = distiller.to_arrays()
    found = bridge(tokens, labels, distiller, head, seed=0)
    assert found.accuracy > 0.9 and found.steps > 0
    assert all(np.array_equal(values, before[name]) for name, values in distiller.to_arrays().items())
    for maps, text in zip(found.attention, tokens, strict=True):
        assert maps.shape == (P, len(text))
        np.testing.assert_allclose(maps.sum(axis=1), 1, atol=1e-5)


def test_labels_that_tokens_do_not_carry_are_not_recognised(task):
    tokens, labels, distiller, head = task
    shuffled = np.random.default_rng(1).permutation(labels)
    assert bridge(tokens, shuffled, distiller, head, seed=0).accuracy < 0.85


def test_same_seed_same_bits_and_no_trace_on_inputs(task):
    tokens, labels, distiller, head = task
    kept = [text.copy() for text in tokens]
    torch.manual_seed(0)
    one = bridge(tokens, labels, distiller, head, seed=3)
    torch.manual_seed(1)
    two = bridge(tokens, labels, distiller, head, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(one.attention, two.attention, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(kept, tokens, strict=True))
