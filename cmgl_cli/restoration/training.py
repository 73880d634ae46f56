"""Train the unrolled network: Adam, clipped gradients, one checkpoint an epoch, resumable to the same bits."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cmgl_cli.errors import InputError


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
    """Everything needed to go on after ``epoch`` epochs: store it, pass it back."""

    epoch: int = 0
    model: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    losses: tuple[float, ...] = ()


def state_arrays(state: TrainingState) -> dict[str, np.ndarray]:
    """Return a training state as named arrays, to store it where objects cannot be stored."""
    arrays = {"epoch": np.array(state.epoch), "losses": np.array(state.losses, dtype=np.float64)}
    arrays |= {f"model/{name}": tensor.numpy() for name, tensor in state.model.items()}
    for index, moments in state.optimizer.get("state", {}).items():
        arrays |= {f"optimizer/{index}/{name}": tensor.numpy() for name, tensor in moments.items()}
    return arrays


def state_from_arrays(arrays: Mapping[str, np.ndarray]) -> TrainingState:
    """Return the training state that `state_arrays` made arrays of."""
    model = {
        name.removeprefix("model/"): torch.from_numpy(np.array(values))
        for name, values in arrays.items()
        if name.startswith("model/")
    }
    moments: dict[int, dict[str, Tensor]] = {}
    for name, values in arrays.items():
        if name.startswith("optimizer/"):
            _, index, moment = name.split("/")
            moments.setdefault(int(index), {})[moment] = torch.from_numpy(np.array(values))
    return TrainingState(int(arrays["epoch"]), model, {"state": moments}, tuple(arrays["losses"].tolist()))


def restoration_loss(restored: Tensor, batch: TrainingBatch, observed_weight: float) -> Tensor:
    """Return the mean squared error on hidden cells (35) plus ``observed_weight`` times that on observed ones."""
    mask = batch.mask.to(torch.bool)
    known = torch.ones_like(mask) if batch.known is None else batch.known.to(torch.bool)
    square = (restored - torch.where(known, batch.target, 0)) ** 2
    return _mean_where(square, ~mask & known) + observed_weight * _mean_where(square, mask & known)


def train(
    model: nn.Module,
    batches: Sequence[TrainingBatch],
    config: TrainingConfig = TrainingConfig(),
    *,
    state: TrainingState | None = None,
    on_epoch: Callable[[TrainingState], None] | None = None,
) -> TrainingState:
    """Train ``model`` in place and return the final state.

    Parameters
    ----------
    model : Module
        Called as ``model(observed, mask)``.
    batches : sequence of TrainingBatch
        One step of Adam each, in an order drawn from the seed and the epoch.
    config : TrainingConfig
        Settings.
    state : TrainingState, optional
        Where to go on; the result is the same as without the interruption.
    on_epoch : callable, optional
        Receives the state after every epoch, to store it.

    Raises
    ------
    InputError
        Where there is no batch, or the loss is not finite.
    """
    if not batches:
        raise InputError("there is nothing to train on", "0 batches", "pass training windows")
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    state = state or TrainingState()
    if state.epoch:
        model.load_state_dict(state.model)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"param_groups": groups, **deepcopy(state.optimizer)})
    for epoch in range(state.epoch, config.epochs):
        order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(config.seed * 1_000_003 + epoch))
        losses = [_step(model, optimizer, batches[index], config) for index in order.tolist()]
        mean = sum(losses) / len(losses)
        weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        state = TrainingState(epoch + 1, weights, deepcopy(optimizer.state_dict()), (*state.losses, mean))
        if on_epoch is not None:
            on_epoch(state)
    return state


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
