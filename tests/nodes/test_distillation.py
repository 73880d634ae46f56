import math

import numpy as np
import pytest
import torch

from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.nodes.distillation import Distiller, distill_batch

B, N, D, P, K = 3, 7, 6, 4, 5


def make(wout="per_node", dtype=torch.float64, seed=3):
    distiller = Distiller(D, P, K, wout=wout, seed=seed).to(dtype)
    generator = np.random.default_rng(seed)
    distiller.set_standardisation(generator.normal(size=D), generator.uniform(0.5, 2, size=D))
    return distiller


def patches(dtype=torch.float64, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(1, 2, size=(B, N, D))).to(dtype)


def reference(distiller, x):
    """Equations (1) to (3) as printed, on standardised patches, with numpy loops."""
    a = distiller.to_arrays()
    x = (x - a["input_mean"]) / a["input_scale"]
    attention, nodes, z = [], [], []
    for sample in x:
        scores = (a["query"] @ a["w_query"]) @ (sample @ a["w_key"]).T / math.sqrt(K)
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        attention.append(exponentials / exponentials.sum(axis=1, keepdims=True))
        nodes.append(attention[-1] @ (sample @ a["w_value"]))
        z.append((nodes[-1] * a["w_out"]).sum(axis=1))
    return np.array(attention), np.array(nodes), np.array(z)


@pytest.mark.parametrize("wout", ["per_node", "shared"])
def test_forward_is_equations_1_to_3(wout):
    distiller, x = make(wout), patches()
    attention, nodes, z = reference(distiller, x.numpy())
    out = distiller(x)
    np.testing.assert_allclose(out.attention.detach(), attention, rtol=1e-11)
    np.testing.assert_allclose(out.nodes.detach(), nodes, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(out.z.detach(), z, rtol=1e-10, atol=1e-12)
    pooled_attention, pooled_z = distiller.pool(x)
    assert torch.equal(pooled_attention, out.attention) and torch.equal(pooled_z, out.z)


@pytest.mark.parametrize("wout", ["per_node", "shared"])
def test_z_is_the_attention_weighted_sum_of_patch_observations(wout):
    distiller, x = make(wout), patches()
    out = distiller(x)
    observations = distiller.patch_observations(x)
    assert observations.shape == (B, N, P)
    np.testing.assert_allclose(
        torch.einsum("bpn,bnp->bp", out.attention, observations).detach(), out.z.detach(), rtol=1e-12
    )
    np.testing.assert_allclose(torch.softmax(distiller.attention_logits(x), 2).detach(), out.attention.detach())


def test_half_precision_patches_are_computed_in_the_type_of_the_weights():
    distiller, x = make(dtype=torch.float32), patches(torch.float16)
    assert distiller(x).z.dtype == torch.float32
    np.testing.assert_allclose(
        distiller(x).z.detach(), reference(distiller, x.double().numpy())[2], rtol=1e-4, atol=1e-4
    )


def test_attention_follows_a_permutation_of_the_patches_and_z_ignores_it():
    distiller, x = make(), patches()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    out, permuted = distiller(x), distiller(x[:, order])
    torch.testing.assert_close(permuted.attention, out.attention[:, :, order])
    torch.testing.assert_close(permuted.z, out.z)
    torch.testing.assert_close(permuted.nodes, out.nodes)


@pytest.mark.parametrize("filling", [0.0, 1e6, math.nan, math.inf])
def test_padded_patches_have_no_influence_whatever_they_hold(filling):
    distiller, x = make(), patches()
    valid = torch.ones(B, N + 3, dtype=torch.bool)
    valid[:, N:] = False
    padded = torch.cat([x, torch.full((B, 3, D), filling, dtype=x.dtype)], dim=1)
    out, plain = distiller(padded, valid), distiller(x)
    assert torch.all(out.attention[:, :, N:] == 0)
    torch.testing.assert_close(out.attention[:, :, :N], plain.attention)
    torch.testing.assert_close(out.z, plain.z)
    torch.testing.assert_close(out.nodes, plain.nodes)


def test_padding_leaves_no_gradient_and_no_nan():
    distiller, x = make(), patches()
    padded = torch.cat([x, torch.full((B, 2, D), math.nan, dtype=x.dtype)], dim=1)
    valid = torch.tensor([[True] * N + [False] * 2] * B)
    distiller(padded, valid).z.square().sum().backward()
    gradient = distiller.w_key.grad.clone()
    distiller.zero_grad()
    distiller(x).z.square().sum().backward()
    torch.testing.assert_close(gradient, distiller.w_key.grad)


@pytest.mark.parametrize("wout", ["per_node", "shared"])
def test_gradients_match_finite_differences(wout):
    distiller, x = make(wout), patches()
    direction = torch.from_numpy(np.random.default_rng(5).normal(size=(B, P)))

    def loss():
        out = distiller(x)
        return (out.z * direction).sum() + out.nodes.square().mean()

    loss().backward()
    generator = np.random.default_rng(8)
    for name, parameter in distiller.named_parameters():
        step = torch.from_numpy(generator.normal(size=parameter.shape))
        with torch.no_grad():
            parameter += 1e-5 * step
            up = loss()
            parameter -= 2e-5 * step
            down = loss()
            parameter += 1e-5 * step
        assert float((parameter.grad * step).sum()) == pytest.approx(float(up - down) / 2e-5, rel=1e-6), name


def test_every_weight_gets_a_gradient_from_a_loss_on_z():
    distiller = make()
    distiller(patches()).z.square().sum().backward()
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in distiller.parameters())


def test_initial_attention_is_nearly_even_and_values_have_unit_variance():
    distiller = Distiller(256, 64, 48, seed=0)
    x = torch.randn(4, 100, 256, generator=torch.Generator().manual_seed(0))
    assert 0.2 < float(distiller.attention_logits(x).detach().std()) < 0.4
    assert 0.7 < float(distiller.patch_observations(x).detach().std()) < 1.4


def test_the_seed_decides_the_weights():
    one, same, other = make(seed=1), make(seed=1), make(seed=2)
    assert torch.equal(one.query, same.query) and not torch.equal(one.query, other.query)


@pytest.mark.parametrize("wout", ["per_node", "shared"])
def test_arrays_round_trip(wout):
    distiller = make(wout, torch.float32)
    twin = Distiller.from_arrays(distiller.to_arrays())
    assert twin.wout == wout and (twin.width, twin.n_nodes, twin.d_k) == (D, P, K)
    x = patches(torch.float32)
    assert torch.equal(twin(x).z, distiller(x).z)
    distiller.to_arrays()["query"][:] = 0
    assert float(distiller.query.detach().abs().max()) > 0


def test_bad_input_is_named():
    distiller = make()
    with pytest.raises(InputError, match=r"\(3, 7, 5\)"):
        distiller(patches()[:, :, :5])
    valid = torch.ones(B, N, dtype=torch.bool)
    valid[1] = False
    with pytest.raises(InputError, match="row 1"):
        distiller(patches(), valid)
    with pytest.raises(UsageError, match="per_node"):
        Distiller(4, 2, 3, wout="pernode")
    with pytest.raises(UsageError, match="n_nodes = 0"):
        Distiller(4, 0, 3)
    with pytest.raises(InputError, match="1 of 6 channels"):
        distiller.set_standardisation(np.array([0, 0, 0, 0, 0, np.nan]), np.ones(D))
    arrays = distiller.to_arrays()
    with pytest.raises(InputError, match="w_value"):
        Distiller.from_arrays({name: a for name, a in arrays.items() if name != "w_value"})
    with pytest.raises(InputError, match="fit together"):
        Distiller.from_arrays(arrays | {"w_value": np.zeros((D, K + 1))})


def test_distill_batch_is_forward_on_arrays():
    distiller, x = make(), patches()
    valid = np.ones((B, N), bool)
    valid[:, -1] = False
    out = distiller(x, torch.from_numpy(valid))
    attention, z, nodes = distill_batch(distiller, x.numpy(), valid, nodes=True)
    assert np.array_equal(attention, out.attention.detach()) and np.array_equal(nodes, out.nodes.detach())
    assert np.array_equal(z, distill_batch(distiller, x.numpy(), valid)[1])
    assert distill_batch(distiller, x.numpy())[2] is None
