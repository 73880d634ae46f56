"""What a selection runs over, and what comes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmgl_cli.errors import UsageError, suggest
from cmgl_cli.graphs.result import JointResult

Array = NDArray[np.float64]
DEFAULT_LEVELS = (0.01, 0.05, 0.1, 0.2)
CRITERIA = ("ebic", "heldout", "score", "stability")


@dataclass(frozen=True)
class Grid:
    """What a selection runs over.

    Attributes
    ----------
    k : sequence of float
        Sharpness values of equation (11).
    rho, gamma : sequence of float
        Penalty levels; every pair is a cell.
    k_scope : {"class", "shared"}
        One k a class (chosen along the shared path, then fitted once more), or one for all.
    criterion : {"ebic", "heldout", "score", "stability"}
        What ranks the cells.
    k_criterion : {"auto", "ebic", "heldout"}
        What chooses k; auto is held-out likelihood where there are folds.
    strictness : float
        Standard errors (over folds) by which a prior must raise the held-out likelihood; see `judge`.
    ebic_gamma : float
        Extension parameter of the eBIC.
    stars_threshold : float
        Largest total instability the criterion "stability" accepts (Liu et al. 2010: 0.05).
    midpoint : float
        Midpoint of equation (11), or array [C].
    preserve_penalty : bool
        Scale gamma so that every k has the total penalty of W = 1.
    scale_rho : bool
        Multiply rho by the number of classes.
    tol : float
        Certified relative gap of every fit; below 1e-6 the wrong k has been chosen.
    fit_options : mapping
        Further keywords of `fit_joint`.
    """

    k: Sequence[float] = tuple(range(51))
    rho: Sequence[float] = DEFAULT_LEVELS
    gamma: Sequence[float] = DEFAULT_LEVELS
    k_scope: str = "class"
    criterion: str = "ebic"
    k_criterion: str = "auto"
    strictness: float = 2.0
    ebic_gamma: float = 0.5
    stars_threshold: float = 0.05
    midpoint: Any = 0.5
    preserve_penalty: bool = False
    scale_rho: bool = False
    tol: float = 1e-6
    fit_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        words = {"k_scope": ("class", "shared"), "criterion": CRITERIA, "k_criterion": ("auto", "ebic", "heldout")}
        for name, allowed in words.items():
            word = getattr(self, name)
            if word not in allowed:
                raise UsageError(f"unknown {name}", f"{name} = {word!r}", suggest(str(word), allowed))
        if not (len(self.k) and len(self.rho) and len(self.gamma)):
            raise UsageError(
                "the grid is empty",
                f"{len(self.k)} k, {len(self.rho)} rho, {len(self.gamma)} gamma",
                "give each at least one value",
            )

    @property
    def cells(self) -> list[tuple[float, float]]:
        """Return the (rho, gamma) pairs in the order in which they are fitted."""
        return [(float(rho), float(gamma)) for rho in self.rho for gamma in self.gamma]

    @property
    def baseline(self) -> int:
        """Return the index of the least sharpness: the fit without the prior, where 0 is in the grid."""
        return int(np.argmin(self.k))


@dataclass(frozen=True)
class Cell:
    """Outcome of one (rho, gamma) pair; plain arrays, so that a run can be stored and resumed cell by cell.

    Attributes
    ----------
    rho, gamma : float
    k : ndarray [C]
        Sharpness of every class chosen within the cell.
    ebic : ndarray [K, C]
        eBIC of every class along the path of k; NaN without counts.
    edges : ndarray [K, C]
        Edges of every class along the path.
    common_ratio : ndarray [K]
        Along the path, edges of Theta as a share of the edges any class has.
    gap : ndarray [K]
        Certified relative gaps along the path.
    heldout : ndarray [F, K, C]
        Held-out log-likelihood (per sample, see `log_likelihood`) of every fold, k and class; F = 0 without folds, NaN
        where a k was not tried.
    final_edges : float
        Mean edges of the fit with the chosen k.
    final_ebic : float
        eBIC of that fit.
    instability : float
        StARS instability of that fit; NaN unless the criterion is "stability".
    score : float
        What the cells are ranked by; larger is better.
    seconds : float
        CPU seconds of the thread that fitted it.
    """

    rho: float
    gamma: float
    k: Array
    ebic: Array
    edges: NDArray[np.int64]
    common_ratio: Array
    gap: Array
    heldout: Array
    final_edges: float
    final_ebic: float
    instability: float
    score: float
    seconds: float


@dataclass(frozen=True)
class Selection:
    """Outcome of `select_joint`.

    Attributes
    ----------
    result : JointResult
        Fit at the chosen point.
    weights : ndarray [C, p, p]
        Penalty weights at the chosen k.
    best : Cell
        The chosen cell; its ``k`` are the ones used.
    cells : tuple of Cell
        The whole table.
    at_edge : tuple of str
        Which of "k", "rho", "gamma" were chosen at an end of their grid (k = 0 and grids of one value excluded): widen
        these.
    gain : ndarray [C]
        Held-out log-likelihood per sample that the prior gains over the best fit without it, cell and k chosen on the
        other folds; NaN unless held-out likelihood chose both.
    gain_error : ndarray [C]
        Its standard error over folds.
    """

    result: JointResult
    weights: Array
    best: Cell
    cells: tuple[Cell, ...]
    at_edge: tuple[str, ...]
    gain: Array
    gain_error: Array
