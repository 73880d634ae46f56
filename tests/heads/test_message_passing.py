"""Equations (19) and (20) against a literal loop over graphs, nodes and neighbours; and what they cost."""

import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cmgl_cli.errors import InputError
from cmgl_cli.heads.decoders import GraphDecoder
from cmgl_cli.heads.message_passing import SignedMessagePassing, head_flops, mixture_precision, signed_graphs
from tests.heads.problems import precisions


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def literal(z: np.ndarray, omega: np.ndarray, w_pos: np.ndarray, w_neg: np.ndarray, eps: float = 1e-8) -> np.ndarray:
    """(19) and (20) as printed, for one image and one graph."""
    p, d = z.shape
    h = np.zeros((p, d))
    for i in range(p):
        positive = sum(abs(omega[i, j]) for j in range(p) if j != i and omega[i, j] > 0)
        negative = sum(abs(omega[i, j]) for j in range(p) if j != i and omega[i, j] < 0)
        for j in range(p):
            if j == i or omega[i, j] == 0:
                continue
            a = abs(omega[i, j]) / (positive + negative + eps)
            h[i] += a * ((w_pos if omega[i, j] > 0 else w_neg) @ z[j])
    return gelu(h)


@pytest.fixture
def problem():
    torch.manual_seed(0)
    omega = torch.tensor(precisions(4, 7, seed=3))
    omega[2] = torch.diag(torch.diagonal(omega[2]))
    return omega, torch.randn(3, 7, 5, dtype=torch.float64), SignedMessagePassing(5).double()


def test_matches_the_triple_loop(problem) -> None:
    omega, z, layer = problem
    ours = layer(z, signed_graphs(omega)).detach().numpy()
    w_pos, w_neg = layer.w_pos.weight.detach().numpy(), layer.w_neg.weight.detach().numpy()
    for b in range(3):
        for c in range(4):
            expected = literal(z[b].numpy(), omega[c].numpy(), w_pos, w_neg)
            np.testing.assert_allclose(ours[b, c], expected, atol=1e-12)


def test_weights_are_signed_shares_off_the_diagonal(problem) -> None:
    graphs = signed_graphs(problem[0])
    total = (graphs.positive + graphs.negative).sum(-1)
    torch.testing.assert_close(total[:2], torch.ones(2, 7, dtype=torch.float64), rtol=0, atol=1e-6)
    assert (total[2] == 0).all(), "a graph without edges sends nothing"
    assert (graphs.positive * graphs.negative == 0).all()
    assert (torch.diagonal(graphs.positive, dim1=1, dim2=2) == 0).all()
    torch.testing.assert_close(signed_graphs(problem[0] * 100).positive, graphs.positive, rtol=1e-5, atol=1e-7)


def test_diagonal_of_the_precision_has_no_say(problem) -> None:
    omega, z, layer = problem
    heavier = omega + 50 * torch.eye(7, dtype=torch.float64)
    torch.testing.assert_close(layer(z, signed_graphs(heavier)), layer(z, signed_graphs(omega)))


def test_residual_adds_the_node_itself(problem) -> None:
    omega, z, layer = problem
    plain = layer(z, signed_graphs(omega))
    layer.residual = True
    torch.testing.assert_close(layer(z, signed_graphs(omega)), plain + z[:, None])


def test_graphs_of_each_image_agree_with_shared_ones(problem) -> None:
    omega, z, layer = problem
    presence = torch.eye(4, dtype=torch.float64)[[2, 0, 1]]
    mixed = layer(z, signed_graphs(mixture_precision(omega, presence)))
    shared = layer(z, signed_graphs(omega))
    torch.testing.assert_close(mixed[:, 0], shared[torch.arange(3), [2, 0, 1]])


def test_mixture_is_the_weighted_mean(problem) -> None:
    omega = problem[0]
    mixed = mixture_precision(omega, torch.tensor([[2.0, 0, 1, 0]], dtype=torch.float64))
    torch.testing.assert_close(mixed[0, 0], (2 * omega[0] + omega[2]) / 3)


def test_gradients_are_right_and_reach_both_paths() -> None:
    torch.manual_seed(1)
    layer = SignedMessagePassing(3).double()
    graphs = signed_graphs(torch.tensor(precisions(2, 4)))
    z = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda nodes: layer(nodes, graphs), (z,))
    layer(z, graphs).sum().backward()
    assert layer.w_pos.weight.grad.abs().min() > 0 and layer.w_neg.weight.grad.abs().min() > 0


@pytest.mark.parametrize(("n_classes", "n_nodes"), [(2, 16), (21, 32), (150, 32)])
def test_stated_cost_is_the_counted_one(n_classes: int, n_nodes: int) -> None:
    decoder = GraphDecoder(24, n_classes)
    graphs = signed_graphs(torch.tensor(precisions(n_classes, n_nodes), dtype=torch.float32))
    inputs = torch.randn(1, n_nodes, 24), torch.rand(1, n_nodes, 196)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decoder(*inputs, graphs)
    assert counter.get_total_flops() == head_flops(n_nodes, 24, n_classes, n_classes, 196)["total"]


def test_150_graphs_cost_little_beside_the_encoder() -> None:
    cost = head_flops(n_nodes=64, width=128, n_graphs=150, n_classes=150, n_patches=196)
    assert cost["total"] < 0.05 * 34.9e9, "ViT-B/16 at 224 px: 34.9 GFLOP an image"
    assert cost["total"] < cost["projecting first"]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: signed_graphs(torch.zeros(3, 4)), "(3, 4)"),
        (lambda: signed_graphs(torch.full((1, 2, 2), torch.nan)), "NaN"),
        (lambda: mixture_precision(torch.zeros(2, 3, 3), torch.ones(1, 3)), "2 classes"),
        (lambda: mixture_precision(torch.zeros(2, 3, 3), torch.tensor([[1.0, 0], [0, 0]])), "row 1"),
        (lambda: SignedMessagePassing(2)(torch.zeros(1, 4, 2), signed_graphs(torch.eye(3)[None])), "(1, 4, 2)"),
        (
            lambda: SignedMessagePassing(2)(torch.zeros(2, 3, 2), signed_graphs(torch.zeros(3, 1, 3, 3))),
            "do not fit",
        ),
    ],
)
def test_refuses_bad_input_and_names_it(call, named: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert named in str(caught.value)
