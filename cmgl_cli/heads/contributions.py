r"""Where a decision of the generative classifier comes from: nodes, places and edges.

**One observation.** With :math:`d_c = z - m_c` the log-likelihood ratio of class a against class b is, by (18),

.. math:: s(a \mid z) - s(b \mid z) = \text{const}_{ab} + \sum_i r_i, \qquad
          r_i = \tfrac12 d_{b,i} (\Omega_b d_b)_i - \tfrac12 d_{a,i} (\Omega_a d_a)_i

because a quadratic form is the sum over nodes of :math:`d_i (\Omega d)_i`: an edge counts half for each of its ends.
The constant holds log-determinants and class priors, the same for all observations, and, where each class has its own
transform, that observation's Jacobians. The rows of the attention A add up to one over the patches, so :math:`A^T r`
spreads the same sum over the image (`back_project`).

**All observations.** What an edge is worth on average is the expected ratio. The sum of both directions,

.. math:: J = \mathrm{E}_a[s_a - s_b] + \mathrm{E}_b[s_b - s_a] = \mathrm{KL}(a \| b) + \mathrm{KL}(b \| a)
            = \tfrac12 \mathrm{tr}\,(\Omega_b - \Omega_a)(\Sigma_a - \Sigma_b)
              + \tfrac12 \delta^T (\Omega_a + \Omega_b) \delta, \quad \delta = m_a - m_b,

has no log-determinants left, so that pairs of nodes and single nodes add up to it exactly: the pair (i, j) holds
:math:`(\Omega_b - \Omega_a)_{ij} (\Sigma_a - \Sigma_b)_{ij}`, what differs between the graphs, and
:math:`(\Omega_a + \Omega_b)_{ij} \delta_i \delta_j`, what the graphs make of the means.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cmgl_cli.errors import InputError
from cmgl_cli.heads.checks import Array, Labels, class_labels, finite, positive_definite
from cmgl_cli.heads.discriminant import GraphDiscriminant


@dataclass(frozen=True)
class RatioParts:
    """A log-likelihood ratio, node by node, in nats.

    Attributes
    ----------
    constant : ndarray, [N]
        What no node contributes: log-determinants, class priors and Jacobians.
    nodes : ndarray, [N, p]
        Contribution of each node; positive speaks for the first class.
    """

    constant: Array
    nodes: Array

    @property
    def ratio(self) -> Array:
        """The ratio itself, [N]: the constant and all nodes."""
        return self.constant + self.nodes.sum(axis=1)


def ratio_parts(
    model: GraphDiscriminant,
    z: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    log_jacobian: ArrayLike | None = None,
) -> RatioParts:
    """Split the log-likelihood ratio of two classes into contributions of the nodes.

    Parameters
    ----------
    model : GraphDiscriminant
    z : array_like, [N, p] or [N, C, p]
        As for `GraphDiscriminant.scores`.
    first, second : array_like, int, [N]
        The classes compared for each observation, such as the predicted one and the runner-up.
    log_jacobian : array_like, [N, C], optional
        As for `GraphDiscriminant.scores`.

    Returns
    -------
    RatioParts
        Adds up to the difference of the two scores.

    Raises
    ------
    InputError
        If a shape disagrees or a label is no class.
    """
    per_class = np.ndim(z) == 3
    samples = finite("z", z, (None, model.n_classes, model.n_nodes) if per_class else (None, model.n_nodes))
    rows = np.arange(len(samples))
    winner, other = (class_labels(labels, len(samples), model.n_classes) for labels in (first, second))
    jacobian = 0.0 if log_jacobian is None else finite("log_jacobian", log_jacobian, (len(samples), model.n_classes))
    shared = _half_logdet(model.precision) + model.log_priors + jacobian
    table = np.broadcast_to(shared, (len(samples), model.n_classes))

    def squares(label: Labels) -> Array:
        centred = (samples[rows, label] if per_class else samples) - model.means[label]
        return 0.5 * centred * np.einsum("nij,nj->ni", model.precision[label], centred)

    return RatioParts(table[rows, winner] - table[rows, other], squares(other) - squares(winner))


def _half_logdet(precision: Array) -> Array:
    return 0.5 * np.linalg.slogdet(precision)[1]


def back_project(contributions: ArrayLike, attention: ArrayLike) -> Array:
    """Spread what nodes contribute over the places they look at, A^T r.

    Parameters
    ----------
    contributions : array_like, [..., p]
    attention : array_like, [..., p, N_p]
        Rows add up to one, so that the result adds up to the contributions.

    Returns
    -------
    ndarray, [..., N_p]

    Raises
    ------
    InputError
        If the numbers of nodes differ.
    """
    parts, maps = np.asarray(contributions, dtype=np.float64), np.asarray(attention, dtype=np.float64)
    if parts.shape[-1] != maps.shape[-2]:
        raise InputError(
            "contributions and attention are of different nodes",
            f"{parts.shape[-1]} nodes against {maps.shape[-2]}",
            "take both from the same nodes artifact",
        )
    return np.einsum("...i,...ij->...j", parts, maps)


@dataclass(frozen=True)
class DivergenceParts:
    """The symmetrised divergence of two classes, pair by pair and node by node, in nats.

    Attributes
    ----------
    structure, means : ndarray, [p, p]
        Symmetric; entry (i, j) is what the pair is worth, through the difference of the graphs and through the
        means; the diagonal is what single nodes are worth. Entries may be negative; `total` is not.
    """

    structure: Array
    means: Array

    @property
    def pairs(self) -> Array:
        """Both parts of every pair, [p, p], zero on the diagonal."""
        both = self.structure + self.means
        return both - np.diag(np.diagonal(both))

    @property
    def nodes(self) -> Array:
        """Both parts of every single node, [p]."""
        return np.diagonal(self.structure) + np.diagonal(self.means)

    @property
    def total(self) -> float:
        """KL(a || b) + KL(b || a): every pair once, and every node."""
        return float(self.pairs.sum() / 2 + self.nodes.sum())


def divergence_parts(precision: ArrayLike, means: ArrayLike) -> DivergenceParts:
    """Split the expected log-likelihood ratio of two classes, both directions added, into pairs and nodes.

    Parameters
    ----------
    precision : array_like, [2, p, p]
        Omega_a and Omega_b, positive definite.
    means : array_like, [2, p]

    Raises
    ------
    InputError
        If there are not two classes, a shape disagrees or a precision is not positive definite.
    """
    positive_definite("precision", precision)
    omega = np.asarray(precision, dtype=np.float64)
    if len(omega) != 2:
        raise InputError("a divergence is of two classes", f"got {len(omega)}", "pass [2, p, p]")
    centres = finite("means", means, omega.shape[:2])
    sigma = np.linalg.inv(omega)
    delta = centres[0] - centres[1]
    structure = (omega[1] - omega[0]) * (sigma[0] - sigma[1])
    shift = (omega[0] + omega[1]) * np.outer(delta, delta)
    halved = np.eye(len(delta)) * 0.5
    return DivergenceParts(structure - structure * halved, shift - shift * halved)


def divergence(precision: ArrayLike, means: ArrayLike) -> Array:
    """Return KL(a || b) + KL(b || a) of all pairs of classes, [C, C], in nats.

    Parameters
    ----------
    precision : array_like, [C, p, p]
    means : array_like, [C, p]
    """
    omega = np.asarray(precision, dtype=np.float64)
    centres = finite("means", means, omega.shape[:2])
    sigma = np.linalg.inv(omega)
    n_nodes = omega.shape[1]
    traces = omega.reshape(len(omega), -1) @ sigma.reshape(len(omega), -1).T
    moved = np.empty_like(traces)
    for a, centre in enumerate(centres):
        delta = centres - centre
        moved[a] = np.einsum("bi,bi->b", delta @ omega[a], delta)
    half = (traces + moved - n_nodes) / 2
    return half + half.T


def in_score_units(precision: ArrayLike, common: ArrayLike, scale: ArrayLike) -> tuple[Array, Array]:
    """Return Omega_c and Theta for observations that were not divided by their class's deviations.

    Parameters
    ----------
    precision : array_like, [C, p, p]
        Of observations divided by `scale`.
    common : array_like, [p, p]
    scale : array_like, [C, p]
        Standard deviations taken out of the covariances.

    Returns
    -------
    precision : ndarray, [C, p, p]
    common : ndarray, [p, p]
        Divided by the root mean square of the classes' scales.
    """
    omega, deviation = np.asarray(precision, dtype=np.float64), np.asarray(scale, dtype=np.float64)
    typical = np.sqrt((deviation**2).mean(axis=0))
    return omega / (deviation[:, :, None] * deviation[:, None, :]), np.asarray(common) / np.outer(typical, typical)
