"""The checks of the input of `fit_joint`: whatever passes here is a problem that the solvers can take."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmgl_cli.errors import InputError
from cmgl_cli.graphs.audit import admissible
from cmgl_cli.graphs.certificate import Problem
from cmgl_cli.graphs.penalty import Penalty


def make_problem(  # noqa: PLR0913
    covariances: Any,
    weights: Any,
    rho: float,
    gamma: Any,
    penalize_diagonal: bool = False,
    class_weights: Any = None,
    ridge: float = 0.0,
    weight_floor: float = 0.0,
) -> Problem:
    """Check the input of `fit_joint` and return it as a `Problem` of tensors."""
    if isinstance(covariances, np.ndarray) and not penalize_diagonal and class_weights is None:
        problem = _plain_problem(covariances, weights, rho, gamma, ridge, weight_floor)
        if problem is not None:
            return problem
    covariance = _covariances(covariances, ridge)
    n_classes, p = covariance.shape[:2]
    weight = _weights(weights, covariance).clamp_min(weight_floor)
    level = _levels(gamma, n_classes, "gamma", covariance)
    common = torch.full(
        (p, p), float(_levels(rho, 1, "rho", covariance)[0]), dtype=covariance.dtype, device=covariance.device
    )
    specific = weight * level[:, None, None]
    if not penalize_diagonal:
        specific.diagonal(dim1=1, dim2=2).zero_()
        common.fill_diagonal_(0.0)
    alpha = torch.ones(n_classes, dtype=covariance.dtype, device=covariance.device)
    if class_weights is not None:
        alpha = _levels(class_weights, n_classes, "class_weights", covariance)
        if bool((alpha <= 0).any()):
            raise InputError(
                "class weights must be positive",
                f"class {int(alpha.argmin())}: {float(alpha.min()):g}",
                "drop the class or weight it",
            )
    return Problem(covariance, Penalty(specific, common), alpha)


def _plain_problem(
    covariances: np.ndarray, weights: Any, rho: Any, gamma: Any, ridge: float, weight_floor: float
) -> Problem | None:
    """Return the problem by the compiled checks, or None where the input is of another kind or anything is amiss."""
    sigma = covariances[None] if covariances.ndim == 2 else covariances
    if sigma.dtype != np.float64 or sigma.ndim != 3 or sigma.shape[1] != sigma.shape[2] or sigma.size == 0:
        return None
    n_classes, p = sigma.shape[:2]
    weight, level = np.asarray(weights), np.asarray(gamma, dtype=np.float64).reshape(-1)
    weight = weight[None] if weight.ndim == 2 else weight
    fits = weight.ndim == 0 or weight.shape in ((1, p, p), sigma.shape)
    if not fits or len(level) not in (1, n_classes) or np.ndim(rho) != 0:
        return None
    if not (0 <= rho < np.inf and ridge >= 0 and 0 <= level.min() and level.max() < np.inf):
        return None
    weight = np.ascontiguousarray(np.broadcast_to(weight, weight.shape or (1, p, p)), dtype=np.float64)
    level = np.full(n_classes, level[0]) if len(level) == 1 else level
    out, specific, common = np.empty((n_classes, p, p)), np.empty((n_classes, p, p)), np.full((p, p), float(rho))
    contiguous = np.ascontiguousarray(sigma)
    if not admissible(contiguous, weight, float(ridge), float(weight_floor), level, out, specific):
        return None
    diagonal = np.arange(p)
    common[diagonal, diagonal] = 0.0
    specific[:, diagonal, diagonal] = 0.0
    alpha = torch.ones(n_classes, dtype=torch.float64)
    penalty = Penalty(torch.from_numpy(specific), torch.from_numpy(common))
    return Problem(torch.from_numpy(out), penalty, alpha, positive=True)


def _tensor(array: Any) -> Tensor:
    tensor = array.detach() if isinstance(array, Tensor) else torch.from_numpy(np.array(array, order="C"))
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.double()


def _covariances(array: Any, ridge: float) -> Tensor:
    covariance = _tensor(array)
    covariance = covariance[None] if covariance.ndim == 2 else covariance
    if covariance.ndim != 3 or covariance.shape[1] != covariance.shape[2] or covariance.numel() == 0:
        raise InputError("expected square covariances", f"shape {tuple(covariance.shape)}", "pass an array [C, p, p]")
    _require_finite(covariance, "covariance")
    variance = torch.diagonal(covariance, dim1=1, dim2=2)
    if bool((variance <= 0).any()):
        label, node = (int(i) for i in (variance <= 0).nonzero()[0])
        raise InputError(
            "a node has no variance",
            f"class {label}, node {node}: variance {float(variance[label, node]):g}",
            "drop the node or the class",
        )
    single = covariance.dtype == torch.float32
    size = float(variance.max())
    asymmetry = (covariance - covariance.transpose(1, 2)).abs().amax((1, 2))
    if float(asymmetry.max()) > (1e-5 if single else 1e-10) * size:
        raise InputError(
            "a covariance is not symmetric",
            f"class {int(asymmetry.argmax())}: largest difference {float(asymmetry.max()):.3g}",
            "pass (S + S.T) / 2",
        )
    covariance = (covariance + covariance.transpose(1, 2)) / 2
    _require_psd(covariance, (1e-5 if single else 1e-8) * size)
    if ridge < 0:
        raise InputError("the ridge must not be negative", f"ridge = {ridge}", "use 0 or more")
    return covariance + ridge * torch.eye(covariance.shape[1], dtype=covariance.dtype, device=covariance.device)


def _require_psd(covariance: Tensor, slack: float) -> None:
    lifted = covariance + slack * torch.eye(covariance.shape[1], dtype=covariance.dtype, device=covariance.device)
    if bool((torch.linalg.cholesky_ex(lifted).info != 0).any()):
        smallest = torch.linalg.eigvalsh(covariance)[:, 0]
        raise InputError(
            "a covariance is not positive semi-definite",
            f"class {int(smallest.argmin())}: eigenvalue {float(smallest.min()):.3g}",
            "pass a covariance, or project it",
        )


def _require_finite(values: Tensor, name: str) -> None:
    if not bool(torch.isfinite(values).all()):
        where = tuple(int(i) for i in (~torch.isfinite(values)).nonzero()[0])
        raise InputError(
            f"{name} is not finite", f"entry {where}: {float(values[where])}", "remove the samples that made it"
        )


def _weights(array: Any, covariance: Tensor) -> Tensor:
    weight = torch.as_tensor(
        array.detach() if isinstance(array, Tensor) else np.asarray(array),
        dtype=covariance.dtype,
        device=covariance.device,
    )
    if (
        weight.ndim not in (0, 2, 3)
        or (weight.ndim and weight.shape[-2:] != covariance.shape[-2:])
        or (weight.ndim == 3 and len(weight) not in (1, len(covariance)))
    ):
        raise InputError(
            "weights do not fit the covariances",
            f"shape {tuple(weight.shape)} against {tuple(covariance.shape)}",
            "pass [C, p, p], [p, p] or a number",
        )
    weight = weight.expand(covariance.shape).clone()
    _require_finite(weight, "weight")
    if float(weight.min()) < 0 or float(weight.max()) > 1:
        raise InputError(
            "weights must lie in [0, 1]",
            f"range {float(weight.min()):g}..{float(weight.max()):g}",
            "scale gamma, not the weights",
        )
    if float((weight - weight.transpose(1, 2)).abs().max()) > 1e-6:
        raise InputError(
            "weights are not symmetric",
            f"largest difference {float((weight - weight.transpose(1, 2)).abs().max()):.3g}",
            "pass (W + W.T) / 2",
        )
    return (weight + weight.transpose(1, 2)) / 2


def _levels(number: Any, length: int, name: str, like: Tensor) -> Tensor:
    level = torch.as_tensor(
        number.detach() if isinstance(number, Tensor) else np.asarray(number, dtype=np.float64),
        dtype=like.dtype,
        device=like.device,
    )
    if level.numel() not in (1, length) or not bool(torch.isfinite(level).all()) or float(level.min()) < 0:
        raise InputError(
            f"{name} must be finite and not negative", f"{name} = {number}", f"pass a number or {length} numbers >= 0"
        )
    return level.reshape(-1).expand(length).clone()
