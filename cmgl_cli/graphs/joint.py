"""Joint estimation of common and class-specific precision matrices: checks, screening, the choice of solver."""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmgl_cli.errors import InputError, UsageError, suggest
from cmgl_cli.graphs.ablations import independent_problem, solve_paper, solve_two_stage
from cmgl_cli.graphs.admm import Iterate, solve_admm
from cmgl_cli.graphs.audit import assemble, audit, lifted_value, median
from cmgl_cli.graphs.certificate import Certificate, Problem, certify
from cmgl_cli.graphs.descent import solve_descent, solve_splitting
from cmgl_cli.graphs.inputs import make_problem
from cmgl_cli.graphs.interrupts import interrupts_deferred
from cmgl_cli.graphs.one_class import fit_one_class, near_independence, solve_active_set
from cmgl_cli.graphs.packed import pack
from cmgl_cli.graphs.penalty import split
from cmgl_cli.graphs.result import JointResult
from cmgl_cli.graphs.screening import require_bounded, restrict, screen

SOLVERS = ("auto", "active-set", "descent", "splitting", "admm", "paper", "two-stage", "independent")


ALGORITHMS = {"admm": solve_admm, "paper": solve_paper, "two-stage": solve_two_stage}
# these take and return a dual variable
DUAL_ALGORITHMS = {"active-set": solve_active_set, "descent": solve_descent, "splitting": solve_splitting}


@dataclass(frozen=True)
class _Job:
    """Everything a component's solve needs beside its problem."""

    solver: str
    tol: float
    max_iter: int


@interrupts_deferred()
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
    solver : {"auto", "active-set", "descent", "splitting", "admm", "paper", "two-stage", "independent"}
        ``auto`` is chosen by the data: active sets for one weakly correlated class, splitting for any other and for
        several, ADMM for single precision or another device; ``JointResult.solver`` says which ran. ``paper`` is the
        three-block sweep, ``two-stage`` fits Theta first, ``independent`` fits every class alone (Theta = 0 off the
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
    if solver in ("auto", "active-set") and not penalize_diagonal and class_weights is None:
        levels, limits = (rho, gamma, ridge, weight_floor), (tol, max_iter)
        fit = fit_one_class(covariances, weights, levels, initial, limits, solver == "active-set")
        if fit is not None:
            return fit
    problem = make_problem(covariances, weights, rho, gamma, penalize_diagonal, class_weights, ridge, weight_floor)
    if solver == "independent":
        problem = independent_problem(problem)
    require_bounded(problem)
    start, dual = _start(initial, problem)
    labels = screen(problem)
    job = _Job(_choose("auto" if solver == "independent" else solver, problem), tol, max_iter)
    result = _result(covariances, problem, _solve_components(problem, start, dual, labels, job), labels, job)
    name = solver if solver == "independent" else job.solver
    return replace(result, solver=name, seconds=time.process_time() - began)


def _choose(solver: str, problem: Problem) -> str:
    """Resolve "auto": by class count and diagonal in double precision on the CPU, ADMM elsewhere."""
    if solver == "descent" and not problem.free_diagonal:
        raise UsageError("descent needs an unpenalised diagonal", "penalize_diagonal = True", "use solver='splitting'")
    if solver == "active-set" and not (problem.plain and len(problem.covariance) == 1):
        raise UsageError(
            "active sets are for one class in double precision on the CPU",
            f"{len(problem.covariance)} classes, {problem.covariance.dtype}, {problem.covariance.device}",
            "use solver='auto'",
        )
    if solver != "auto":
        return solver
    if not problem.plain:
        return "admm"
    alone = len(problem.covariance) == 1 and near_independence(problem.covariance[0].numpy())
    return "active-set" if alone else "splitting"


def _start(initial: Any, problem: Problem) -> tuple[Tensor, Tensor | None]:
    """Return the start and, of a warm one, its dual variable if it is known."""
    covariance = problem.covariance
    if initial is None:
        return torch.diag_embed(1.0 / torch.diagonal(covariance, dim1=1, dim2=2)), None
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
    dual = initial.dual if isinstance(initial, JointResult) else None
    return start.clone(), None if dual is None else torch.as_tensor(dual, dtype=start.dtype, device=start.device)


def _solve_components(
    problem: Problem, start: Tensor, start_dual: Any, labels: np.ndarray, job: _Job
) -> tuple[Tensor, Tensor | None, list[Iterate]]:
    """Solve every component; return precision, dual (None if a solver has none) and what the solvers said."""
    sizes = np.bincount(labels)
    if len(sizes) == 1 and len(labels) > 1:
        iterate = _solve(problem, start, start_dual, job)
        return iterate.precision, iterate.dual, [iterate]
    precision, dual = torch.zeros_like(start), -problem.scale * problem.covariance
    single = np.flatnonzero(sizes[labels] == 1)
    blocks = [np.flatnonzero(labels == k) for k in np.flatnonzero(sizes > 1)]
    if len(single) and problem.free_diagonal:
        precision[:, single, single] = 1.0 / problem.covariance[:, single, single]
        dual[:, single, single] = 0.0
    elif len(single):
        blocks.append(single)
    iterates = []
    for nodes in sorted(blocks, key=len, reverse=True):
        grid = np.ix_(np.arange(len(start)), nodes, nodes)
        part = None if start_dual is None else start_dual[grid]
        iterate = _solve(restrict(problem, nodes), start[grid], part, job)
        precision[grid] = iterate.precision
        if iterate.dual is not None:
            dual[grid] = iterate.dual
        iterates.append(iterate)
    known = all(iterate.dual is not None for iterate in iterates)
    return precision, dual if known else None, iterates


def _solve(problem: Problem, start: Tensor, dual: Any, job: _Job) -> Iterate:
    if job.solver in DUAL_ALGORITHMS:
        return DUAL_ALGORITHMS[job.solver](problem, start, job.tol, job.max_iter, dual)
    return ALGORITHMS[job.solver](problem, start, job.tol, job.max_iter)


def _certified(precision: Tensor, dual: Tensor | None, problem: Problem) -> tuple[Any, Certificate]:
    """Split and certify in torch; return common, specific, precision and edges, and the certificate."""
    common = split(precision, problem.penalty)[0]
    diagonal = torch.diagonal(precision, dim1=1, dim2=2)
    common.diagonal().copy_(torch.where(_free_nodes(problem), diagonal.mean(0), torch.diagonal(common)))
    specific = precision - common
    precision = common + specific
    edges = np.count_nonzero(np.triu(precision.cpu().numpy(), 1), axis=(1, 2))
    return (common, specific, precision, edges), certify(precision, problem)


def _certified_plain(precision: Tensor, dual: Tensor | None, problem: Problem) -> tuple[Any, Certificate]:
    """Do the same by compiled code; the better of two dual points counts."""
    sigma, alpha, omega = problem.covariance.numpy(), problem.alpha.numpy(), precision.numpy()
    bound, rho = pack(problem.penalty.specific.numpy()), pack(problem.penalty.common.numpy()[None])[0]
    packed = pack(omega)
    middle = median(packed, bound, rho)
    objective, value, residual = audit(sigma, alpha, packed, bound, rho, middle)
    if dual is not None:
        value = max(value, lifted_value(sigma, alpha, pack(dual.numpy()), bound, rho))
    common, specific, total, edges = assemble(omega, middle, _free_nodes(problem).numpy())
    parts = (torch.from_numpy(common), torch.from_numpy(specific), torch.from_numpy(total), edges)
    return parts, Certificate(objective, value, residual)


def _free_nodes(problem: Problem) -> Tensor:
    specific = torch.diagonal(problem.penalty.specific, dim1=1, dim2=2)
    return (torch.diagonal(problem.penalty.common) == 0) & (specific == 0).all(0)


def _result(
    template: Any, problem: Problem, solved: tuple[Tensor, Tensor | None, list[Iterate]], labels: np.ndarray, job: _Job
) -> JointResult:
    precision, dual, iterates = solved
    certified = _certified_plain if problem.plain else _certified
    (common, specific, precision, edges), certificate = certified(precision, dual, problem)

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
        converged=certificate.relative_gap <= job.tol,
        solver=job.solver,
        edges=tuple(edges.tolist()),
        components=labels,
        seconds=0.0,
        history=tuple(iterates[0].history) if iterates else (),
        tol=job.tol,
        dual=None if dual is None else kind(dual),
    )
