"""Choice of sharpness k and penalties (rho, gamma): eBIC, held-out likelihood or a score of the caller's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.graphs.joint import fit_joint
from cmgl_cli.graphs.prior import penalty_scale, prior_weights
from cmgl_cli.graphs.result import JointResult

Array = NDArray[np.float64]
DEFAULT_LEVELS = (0.01, 0.05, 0.1, 0.2)


def log_likelihood(precision: ArrayLike, covariance: ArrayLike) -> Array:
    """Return logdet Omega_c - tr(Sigma_c Omega_c) of each class [C]: twice the mean log-density up to a constant."""
    omega, sigma = np.asarray(precision, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    sign, determinant = np.linalg.slogdet(omega)
    if (sign <= 0).any():
        raise InputError(
            "a precision matrix is not positive definite",
            f"class {int(np.argmin(sign))}",
            "pass the precision of a fit",
        )
    return determinant - np.einsum("cij,cij->c", sigma, omega)


def ebic_per_class(precision: ArrayLike, covariance: ArrayLike, n: ArrayLike, gamma: float = 0.5) -> Array:
    """Return the extended BIC of each class [C]; see `ebic`."""
    omega = np.asarray(precision, dtype=np.float64)
    omega = omega[None] if omega.ndim == 2 else omega
    sigma = np.asarray(covariance, dtype=np.float64).reshape(omega.shape)
    counts = np.broadcast_to(np.asarray(n, dtype=np.float64), omega.shape[:1])
    if not (np.isfinite(counts).all() and (counts > 0).all()):
        raise InputError("eBIC needs the number of samples of every class", f"n = {n!r}", "pass positive counts")
    edges = np.triu(omega != 0, 1).sum(axis=(1, 2))
    return -counts * log_likelihood(omega, sigma) + edges * (np.log(counts) + 4 * gamma * np.log(omega.shape[-1]))


def ebic(precision: ArrayLike, covariance: ArrayLike, n: ArrayLike, gamma: float = 0.5) -> float:
    """Return the extended BIC (Foygel and Drton 2010), summed over classes.

        sum_c { n_c [tr(Sigma_c Omega_c) - logdet Omega_c] + |E_c| log n_c + 4 gamma |E_c| log p }

    Parameters
    ----------
    precision, covariance : array [C, p, p] or [p, p]
        |E_c| counts the non-zero off-diagonal pairs of ``precision``.
    n : int or array [C]
        Samples of each class.
    gamma : float
        Extension parameter; 0 is the BIC.
    """
    return float(ebic_per_class(precision, covariance, n, gamma).sum())


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
        Choose k for each class by its own eBIC along the shared path, then fit once more; or one k for all.
    criterion : {"ebic", "heldout", "score"}
        What ranks the cells.
    ebic_gamma : float
        Extension parameter of the eBIC.
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
    ebic_gamma: float = 0.5
    midpoint: Any = 0.5
    preserve_penalty: bool = False
    scale_rho: bool = False
    tol: float = 1e-6
    fit_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.k_scope not in ("class", "shared"):
            raise UsageError("unknown scope of k", f"k_scope = {self.k_scope!r}", "use 'class' or 'shared'")
        if self.criterion not in ("ebic", "heldout", "score"):
            raise UsageError("unknown criterion", f"criterion = {self.criterion!r}", "use 'ebic', 'heldout' or 'score'")
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


@dataclass(frozen=True)
class Cell:
    """Outcome of one (rho, gamma) pair; plain arrays, so that a run can be stored and resumed cell by cell.

    Attributes
    ----------
    rho, gamma : float
    k : ndarray [C]
        Chosen sharpness of every class.
    ebic : ndarray [K, C]
        eBIC of every class along the path of k.
    edges : ndarray [K, C]
        Edges of every class along the path.
    gap : ndarray [K]
        Certified relative gaps along the path.
    final_ebic : float
        eBIC of the fit with the chosen k.
    score : float
        What the cells are ranked by; larger is better.
    seconds : float
        CPU seconds of the process.
    """

    rho: float
    gamma: float
    k: Array
    ebic: Array
    edges: NDArray[np.int64]
    gap: Array
    final_ebic: float
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
        The chosen cell.
    cells : tuple of Cell
        The whole table.
    at_edge : tuple of str
        Which of "k", "rho", "gamma" were chosen at an end of their grid (k = 0 and grids of one value excluded): widen
        these.
    """

    result: JointResult
    weights: Array
    best: Cell
    cells: tuple[Cell, ...]
    at_edge: tuple[str, ...]


Folds = Sequence[tuple[ArrayLike, ArrayLike]]
Score = Callable[[JointResult], float]


def select_joint(  # noqa: PLR0913
    covariances: ArrayLike,
    prior: ArrayLike,
    counts: ArrayLike,
    grid: Grid | None = None,
    *,
    folds: Folds | None = None,
    score: Score | None = None,
    done: Mapping[tuple[float, float], Cell] | None = None,
    on_cell: Callable[[Cell, int, int], None] | None = None,
    progress: Callable[[], None] | None = None,
) -> Selection:
    """Fit the grid and return the best fit with its table.

    Parameters
    ----------
    covariances : array [C, p, p]
    prior : array [C, p, p] or [p, p]
        Edge priors P; ones or zeros at k = 0 for no prior.
    counts : array [C]
        Samples of every class.
    grid : Grid, optional
    folds : sequence of (train, test) covariances [C, p, p]
        Needed by the criterion "heldout".
    score : callable
        Needed by the criterion "score": a fit in, a number out, larger is better.
    done : mapping from (rho, gamma) to Cell
        Cells of an earlier, interrupted run; taken over as they are.
    on_cell : callable (cell, index, total)
        Called after every new cell, for progress and storage.
    progress : callable ()
        Called after every single fit of a path.
    """
    grid = grid or Grid()
    _require_criterion(grid, folds, score)
    study = _Study(
        np.asarray(covariances, dtype=np.float64),
        np.asarray(prior, dtype=np.float64),
        np.asarray(counts, dtype=np.float64),
        grid,
        folds,
        score,
        progress,
    )
    cells = []
    for index, key in enumerate(grid.cells):
        cell = (done or {}).get(key)
        if cell is None:
            cell = study.fit_cell(*key)
            if on_cell is not None:
                on_cell(cell, index, len(grid.cells))
        cells.append(cell)
    best = max(cells, key=lambda cell: cell.score)
    result, weights = study.fit(best.rho, best.gamma, best.k, None, tol=min(grid.tol, 1e-9))
    return Selection(result, weights, best, tuple(cells), _edges_of_grid(best, grid))


@dataclass(frozen=True)
class _Study:
    covariances: Array
    prior: Array
    counts: Array
    grid: Grid
    folds: Folds | None
    score: Score | None
    progress: Callable[[], None] | None

    def fit(
        self, rho: float, gamma: float, k: ArrayLike, initial: Any, tol: float | None = None, covariances: Any = None
    ) -> tuple[JointResult, Array]:
        n_classes = len(self.covariances)
        prior = np.broadcast_to(self.prior, self.covariances.shape)
        weights = prior_weights(prior, k, self.grid.midpoint)
        level = gamma * penalty_scale(weights) if self.grid.preserve_penalty else np.full(n_classes, gamma)
        common = rho * n_classes if self.grid.scale_rho else rho
        target = self.covariances if covariances is None else covariances
        result = fit_joint(
            target, weights, common, level, initial=initial, tol=tol or self.grid.tol, **self.grid.fit_options
        )
        if self.progress is not None:
            self.progress()
        return result, weights

    def fit_cell(self, rho: float, gamma: float) -> Cell:
        """Fit the path of k, choose k, fit once more if it differs over classes, and score."""
        values, edges, gaps, seconds = [], [], [], 0.0
        fits: dict[float, JointResult] = {}
        initial = None
        for k in self.grid.k:
            initial, _ = self.fit(rho, gamma, float(k), initial)
            fits[float(k)] = initial
            values.append(ebic_per_class(initial.precision, self.covariances, self.counts, self.grid.ebic_gamma))
            edges.append(initial.edges)
            gaps.append(initial.relative_gap)
            seconds += initial.seconds
        table = np.array(values)
        chosen = self._choose(table)
        if (chosen == chosen[0]).all():
            final = fits[float(chosen[0])]
        else:
            final, _ = self.fit(
                rho, gamma, chosen, fits[float(np.median(chosen))] if float(np.median(chosen)) in fits else initial
            )
            seconds += final.seconds
        total = ebic(final.precision, self.covariances, self.counts, self.grid.ebic_gamma)
        return Cell(
            rho,
            gamma,
            chosen,
            table,
            np.array(edges),
            np.array(gaps),
            total,
            self._rank(final, total, rho, gamma, chosen),
            seconds,
        )

    def _choose(self, table: Array) -> Array:
        ks = np.asarray(self.grid.k, dtype=np.float64)
        if self.grid.k_scope == "shared":
            return np.full(table.shape[1], ks[table.sum(1).argmin()])
        return ks[table.argmin(0)]

    def _rank(self, final: JointResult, total: float, rho: float, gamma: float, k: Array) -> float:
        if self.grid.criterion == "ebic":
            return -total
        if self.score is not None and self.grid.criterion == "score":
            return float(self.score(final))
        scores = []
        for train, test in self.folds or ():
            fitted, _ = self.fit(rho, gamma, k, final, covariances=train)
            scores.append(float(self.counts @ log_likelihood(fitted.precision, test)))
        return float(np.mean(scores))


def _require_criterion(grid: Grid, folds: Folds | None, score: Score | None) -> None:
    if grid.criterion == "heldout" and not folds:
        raise UsageError("held-out likelihood needs folds", "folds = None", "pass pairs of train and test covariances")
    if grid.criterion == "score" and score is None:
        raise UsageError("the criterion 'score' needs a score", "score = None", "pass a callable")


def _edges_of_grid(best: Cell, grid: Grid) -> tuple[str, ...]:
    chosen = {"rho": [best.rho], "gamma": [best.gamma], "k": [k for k in best.k if k != 0]}
    axes = {"rho": grid.rho, "gamma": grid.gamma, "k": grid.k}
    return tuple(
        name for name, axis in axes.items() if len(axis) > 1 and any(v in (min(axis), max(axis)) for v in chosen[name])
    )
