r"""Choice of sharpness k and penalties (rho, gamma): eBIC, held-out likelihood, stability or a score of the caller's.

Every (rho, gamma) pair is a cell: a path of fits along k, warm-started, with what the criterion needs beside it. Cells
know nothing of each other, so they are fitted on all cores, with the same bits as one after another.

What chooses k matters: see `judgement` for why eBIC, and any comparison at one (rho, gamma), accepts random priors.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event, Lock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmgl_cli.errors import UsageError
from cmgl_cli.graphs.concurrency import Stopped, available_workers, run_each
from cmgl_cli.graphs.criteria import ebic_per_class, log_likelihood
from cmgl_cli.graphs.grid import Cell, Grid, Selection
from cmgl_cli.graphs.joint import fit_joint
from cmgl_cli.graphs.judgement import Judgement, choose, judge
from cmgl_cli.graphs.prior import penalty_scale, prior_weights
from cmgl_cli.graphs.result import JointResult
from cmgl_cli.graphs.stability import Stability, stars

Array = NDArray[np.float64]
FOLD_TOL = 1e-5
Folds = Sequence[tuple[ArrayLike, ...]]
Score = Callable[[JointResult], float]


def select_joint(  # noqa: PLR0913
    covariances: ArrayLike,
    prior: ArrayLike,
    counts: ArrayLike | None,
    grid: Grid | None = None,
    *,
    folds: Folds | None = None,
    score: Score | None = None,
    resamples: Iterable[ArrayLike] | None = None,
    done: Mapping[tuple[float, float], Cell] | None = None,
    on_cell: Callable[[Cell, int, int], None] | None = None,
    progress: Callable[[], None] | None = None,
    workers: int | None = None,
) -> Selection:
    """Fit the grid and return the best fit with its table.

    Parameters
    ----------
    covariances : array [C, p, p]
    prior : array [C, p, p] or [p, p]
        Edge priors P; ones or zeros at k = 0 for no prior.
    counts : array [C], optional
        Samples of every class; eBIC needs them.
    grid : Grid, optional
    folds : sequence of (train, test) or (train, test, prior)
        Covariances [C, p, p] for held-out likelihood; with a prior of the fold's own where the prior was made from the
        samples, so that no prior has seen the samples that judge it.
    score : callable
        Needed by the criterion "score": a fit in, a number out, larger is better.
    resamples : covariances [C, p, p], any number
        Needed by the criterion "stability": subsamples (see `resampled`).
    done : mapping from (rho, gamma) to Cell
        Cells of an earlier, interrupted run; taken over as they are.
    on_cell : callable (cell, index, total)
        Called after every new cell, for progress and storage, in the order in which they come; again when held-out
        samples complete it. Always in the caller's thread.
    progress : callable ()
        Called after every single fit, in whatever thread made it.
    workers : int, optional
        Cells fitted at a time; by default the cores at hand, at most OMP_NUM_THREADS. The result is the same, bit for
        bit.
    """
    grid = grid or Grid()
    subsamples = tuple(resamples or ())
    _require_criterion(grid, counts, folds, score, subsamples)
    study = _Study(
        np.asarray(covariances, dtype=np.float64),
        np.asarray(prior, dtype=np.float64),
        None if counts is None else np.asarray(counts, dtype=np.float64),
        grid,
        folds or (),
        score,
        subsamples,
        progress,
        workers or available_workers(),
    )
    known = {index: done[key] for index, key in enumerate(grid.cells) if done and key in done}
    pending = [index for index in range(len(grid.cells)) if index not in known]
    known |= study.run(lambda index: study.fit_cell(*grid.cells[index]), pending, on_cell)
    cells = [known[index] for index in range(len(grid.cells))]
    if grid.criterion == "heldout" and study.k_by_folds and len(grid.k) > 1:
        cells = study.climb(cells, on_cell)
    best, gain, error = study.choose_cell(cells)
    result, weights = study.fit(best.rho, best.gamma, best.k, None, tol=min(grid.tol, 1e-9))
    return Selection(result, weights, best, tuple(cells), _edges_of_grid(best, grid), gain, error)


@dataclass(frozen=True)
class _Study:
    covariances: Array
    prior: Array
    counts: Array | None
    grid: Grid
    folds: Folds
    score: Score | None
    resamples: Sequence[ArrayLike]
    progress: Callable[[], None] | None
    workers: int
    stop: Event = field(default_factory=Event)
    scoring: Lock = field(default_factory=Lock)

    def run(
        self,
        work: Callable[[int], Cell],
        indices: Sequence[int],
        on_cell: Callable[[Cell, int, int], None] | None,
    ) -> dict[int, Cell]:
        """Do the work for cells of these indices, several at a time; return the cells by index."""
        cells: dict[int, Cell] = {}

        def keep(index: int, cell: Cell) -> None:
            cells[index] = cell
            if on_cell is not None:
                on_cell(cell, index, len(self.grid.cells))

        run_each(work, indices, keep, self.workers, self.stop)
        return cells

    @property
    def k_by_folds(self) -> bool:
        """Whether held-out likelihood chooses k."""
        return bool(self.folds) and self.grid.k_criterion != "ebic"

    def fit(
        self, rho: float, gamma: float, k: ArrayLike, initial: Any, tol: float | None = None, **other: Any
    ) -> tuple[JointResult, Array]:
        """Fit one point, to the whole sample or to ``covariances`` and ``prior`` given."""
        if self.stop.is_set():
            raise Stopped
        target = np.asarray(other.get("covariances", self.covariances), dtype=np.float64)
        prior = np.broadcast_to(np.asarray(other.get("prior", self.prior), dtype=np.float64), target.shape)
        weights = prior_weights(prior, k, self.grid.midpoint)
        level = gamma * penalty_scale(weights) if self.grid.preserve_penalty else np.full(len(target), gamma)
        common = rho * len(target) if self.grid.scale_rho else rho
        result = fit_joint(
            target, weights, common, level, initial=initial, tol=tol or self.grid.tol, **self.grid.fit_options
        )
        if self.progress is not None:
            self.progress()
        return result, weights

    def fit_cell(self, rho: float, gamma: float) -> Cell:
        """Fit the path of k, choose k within the cell, fit once more if it differs over classes, and score."""
        began, fits = time.thread_time(), self._path(rho, gamma)
        table = np.array([self._ebic(fit) for fit in fits])
        heldout = np.full((len(self.folds) if self._folded else 0, *table.shape), np.nan)
        if self._folded and self.k_by_folds:
            # where cells are ranked by held-out likelihood, `climb` fills in the other k of the cells that matter
            everywhere = self.grid.criterion != "heldout"
            self._hold_out(rho, gamma, heldout, range(len(fits)) if everywhere else [self.grid.baseline])
        cell = Cell(
            rho,
            gamma,
            np.full(table.shape[1], float(self.grid.k[self.grid.baseline])),
            table,
            np.array([fit.edges for fit in fits]),
            np.array([_common_ratio(fit) for fit in fits]),
            np.array([fit.relative_gap for fit in fits]),
            heldout,
            final_edges=float("nan"),
            final_ebic=float("nan"),
            instability=float("nan"),
            score=float("nan"),
            seconds=0.0,
        )
        return replace(self._settled(cell, fits), seconds=time.thread_time() - began)

    def climb(self, cells: list[Cell], on_cell: Callable[[Cell, int, int], None] | None) -> list[Cell]:
        """Hold out along the whole path of k in the best cells, with and without the prior, and in their neighbours.

        Goes on until the neighbours of the best cells are all known: a hill climb on the grid, instead of every k in
        every cell.
        """
        cells, start = list(cells), self.grid.baseline
        while True:
            table = np.stack([cell.heldout for cell in cells])
            without, best, _ = choose(table, np.arange(table.shape[1]), self._class_share, start, self._shared)
            wanted = sorted({*self._around(without), *self._around(best)})
            pending = [index for index in wanted if np.isnan(cells[index].heldout).any()]
            if not pending:
                return cells
            for index, cell in self.run(lambda index: self._completed(cells[index]), pending, on_cell).items():
                cells[index] = cell

    def _completed(self, cell: Cell) -> Cell:
        """Hold out at every k of a cell that has not been tried, and settle it anew."""
        began, cell = time.thread_time(), replace(cell, heldout=cell.heldout.copy())
        missing = np.flatnonzero(np.isnan(cell.heldout).any((0, 2)))
        self._hold_out(cell.rho, cell.gamma, cell.heldout, missing.tolist())
        return replace(self._settled(cell, None), seconds=cell.seconds + time.thread_time() - began)

    def _around(self, index: int) -> list[int]:
        """Return the indices of a cell and of its neighbours along rho and along gamma."""
        rows, columns = np.argsort(self.grid.rho), np.argsort(self.grid.gamma)
        row, column = divmod(index, len(columns))
        i, j = int(np.flatnonzero(rows == row)[0]), int(np.flatnonzero(columns == column)[0])
        steps = [(i, j), (i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
        return [
            int(rows[r] * len(columns) + columns[c]) for r, c in steps if 0 <= r < len(rows) and 0 <= c < len(columns)
        ]

    def _settled(self, cell: Cell, fits: list[JointResult] | None) -> Cell:
        """Choose k within the cell, and describe and score the fit it leads to."""
        chosen, sharpness = self._choose_k(cell.ebic, cell.heldout), np.asarray(self.grid.k, dtype=np.float64)
        if fits and (chosen == chosen[0]).all():
            final = fits[chosen[0]]
        else:
            final, _ = self.fit(cell.rho, cell.gamma, sharpness[chosen], fits[int(np.median(chosen))] if fits else None)
        if self._folded and not self.k_by_folds:
            self._hold_out(cell.rho, cell.gamma, cell.heldout, [chosen])
        total, instability = float(self._ebic(final).sum()), float("nan")
        if self.grid.criterion == "stability":
            instability = self._instability(cell.rho, cell.gamma, sharpness[chosen], final)
        return replace(
            cell,
            k=sharpness[chosen],
            final_edges=float(np.mean(final.edges)),
            final_ebic=total,
            instability=instability,
            score=self._rank(final, total, cell.heldout, chosen, instability),
        )

    def choose_cell(self, cells: list[Cell]) -> tuple[Cell, Array, Array]:
        """Return the best cell with the k to use, and what the prior gained in every class with its error."""
        unknown = np.full(len(self.covariances), np.nan)
        if self.grid.criterion == "stability":
            order = sorted(cells, key=lambda cell: (cell.final_edges, -cell.rho, -cell.gamma))
            return order[stars([cell.instability for cell in order], self.grid.stars_threshold)], unknown, unknown
        if self.grid.criterion == "heldout" and self.k_by_folds:
            found = self._judge([cell.heldout for cell in cells])
            k = np.asarray(self.grid.k, dtype=np.float64)[found.k]
            return replace(cells[found.cell], k=k), found.gain, found.gain_error
        return max(cells, key=lambda cell: (cell.score, -cell.final_edges)), unknown, unknown

    def _judge(self, heldout: list[Array]) -> Judgement:
        return judge(heldout, self._class_share, self.grid.baseline, self.grid.strictness, self._shared)

    @property
    def _class_share(self) -> Array:
        counts = np.ones(len(self.covariances)) if self.counts is None else self.counts
        return counts / counts.sum()

    def _path(self, rho: float, gamma: float) -> list[JointResult]:
        fits: list[JointResult] = []
        for k in self.grid.k:
            fits.append(self.fit(rho, gamma, float(k), fits[-1] if fits else None)[0])
        return fits

    def _ebic(self, fit: JointResult) -> Array:
        if self.counts is None:
            return np.full(len(self.covariances), np.nan)
        return ebic_per_class(fit.precision, self.covariances, self.counts, self.grid.ebic_gamma)

    @property
    def _folded(self) -> bool:
        return self.k_by_folds or self.grid.criterion == "heldout"

    def _hold_out(self, rho: float, gamma: float, table: Array, points: Sequence[Any]) -> None:
        """Fill the held-out log-likelihoods [F, K, C] at some indices of k, each one number or one a class."""
        columns = np.arange(len(self.covariances))
        for row, (train, test, *own) in zip(table, self.folds, strict=True):
            other, fit = {"covariances": train, **({"prior": own[0]} if own else {})}, None
            for point in points:
                k = np.asarray(self.grid.k, dtype=np.float64)[point]
                fit, _ = self.fit(rho, gamma, k, fit, tol=max(self.grid.tol, FOLD_TOL), **other)
                row[point, columns] = log_likelihood(fit.precision, test)

    def _choose_k(self, table: Array, heldout: Array) -> NDArray[np.int64]:
        """Return the index of the chosen k of every class [C], within one cell."""
        if len(self.grid.k) == 1:
            return np.zeros(table.shape[1], dtype=np.int64)
        if not self.k_by_folds:
            return np.full(table.shape[1], table.sum(1).argmin()) if self._shared else table.argmin(0)
        return self._judge([heldout]).k

    @property
    def _shared(self) -> bool:
        return self.grid.k_scope == "shared"

    def _instability(self, rho: float, gamma: float, k: Array, final: JointResult) -> float:
        p = self.covariances.shape[1]
        frequency, common = np.zeros(self.covariances.shape), np.zeros((p, p))
        for covariances in self.resamples:
            fit, _ = self.fit(rho, gamma, k, final, tol=max(self.grid.tol, FOLD_TOL), covariances=covariances)
            frequency += np.asarray(fit.precision) != 0
        return Stability(frequency / len(self.resamples), common, len(self.resamples)).instability

    def _rank(
        self, final: JointResult, total: float, heldout: Array, chosen: NDArray[np.int64], instability: float
    ) -> float:
        if self.grid.criterion == "stability":
            return -instability
        if self.score is not None and self.grid.criterion == "score":
            with self.scoring:  # a caller's function need not expect threads
                return float(self.score(final))
        if self.grid.criterion == "heldout":
            return float(heldout[:, chosen, np.arange(len(chosen))].mean(0) @ self._class_share)
        return -total


def _common_ratio(fit: JointResult) -> float:
    upper = np.triu_indices(np.shape(fit.common)[0], 1)
    any_class = (np.asarray(fit.precision)[:, *upper] != 0).any(0).sum()
    return float((np.asarray(fit.common)[upper] != 0).sum() / max(1, any_class))


def _require_criterion(
    grid: Grid,
    counts: ArrayLike | None,
    folds: Folds | None,
    score: Score | None,
    resamples: Sequence[ArrayLike] | None,
) -> None:
    if not folds and (grid.criterion == "heldout" or grid.k_criterion == "heldout"):
        raise UsageError("held-out likelihood needs folds", "folds = None", "pass pairs of train and test covariances")
    if grid.criterion == "score" and score is None:
        raise UsageError("the criterion 'score' needs a score", "score = None", "pass a callable")
    if grid.criterion == "stability" and not resamples:
        raise UsageError("the criterion 'stability' needs resamples", "resamples = None", "pass covariances")
    several_cells, several_k = len(grid.cells) > 1, len(grid.k) > 1
    needs = (grid.criterion == "ebic" and several_cells) or (several_k and (grid.k_criterion == "ebic" or not folds))
    if counts is None and needs:
        raise UsageError(
            "eBIC needs the number of samples of every class",
            "counts = None",
            "pass counts, or one value each of k, rho and gamma",
        )


def _edges_of_grid(best: Cell, grid: Grid) -> tuple[str, ...]:
    chosen = {"rho": [best.rho], "gamma": [best.gamma], "k": [k for k in best.k if k != 0]}
    axes = {"rho": grid.rho, "gamma": grid.gamma, "k": grid.k}
    return tuple(
        name for name, axis in axes.items() if len(axis) > 1 and any(v in (min(axis), max(axis)) for v in chosen[name])
    )
