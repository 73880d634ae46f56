"""Nodes without attention: even pooling, principal components against the singular value decomposition, contrast."""

import numpy as np
import pytest
import torch

from cmgl_cli.errors import InputError
from cmgl_cli.nodes.distillation import Distiller, distill_batch
from cmgl_cli.nodes.mappings import principal_components, response_attention, without_attention
from cmgl_cli.nodes.proxies import ImageProxy
from cmgl_cli.nodes.reader import BlockShuffledReader
from cmgl_cli.nodes.training import ProxyData, TrainingSettings, patch_statistics, train_proxy

N, PATCHES, D, P = 40, 6, 8, 3


@pytest.fixture
def tokens():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(N, PATCHES, D)) @ rng.normal(size=(D, D)) + 2).astype(np.float32)


@pytest.fixture
def reader(tokens):
    return BlockShuffledReader(tokens, np.arange(N), batch_size=16, seed=0)


def test_a_linear_layer_sees_the_mean_patch(tokens, reader):
    distiller = without_attention(Distiller(D, P, 5, seed=1))
    distiller.set_standardisation(*patch_statistics(reader, N))
    whole, mean = distill_batch(distiller, tokens)[1], distill_batch(distiller, tokens.mean(1, keepdims=True))[1]
    np.testing.assert_allclose(whole, mean, atol=1e-5)


def test_principal_components_are_those_of_the_svd_and_are_not_trained(tokens, reader):
    distiller = principal_components(Distiller(D, P, P), reader)
    standard = tokens.reshape(-1, D) - tokens.reshape(-1, D).mean(0)
    standard /= standard.std(0)
    expected = np.linalg.svd(standard, full_matrices=False)[2][:P]
    found = distiller.w_value.numpy().T
    np.testing.assert_allclose(np.abs((found * expected).sum(1)), 1, atol=1e-4)
    assert (found[np.arange(P), np.abs(found).argmax(1)] > 0).all()
    labels = np.arange(N) % 2
    data = ProxyData(reader, BlockShuffledReader(tokens, np.arange(N), batch_size=16, seed=0, shuffle=False), labels)
    checkpoints = []
    settings = TrainingSettings(epochs=3)
    result = train_proxy(distiller, ImageProxy(2, P), data, settings, on_epoch=checkpoints.append)
    assert torch.equal(result.distiller.w_value, distiller.w_value) and not result.distiller.query.any()
    assert result.proxy.head.weight.any()
    resumed = train_proxy(distiller, ImageProxy(2, P), data, settings, resume=checkpoints[0])
    assert torch.equal(resumed.proxy.head.weight, result.proxy.head.weight)
    with pytest.raises(InputError, match="principal components"):
        principal_components(Distiller(D, D + 1, D + 1), reader)


def test_nodes_look_where_they_respond(tokens, reader):
    distiller = principal_components(Distiller(D, P, P), reader)
    distiller.set_standardisation(*patch_statistics(reader, N))
    looks = response_attention(distiller, tokens)
    responses = distiller.patch_observations(torch.from_numpy(tokens)).detach().numpy().transpose(0, 2, 1)
    np.testing.assert_allclose(looks.sum(2), 1, atol=1e-5)
    assert np.array_equal(looks.argmax(2), responses.argmax(2))
    np.testing.assert_allclose(response_attention(distiller, 3 * tokens - 4)[..., 0] > 0, True)
    valid = np.ones((N, PATCHES), dtype=bool)
    valid[:, -2:] = False
    padded = np.where(valid[..., None], tokens, np.nan).astype(np.float32)
    masked = response_attention(distiller, padded, valid)
    assert not masked[..., -2:].any()
    np.testing.assert_allclose(masked[..., :-2], response_attention(distiller, tokens[:, :-2]), atol=1e-6)
