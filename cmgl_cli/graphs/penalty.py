r"""The joint penalty of CM-GLasso (equation 10) and everything convex duality says about it.

For the C values x of one edge the penalty, minimised over the common part, is

    h(x) = min_t rho |t| + sum_c w_c |x_c - t|,    w_c = gamma_c W_c,

the support function of the polytope D = {d : |d_c| <= w_c, |sum_c d_c| <= rho}. The minimiser is a weighted median of
the x_c (weights w_c) and zero (weight rho). All functions work on torch tensors [C, ...], entry by entry.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_ROOT_STEPS = 60


@dataclass(frozen=True)
class Penalty:
    """Penalty levels of every entry.

    Attributes
    ----------
    specific : Tensor [C, p, p]
        gamma_c W_c; zero on the diagonal unless that is penalised.
    common : Tensor [p, p]
        rho; zero on the diagonal unless that is penalised.
    """

    specific: Tensor
    common: Tensor


def clipped_sum(values: Tensor, bound: Tensor) -> Tensor:
    """Return sum_c clip(values_c, -bound_c, bound_c)."""
    return torch.minimum(torch.maximum(values, -bound), bound).sum(0)


def prox_common(values: Tensor, penalty: Penalty, curvature: Tensor | float) -> Tensor:
    """Return the t of ``min_{t, x} rho |t| + sum_c w_c |x_c - t| + curvature_c (x_c - values_c)^2 / 2``.

    With x eliminated the slope in t is ``rho sign(t) - sum_c clip(curvature_c (values_c - t), +-w_c)``, increasing and
    piecewise linear: safeguarded Newton from t = 0 ends at its exact root.
    """
    bound, rho = penalty.specific, penalty.common
    at_zero = clipped_sum(curvature * values, bound)
    active = at_zero.abs() > rho
    target = torch.sign(at_zero) * rho
    low = torch.minimum(values.amin(0), torch.zeros_like(rho))
    high = torch.maximum(values.amax(0), torch.zeros_like(rho))
    t = torch.zeros_like(target)
    rounding = 4 * torch.finfo(t.dtype).eps
    for _ in range(MAX_ROOT_STEPS):
        pull = curvature * (values - t)
        clipped = torch.minimum(torch.maximum(pull, -bound), bound)
        excess = clipped.sum(0) - target
        open_ = active & (excess.abs() > rounding * (clipped.abs().sum(0) + rho))
        if not bool(open_.any()):
            break
        slope = torch.where(pull.abs() < bound, curvature * torch.ones_like(pull), torch.zeros_like(pull)).sum(0)
        low = torch.where(excess > 0, t, low)
        high = torch.where(excess < 0, t, high)
        newton = t + excess / slope.clamp_min(torch.finfo(t.dtype).tiny)
        inside = (newton > low) & (newton < high) & (slope > 0)
        step = torch.where(inside, newton, (low + high) / 2)
        t = torch.where(open_, step, t)
    return t


def prox(values: Tensor, penalty: Penalty, curvature: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return common part [...] and specific parts [C, ...] of the proximal point of h at ``values`` [C, ...]."""
    common = prox_common(values, penalty, curvature)
    shifted = values - common
    return common, torch.sign(shifted) * (shifted.abs() - penalty.specific / curvature).clamp_min(0)


def project_dual(values: Tensor, penalty: Penalty) -> Tensor:
    """Return the nearest point of D, entry by entry: by Moreau, values - prox_h(values)."""
    common = prox_common(values, penalty, 1.0)
    return torch.minimum(torch.maximum(values - common, -penalty.specific), penalty.specific)


def split(values: Tensor, penalty: Penalty) -> tuple[Tensor, Tensor]:
    """Split x [C, ...] into common and specific parts of least penalty; ties take the median of least magnitude."""
    weight, rho = penalty.specific, penalty.common
    lead = torch.where(values > 0, weight, -weight)
    lead = torch.where(values == 0, torch.zeros_like(weight), lead).sum(0)
    slack = rho + torch.where(values == 0, weight, torch.zeros_like(weight)).sum(0)
    side = torch.sign(lead)
    mirrored = values * side
    order = torch.argsort(mirrored, dim=0)
    ordered = torch.take_along_dim(mirrored, order, 0)
    below = torch.cumsum(torch.take_along_dim(weight, order, 0), 0)
    settled = (rho - (below[-1] - below) + below >= 0) & (ordered > 0)
    first = torch.argmax(settled.to(torch.int8), dim=0, keepdim=True)
    median = torch.take_along_dim(ordered, first, 0)[0] * side
    common = torch.where((lead.abs() > slack) & settled.any(0), median, torch.zeros_like(median))
    return common, values - common


def value(common: Tensor, specific: Tensor, penalty: Penalty) -> Tensor:
    """Return rho ||Theta||_1 + sum_c ||w_c o S_c||_1 over the penalised entries."""
    return (penalty.common * common.abs()).sum() + (penalty.specific * specific.abs()).sum()
