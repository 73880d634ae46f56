"""The tasks the probes are learned on before they are frozen.

`ImageProxy` classifies z itself through a linear head: a loss on Z alone leaves W_out without a gradient and
z uninformative. A proxy is a module that turns a batch into a loss and counts its own score.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.nn import functional

from cmgl_cli.errors import InputError
from cmgl_cli.nodes.distillation import Distiller


@dataclass(frozen=True)
class ProxyBatch:
    """Tensors of a batch on the device of the distiller.

    Attributes
    ----------
    patches : Tensor, [B, N_p, d]
        Patch tokens.
    valid : Tensor of bool, [B, N_p], or None
        False for padding.
    targets : Tensor
        What the proxy predicts: class numbers [B], class presence [B, C] or label maps [B, H, W].
    """

    patches: Tensor
    valid: Tensor | None
    targets: Tensor


class Meter(Protocol):
    """Accumulates predictions and returns one score in [0, 1], larger is better."""

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Take the predictions of a batch."""

    def value(self) -> float:
        """Return the score of everything seen."""


class Proxy(Protocol):
    """What `train_proxy` needs of a task; implemented by modules, whose parameters are trained along."""

    score_name: str

    def logits(self, distiller: Distiller, batch: ProxyBatch) -> Tensor:
        """Return the predictions of a batch."""

    def loss(self, logits: Tensor, batch: ProxyBatch) -> Tensor:
        """Return the mean loss over the batch, a scalar."""

    def meter(self) -> Meter:
        """Return a fresh meter."""


class ImageProxy(nn.Module):
    """Linear classification of z: cross-entropy, or binary cross-entropy a class for multi-label sets.

    Parameters
    ----------
    n_classes : int
        C.
    n_nodes : int
        p.
    multi_label : bool
        Whether a sample belongs to any number of classes; targets are then [B, C] of 0 and 1.
    """

    def __init__(self, n_classes: int, n_nodes: int, *, multi_label: bool = False):
        super().__init__()
        if n_classes < 2 and not multi_label:
            raise InputError("The proxy task needs at least two classes.", f"{n_classes} class", "Give labels of more.")
        self.multi_label = multi_label
        self.score_name = "mean average precision" if multi_label else "accuracy"
        self.head = nn.Linear(n_nodes, n_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, z: Tensor) -> Tensor:
        """Return class logits [B, C] of z [B, p]."""
        return self.head(z)

    def logits(self, distiller: Distiller, batch: ProxyBatch) -> Tensor:
        """Return class logits [B, C] of a batch."""
        return self.head(distiller.pool(batch.patches, batch.valid)[1])

    def loss(self, logits: Tensor, batch: ProxyBatch) -> Tensor:
        """Return the mean (binary) cross-entropy."""
        if self.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, batch.targets.to(logits.dtype))
        return functional.cross_entropy(logits, batch.targets.long())

    def meter(self) -> Meter:
        """Return a meter of accuracy, or of mean average precision over the classes present."""
        return PrecisionMeter() if self.multi_label else AccuracyMeter()


class AccuracyMeter:
    """Share of samples whose largest logit is the target's."""

    def __init__(self) -> None:
        self._correct = self._n = 0

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Take logits [B, C] and class numbers [B]."""
        self._correct += int((logits.argmax(dim=1) == targets).sum())
        self._n += len(targets)

    def value(self) -> float:
        """Return the accuracy."""
        return self._correct / self._n


class PrecisionMeter:
    """Mean average precision over the classes that occur."""

    def __init__(self) -> None:
        self._logits: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Take logits [B, C] and presence [B, C]."""
        self._logits.append(logits.detach().cpu().numpy())
        self._targets.append(targets.cpu().numpy())

    def value(self) -> float:
        """Return the mean average precision."""
        scores, truth = np.concatenate(self._logits), np.concatenate(self._targets) > 0
        present = truth.any(axis=0)
        return float(average_precision_score(truth[:, present], scores[:, present], average="macro"))
