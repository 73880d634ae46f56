"""The tasks the probes are learned on before they are frozen.

`ImageProxy` classifies z itself through a linear head: a loss on Z alone leaves W_out without a gradient and
z uninformative. `PixelProxy` classifies pixels, where label maps exist, and class presence from z. A proxy is
a module that turns a batch into a loss and counts its own score.
"""

from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
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
    needs_grid: bool

    def evaluate(self, distiller: Distiller, batch: ProxyBatch) -> tuple[Tensor, Tensor]:
        """Return the mean loss of a batch, a scalar, and the predictions the meter takes."""

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

    needs_grid = False

    def __init__(self, n_classes: int, n_nodes: int, *, multi_label: bool = False):
        super().__init__()
        if n_classes < 2 and not multi_label:
            raise InputError("the proxy task needs at least two classes", f"{n_classes} class", "give labels of more")
        self.multi_label = multi_label
        self.score_name = "mean average precision" if multi_label else "accuracy"
        self.head = nn.Linear(n_nodes, n_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, z: Tensor) -> Tensor:
        """Return class logits [B, C] of z [B, p]."""
        return self.head(z)

    def evaluate(self, distiller: Distiller, batch: ProxyBatch) -> tuple[Tensor, Tensor]:
        """Return the mean (binary) cross-entropy and the class logits [B, C]."""
        logits = self.head(distiller.pool(batch.patches, batch.valid)[1])
        if self.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, batch.targets.to(logits.dtype)), logits
        return functional.cross_entropy(logits, batch.targets.long()), logits

    def meter(self) -> Meter:
        """Return a meter of accuracy, or of mean average precision over the classes present."""
        return PrecisionMeter() if self.multi_label else AccuracyMeter()


class PixelProxy(nn.Module):
    """Pixel-wise cross-entropy of A^T Z W_cls, upsampled to the label maps, and class presence from z.

    Node scores Z W_cls [p, C] are projected back onto the patches, which is cheaper than projecting Z. This loss
    leaves W_out without a gradient, so a second one classifies z: which classes the label map contains.

    Parameters
    ----------
    n_classes : int
        C.
    n_nodes, d_k : int
        p and the width of Z.
    grid : tuple of int
        Rows and columns of the patch grid, the same for all samples.
    ignore_label : int
        Pixels of this label count nowhere.
    class_weights : ndarray, [C], optional
        Weight of the pixels of each class (`balanced_weights`).
    presence_weight : float
        Weight of the loss on z.
    """

    needs_grid = True

    def __init__(
        self,
        n_classes: int,
        n_nodes: int,
        d_k: int,
        grid: tuple[int, int],
        *,
        ignore_label: int = 255,
        class_weights: np.ndarray | None = None,
        presence_weight: float = 1.0,
    ):
        super().__init__()
        self.n_classes, self.grid, self.ignore_label = n_classes, grid, ignore_label
        self.presence_weight = presence_weight
        self.score_name = "mean IoU"
        self.head, self.presence = nn.Linear(d_k, n_classes), nn.Linear(n_nodes, n_classes)
        for layer in (self.head, self.presence):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        weights = torch.ones(n_classes) if class_weights is None else torch.as_tensor(class_weights)
        self.register_buffer("class_weights", weights.to(torch.get_default_dtype()))

    def forward(self, z: Tensor) -> Tensor:
        """Return presence logits [B, C] of z [B, p]."""
        return self.presence(z)

    def evaluate(self, distiller: Distiller, batch: ProxyBatch) -> tuple[Tensor, Tensor]:
        """Return the two losses' weighted sum and the logits [B, C, H, W] at the size of the label maps.

        Raises
        ------
        InputError
            A label outside the classes, or a patch grid that is not that of the features.
        """
        targets = batch.targets.long()
        counted = targets != self.ignore_label
        self._check(targets[counted], batch.patches.shape[1])
        out = distiller(batch.patches, batch.valid)
        on_patches = out.attention.transpose(1, 2) @ self.head(out.nodes)
        coarse = on_patches.transpose(1, 2).unflatten(2, self.grid)
        logits = functional.interpolate(coarse, size=targets.shape[1:], mode="bilinear", align_corners=False)
        weights = cast(Tensor, self.class_weights)
        each = functional.cross_entropy(
            logits, targets, weight=weights, ignore_index=self.ignore_label, reduction="sum"
        )
        n_weighted = weights[targets[counted]].sum().clamp_min(torch.finfo(weights.dtype).tiny)
        present = torch.stack([(targets == c).flatten(1).any(dim=1) for c in range(self.n_classes)], dim=1)
        presence = functional.binary_cross_entropy_with_logits(self.presence(out.z), present.to(out.z.dtype))
        return each / n_weighted + self.presence_weight * presence, logits

    def meter(self) -> Meter:
        """Return a meter of mean intersection over union."""
        return IntersectionMeter(self.n_classes, self.ignore_label)

    def _check(self, labels: Tensor, n_patches: int) -> None:
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.n_classes:
            raise InputError(
                "a label map holds values that are no class",
                f"values {int(labels.min())} to {int(labels.max())}, {self.n_classes} classes",
                "check the dataset's classes and its ignore label",
            )
        if n_patches != self.grid[0] * self.grid[1]:
            raise InputError(
                "the pixel proxy needs one patch grid for all samples",
                f"{n_patches} patches, grid {self.grid[0]} x {self.grid[1]}",
                "extract at a fixed resolution, or train the image proxy",
            )


def balanced_weights(counts: np.ndarray, power: float = 0.5) -> np.ndarray:
    """Return class weights proportional to frequency ** -power, with mean one over the pixels.

    Parameters
    ----------
    counts : ndarray, [C]
        Pixels of each class in the training part; a class without pixels gets weight zero.
    power : float
        0 weighs all pixels alike, 1 all classes; 0.5 is between.
    """
    counts = np.asarray(counts, dtype=np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1.0) ** -power, 0.0)
    return weights * counts.sum() / (weights * counts).sum()


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


class IntersectionMeter:
    """Mean intersection over union of the classes that occur in truth or prediction."""

    def __init__(self, n_classes: int, ignore_label: int):
        self._n_classes, self._ignore_label = n_classes, ignore_label
        self._confusion = np.zeros((n_classes, n_classes), dtype=np.int64)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Take logits [B, C, H, W] and label maps [B, H, W]."""
        counted = targets != self._ignore_label
        pairs = targets[counted].long() * self._n_classes + logits.argmax(dim=1)[counted]
        self._confusion += np.bincount(pairs.cpu().numpy(), minlength=self._n_classes**2).reshape(self._confusion.shape)

    def value(self) -> float:
        """Return the mean IoU; 0 where no pixel counted."""
        hits = np.diag(self._confusion)
        union = self._confusion.sum(axis=0) + self._confusion.sum(axis=1) - hits
        return float(np.mean(hits[union > 0] / union[union > 0])) if union.any() else 0.0
