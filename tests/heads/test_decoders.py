"""Decoders: (21) and (22) in the order they are printed, the linear layer, and upsampling."""

import pytest
import torch

from cmgl_cli.errors import InputError
from cmgl_cli.heads.caching import ScoreCache
from cmgl_cli.heads.decoders import DecoderOptions, GraphDecoder, LinearDecoder, on_grid, project, upsample
from cmgl_cli.heads.evidence import PatchInputs
from cmgl_cli.heads.message_passing import signed_graphs
from tests.heads.problems import precisions


def inputs(n_classes: int = 3, p: int = 6, d: int = 4, patches: int = 8):
    torch.manual_seed(0)
    graphs = signed_graphs(torch.tensor(precisions(n_classes, p), dtype=torch.float32))
    return torch.randn(2, p, d), torch.rand(2, p, patches).softmax(-1), graphs


@pytest.mark.parametrize("bias", [False, True])
def test_scoring_first_equals_projecting_first(bias: bool) -> None:
    """X_seg = A^T H, then W_cls, class c on the H of its own graph."""
    nodes, attention, graphs = inputs()
    decoder = GraphDecoder(4, 3, DecoderOptions(bias=bias))
    hidden = decoder.message(nodes, graphs)
    expected = torch.stack([(attention.mT @ hidden[:, c]) @ decoder.classifier.weight[c] for c in range(3)], dim=-1)
    if bias:
        expected = expected + decoder.classifier.bias
    torch.testing.assert_close(decoder(nodes, attention, graphs), expected)


def test_one_graph_serves_all_classes() -> None:
    nodes, attention, graphs = inputs()
    decoder = GraphDecoder(4, 3)
    common = type(graphs)(graphs.positive[:1], graphs.negative[:1])
    repeated = type(graphs)(*(part[:1].expand(3, -1, -1) for part in graphs))
    torch.testing.assert_close(decoder(nodes, attention, common), decoder(nodes, attention, repeated))


def test_residual_lets_a_graph_without_edges_speak() -> None:
    nodes, attention, _ = inputs()
    none = signed_graphs(torch.eye(6)[None])
    assert (GraphDecoder(4, 3)(nodes, attention, none) == 0).all()
    decoder = GraphDecoder(4, 3, DecoderOptions(residual=True))
    expected = attention.mT @ nodes @ decoder.classifier.weight.T
    torch.testing.assert_close(decoder(nodes, attention, none), expected)


def test_normalised_projection_is_a_mean_over_nodes() -> None:
    _, attention, _ = inputs()
    ones = torch.ones(2, 6, 3)
    torch.testing.assert_close(project(ones, attention, normalise=True), torch.ones(2, 8, 3))
    torch.testing.assert_close(project(ones, attention)[..., 0], attention.sum(1))
    half = attention.half()
    assert torch.isfinite(project(ones, half * 0, normalise=True)).all()


def test_linear_layer_standardises_and_survives_a_constant_feature() -> None:
    torch.manual_seed(0)
    patches = torch.randn(2, 6, 3) * 7 + 4
    patches[..., 1] = 4
    flat = patches.reshape(-1, 3)
    decoder = LinearDecoder(3, 2, flat.mean(0), flat.std(0, correction=0))
    scaled = (patches - flat.mean(0)) / torch.tensor([flat[:, 0].std(correction=0), 1.0, flat[:, 2].std(correction=0)])
    expected = scaled @ decoder.classifier.weight.T + decoder.classifier.bias
    inputs = PatchInputs(patches, patches, patches, patches, (2, 3))
    torch.testing.assert_close(decoder.scores(inputs), expected)
    torch.testing.assert_close(decoder.scores(inputs._replace(patches=patches.half())), expected, atol=2e-2, rtol=1e-2)
    torch.testing.assert_close(decoder(inputs)[0, :, 1, 2], expected[0, 5])


def test_upsampling_keeps_rows_and_columns_apart() -> None:
    scores = torch.zeros(1, 6, 2)
    scores[0, 4, 1] = 1.0  # row 1, column 1 of a 2 x 3 grid
    maps = on_grid(scores, (2, 3))
    pixels = upsample(maps, (4, 6))
    assert pixels.shape == (1, 2, 4, 6)
    assert pixels[0, 1].flatten().argmax().item() // 6 >= 2
    assert set(torch.nonzero(pixels[0, 1] == pixels[0, 1].max())[:, 1].tolist()) == {2, 3}
    torch.testing.assert_close(upsample(maps, (2, 3)), maps)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: on_grid(torch.zeros(1, 6, 2), (2, 2)), "(2, 2) for 6"),
        (lambda: project(torch.zeros(1, 3, 2), torch.zeros(1, 4, 8)), "do not fit"),
        (lambda: GraphDecoder(4, 5)(*inputs()), "3 graphs for 5 classes"),
    ],
)
def test_refuses_bad_input_and_names_it(call, named: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert named in str(caught.value)


def test_cached_scores_are_those_computed_anew():
    cache, calls = ScoreCache(limit=2 * 12 * 4), []

    def compute(rows):
        calls.append(rows)
        return torch.stack([torch.full((3, 4), float(row)) for row in rows])

    for rows in ((0, 1), (1, 0), (2, 0), (2, 0), None):
        found = cache.scores(rows, lambda rows=rows: compute(rows or (5,)))
        torch.testing.assert_close(found, torch.stack([torch.full((3, 4), float(r)) for r in rows or (5,)]))
    # the second batch came from memory; there is room for two images, so the third is computed every time
    assert calls == [(0, 1), (2, 0), (2, 0), (5,)]
