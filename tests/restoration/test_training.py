"""Training keeps its best epoch by cells that no loss has seen, and goes on to the same bits after an interruption."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from cmgl_cli.errors import InputError
from cmgl_cli.restoration import TrainingBatch, TrainingConfig, UnrolledConfig, UnrolledRestorer, train
from cmgl_cli.restoration.training import restoration_loss, set_aside, state_arrays, state_from_arrays


class Constant(nn.Module):
    """Fill everything with one learnt number."""

    def __init__(self, start):
        super().__init__()
        self.number = nn.Parameter(torch.tensor(float(start)))

    def forward(self, observed, mask):
        return self.number.expand(observed.shape)


def constant_batches(hidden, seen, count=2):
    """Return batches of which the hidden cells are one number and the observed ones another."""
    generator = torch.Generator().manual_seed(0)
    masks = [torch.rand((3, 8, 9), generator=generator) < 0.5 for _ in range(count)]
    return [TrainingBatch(torch.where(m, seen, 0.0), m, torch.where(m, seen, hidden)) for m in masks]


# Adam at this rate runs from 0 past 1 and on before it turns
PAST = TrainingConfig(epochs=5, learning_rate=0.2, observed_weight=0.0)


def test_a_run_that_gets_worse_returns_its_best_epoch():
    model, states = Constant(0.0), []
    final = train(model, constant_batches(1.0, 1.0), PAST, on_epoch=states.append)
    numbers = [0.0, *(float(state.model["number"]) for state in states)]
    assert final.errors == pytest.approx([(number - 1) ** 2 for number in numbers], rel=1e-6)
    assert 0 < final.best_epoch < 5 and final.errors[-1] > min(final.errors) == final.errors[final.best_epoch]
    assert float(model.number) == numbers[final.best_epoch] == float(final.best["number"])


def test_the_untrained_network_wins_where_training_never_helps():
    model = Constant(1.0)
    config = dataclasses.replace(PAST, observed_weight=10.0)
    final = train(model, constant_batches(1.0, -5.0), config)
    assert final.best_epoch == 0 and final.epoch == 5 and float(model.number) == 1.0
    assert float(final.model["number"]) < 0 and final.errors == tuple(sorted(final.errors))


def test_signals_of_their_own_choose_the_epoch():
    model, batches = Constant(0.0), constant_batches(1.0, 1.0)
    judge = constant_batches(-1.0, 1.0, count=1)
    final = train(model, batches, PAST, judge=judge)
    assert final.best_epoch == 0 and final.errors[0] == 1.0 and float(model.number) == 0.0
    assert float(final.model["number"]) > 1
    assert train(Constant(0.0), batches, PAST, judge=batches).best_epoch > 0


@pytest.mark.parametrize("variant, count", [("signed", 183), ("fixed-modality", 108)])
def test_the_best_weights_are_all_numbers_of_the_network_and_nothing_else(variant, count):
    generator = torch.Generator().manual_seed(0)
    target = torch.randn((2, 6, 7), generator=generator)
    batch = TrainingBatch(target, torch.rand(target.shape, generator=generator) < 0.5, target)
    model = UnrolledRestorer(UnrolledConfig(variant=variant, rank=2))
    final = train(model, [batch], TrainingConfig(epochs=1))
    assert sum(values.numel() for values in final.best.values()) == count
    assert all(torch.equal(final.best[name], values) for name, values in model.state_dict().items())


def test_an_epoch_that_is_no_better_does_not_replace_an_earlier_one():
    model = Constant(0.5)
    final = train(model, constant_batches(1.0, 1.0), dataclasses.replace(PAST, learning_rate=0.0))
    assert final.best_epoch == 0 and len(set(final.errors)) == 1


@pytest.mark.parametrize("after", range(1, 6))
def test_resuming_after_any_epoch_gives_the_same_result(after):
    whole, states = Constant(0.0), []
    batches = constant_batches(1.0, 1.0)
    final = train(whole, batches, PAST, on_epoch=states.append)
    stored = {name: np.array(values) for name, values in state_arrays(states[after - 1]).items()}
    other = Constant(7.0)
    resumed = train(other, batches, PAST, state=state_from_arrays(stored))
    assert (resumed.losses, resumed.errors, resumed.epoch) == (final.losses, final.errors, final.epoch)
    assert torch.equal(other.number, whole.number) and torch.equal(resumed.best["number"], final.best["number"])
    assert torch.equal(resumed.model["number"], final.model["number"])


def test_cells_set_aside_are_hidden_known_and_in_no_loss():
    generator = torch.Generator().manual_seed(1)
    target = torch.randn((4, 30, 20), generator=generator)
    known = torch.rand(target.shape, generator=generator) < 0.8
    masks = [known & (torch.rand(target.shape, generator=generator) < 0.6) for _ in range(3)]
    batches = [TrainingBatch(target, mask, target, known) for mask in masks]
    training, aside = set_aside(batches, seed=0)
    for before, batch, cells in zip(batches, training, aside, strict=True):
        assert batch.observed is before.observed and batch.mask is before.mask and before.known is known
        assert bool((cells <= known & ~before.mask).all())
        assert 0.05 < float(cells.sum() / (known & ~before.mask).sum()) < 0.15
    # the batches share their signals: what one of them is judged by is in the loss of none
    judged = torch.stack(aside).any(dim=0)
    for batch in training:
        changed = dataclasses.replace(batch, target=torch.where(judged, 1e6, target))
        restored = torch.zeros_like(target)
        assert torch.equal(restoration_loss(restored, batch, 0.1), restoration_loss(restored, changed, 0.1))
    again = set_aside(batches, seed=0)[1]
    assert all(torch.equal(one, other) for one, other in zip(aside, again, strict=True))
    assert not torch.equal(aside[0], set_aside(batches, seed=1)[1][0])


def test_training_that_nothing_can_judge_is_refused():
    target = torch.ones((1, 3, 3))
    with pytest.raises(InputError, match="hidden"):
        train(Constant(0.0), [TrainingBatch(target, target.bool(), target)], PAST)
