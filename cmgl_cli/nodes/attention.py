"""Mean attention per class: the input of the cross-modal prior (eq. 4), in one streaming pass.

Samples of variable patch grids are first brought onto one common grid. Attention is a distribution over the
image plane, so the weight of a source cell is shared among the target cells it overlaps, in proportion to
the overlap: every row keeps its sum, and the same grid maps onto itself unchanged.
"""

from collections.abc import Sequence

import numpy as np

from cmgl_cli.errors import InputError


class AttentionMean:
    """Running mean of attention maps for each of C classes.

    Parameters
    ----------
    n_classes : int
        C.
    n_nodes : int
        p.
    n_patches : int
        N_p of the common grid.
    """

    def __init__(self, n_classes: int, n_nodes: int, n_patches: int):
        self._total = np.zeros((n_classes, n_nodes, n_patches))
        self.weights = np.zeros(n_classes)

    def update(self, attention: np.ndarray, membership: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Add samples.

        Parameters
        ----------
        attention : ndarray, [B, p, N_p]
            Attention of any float type; accumulated in float64.
        membership : ndarray, [B] of int or [B, C]
            Class numbers, or presences (a sample counts for every class present in it).
        weights : ndarray, [B], optional
            Weight of each sample, 1 by default. Pages of one text get one over their number (`page_weights`).

        Raises
        ------
        InputError
            Shapes that do not fit, or a class number out of range.
        """
        n_classes, n_nodes, n_patches = self._total.shape
        if attention.shape[1:] != (n_nodes, n_patches) or len(membership) != len(attention):
            raise InputError(
                "the attention maps do not fit this mean",
                f"attention {attention.shape}, membership {membership.shape}, expected [B, {n_nodes}, {n_patches}]",
                "give maps of one distiller on one patch grid; resample variable grids first",
            )
        presence = _presence(membership, n_classes)
        if weights is not None:
            presence = presence * np.asarray(weights, dtype=np.float64)[:, None]
        flat = attention.reshape(len(attention), -1).astype(np.float64)
        self._total += (presence.T @ flat).reshape(self._total.shape)
        self.weights += presence.sum(axis=0)

    def mean(self, class_names: Sequence[str] | None = None, *, pooled: bool = False) -> np.ndarray:
        """Return A_agg [C, p, N_p], float64.

        Parameters
        ----------
        class_names : sequence of str, optional
            For the message.
        pooled : bool
            Let classes without a sample take the mean over all others'.

        Raises
        ------
        InputError
            Classes without a sample, by name where names are given.
        """
        empty = np.flatnonzero(self.weights == 0)
        if pooled and 0 < len(empty) < len(self.weights):
            mean = self._total / np.maximum(self.weights, np.finfo(float).tiny)[:, None, None]
            mean[empty] = self._total.sum(axis=0) / self.weights.sum()
            return mean
        if len(empty):
            names = [class_names[int(c)] if class_names is not None else str(c) for c in empty]
            raise InputError(
                "there is no mean attention for a class without samples",
                f"no sample of: {', '.join(names)}",
                "add samples or texts of these classes, or leave the classes out",
            )
        return self._total / self.weights[:, None, None]


def _presence(membership: np.ndarray, n_classes: int) -> np.ndarray:
    if membership.ndim == 2 and membership.shape[1] == n_classes:
        return (membership > 0).astype(np.float64)
    if membership.ndim != 1 or (len(membership) and (membership.min() < 0 or membership.max() >= n_classes)):
        raise InputError(
            "samples belong to classes that do not exist",
            f"shape {membership.shape}, values {membership.min()} to {membership.max()}, {n_classes} classes",
            "give class numbers from 0, or one column of presences a class",
        )
    return np.eye(n_classes)[membership]


def page_weights(text_of_page: np.ndarray) -> np.ndarray:
    """Return one over the number of pages of each page's text, so that every text counts once, float64 [n_pages]."""
    _, inverse, counts = np.unique(text_of_page, return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse]


def resample_attention(attention: np.ndarray, grid: tuple[int, int], target: tuple[int, int]) -> np.ndarray:
    """Bring attention from one patch grid onto another, keeping the sum of every row.

    Parameters
    ----------
    attention : ndarray, [..., N_p]
        Row-major over `grid`; patches beyond the grid's rows x columns are padding and are ignored.
    grid, target : tuple of int
        Rows and columns of the source and the common grid.

    Returns
    -------
    ndarray of float64, [..., rows * columns of target]
        The share of each target cell.

    Raises
    ------
    InputError
        Fewer patches than the grid has cells.
    """
    n_cells = grid[0] * grid[1]
    if attention.shape[-1] < n_cells or n_cells == 0:
        raise InputError(
            "the attention does not cover its patch grid",
            f"{attention.shape[-1]} patches, grid {grid[0]} x {grid[1]}",
            "give the grid that the features were extracted on",
        )
    maps = attention[..., :n_cells].astype(np.float64).reshape(*attention.shape[:-1], *grid)
    shared = _overlap(grid[0], target[0]) @ maps @ _overlap(grid[1], target[1]).T
    return shared.reshape(*attention.shape[:-1], -1)


def _overlap(source: int, target: int) -> np.ndarray:
    """Return [target, source], the share of each of `source` equal cells of a line in each of `target` ones."""
    s, t = np.arange(source), np.arange(target)[:, None]
    covered = np.minimum((s + 1) * target, (t + 1) * source) - np.maximum(s * target, t * source)
    return np.maximum(covered, 0) / target
