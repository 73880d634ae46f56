"""Training of decoders, one loop for ours and for the linear layer they have to beat, so that both are tuned alike.

Pixel cross-entropy on logits upsampled to the masks' resolution, class weights by a power of the inverse frequency,
optionally soft Dice; AdamW with a cosine schedule; the epoch that scores best on the validation part is kept.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmgl_cli.errors import InputError
from cmgl_cli.heads.decoders import upsample
from cmgl_cli.heads.evidence import PatchInputs
from cmgl_cli.heads.segmentation_metrics import IGNORE, SegmentationScores


class SegmentationBatch(NamedTuple):
    """Some images of one patch grid.

    Attributes
    ----------
    inputs : PatchInputs
    masks : Tensor, int64, [B, H, W]
        Labels at any one resolution; logits are interpolated to it.
    """

    inputs: PatchInputs
    masks: Tensor


Batches = Callable[[int], Iterable[SegmentationBatch]]
"""Epoch number to its batches; the order is the caller's, from a seed of its own."""


@dataclass(frozen=True)
class DecoderSettings:
    """How a decoder is trained.

    Attributes
    ----------
    epochs : int
    learning_rate, weight_decay : float
    balance : float
        Class weights are frequency ** -balance: 0 none, 0.5 square root of the inverse, 1 inverse.
    dice : float
        Weight of the soft Dice loss beside the cross-entropy.
    validate_every : int
        Epochs between two looks at the validation part; the last epoch is always looked at.
    """

    epochs: int = 100
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    balance: float = 0.5
    dice: float = 0.0
    validate_every: int = 10

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.validate_every < 1 or self.learning_rate <= 0:
            raise InputError(
                "epochs, validate_every and learning_rate must be positive", str(asdict(self)), "correct the settings"
            )


@dataclass
class DecoderHistory:
    """Course of a training.

    Attributes
    ----------
    loss : list of float
        Mean training loss of each epoch.
    score : dict of int to float
        Validation score by epoch; 0 is before training.
    best_epoch : int
        Epoch whose weights were kept; 0 where training did not help.
    """

    loss: list[float] = field(default_factory=list)
    score: dict[int, float] = field(default_factory=dict)
    best_epoch: int = 0

    @property
    def best_score(self) -> float:
        """Validation score of the weights that were kept."""
        return self.score[self.best_epoch]


def pixel_counts(masks: Iterable[Tensor], n_classes: int, ignore_label: int = IGNORE) -> Tensor:
    """Return the number of pixels of each class, float64 [C].

    Raises
    ------
    InputError
        If a mask holds a label outside 0..C-1 that is not the ignore label.
    """
    counts = torch.zeros(n_classes, dtype=torch.float64)
    for mask in masks:
        labels = mask[mask != ignore_label].long()
        if labels.numel() and (labels.min() < 0 or labels.max() >= n_classes):
            wrong = int(labels.min()) if labels.min() < 0 else int(labels.max())
            raise InputError(
                "a mask holds a label outside the classes", f"label {wrong} of {n_classes}", "check the masks"
            )
        counts += torch.bincount(labels.flatten(), minlength=n_classes)
    return counts


def class_weights(counts: Tensor, balance: float) -> Tensor:
    """Return weights frequency ** -balance with mean 1 over the classes that occur, 0 for the others; float32 [C]."""
    seen = counts > 0
    weights = torch.where(seen, counts.clamp(min=1).pow(-balance), torch.zeros_like(counts))
    return (weights / weights[seen].mean()).float() if bool(seen.any()) else torch.ones(len(counts))


def pixel_loss(
    logits: Tensor, masks: Tensor, weights: Tensor | None = None, *, dice: float = 0.0, ignore_label: int = IGNORE
) -> Tensor:
    """Return the weighted cross-entropy, plus `dice` times the soft Dice loss, over counted pixels.

    Parameters
    ----------
    logits : Tensor, [B, C, H, W]
    masks : Tensor, int64, [B, H, W]
    weights : Tensor, [C], optional
    dice : float
        Soft Dice: 1 minus the mean, over the classes in the batch, of 2 |p y| / (|p| + |y|).
    ignore_label : int

    Returns
    -------
    Tensor
        Scalar; 0 where no pixel counts.
    """
    if not bool((masks != ignore_label).any()):
        return logits.sum() * 0
    loss = functional.cross_entropy(logits, masks, weights, ignore_index=ignore_label)
    if dice == 0:
        return loss
    valid = masks != ignore_label
    truth = functional.one_hot(torch.where(valid, masks, 0), logits.shape[1]).permute(0, 3, 1, 2) * valid[:, None]
    proba = logits.softmax(1) * valid[:, None]
    both, sizes = (proba * truth).sum((0, 2, 3)), (proba + truth).sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    return loss + dice * (1 - (2 * both / sizes.clamp(min=1e-8))[present].mean())


@dataclass(frozen=True)
class TrainingTask:
    """What decoders are trained on and chosen by, the same for all of them.

    Attributes
    ----------
    batches : callable
        Epoch number to its batches.
    counts : Tensor, float64, [C]
        Training pixels of each class (`pixel_counts`), from which class weights follow.
    validate : callable, optional
        Maps a decoder to its score on the validation part, the larger the better. Without it the last epoch is kept.
    ignore_label : int
    """

    batches: Batches
    counts: Tensor
    validate: Callable[[nn.Module], float] | None = None
    ignore_label: int = IGNORE


def train_decoder(
    decoder: nn.Module, task: TrainingTask, settings: DecoderSettings, *, seed: int = 0
) -> DecoderHistory:
    """Train a decoder in place; where there is a validation score, its best epoch is kept.

    Parameters
    ----------
    decoder : nn.Module
        Maps `PatchInputs` to logits [B, C, h, w].
    task : TrainingTask
    settings : DecoderSettings
    seed : int
        Of what is drawn while training (dropout); the global generator is left alone.

    Raises
    ------
    InputError
        If an epoch has no batch or the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _train(decoder, task, settings)


def _train(decoder: nn.Module, task: TrainingTask, settings: DecoderSettings) -> DecoderHistory:
    weights = class_weights(task.counts, settings.balance)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs)
    history, best = DecoderHistory(best_epoch=settings.epochs), None
    if task.validate is not None:
        # Some decoders start as classifiers that need no training; training has to improve on that.
        history.score[0] = _validated(decoder, task.validate)
        history.best_epoch, best = 0, deepcopy(decoder.state_dict())
    for epoch in range(1, settings.epochs + 1):
        decoder.train()
        losses = [
            _step(decoder, batch, optimiser, weights, settings.dice, task.ignore_label)
            for batch in task.batches(epoch - 1)
        ]
        if not losses or not np.isfinite(losses).all():
            raise InputError(
                "training broke off",
                f"epoch {epoch}: losses {losses[:3]}",
                "lower the learning rate, check the features",
            )
        history.loss.append(float(np.mean(losses)))
        schedule.step()
        if task.validate is not None and (epoch % settings.validate_every == 0 or epoch == settings.epochs):
            history.score[epoch] = _validated(decoder, task.validate)
            if history.score[epoch] > history.best_score:
                best, history.best_epoch = deepcopy(decoder.state_dict()), epoch
    if best is not None:
        decoder.load_state_dict(best)
    decoder.eval()
    return history


@dataclass(frozen=True)
class Trial:
    """One candidate of `tune_decoder`, trained.

    Attributes
    ----------
    settings : DecoderSettings
    history : DecoderHistory
    state : dict of str to Tensor
        The decoder's state at its best epoch.
    """

    settings: DecoderSettings
    history: DecoderHistory
    state: dict[str, Tensor]


def tune_decoder(
    build: Callable[[], nn.Module],
    task: TrainingTask,
    candidates: Sequence[DecoderSettings],
    *,
    seed: int = 0,
    done: Sequence[Trial] = (),
    on_trial: Callable[[Trial], None] | None = None,
) -> tuple[nn.Module, Trial, list[Trial]]:
    """Train a decoder under each of several settings and return the one the validation part prefers.

    Parameters
    ----------
    build : callable
        Returns a fresh decoder, the same each time.
    task : TrainingTask
        With a validation score.
    candidates : sequence of DecoderSettings
        Among equals the first wins.
    seed : int
    done : sequence of Trial
        Candidates trained before an interruption, the first ones in order; they are not trained again.
    on_trial : callable, optional
        Called with each trial as it is finished.

    Returns
    -------
    decoder : nn.Module
        The winner.
    winner : Trial
    trials : list of Trial
        All candidates in order.

    Raises
    ------
    InputError
        If there is no candidate or no validation score, or what was done before is not how the candidates begin.
    """
    trials = list(done)
    if not candidates or task.validate is None:
        raise InputError(
            "there is nothing to tune by",
            f"{len(candidates)} candidates, validation: {task.validate}",
            "pass at least one DecoderSettings and a validation score",
        )
    if [trial.settings for trial in trials] != list(candidates[: len(trials)]):
        raise InputError("other settings were tried before", f"{len(trials)} trials", "start the tuning afresh")
    for settings in candidates[len(trials) :]:
        decoder = build()
        history = train_decoder(decoder, task, settings, seed=seed)
        trials.append(Trial(settings, history, decoder.state_dict()))
        if on_trial is not None:
            on_trial(trials[-1])
    winner = max(trials, key=lambda trial: trial.history.best_score)
    decoder = build()
    decoder.load_state_dict(winner.state)
    return decoder.eval(), winner, trials


def _validated(decoder: nn.Module, validate: Callable[[nn.Module], float]) -> float:
    decoder.eval()
    return validate(decoder)


@torch.no_grad()
def score_decoder(
    decoder: nn.Module, batches: Iterable[SegmentationBatch], n_classes: int, ignore_label: int = IGNORE
) -> SegmentationScores:
    """Return the scores of a decoder's label maps at the masks' resolution, image by image."""
    scores = SegmentationScores(n_classes, ignore_label)
    for inputs, masks in batches:
        labels = upsample(decoder(inputs), (masks.shape[1], masks.shape[2])).argmax(1)
        for guess, truth in zip(labels.numpy(force=True), masks.numpy(force=True), strict=True):
            scores.update(guess, truth)
    return scores


def _step(
    decoder: nn.Module,
    batch: SegmentationBatch,
    optimiser: torch.optim.Optimizer,
    weights: Tensor | None,
    dice: float,
    ignore_label: int,
) -> float:
    """Take one step and return the loss."""
    logits = upsample(decoder(batch.inputs), (batch.masks.shape[1], batch.masks.shape[2]))
    loss = pixel_loss(logits, batch.masks, weights, dice=dice, ignore_label=ignore_label)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return float(loss.detach())
