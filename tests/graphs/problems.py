"""Random problems and an independent convex solver, shared by the tests of the graphs."""

import cvxpy as cp
import numpy as np


def covariances(rng, n_classes, p, n, factors=0, noise=0.5):
    """Sample covariances [C, p, p] rescaled to correlations, optionally with latent factors."""
    result = []
    shared = rng.standard_normal((p, factors)) if factors else None
    for _ in range(n_classes):
        x = rng.standard_normal((n, p))
        if factors:
            loading = shared + 0.3 * rng.standard_normal((p, factors))
            x = noise * x + rng.standard_normal((n, factors)) @ loading.T
        else:
            x[:, 1:] += 0.6 * x[:, :-1]
        sigma = np.cov(x.T, bias=True).reshape(p, p)
        scale = 1 / np.sqrt(np.diag(sigma))
        result.append((sigma + sigma.T) / 2 * np.outer(scale, scale))
    return np.array(result)


def random_weights(rng, n_classes, p, zeros=0.0):
    weights = rng.uniform(0.05, 1, (n_classes, p, p))
    weights[rng.uniform(size=weights.shape) < zeros] = 0.0
    upper = np.triu(weights, 1)
    return upper + upper.transpose(0, 2, 1)


def reference(sigma, weights, rho, gamma, penalize_diagonal=False, alpha=None):
    """Solve (10) with CVXPY and Clarabel; returns objective and precisions."""
    n_classes, p = sigma.shape[:2]
    weights = np.broadcast_to(weights, sigma.shape)
    alpha = np.ones(n_classes) if alpha is None else alpha
    mask = np.ones((p, p)) if penalize_diagonal else 1 - np.eye(p)
    theta = cp.Variable((p, p), symmetric=True)
    omega = [cp.Variable((p, p), symmetric=True) for _ in range(n_classes)]
    loss = rho * cp.sum(cp.multiply(mask, cp.abs(theta)))
    for c in range(n_classes):
        loss += alpha[c] * (cp.trace(sigma[c] @ omega[c]) - cp.log_det(omega[c]))
        loss += gamma * cp.sum(cp.multiply(mask * weights[c], cp.abs(omega[c] - theta)))
    problem = cp.Problem(cp.Minimize(loss))
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return problem.value, np.array([o.value for o in omega])
