r"""Two-block ADMM for equation (10), batched over classes in torch; runs on any device and with a penalised diagonal.

    Z       <- argmin alpha (tr(Sigma Z) - logdet Z) + mu/2 ||Z - G||^2,  G = Omega - U / mu
    Omega   <- prox_{h / mu}(Z + U / mu),  Omega = Theta + S
    U       <- U + mu (Z - Omega)          (unscaled throughout)

With l the eigenvalues of G - alpha Sigma / mu, Z has eigenvalues (l + sqrt(l^2 + 4 alpha / mu)) / 2. Convergence is
that of two-block ADMM; the iterations stop at a certified duality gap.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from cmgl_cli.graphs.certificate import Certificate, Problem, certify
from cmgl_cli.graphs.interrupts import deliver
from cmgl_cli.graphs.penalty import prox
from cmgl_cli.graphs.result import Step


@dataclass
class Iterate:
    """Where a solver stands: precision [C, p, p], its certificate, iterations done, history, and its dual if any.

    ``dual`` [C, p, p] is a point that, projected onto the polytopes of the penalty, certifies the precision.
    """

    precision: Tensor
    certificate: Certificate
    n_iter: int
    history: list[Step]
    dual: Tensor | None = None


def prox_logdet(target: Tensor, problem: Problem, mu: float) -> Tensor:
    """Return argmin of alpha (tr(Sigma Z) - logdet Z) + mu/2 ||Z - target||^2."""
    eigenvalues, vectors = torch.linalg.eigh(target - problem.scale * problem.covariance / mu)
    constant = 4 * problem.alpha[:, None] / mu
    root = torch.sqrt(eigenvalues**2 + constant)
    # For negative eigenvalues the sum cancels; its conjugate form does not.
    positive = torch.where(eigenvalues >= 0, (eigenvalues + root) / 2, constant / 2 / (root - eigenvalues))
    result = (vectors * positive[:, None, :]) @ vectors.transpose(1, 2)
    return (result + result.transpose(1, 2)) / 2


def solve_admm(problem: Problem, start: Tensor, tol: float, max_iter: int, check_every: int = 10) -> Iterate:
    """Solve by two-block ADMM from ``start`` [C, p, p] (positive definite) to relative gap ``tol``."""
    began = time.process_time()
    omega, mu = start.clone(), 1.0
    dual = problem.scale * (torch.linalg.inv(omega) - problem.covariance)
    best, best_certificate, history = start, certify(start, problem), []
    iteration = 0
    for iteration in range(1, max_iter + 1):
        deliver()
        if best_certificate.relative_gap <= tol:
            iteration -= 1
            break
        smooth = prox_logdet(omega - dual / mu, problem, mu)
        common, specific = prox(smooth + dual / mu, problem.penalty, mu)
        previous, omega = omega, common + specific
        dual = dual + mu * (smooth - omega)
        if iteration % check_every == 0 or iteration == max_iter:
            certificate = certify(omega, problem)
            history.append(
                Step(
                    iteration,
                    certificate.objective,
                    certificate.dual_objective,
                    certificate.gap,
                    time.process_time() - began,
                )
            )
            if (
                certificate.relative_gap < best_certificate.relative_gap
                or certificate.objective < best_certificate.objective
            ):
                best, best_certificate = omega, certificate
            if iteration <= 200:
                primal = float(torch.linalg.norm(smooth - omega) / torch.linalg.norm(omega))
                drift = float(mu * torch.linalg.norm(omega - previous) / torch.linalg.norm(dual).clamp_min(1e-30))
                mu = mu * 2 if primal > 3 * drift else mu / 2 if drift > 3 * primal else mu
    return Iterate(best, best_certificate, iteration, history)
