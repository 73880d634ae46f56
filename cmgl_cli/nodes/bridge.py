"""From the tokens of a text encoder to the nodes of images: a linear bridge.

Tokens of a text encoder are no patches of the image encoder, so the probes cannot look at them. A linear map B from
token to patch space is learned on the task that the probes were learned on: through the frozen probes and the frozen
proxy head, a text shall be recognised as its class. Node i then looks for the same thing in both modalities, as far as
such a map exists (ours; the paper does not say how it joined its heterogeneous encoders).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cmgl_cli.nodes.distillation import Distiller
from cmgl_cli.nodes.training import validation_split

HELD_OUT = 0.2
STEPS, PATIENCE = 300, 40
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 0.05


@dataclass(frozen=True)
class Bridged:
    """What the probes see in texts.

    Attributes
    ----------
    attention : list of ndarray, [p, tokens]
        Of every text; rows sum to one.
    accuracy : float
        Share of held-out texts that are recognised as their class.
    steps : int
        Gradient steps until the held-out loss was least.
    """

    attention: list[np.ndarray]
    accuracy: float
    steps: int


def bridge(
    tokens: Sequence[np.ndarray],
    labels: np.ndarray,
    distiller: Distiller,
    head: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> Bridged:
    """Learn the map and apply the frozen probes through it.

    Parameters
    ----------
    tokens : sequence of ndarray, [tokens, width]
        One a text; lengths differ.
    labels : ndarray of int, [texts]
    distiller : Distiller
        Trained on images; left as it is.
    head : (ndarray [C, p], ndarray [C])
        The proxy's linear layer on z.
    seed : int
        Of the initial map and of which fifth of the texts is held out.
    """
    values, valid = _padded(tokens)
    targets = torch.as_tensor(labels, dtype=torch.long)
    train, held_out = validation_split(labels, HELD_OUT, seed)
    real = values[torch.as_tensor(train)][valid[torch.as_tensor(train)]]
    values = (values - real.mean(0)) / real.std(0).clamp_min(1e-6)
    weight, bias = (torch.as_tensor(array, dtype=torch.float32) for array in head)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(values.shape[2], distiller.width, generator=generator) / values.shape[2] ** 0.5
    mapping = start.requires_grad_()

    def logits(rows: np.ndarray) -> Tensor:
        return distiller.pool(_patches(values[rows], mapping, distiller), valid[rows])[1] @ weight.T + bias

    best, step = _descend(mapping, logits, targets, train, held_out)
    with torch.no_grad():
        mapping.copy_(best)
        right = (logits(held_out).argmax(1) == targets[held_out]).float().mean()
        looks = distiller.pool(_patches(values, mapping, distiller), valid)[0].numpy()
    attention = [maps[:, : len(text)] for maps, text in zip(looks, tokens, strict=True)]
    return Bridged(attention, float(right), step)


def _patches(tokens: Tensor, mapping: Tensor, distiller: Distiller) -> Tensor:
    """Return what the distiller standardises to the mapped tokens."""
    return distiller.input_mean + distiller.input_scale * (tokens @ mapping)


def _padded(tokens: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    longest = max(len(text) for text in tokens)
    values = torch.zeros(len(tokens), longest, tokens[0].shape[1])
    valid = torch.zeros(len(tokens), longest, dtype=torch.bool)
    for i, text in enumerate(tokens):
        values[i, : len(text)] = torch.as_tensor(text)
        valid[i, : len(text)] = True
    return values, valid


def _descend(
    mapping: Tensor, logits: Callable[[np.ndarray], Tensor], targets: Tensor, train: np.ndarray, held_out: np.ndarray
) -> tuple[Tensor, int]:
    """Minimise the cross-entropy of the training texts; return the map with the least held-out loss, and its step."""
    optimizer = torch.optim.AdamW([mapping], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best, least, at = mapping.detach().clone(), float("inf"), 0
    for step in range(STEPS):
        with torch.no_grad():
            loss = float(functional.cross_entropy(logits(held_out), targets[held_out]))
        if loss < least:
            best, least, at = mapping.detach().clone(), loss, step
        elif step - at >= PATIENCE:
            break
        optimizer.zero_grad()
        functional.cross_entropy(logits(train), targets[train]).backward()
        optimizer.step()
    return best, at
