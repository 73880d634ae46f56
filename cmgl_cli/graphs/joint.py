"""Joint estimation of common and class-specific precision matrices: checks, screening, the choice of solver."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmgl_cli.errors import InputError, UsageError, suggest
from cmgl_cli.graphs.ablations import independent_problem, solve_paper, solve_two_stage
from cmgl_cli.graphs.admm import Iterate, solve_admm
from cmgl_cli.graphs.certificate import Problem, certify
from cmgl_cli.graphs.descent import solve_descent
from cmgl_cli.graphs.penalty import Penalty, split
from cmgl_cli.graphs.result import JointResult
from cmgl_cli.graphs.screening import require_bounded, restrict, screen

SOLVERS = ("auto", "descent", "admm", "paper", "two-stage", "independent")


ALGORITHMS = {"descent": solve_descent, "admm": solve_admm, "paper": solve_paper, "two-stage": solve_two_stage}


@dataclass(frozen=True)
class _Job:
    """Everything a component's solve needs beside its problem."""

    solver: str
    tol: float
    max_iter: int


def fit_joint(  # noqa: PLR0913 (the published signature)
    covariances: Any,
    weights: Any,
    rho: float,
    gamma: Any,
    *,
    penalize_diagonal: bool = False,
    tol: float = 1e-6,
    max_iter: int = 5000,
    solver: str = "auto",
    initial: Any = None,
    class_weights: Any = None,
    ridge: float = 0.0,
    weight_floor: float = 0.0,
) -> JointResult:
    r"""Minimise equation (10) of CM-GLasso.

        sum_c alpha_c [tr(Sigma_c Omega_c) - logdet Omega_c] + rho ||Theta||_1 + sum_c gamma_c ||W_c o S_c||_1,
        Omega_c = Theta + S_c positive definite

    Parameters
    ----------
    covariances : array [C, p, p] or [p, p]
        Sigma_c, symmetric positive semi-definite; numpy or torch.
    weights : array [C, p, p], [p, p] or float
        W in [0, 1], symmetric; see `prior_weights`.
    rho : float
        Penalty of the common part, >= 0.
    gamma : float or array [C]
        Penalty of the specific parts, >= 0.
    penalize_diagonal : bool
        Let the norms run over the diagonal too.
    tol : float
        Certified duality gap over max(1, |objective|) at which to stop.
    max_iter : int
        Iterations allowed; a fit that needs more returns ``converged=False``.
    solver : {"auto", "descent", "admm", "paper", "two-stage", "independent"}
        ``auto`` is descent on the CPU, ADMM for a penalised diagonal, single precision or another device. ``paper`` is
        the three-block sweep, ``two-stage`` fits Theta first, ``independent`` fits every class alone (Theta = 0 off the
        diagonal, rho ignored); see docs/graphs.md.
    initial : JointResult or array [C, p, p], optional
        Warm start: a fit to nearby penalties, or positive definite precisions.
    class_weights : array [C], optional
        alpha; default ones (the paper). Pass ``C * n / n.sum()`` to weight classes by their samples.
    ridge : float
        Added to the diagonal of every covariance.
    weight_floor : float
        Weights below it are raised to it.

    Returns
    -------
    JointResult
        Arrays of the kind, dtype and device of ``covariances``.

    Raises
    ------
    InputError
        If the input is not symmetric positive semi-definite and finite, the weights leave [0, 1], or the problem is
        (or cannot be shown not to be) unbounded.
    UsageError
        If the solver is unknown.
    """
    began = time.process_time()
    if solver not in SOLVERS:
        raise UsageError("unknown solver", f"solver = {solver!r}", suggest(solver, SOLVERS))
    problem = make_problem(covariances, weights, rho, gamma, penalize_diagonal, class_weights, ridge, weight_floor)
    if solver == "independent":
        problem = independent_problem(problem)
    require_bounded(problem)
    start = _start(initial, problem)
    labels = screen(problem)
    chosen = _choose("auto" if solver == "independent" else solver, problem)
    precision, iterates = _solve_components(problem, start, labels, _Job(chosen, tol, max_iter))
    return _result(
        covariances,
        problem,
        precision,
        iterates,
        labels,
        tol,
        time.process_time() - began,
        solver if solver == "independent" else chosen,
    )


def _choose(solver: str, problem: Problem) -> str:
    """Resolve "auto": descent on the CPU, ADMM for a penalised diagonal, another device or single precision."""
    penalty = problem.penalty
    free = not bool(torch.count_nonzero(penalty.common.diagonal())) and not bool(
        torch.count_nonzero(penalty.specific.diagonal(dim1=1, dim2=2))
    )
    if solver == "descent" and not free:
        raise UsageError("descent needs an unpenalised diagonal", "penalize_diagonal = True", "use solver='admm'")
    if solver != "auto":
        return solver
    return (
        "descent"
        if free and problem.covariance.device.type == "cpu" and problem.covariance.dtype == torch.float64
        else "admm"
    )


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


def _start(initial: Any, problem: Problem) -> Tensor:
    covariance = problem.covariance
    if initial is None:
        return torch.diag_embed(1.0 / torch.diagonal(covariance, dim1=1, dim2=2))
    array = initial.precision if isinstance(initial, JointResult) else initial
    start = torch.as_tensor(array, dtype=covariance.dtype, device=covariance.device)
    start = start[None] if start.ndim == 2 else start
    if start.shape != covariance.shape:
        raise InputError(
            "the warm start does not fit the covariances",
            f"shape {tuple(start.shape)} against {tuple(covariance.shape)}",
            "pass [C, p, p]",
        )
    if bool((torch.linalg.cholesky_ex(start).info != 0).any()):
        raise InputError(
            "the warm start is not positive definite",
            f"shape {tuple(start.shape)}",
            "pass the precision of an earlier fit",
        )
    return start.clone()


def _solve_components(problem: Problem, start: Tensor, labels: np.ndarray, job: _Job) -> tuple[Tensor, list[Iterate]]:
    """Solve every component and assemble the precision; tighten a component whose share spoils the total."""
    precision = torch.zeros_like(start)
    sizes = np.bincount(labels)
    free_diagonal = (
        float(torch.diagonal(problem.penalty.common).abs().max()) == 0
        and float(torch.diagonal(problem.penalty.specific, dim1=1, dim2=2).abs().max()) == 0
    )
    single = np.flatnonzero(sizes[labels] == 1)
    blocks = [np.flatnonzero(labels == k) for k in np.flatnonzero(sizes > 1)]
    if len(single) and free_diagonal:
        precision[:, single, single] = 1.0 / problem.covariance[:, single, single]
    elif len(single):
        blocks.append(single)
    iterates = []
    for nodes in sorted(blocks, key=len, reverse=True):
        part = restrict(problem, nodes)
        grid = np.ix_(np.arange(len(start)), nodes, nodes)
        iterate = ALGORITHMS[job.solver](part, start[grid], job.tol, job.max_iter)
        precision[grid] = iterate.precision
        iterates.append(iterate)
    return precision, iterates


def _result(
    template: Any,
    problem: Problem,
    precision: Tensor,
    iterates: list[Iterate],
    labels: np.ndarray,
    tol: float,
    seconds: float,
    solver: str,
) -> JointResult:
    common, specific = split(precision, problem.penalty)
    diagonal = torch.diagonal(precision, dim1=1, dim2=2)
    free = (torch.diagonal(problem.penalty.common) == 0) & (
        torch.diagonal(problem.penalty.specific, dim1=1, dim2=2) == 0
    ).all(0)
    common.diagonal().copy_(torch.where(free, diagonal.mean(0), torch.diagonal(common)))
    specific = precision - common
    precision = common + specific
    certificate = certify(precision, problem)
    upper = torch.triu(precision != 0, 1)

    def kind(tensor: Tensor) -> Any:
        return tensor if isinstance(template, Tensor) else tensor.cpu().numpy()

    return JointResult(
        precision=kind(precision),
        common=kind(common),
        specific=kind(specific),
        objective=certificate.objective,
        dual_objective=certificate.dual_objective,
        duality_gap=certificate.gap,
        relative_gap=certificate.relative_gap,
        kkt_residual=certificate.kkt_residual,
        n_iter=max((iterate.n_iter for iterate in iterates), default=0),
        converged=certificate.relative_gap <= tol,
        solver=solver,
        edges=tuple(int(n) for n in upper.sum((1, 2))),
        components=labels,
        seconds=seconds,
        history=tuple(iterates[0].history) if iterates else (),
        tol=tol,
    )
