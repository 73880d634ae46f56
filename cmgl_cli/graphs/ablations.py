r"""The paper's own solver and the two ablations, behind the interface of `fit_joint`.

`solve_paper` is the three-block sweep of equations (13)-(16): Z, Theta and S in turn, mu = 1, at most 200 sweeps. It
has no convergence guarantee; its result is certified like any other, so what it leaves open is visible.
"""

import time

import torch
from torch import Tensor

from cmgl_cli.graphs.admm import Iterate, prox_logdet, solve_admm
from cmgl_cli.graphs.certificate import Problem, certify
from cmgl_cli.graphs.penalty import Penalty
from cmgl_cli.graphs.result import Step

PAPER_SWEEPS = 200


def soft(values: Tensor, bound: Tensor) -> Tensor:
    """Soft threshold."""
    return torch.sign(values) * (values.abs() - bound).clamp_min(0)


def solve_paper(problem: Problem, start: Tensor, tol: float, max_iter: int, check_every: int = 10) -> Iterate:
    """Run the paper's three-block ADMM, equations (13)-(16), with mu = 1 and at most 200 sweeps."""
    began = time.process_time()
    n_classes, mu = len(start), 1.0
    diagonal = torch.diag_embed(torch.diagonal(start, dim1=1, dim2=2))
    common, specific = torch.zeros_like(start[0]), diagonal.clone()
    dual = torch.zeros_like(start)
    best, best_certificate, history = start, certify(start, problem), []
    iteration = 0
    for iteration in range(1, min(max_iter, PAPER_SWEEPS) + 1):
        smooth = prox_logdet(common + specific - dual / mu, problem, mu)
        target = smooth + dual / mu
        common = soft((target - specific).mean(0), problem.penalty.common / (mu * n_classes))
        specific = soft(target - common, problem.penalty.specific / mu)
        dual = dual + mu * (smooth - common - specific)
        if iteration % check_every == 0:
            certificate = certify(common + specific, problem)
            seconds = time.process_time() - began
            history.append(Step(iteration, certificate.objective, certificate.dual_objective, certificate.gap, seconds))
            if certificate.objective < best_certificate.objective:
                best, best_certificate = common + specific, certificate
            if certificate.relative_gap <= tol:
                break
    return Iterate(best, best_certificate, iteration, history)


def independent_problem(problem: Problem) -> Problem:
    """Return the problem without a common part: rho beyond every sum of weights decouples the classes."""
    beyond = problem.penalty.specific.sum(0)
    return Problem(problem.covariance, Penalty(problem.penalty.specific, beyond), problem.alpha)


def two_stage_common(problem: Problem, tol: float, max_iter: int) -> Tensor:
    """Return the first stage's Theta, the graphical lasso of the weighted mean covariance at rho / sum alpha."""
    alpha = problem.alpha.sum()
    pooled = (problem.scale * problem.covariance).sum(0, keepdim=True) / alpha
    penalty = problem.penalty.common[None] / alpha
    one = Problem(pooled, Penalty(penalty, penalty[0]), torch.ones_like(problem.alpha[:1]))
    start = torch.diag_embed(1.0 / torch.diagonal(pooled, dim1=1, dim2=2))
    return solve_admm(one, start, tol, max_iter).precision[0]


def solve_two_stage(problem: Problem, start: Tensor, tol: float, max_iter: int) -> Iterate:
    """Fit Theta to the pooled covariance, freeze it, then fit every S_c around it.

    With Theta fixed the penalty is sum_c ||w_c o (Omega_c - Theta)||_1: ADMM with a shifted soft threshold. The
    certificate is that of the joint problem, so the gap says what the shortcut costs.
    """
    began = time.process_time()
    common = two_stage_common(problem, tol, max_iter)
    omega, mu = start.clone(), 1.0
    dual = problem.scale * (torch.linalg.inv(omega) - problem.covariance)
    iteration = 0
    for iteration in range(1, max_iter + 1):
        smooth = prox_logdet(omega - dual / mu, problem, mu)
        previous, omega = omega, common + soft(smooth + dual / mu - common, problem.penalty.specific / mu)
        dual = dual + mu * (smooth - omega)
        primal = float(torch.linalg.norm(smooth - omega) / torch.linalg.norm(omega))
        drift = float(mu * torch.linalg.norm(omega - previous) / torch.linalg.norm(dual).clamp_min(1e-30))
        if max(primal, drift) <= tol:
            break
        if iteration % 10 == 0 and iteration <= 200:
            mu = mu * 2 if primal > 3 * drift else mu / 2 if drift > 3 * primal else mu
    certificate = certify(omega, problem)
    seconds = time.process_time() - began
    step = Step(iteration, certificate.objective, certificate.dual_objective, certificate.gap, seconds)
    return Iterate(omega, certificate, iteration, [step])
