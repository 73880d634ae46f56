"""The alternation and the unrolled network: what they recover, count, differentiate and resume."""

import pytest
import torch

from cmgl_cli.restoration import (
    TrainingBatch,
    TrainingConfig,
    TwofoldConfig,
    UnrolledConfig,
    UnrolledRestorer,
    additive_fill,
    restore,
    train,
)
from cmgl_cli.restoration.linear_operators import knn_edges
from cmgl_cli.restoration.synthetic import (
    matrix_normal_signals,
    mcar_mask,
    outage_mask,
    piecewise_smooth_signals,
    pseudo_inverse_root,
)
from cmgl_cli.restoration.training import restoration_loss

CONFIG = TwofoldConfig(spatial=(0.1, 1, 1), modality=(1, 1, 1), outer=4)


def small_signals(n_signals=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    signals = piecewise_smooth_signals(generator, n=14, m=24, n_signals=n_signals)
    return signals, mcar_mask(signals.clean.shape, 0.3, generator)


def hidden_error(restored, signals, mask):
    return float(((restored - signals.clean)[~mask] ** 2).mean())


def test_restores_piecewise_smooth_signals():
    signals, mask = small_signals()
    start = hidden_error(additive_fill(signals.observed, mask), signals, mask)
    result = restore(signals.observed, mask, CONFIG)
    assert hidden_error(result.signal, signals, mask) < 0.1 * start


def test_signs_decide_where_modalities_are_opposed():
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randn(8, 14, 1, generator=generator, dtype=torch.float64)
    sign = torch.where(torch.arange(12) % 2 == 0, 1.0, -1.0).double()
    clean = pattern * sign
    mask = mcar_mask(clean.shape, 0.5, generator)
    errors = []
    for rank in (0, 1):
        result = restore(clean, mask, TwofoldConfig(rank=rank, outer=6, spatial=(0.1, 1, 1)))
        errors.append(float(((result.signal - clean)[~mask] ** 2).mean()))
    assert errors[1] * 10 < errors[0]


def test_known_graphs_are_used_as_they_are():
    signals = matrix_normal_signals(torch.Generator().manual_seed(0), n=12, m=10, n_signals=2)
    mask = mcar_mask(signals.clean.shape, 0.2, torch.Generator().manual_seed(1))
    result = restore(
        signals.observed,
        mask,
        CONFIG,
        spatial_laplacian=signals.spatial_laplacian,
        modality_laplacian=signals.modality_laplacian,
    )
    assert result.spatial_laplacian is signals.spatial_laplacian and result.polarity is None


def test_edge_support_with_every_pair_equals_dense():
    signals, mask = small_signals()
    dense = restore(signals.observed, mask, CONFIG)
    listed = restore(signals.observed, mask, CONFIG, edges=knn_edges(signals.points.numpy(), 13))
    torch.testing.assert_close(listed.signal, dense.signal, rtol=0, atol=1e-3)


def test_station_order_does_not_matter_and_inputs_stay():
    signals, mask = small_signals()
    copy = signals.observed.clone()
    order = torch.randperm(14, generator=torch.Generator().manual_seed(3))
    result = restore(signals.observed, mask, CONFIG)
    permuted = restore(signals.observed[:, order], mask[:, order], CONFIG)
    torch.testing.assert_close(permuted.signal, result.signal[:, order], rtol=0, atol=1e-6)
    assert torch.equal(copy, signals.observed)


@pytest.mark.parametrize(
    "variant, count", [("signed", 183), ("unsigned", 183), ("fixed-modality", 108), ("no-graph-learning", 33)]
)
def test_parameter_counts(variant, count):
    model = UnrolledRestorer(UnrolledConfig(variant=variant))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("variant", ["signed", "unsigned", "fixed-modality", "no-graph-learning"])
def test_network_gradients_match_finite_differences(variant):
    signals, mask = small_signals(2)
    model = UnrolledRestorer(UnrolledConfig(layers=1, variant=variant)).double()
    batch = TrainingBatch(signals.observed, mask, signals.clean)
    restoration_loss(model(signals.observed, mask), batch, 0.1).backward()
    for parameter in model.parameters():
        index = (0,) * parameter.ndim
        with torch.no_grad():
            values = []
            for step in (1e-6, -2e-6):
                parameter[index] += step
                values.append(float(restoration_loss(model(signals.observed, mask), batch, 0.1)))
            parameter[index] += 1e-6
        assert float(parameter.grad[index]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-9)


def test_network_is_equivariant_and_batches():
    signals, mask = small_signals(4)
    model = UnrolledRestorer().double()
    order = torch.randperm(14, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        out = model(signals.observed, mask)
        permuted = model(signals.observed[:, order], mask[:, order])
        groups = model(signals.observed.reshape(2, 2, 14, 24), mask.reshape(2, 2, 14, 24))
        alone = model(signals.observed[:2], mask[:2])
    torch.testing.assert_close(permuted, out[:, order], rtol=0, atol=1e-9)
    torch.testing.assert_close(groups[0], alone, rtol=0, atol=1e-9)


def test_training_lowers_the_loss_and_resumes_to_the_same_bits():
    signals, mask = small_signals(4)
    batches = [TrainingBatch(signals.observed[i : i + 2], mask[i : i + 2], signals.clean[i : i + 2]) for i in (0, 2)]
    states = []
    model = UnrolledRestorer(UnrolledConfig(layers=2)).double()
    whole = train(model, batches, TrainingConfig(epochs=4), on_epoch=states.append)
    assert whole.losses[-1] < whole.losses[0] and [s.epoch for s in states] == [1, 2, 3, 4]
    other = UnrolledRestorer(UnrolledConfig(layers=2)).double()
    resumed = train(other, batches, TrainingConfig(epochs=4), state=states[1])
    assert resumed.losses == whole.losses
    assert all(torch.equal(resumed.model[name], whole.model[name]) for name in whole.model)


def test_unknown_truth_is_left_out_of_the_loss():
    target = torch.tensor([[[1.0, float("nan")]]])
    batch = TrainingBatch(target, torch.tensor([[[False, False]]]), target, torch.tensor([[[True, False]]]))
    assert float(restoration_loss(torch.zeros(1, 1, 2), batch, 0.0)) == 1.0


def test_masks_hide_what_they_say():
    generator = torch.Generator().manual_seed(0)
    mask = outage_mask(28, 40, 0.3, 14, generator)
    hidden = (~mask).sum(0)
    assert sorted(set(hidden.tolist())) == [0, 14] and int((hidden > 0).sum()) == 12
    assert abs(float((~mcar_mask((200, 200), 0.3, generator)).double().mean()) - 0.3) < 0.01
    with pytest.raises(ValueError):
        outage_mask(10, 4, 0.3, 14, generator)


def test_matrix_normal_signals_have_the_stated_covariance():
    generator = torch.Generator().manual_seed(0)
    signals = matrix_normal_signals(generator, n=6, m=12, n_signals=20000)
    rows = torch.einsum("snm,skm->nk", signals.clean, signals.clean)
    expected = pseudo_inverse_root(signals.spatial_laplacian)
    expected = expected @ expected
    torch.testing.assert_close(rows / rows.trace(), expected / expected.trace(), rtol=0, atol=0.01)
    assert float(signals.clean.std()) == pytest.approx(1.0)
    noise = float((signals.observed - signals.clean).std())
    assert noise == pytest.approx(0.1, rel=0.02)
