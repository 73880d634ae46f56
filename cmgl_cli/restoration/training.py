"""Train the unrolled network: Adam, clipped gradients, the best epoch kept, resumable to the same bits.

The best epoch is the one with the least error on signals that no step is taken on, or, where none are given, on cells
set aside: a tenth of what the training hides, in the loss of no batch. The untrained network, epoch 0, takes part.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cmgl_cli.errors import InputError

_ASIDE = 0.1


@dataclass(frozen=True)
class TrainingBatch:
    """Samples that share their graphs.

    Attributes
    ----------
    observed, mask : Tensor, shape (samples, n, m)
        What the network sees.
    target : Tensor, shape (samples, n, m)
        The truth.
    known : Tensor of bool, optional
        Where the truth is known (real records have gaps of their own); everywhere by default.
    """

    observed: Tensor
    mask: Tensor
    target: Tensor
    known: Tensor | None = None


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the training.

    Attributes
    ----------
    epochs : int
        Passes over the batches.
    learning_rate : float
        Of Adam.
    clip : float
        Largest norm of the gradient.
    observed_weight : float
        Weight of the error on observed cells; the paper's loss (35) has none and lets them drift.
    seed : int
        Of the order of the batches.
    """

    epochs: int = 50
    learning_rate: float = 0.01
    clip: float = 1.0
    observed_weight: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class TrainingState:
    """Everything needed to go on after ``epoch`` epochs: store it, pass it back.

    Attributes
    ----------
    epoch : int
        Epochs done.
    model, optimizer : dict
        Weights and Adam's moments after the last of them.
    losses : tuple of float
        Training loss, one an epoch.
    best : dict
        Weights of the best epoch.
    errors : tuple of float
        Mean squared error on the held-out cells, before the first epoch and after every one; infinite where it is not
        finite.
    """

    epoch: int = 0
    model: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    best: dict[str, Tensor] = field(default_factory=dict)
    errors: tuple[float, ...] = ()

    @property
    def best_epoch(self) -> int:
        """The first epoch with the least error; 0 is the untrained network."""
        return self.errors.index(min(self.errors))


def state_arrays(state: TrainingState) -> dict[str, np.ndarray]:
    """Return a training state as named arrays, to store it where objects cannot be stored."""
    arrays = {"epoch": np.array(state.epoch)}
    arrays |= {name: np.array(getattr(state, name), dtype=np.float64) for name in ("losses", "errors")}
    for weights in ("model", "best"):
        arrays |= {f"{weights}/{name}": tensor.numpy() for name, tensor in getattr(state, weights).items()}
    for index, moments in state.optimizer.get("state", {}).items():
        arrays |= {f"optimizer/{index}/{name}": tensor.numpy() for name, tensor in moments.items()}
    return arrays


def state_from_arrays(arrays: Mapping[str, np.ndarray]) -> TrainingState:
    """Return the training state that `state_arrays` made arrays of."""
    weights: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, values in arrays.items():
        owner, _, rest = name.partition("/")
        if owner in weights:
            weights[owner][rest] = torch.from_numpy(np.array(values))
        elif owner == "optimizer":
            index, moment = rest.split("/")
            moments.setdefault(int(index), {})[moment] = torch.from_numpy(np.array(values))
    losses, errors = (tuple(arrays[name].tolist()) for name in ("losses", "errors"))
    return TrainingState(int(arrays["epoch"]), weights["model"], {"state": moments}, losses, weights["best"], errors)


def restoration_loss(restored: Tensor, batch: TrainingBatch, observed_weight: float) -> Tensor:
    """Return the mean squared error on hidden cells (35) plus ``observed_weight`` times that on observed ones."""
    mask, known = batch.mask.to(torch.bool), _known(batch)
    square = (restored - torch.where(known, batch.target, 0)) ** 2
    return _mean_where(square, ~mask & known) + observed_weight * _mean_where(square, mask & known)


def set_aside(batches: Sequence[TrainingBatch], seed: int) -> tuple[list[TrainingBatch], list[Tensor]]:
    """Return the batches without a tenth of their cells in the loss, and which hidden cells those are.

    The same cells are drawn for all batches of one shape, since batches may hide different cells of the same signals.
    What the network sees stays as it is, so that it is trained at the missing rate that it will meet.

    Parameters
    ----------
    batches : sequence of TrainingBatch
    seed : int
        Of the draw.

    Returns
    -------
    batches : list of TrainingBatch
        `TrainingBatch.known` is false at the cells set aside, hidden or observed.
    aside : list of Tensor of bool, shape (samples, n, m)
        Hidden cells of known truth to judge by, one a batch.
    """
    training, aside = [], []
    for batch in batches:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + 999_983)
        drawn = (torch.rand(batch.mask.shape, generator=generator) < _ASIDE).to(batch.mask.device)
        training.append(replace(batch, known=_known(batch) & ~drawn))
        aside.append(drawn & _hidden(batch))
    return training, aside


def train(
    model: nn.Module,
    batches: Sequence[TrainingBatch],
    config: TrainingConfig = TrainingConfig(),
    *,
    judge: Sequence[TrainingBatch] = (),
    state: TrainingState | None = None,
    on_epoch: Callable[[TrainingState], None] | None = None,
) -> TrainingState:
    """Train ``model`` in place, leave it with the weights of its best epoch, and return the final state.

    Parameters
    ----------
    model : Module
        Called as ``model(observed, mask)``.
    batches : sequence of TrainingBatch
        One step of Adam each, in an order drawn from the seed and the epoch.
    config : TrainingConfig
        Settings.
    judge : sequence of TrainingBatch, optional
        Signals to choose the epoch by, on which no step is taken: other graphs, where the network will meet graphs that
        it has not seen. Without, cells of the batches (`set_aside`).
    state : TrainingState, optional
        Where to go on; the result is the same as without the interruption.
    on_epoch : callable, optional
        Receives the state after every epoch, to store it.

    Raises
    ------
    InputError
        Where there is no batch, no hidden cell to judge an epoch by, or the loss is not finite.
    """
    if not batches:
        raise InputError("there is nothing to train on", "0 batches", "pass training windows")
    training, aside = (list(batches), [_hidden(batch) for batch in judge]) if judge else set_aside(batches, config.seed)
    judge = judge or batches
    if not any(bool(cells.any()) for cells in aside):
        raise InputError(
            "no hidden cell is left to judge the training by", f"{len(batches)} batches", "hide more cells"
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    if state is None or not state.epoch:
        state = TrainingState(best=_weights(model), errors=(_error(model, judge, aside),))
    else:
        model.load_state_dict(state.model)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"param_groups": groups, **deepcopy(state.optimizer)})
    for epoch in range(state.epoch, config.epochs):
        order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(config.seed * 1_000_003 + epoch))
        losses = [_step(model, optimizer, training[index], config) for index in order.tolist()]
        weights, error = _weights(model), _error(model, judge, aside)
        state = TrainingState(
            epoch + 1,
            weights,
            deepcopy(optimizer.state_dict()),
            (*state.losses, sum(losses) / len(losses)),
            weights if error < min(state.errors) else state.best,
            (*state.errors, error),
        )
        if on_epoch is not None:
            on_epoch(state)
    model.load_state_dict(state.best)
    return state


def _known(batch: TrainingBatch) -> Tensor:
    return torch.ones_like(batch.mask, dtype=torch.bool) if batch.known is None else batch.known.to(torch.bool)


def _hidden(batch: TrainingBatch) -> Tensor:
    return _known(batch) & ~batch.mask.to(torch.bool)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _error(model: nn.Module, batches: Sequence[TrainingBatch], aside: Sequence[Tensor]) -> float:
    """Return the mean squared error on these cells of all batches."""
    total = 0.0
    with torch.no_grad():
        for batch, cells in zip(batches, aside, strict=True):
            total += float(((model(batch.observed, batch.mask) - batch.target)[cells].double() ** 2).sum())
    error = total / sum(int(cells.sum()) for cells in aside)
    return error if math.isfinite(error) else math.inf


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: TrainingBatch, config: TrainingConfig) -> float:
    optimizer.zero_grad()
    loss = restoration_loss(model(batch.observed, batch.mask), batch, config.observed_weight)
    if not bool(torch.isfinite(loss)):
        raise InputError("the training loss is not finite", f"loss={float(loss)}", "lower the learning rate")
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    return float(loss.detach())


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, values, 0).sum() / where.sum().clamp_min(1)
