r"""What the graph classifier would be without its graph, or with another one.

All controls keep what is not in question. Where edges are changed, the model's own marginal variances
:math:`v_i = (\Omega^{-1})_{ii}` are restored by a diagonal congruence D M D with :math:`D_{ii} = \sqrt{(M^{-1})_{ii}
/ v_i}`, which keeps the matrix positive definite, its zeros and its partial correlations; otherwise a control would
lose for its wrong scale and not for its wrong edges.
"""

import numpy as np
from numpy.typing import ArrayLike

from cmgl_cli.errors import InputError
from cmgl_cli.heads.checks import Array, finite, positive_definite
from cmgl_cli.heads.discriminant import GraphDiscriminant

MARGIN = 0.05
"""Smallest eigenvalue a repaired matrix of partial correlations keeps."""


def graph_controls(
    precision: ArrayLike, common: ArrayLike, means: ArrayLike, priors: ArrayLike | None = None, *, seed: int = 0
) -> dict[str, GraphDiscriminant]:
    """Return the graph classifier and its controls by name.

    Parameters
    ----------
    precision : array_like, [C, p, p]
        Omega_c = Theta + S_c.
    common : array_like, [p, p]
        Theta.
    means : array_like, [C, p]
    priors : array_like, [C], optional
    seed : int
        Of the random graph.

    Returns
    -------
    dict of str to GraphDiscriminant
        "graph": as fitted. "identity": Omega = I. "diagonal": no edge, each class its own variances. "common only":
        Theta for every class. "specific only": Omega_c without the edges of Theta. "random graph": see
        `random_graph`. "graph, means ignored": every class at the overall mean, so that second order alone decides.

    Raises
    ------
    InputError
        If shapes disagree or a precision is not positive definite.
    """
    positive_definite("precision", precision)
    omega = np.asarray(precision, dtype=np.float64)
    n_classes, n_nodes = omega.shape[:2]
    theta = finite("common", common, omega.shape[1:])
    centres = finite("means", means, (n_classes, n_nodes))
    diagonal = np.einsum("cii->ci", omega)
    alone = (omega - theta) * (1 - np.eye(n_nodes)) + diagonal[:, :, None] * np.eye(n_nodes)
    shares = np.full(n_classes, 1 / n_classes) if priors is None else finite("priors", priors, (n_classes,))
    overall = np.tile(np.average(centres, axis=0, weights=shares), (n_classes, 1))
    models = {
        "graph": (omega, centres),
        "identity": (np.tile(np.eye(n_nodes), (n_classes, 1, 1)), centres),
        "diagonal": (without_edges(omega), centres),
        "common only": (np.tile(definite(theta), (n_classes, 1, 1)), centres),
        "specific only": (with_variances(np.stack([definite(own) for own in alone]), variances(omega)), centres),
        "random graph": (random_graph(omega, np.random.default_rng(seed)), centres),
        "graph, means ignored": (omega, overall),
    }
    return {name: GraphDiscriminant(matrices, points, priors) for name, (matrices, points) in models.items()}


def variances(precision: Array) -> Array:
    """Return the marginal variances [C, p] that precisions [C, p, p] imply."""
    return np.einsum("cii->ci", np.linalg.inv(precision))


def with_variances(precision: Array, variance: Array) -> Array:
    """Rescale precisions [C, p, p] so that they imply the marginal variances [C, p]; partial correlations stay."""
    scale = np.sqrt(variances(precision) / variance)
    scaled = scale[:, :, None] * precision * scale[:, None, :]
    return (scaled + scaled.transpose(0, 2, 1)) / 2


def without_edges(precision: Array) -> Array:
    """Return the diagonal precisions [C, p, p] with the same marginal variances."""
    return np.einsum("ci,ij->cij", 1 / variances(precision), np.eye(precision.shape[1]))


def random_graph(precision: Array, rng: np.random.Generator, *, each_class: bool = False) -> Array:
    """Return the same graphs on shuffled nodes: as many edges, the same partial correlations, other neighbours.

    One permutation serves all classes, which keeps what they share and makes this the strictest random control: only
    the places of the edges differ. Marginal variances stay with their nodes; the result is positive definite because
    it is congruent to the original.

    Parameters
    ----------
    precision : ndarray, [C, p, p]
    rng : numpy.random.Generator
    each_class : bool
        Draw a permutation for each class, which destroys the common structure too.

    Raises
    ------
    InputError
        If there are fewer than three nodes: no other neighbours exist.
    """
    n_classes, n_nodes = precision.shape[:2]
    if not each_class:
        return shuffled_graph(precision, derangement(n_nodes, rng))
    orders = [derangement(n_nodes, rng) for _ in range(n_classes)]
    each = [shuffled_graph(matrix[None], order)[0] for matrix, order in zip(precision, orders, strict=True)]
    return np.stack(each)


def shuffled_graph(precision: Array, order: np.ndarray) -> Array:
    """Return graphs [C, p, p] whose node i has the edges of node order[i], and its own marginal variance."""
    return with_variances(precision[:, order][:, :, order], variances(precision))


def derangement(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a permutation that leaves no index in place (drawn again until it does; about e draws).

    Raises
    ------
    InputError
        If there are fewer than three nodes.
    """
    if size < 3:
        raise InputError("a random graph needs at least three nodes", f"p = {size}", "leave this control out")
    while True:
        order = rng.permutation(size)
        if (order != np.arange(size)).all():
            return order


def definite(matrix: Array) -> Array:
    """Return a symmetric matrix [p, p] with its off-diagonals scaled down just enough to be positive definite.

    A matrix whose partial correlations have all eigenvalues above `MARGIN` is returned as it is. Theta alone need not
    be positive definite although every Theta + S_c is.

    Raises
    ------
    InputError
        If a diagonal entry is not positive.
    """
    diagonal = np.diagonal(matrix)
    if (diagonal <= 0).any():
        node = int(diagonal.argmin())
        raise InputError(
            "a precision has a non-positive diagonal", f"node {node}: {diagonal[node]:.3g}", "refit the graphs"
        )
    scale = np.sqrt(np.outer(diagonal, diagonal))
    edges = matrix / scale - np.eye(len(matrix))
    lowest = float(np.linalg.eigvalsh(edges)[0])
    if lowest >= MARGIN - 1:
        return matrix.copy()
    return (np.eye(len(matrix)) + edges * (1 - MARGIN) / -lowest) * scale
