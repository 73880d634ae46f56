"""Random problems shared by the tests of the heads."""

import numpy as np


def precisions(n_classes: int, n_nodes: int, seed: int = 0) -> np.ndarray:
    """Well-conditioned random precision matrices [C, p, p], about half of the pairs without an edge."""
    rng = np.random.default_rng(seed)
    edges = rng.normal(size=(n_classes, n_nodes, n_nodes)) * (rng.random((n_classes, n_nodes, n_nodes)) < 0.5)
    edges = np.triu(edges, 1)
    edges = edges + edges.transpose(0, 2, 1)
    lift = -np.linalg.eigvalsh(edges)[:, 0] + 0.5 + rng.random(n_classes)
    return edges + lift[:, None, None] * np.eye(n_nodes)


def draw(precision: np.ndarray, means: np.ndarray, n_each: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Draw `n_each` samples of every class from its Gaussian graph: z [C * n_each, p] and labels."""
    rng = np.random.default_rng(seed)
    z = [
        rng.multivariate_normal(m, np.linalg.inv(omega), size=n_each) for omega, m in zip(precision, means, strict=True)
    ]
    return np.concatenate(z), np.repeat(np.arange(len(means)), n_each)
