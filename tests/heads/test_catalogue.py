"""Decoders by name: what every one of them must satisfy, and what graphs and their controls change."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.heads import GraphDiscriminant
from cmgl_cli.heads.appearance import APPEARANCE_NODES, cell_observations
from cmgl_cli.heads.caching import ScoreCache
from cmgl_cli.heads.catalogue import DECODERS, build_decoder
from cmgl_cli.heads.context import WHOLE_IMAGE, with_context
from cmgl_cli.heads.evidence import GRAPHS, GraphEvidence, PatchInputs, marginal_precision
from cmgl_cli.heads.frozen import CrossFits
from cmgl_cli.heads.generative import generative_flops
from cmgl_cli.heads.patch_decoder import patch_scores
from cmgl_cli.heads.segmentation_training import pixel_loss
from tests.heads.problems import precisions

C, P, WIDTH, D_K, GRID = 3, 6, 10, 4, (2, 4)


WINDOWS = (3, WHOLE_IMAGE)
ALL = APPEARANCE_NODES + 3 * P


def evidence(windows: tuple[int, ...] = WINDOWS, appearance: int = APPEARANCE_NODES, **changes) -> GraphEvidence:
    size = appearance + P * (1 + len(windows))
    omega = precisions(C, size)
    means = np.random.default_rng(0).normal(size=(C, size))
    whole = GraphEvidence(
        omega, omega.mean(0), means, np.array([0.5, 0.3, 0.2]), windows=windows, appearance=appearance
    )
    return replace(whole, **changes)


def inputs(seed: int = 0) -> PatchInputs:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    n_patches = GRID[0] * GRID[1]
    return PatchInputs(
        normal(2, n_patches, WIDTH),
        normal(2, n_patches, P),
        normal(2, P, D_K),
        normal(2, P, n_patches).softmax(-1),
        GRID,
        torch.rand(2, 3, 32, 48, generator=generator),
    )


def build(name: str, graphs: GraphEvidence | None = None, **options) -> torch.nn.Module:
    return build_decoder(name, graphs or evidence(), WIDTH, D_K, **options).eval()


def by_patch(decoder: torch.nn.Module, batch: PatchInputs) -> torch.Tensor:
    """Return logits [B, N_p, C]."""
    return decoder(batch).flatten(2).transpose(1, 2)


every = pytest.mark.parametrize("name", DECODERS)


@every
@pytest.mark.parametrize("graph", GRAPHS)
def test_logits_are_finite_and_gradients_reach_every_parameter(name: str, graph: str) -> None:
    decoder = build(name, graph=graph)
    logits = decoder(inputs())
    finer = 4 if decoder.needs_image else 1
    assert logits.shape == (2, C, finer * GRID[0], finer * GRID[1]) and torch.isfinite(logits).all()
    pixel_loss(logits, torch.randint(0, C, (2, *logits.shape[2:]))).backward()
    idle = {key for key, weight in decoder.named_parameters() if weight.grad is None}
    assert idle <= ({"strength"} if graph == "none" else set())


@every
def test_a_state_dict_holds_the_decoder_entirely(name: str) -> None:
    """Graphs, means and standardisation come back with the weights, whatever the decoder was built from."""
    decoder = build(name, standardisation=(torch.randn(WIDTH), torch.rand(WIDTH) + 0.5))
    other = build(name, evidence(precision=precisions(C, ALL, seed=5), priors=np.ones(C) / C), seed=9)
    other.load_state_dict(decoder.state_dict())
    torch.testing.assert_close(other(inputs()), decoder(inputs()), rtol=0, atol=0)


@every
def test_building_depends_on_the_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build(name, seed=4)(inputs())
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, build(name, seed=4)(inputs()))


@every
@pytest.mark.parametrize("graph", ["per-class", "mixture", "common", "diagonal", "none"])
def test_the_order_of_the_nodes_does_not_matter(name: str, graph: str) -> None:
    order = np.random.default_rng(1).permutation(P)
    scales = [APPEARANCE_NODES + P * scale + order for scale in range(3)]
    everywhere = np.concatenate([np.arange(APPEARANCE_NODES), *scales])
    original, batch = evidence(), inputs()
    shuffled = replace(
        original,
        precision=original.precision[:, everywhere][:, :, everywhere],
        common=original.common[np.ix_(everywhere, everywhere)],
        means=original.means[:, everywhere],
    )
    moved = batch._replace(
        observations=batch.observations[..., order], nodes=batch.nodes[:, order], attention=batch.attention[:, order]
    )
    expected = build(name, original, graph=graph)(batch)
    torch.testing.assert_close(build(name, shuffled, graph=graph)(moved), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("windows", [(), (3,), (WHOLE_IMAGE,), (WHOLE_IMAGE, 3), (3, WHOLE_IMAGE)])
def test_the_generative_decoder_equals_the_discriminant(windows: tuple[int, ...]) -> None:
    graphs, batch = evidence(windows, appearance=0), inputs()
    model = GraphDiscriminant(graphs.precision, graphs.means, graphs.priors)
    joined = with_context(batch.observations, GRID, windows)
    expected = torch.tensor(patch_scores(model, joined.numpy())).float()
    torch.testing.assert_close(by_patch(build("generative", graphs), batch), expected, rtol=1e-5, atol=1e-5)


def test_one_graph_for_all_makes_the_mixture_the_common_discriminant() -> None:
    """If all class graphs are equal, mixing them changes nothing but a constant all classes share."""
    omega = precisions(1, ALL).repeat(C, axis=0)
    graphs, batch = evidence(precision=omega, common=omega[0]), inputs()
    each, mixed, common = (by_patch(build("generative", graphs, graph=graph), batch) for graph in GRAPHS[:3])
    torch.testing.assert_close(mixed.log_softmax(-1), each.log_softmax(-1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(common, each, rtol=1e-4, atol=1e-4)


def test_operations_are_counted_for_the_factors_that_are_there() -> None:
    """The whole image's part of the product is paid once an image, not once a patch."""
    head = build("generative").head
    patches = GRID[0] * GRID[1]
    products = 2 * (patches * head.local.numel() + head.shared.numel())
    squares = 3 * patches * C * 2 * P
    assert generative_flops(P, C, patches, WINDOWS) == products + squares
    assert generative_flops(64, 150, 196, WINDOWS, APPEARANCE_NODES) < 0.05 * 34.9e9, "under 5 % of a ViT-B/16"


def test_controls_change_what_their_names_say() -> None:
    graphs = evidence()
    own, common = graphs.select("per-class"), graphs.select("common")
    np.testing.assert_array_equal(own, graphs.precision)
    np.testing.assert_array_equal(common, np.repeat(common[:1], C, axis=0))
    marginal = np.einsum("cii->ci", np.linalg.inv(own))
    for control in ("diagonal", "random"):
        changed = graphs.select(control)
        np.testing.assert_allclose(np.einsum("cii->ci", np.linalg.inv(changed)), marginal)
    np.testing.assert_array_equal(graphs.select("diagonal") != 0, np.tile(np.eye(ALL) > 0, (C, 1, 1)))
    np.testing.assert_array_equal(graphs.select("none"), np.tile(np.eye(ALL), (C, 1, 1)))


def test_the_random_graph_moves_edges_between_nodes_but_not_between_scales() -> None:
    """A node at one scale tied to itself at another stays so; which other nodes it is tied to changes."""
    omega = np.kron(np.full((3, 3), 0.3) + np.diag([1.0] * 3), np.eye(P))[None].repeat(C, axis=0)
    ties = GraphEvidence(omega, omega[0], np.zeros((C, 3 * P)), np.ones(C), windows=WINDOWS)
    np.testing.assert_allclose(ties.select("random"), omega)
    assert not np.allclose(evidence().select("random"), evidence().select("per-class"))


def test_cells_are_scored_by_the_chain_rule() -> None:
    """Where all patches are alike, nothing is interpolated: the discriminant on cell observations is the oracle."""
    graphs, batch = evidence(), inputs()
    batch = batch._replace(observations=batch.observations[:, :1].expand(-1, GRID[0] * GRID[1], -1))
    model = GraphDiscriminant(graphs.precision, graphs.means, graphs.priors)
    cells = cell_observations(batch, WINDOWS)
    expected = torch.tensor(patch_scores(model, cells.numpy())).float().transpose(1, 2)
    torch.testing.assert_close(build("generative", graphs)(batch).flatten(2), expected, rtol=1e-4, atol=1e-3)
    covariance = np.linalg.inv(graphs.precision)[:, APPEARANCE_NODES:, APPEARANCE_NODES:]
    np.testing.assert_allclose(
        marginal_precision(graphs.precision, APPEARANCE_NODES) @ covariance, [np.eye(3 * P)] * C, atol=1e-9
    )


def test_refinement_starts_as_the_generative_classifier() -> None:
    batch = inputs()
    expected = build("generative")(batch).softmax(1)
    decoder = build("unet")
    started = (decoder(batch) / decoder.log_strength.exp()).softmax(1)
    torch.testing.assert_close(started, expected, rtol=1e-4, atol=1e-4)
    assert (build("unet", graph="none")(batch) == 0).all()


def test_without_a_graph_the_hybrid_is_the_linear_layer() -> None:
    batch = inputs()
    expected = build("linear", seed=3)(batch)
    torch.testing.assert_close(build("hybrid", graph="none", seed=3)(batch), expected, rtol=0, atol=0)
    hybrid = build("hybrid", seed=3)
    with torch.no_grad():
        hybrid.strength.zero_()
    torch.testing.assert_close(hybrid(batch), expected)
    assert not (build("paper", graph="none")(batch) != 0).any(), "as printed, a graph without edges is silent"


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: build("hybird"), "hybrid"),
        (lambda: build("linear", graph="percls"), "per-class"),
        (lambda: build("unet")(inputs()._replace(image=None)), "image is None"),
        (lambda: build("generative")(inputs()._replace(observations=torch.zeros(2, 8, 5))), "5 nodes against 6"),
        (lambda: evidence(means=np.zeros((C, P + 1))), "means"),
        (lambda: evidence(precision=-precisions(C, ALL)), "class 0"),
        (lambda: replace(evidence(), windows=(1, 3, 5, 7)), "31 nodes, 13 of them appearance, 4 windows"),
    ],
)
def test_refuses_bad_input_and_names_it(call, named: str) -> None:
    with pytest.raises((InputError, UsageError)) as caught:
        call()
    assert named in str(caught.value)


@pytest.mark.parametrize("name", ["generative", "hybrid", "unet"])
def test_training_images_are_scored_by_graphs_that_were_fitted_without_them(name: str) -> None:
    whole = evidence()
    others = [replace(whole, means=whole.means + shift) for shift in (0.5, -0.5)]
    fold = {10: 1, 11: 0}
    crossed, plain = build(name, whole, cross_fits=CrossFits(others, fold)), build(name, whole)
    apart = [build(name, other) for other in others]
    batch = inputs()
    for rows in ((11, 10), (99, 10), (98, 97)):
        for place, row in enumerate(rows):
            one = batch.of(torch.tensor([place]))
            expected = (apart[fold[row]] if row in fold else plain).likelihood(one)
            found = crossed.frozen(batch._replace(rows=rows))[place : place + 1]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        crossed.cache = ScoreCache()  # the same images in other places
    # without rows nobody has seen these images
    torch.testing.assert_close(crossed(batch), plain(batch))
    # a stored decoder knows nothing of folds
    assert crossed.state_dict().keys() == plain.state_dict().keys()


def test_decoders_without_generative_scores_have_nothing_to_cross_fit() -> None:
    graphs = evidence()
    crossed = build("unet", graphs, graph="none", cross_fits=CrossFits([graphs], {0: 0}))
    batch = inputs()._replace(rows=tuple(range(len(inputs().patches))))
    torch.testing.assert_close(crossed(batch), build("unet", graphs, graph="none")(batch))
