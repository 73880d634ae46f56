"""Proxy training: AdamW with a cosine schedule, early stopping, and checkpoints between epochs.

On a CPU the result is a function of the seeds, the data and the settings, bit for bit for a given number of
threads (how a matrix product is split among threads changes the order of its sums). A run resumed from any
checkpoint ends in the weights of the undisturbed run: the order of an epoch depends on its number alone.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.nodes.distillation import Distiller
from cmgl_cli.nodes.proxies import Proxy, ProxyBatch
from cmgl_cli.nodes.reader import Batch, BlockShuffledReader

CURVES = ("learning_rate", "train_loss", "validation_loss", "validation_score")
STANDARDISATION_SAMPLES = 1024


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast.

    Attributes
    ----------
    epochs : int
        Most passes over the training part, and the length of the cosine schedule.
    learning_rate : float
        Peak of the schedule.
    weight_decay : float
        Of AdamW, decoupled.
    patience : int
        Epochs without a better validation loss before stopping.
    warmup : float
        Share of all steps during which the rate rises linearly.
    patch_keep : float
        Share of the patches that a training step sees, the same random ones for the whole batch: it keeps the
        probes from relying on a few patches, and saves as much time. Proxies that need the whole grid ignore it.
    """

    epochs: int = 30
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    patience: int = 8
    warmup: float = 0.05
    patch_keep: float = 0.5

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "learning_rate"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be positive", f"{name} = {getattr(self, name)}", f"give a larger {name}")
        if self.weight_decay < 0 or not 0 <= self.warmup < 1 or not 0 < self.patch_keep <= 1:
            raise UsageError(
                "weight_decay must not be negative, warmup lies in [0, 1), patch_keep in (0, 1]",
                f"weight_decay = {self.weight_decay}, warmup = {self.warmup}, patch_keep = {self.patch_keep}",
                "correct the setting",
            )


@dataclass(frozen=True)
class ProxyData:
    """What the proxy is trained and judged on.

    Attributes
    ----------
    train, validation : BlockShuffledReader
        Features, with the aligned source ``valid`` where patches are padded.
    labels : ndarray, [N] or [N, C], or None
        Class numbers or presences by row number; None takes the aligned source ``mask`` as target.
    """

    train: BlockShuffledReader
    validation: BlockShuffledReader
    labels: np.ndarray | None = None

    def tensors(self, batch: Batch, device: torch.device, keep: np.ndarray | None = None) -> ProxyBatch:
        """Return a batch with its targets as tensors on `device`, of the patches `keep` only where given.

        All patches are kept where a sample would be left without a valid one.
        """
        patches, valid = batch.patches, batch.aligned.get("valid")
        if keep is not None and (valid is None or valid[:, keep].any(axis=1).all()):
            patches, valid = patches[:, keep], None if valid is None else valid[:, keep]
        targets = batch.aligned["mask"] if self.labels is None else self.labels[batch.indices]
        return ProxyBatch(
            torch.from_numpy(patches).to(device),
            None if valid is None else torch.from_numpy(valid).to(device, torch.bool),
            torch.as_tensor(targets).to(device),
        )


@dataclass(frozen=True)
class TrainingHistory:
    """One value an epoch.

    Attributes
    ----------
    learning_rate, train_loss, validation_loss, validation_score : ndarray of float64, [n_epochs]
        The rate at the end of the epoch, losses per sample, and the proxy's own score.
    best_epoch : int
        The epoch (from 0) whose weights are returned.
    stopped_early : bool
        Whether patience ran out.
    """

    learning_rate: np.ndarray
    train_loss: np.ndarray
    validation_loss: np.ndarray
    validation_score: np.ndarray
    best_epoch: int
    stopped_early: bool

    @property
    def best_score(self) -> float:
        """The validation score of the returned weights."""
        return float(self.validation_score[self.best_epoch])


@dataclass(frozen=True)
class TrainingResult:
    """Trained copies of what was passed in, in evaluation mode, and how it went."""

    distiller: Distiller
    proxy: nn.Module
    history: TrainingHistory


def train_proxy(
    distiller: Distiller,
    proxy: nn.Module,
    data: ProxyData,
    settings: TrainingSettings = TrainingSettings(),  # noqa: B008 (frozen)
    *,
    resume: Mapping[str, np.ndarray] | None = None,
    on_epoch: Callable[[dict[str, np.ndarray]], None] | None = None,
) -> TrainingResult:
    """Train probes and head on the proxy task; the arguments are left as they are.

    The patches are standardised with the statistics of the first 1,024 training samples of epoch 0. Parameters that
    require no gradient are left as they are.

    Parameters
    ----------
    distiller, proxy
        Initial weights, on the device to train on. `proxy` fulfils `proxies.Proxy`.
    data : ProxyData
        Training and validation part.
    settings : TrainingSettings
        Schedule.
    resume : mapping of str to ndarray, optional
        A checkpoint of the same run, as given to `on_epoch`.
    on_epoch : callable, optional
        Called after every epoch with a checkpoint, a dict of arrays.

    Returns
    -------
    TrainingResult
        The weights of the epoch with the smallest validation loss.

    Raises
    ------
    InputError
        Features that are not finite, or a checkpoint of another run.
    """
    run = _Run(distiller, proxy, data, settings)
    if resume is None:
        run.distiller.set_standardisation(*patch_statistics(data.train, STANDARDISATION_SAMPLES))
    else:
        run.load(resume)
    while not run.finished:
        run.train_epoch()
        run.validate()
        if on_epoch is not None:
            on_epoch(run.to_arrays())
    return run.result()


def patch_statistics(reader: BlockShuffledReader, max_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return channel means and standard deviations [d] of the valid patches, float64; 1 for a constant channel."""
    n, n_samples = 0, 0
    mean = m2 = np.zeros(1)
    for batch in reader.epoch(0):
        valid = batch.aligned.get("valid")
        patches = batch.patches[valid.astype(bool)] if valid is not None else batch.patches
        patches = patches.reshape(-1, patches.shape[-1]).astype(np.float64)
        batch_mean, count = patches.mean(axis=0), len(patches)
        delta = batch_mean - mean
        m2 = m2 + ((patches - batch_mean) ** 2).sum(axis=0) + delta**2 * (n * count / (n + count))
        mean = mean + delta * (count / (n + count))
        n, n_samples = n + count, n_samples + len(batch.indices)
        if n_samples >= max_samples:
            break
    scale = np.sqrt(m2 / n)
    return mean, np.where(scale > 1e-6 * (np.abs(mean) + 1e-12), scale, 1.0)


def validation_split(
    labels: np.ndarray, fraction: float, seed: int, *, max_samples: int = 10_000
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into a training and a validation part.

    Parameters
    ----------
    labels : ndarray, [N] or [N, C]
        Class numbers, split class by class, or presences, split at random.
    fraction : float
        Share of the validation part, in (0, 1).
    seed : int
        Seed.
    max_samples : int
        Most samples in the validation part.

    Returns
    -------
    tuple of ndarray of int64
        Ascending row numbers of the two parts. A class of one sample is trained on.

    Raises
    ------
    UsageError
        A fraction outside (0, 1).
    InputError
        Too few samples for two parts.
    """
    if not 0 < fraction < 1:
        raise UsageError("the validation part is a share", f"{fraction}", "give a number between 0 and 1")
    fraction = min(fraction, max_samples / len(labels))
    generator = np.random.default_rng(seed)
    groups = [np.arange(len(labels))] if labels.ndim == 2 else [np.flatnonzero(labels == c) for c in np.unique(labels)]
    chosen = [generator.permutation(rows)[: _share(len(rows), fraction)] for rows in groups]
    validation = np.sort(np.concatenate(chosen))
    if len(validation) == 0:
        raise InputError("no class has two samples to split", f"{len(labels)} samples", "give more samples a class")
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def _share(n: int, fraction: float) -> int:
    return 0 if n < 2 else max(1, round(n * fraction))


class _Run:
    """The state of a training run between epochs, and the two halves of an epoch."""

    def __init__(self, distiller: Distiller, proxy: nn.Module, data: ProxyData, settings: TrainingSettings):
        self.distiller, self.proxy = copy.deepcopy(distiller).train(), copy.deepcopy(proxy).train()
        self.data, self.settings = data, settings
        self.device = distiller.query.device
        self.modules = {"distiller": self.distiller, "proxy": self.proxy}
        self.parameters = {
            f"{owner}/{name}": parameter
            for owner, module in self.modules.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.curves: dict[str, list[float]] = {name: [] for name in CURVES}
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0

    @property
    def epoch(self) -> int:
        return len(self.curves["train_loss"])

    @property
    def stopped(self) -> bool:
        return self.epoch - 1 - self.best_epoch >= self.settings.patience

    @property
    def finished(self) -> bool:
        return self.epoch >= self.settings.epochs or self.stopped

    @property
    def task(self) -> Proxy:
        return cast(Proxy, self.proxy)

    def train_epoch(self) -> None:
        epoch, total, n = self.epoch, 0.0, 0
        for i, batch in enumerate(self.data.train.epoch(epoch)):
            self._set_rate(epoch * len(self.data.train) + i)
            tensors = self.data.tensors(batch, self.device, self._kept_patches(epoch, i, batch.patches.shape[1]))
            loss, _ = self.task.evaluate(self.distiller, tensors)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise InputError(
                    "the proxy loss is not finite",
                    f"epoch {epoch}, rows {batch.indices.min()} to {batch.indices.max()}: loss {value}",
                    "look for NaN in the features of these rows, or lower the learning rate",
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total, n = total + value * len(batch.indices), n + len(batch.indices)
        self.curves["train_loss"].append(total / n)
        self.curves["learning_rate"].append(self.optimizer.param_groups[0]["lr"])

    @torch.no_grad()
    def validate(self) -> None:
        total, n, meter = 0.0, 0, self.task.meter()
        for batch in self.data.validation.epoch():
            tensors = self.data.tensors(batch, self.device)
            loss, logits = self.task.evaluate(self.distiller, tensors)
            total += float(loss) * len(batch.indices)
            n += len(batch.indices)
            meter.update(logits, tensors.targets)
        self.curves["validation_loss"].append(total / n)
        self.curves["validation_score"].append(meter.value())
        if not self.best or total / n < self.curves["validation_loss"][self.best_epoch]:
            self.best_epoch = self.epoch - 1
            self.best = {name: tensor.detach().clone() for name, tensor in self._weights().items()}

    def _kept_patches(self, epoch: int, step: int, n_patches: int) -> np.ndarray | None:
        n_kept = max(1, round(n_patches * self.settings.patch_keep))
        if self.task.needs_grid or n_kept == n_patches:
            return None
        generator = np.random.default_rng([self.data.train.seed, epoch, step])
        return np.sort(generator.permutation(n_patches)[:n_kept])

    def _set_rate(self, step: int) -> None:
        n_steps = self.settings.epochs * len(self.data.train)
        n_warmup = self.settings.warmup * n_steps
        rising = min(1.0, (step + 1) / n_warmup) if n_warmup >= 1 else 1.0
        falling = 0.5 * (1 + math.cos(math.pi * max(0.0, step - n_warmup) / (n_steps - n_warmup)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * rising * falling

    def _weights(self) -> dict[str, Tensor]:
        return {
            f"{owner}/{name}": tensor
            for owner, module in self.modules.items()
            for name, tensor in module.state_dict().items()
        }

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return everything the rest of the run depends on."""
        tensors = {f"weights/{name}": tensor for name, tensor in self._weights().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        for name, parameter in self.parameters.items():
            for key, tensor in self.optimizer.state[parameter].items():
                tensors[f"optimizer/{key}/{name}"] = tensor
        arrays = {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}
        arrays |= {f"curves/{name}": np.array(values) for name, values in self.curves.items()}
        arrays["best_epoch"] = np.array(self.best_epoch)
        return arrays

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from a checkpoint."""
        try:
            tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
            for owner, module in self.modules.items():
                names = module.state_dict()
                module.load_state_dict({name: tensors[f"weights/{owner}/{name}"] for name in names})
            self.best = {name: tensors[f"best/{name}"].to(self.device) for name in self._weights()}
            for name, parameter in self.parameters.items():
                keys = ("step", "exp_avg", "exp_avg_sq")
                state = {key: tensors[f"optimizer/{key}/{name}"] for key in keys}
                self.optimizer.state[parameter] = {
                    key: tensor if key == "step" else tensor.to(self.device) for key, tensor in state.items()
                }
            self.curves = {name: [float(value) for value in arrays[f"curves/{name}"]] for name in CURVES}
            self.best_epoch = int(arrays["best_epoch"])
        except (KeyError, RuntimeError) as error:
            raise InputError(
                "the checkpoint does not belong to this training run", str(error), "delete it and start afresh"
            ) from error

    def result(self) -> TrainingResult:
        for owner, module in self.modules.items():
            module.load_state_dict({name: self.best[f"{owner}/{name}"] for name in module.state_dict()})
        curves = {name: np.array(values) for name, values in self.curves.items()}
        history = TrainingHistory(**curves, best_epoch=self.best_epoch, stopped_early=self.stopped)
        return TrainingResult(self.distiller.eval(), self.proxy.eval(), history)
