"""The search over rho, gamma and k as it runs: cell by cell, kept after every cell, with its table as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from cmgl_cli.artifacts import ArtifactWriter
from cmgl_cli.console import Console
from cmgl_cli.errors import UsageError
from cmgl_cli.evidence import Evidence
from cmgl_cli.graphs import Cell, Grid, Selection, select_joint

CRITERIA: Mapping[str, str] = {"held-out": "heldout", "ebic": "ebic", "score": "score", "stability": "stability"}
SUBSAMPLES = 20


def criterion(select: str, select_k: str, evidence: Evidence) -> tuple[str, str]:
    """Return what `Grid` calls the criteria of rho and gamma, and of k.

    Auto is held-out likelihood where there are samples; for k it follows an explicit eBIC.
    """
    by = ("heldout" if evidence.sampled else "ebic") if select == "auto" else CRITERIA[select]
    if select_k != "auto":
        return by, CRITERIA[select_k]
    return by, "heldout" if evidence.sampled and by != "ebic" else "ebic"


def search(
    evidence: Evidence,
    prior: np.ndarray,
    grid: Grid,
    out: ArtifactWriter,
    console: Console,
    label: str,
    subsamples: tuple[int, int],
) -> Selection:
    """Run the grid, going on from the cells that an interrupted run finished.

    Parameters
    ----------
    evidence : Evidence
    prior : ndarray, [C, p, p]
    grid : Grid
    out : ArtifactWriter
        Keeps the finished cells beside the output until it is published.
    console : Console
    label : str
        Of the step, for messages.
    subsamples : (int, int)
        Number (0: the default) and seed of the subsamples of the criterion "stability".
    """
    _require_counts(evidence, grid)
    folded = grid.criterion == "heldout" or grid.k_criterion == "heldout"
    done = cells_from_arrays(out.load_checkpoint() or {})
    if done:
        console.info(f"{label}: going on, {len(done)} of {len(grid.cells)} cells of the grid are done")
    finished = dict(done)
    with console.progress(f"{label}: grid", len(grid.cells), "cells", len(done)) as ticker:

        def keep(cell: Cell, index: int, total: int) -> None:
            if (cell.rho, cell.gamma) not in finished:
                ticker.advance()
            finished[cell.rho, cell.gamma] = cell
            out.save_checkpoint(cells_to_arrays(list(finished.values())))

        return select_joint(
            evidence.correlations,
            prior,
            evidence.counts,
            grid,
            folds=evidence.folds() if folded else None,
            score=evidence.accuracy if grid.criterion == "score" else None,
            resamples=(
                list(evidence.resamples(subsamples[0] or SUBSAMPLES, subsamples[1]))
                if grid.criterion == "stability"
                else None
            ),
            done=done,
            on_cell=keep,
        )


def cells_to_arrays(cells: Sequence[Cell]) -> dict[str, np.ndarray]:
    """Return every field of the cells as one array, a row a cell."""
    return {item.name: np.array([getattr(cell, item.name) for cell in cells]) for item in fields(Cell)}


def cells_from_arrays(arrays: Mapping[str, np.ndarray]) -> dict[tuple[float, float], Cell]:
    """Return the cells that `cells_to_arrays` stored, by (rho, gamma)."""
    if not arrays:
        return {}
    cells = [Cell(**values) for values in _rows(arrays)]
    return {(cell.rho, cell.gamma): cell for cell in cells}


def _rows(arrays: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    count = len(arrays["rho"])
    return [{name: rows[i] if rows.ndim > 1 else float(rows[i]) for name, rows in arrays.items()} for i in range(count)]


def selection_arrays(selection: Selection, grid: Grid) -> dict[str, np.ndarray]:
    """Return the table of the search and what was chosen, as the artifact stores them."""
    # times differ from run to run, so they stay outside the content
    table = {name: values for name, values in cells_to_arrays(selection.cells).items() if name != "seconds"}
    renamed = {"final_ebic": table.pop("final_ebic"), "ebic": table.pop("ebic"), "edges": table.pop("edges")}
    words = {"heldout": "held-out"}
    k_word = "heldout" if selection.cells[0].heldout.size and grid.k_criterion != "ebic" else "ebic"
    return {
        **table,
        "ebic": renamed["final_ebic"],
        "ebic_of_k": renamed["ebic"],
        "edges_of_k": renamed["edges"],
        "sharpness": np.array(grid.k, dtype=np.float64),
        "chosen_rho": np.array(selection.best.rho),
        "chosen_gamma": np.array(selection.best.gamma),
        "criterion": np.array([words.get(grid.criterion, grid.criterion)], dtype=object),
        "k_criterion": np.array([words.get(k_word, k_word)], dtype=object),
        "at_edge": np.array(list(selection.at_edge) or [""], dtype=object),
        "gain": selection.gain,
        "gain_error": selection.gain_error,
    }


def _require_counts(evidence: Evidence, grid: Grid) -> None:
    several = len(grid.cells) > 1 or len(grid.k) > 1
    if evidence.counts is None and several:
        raise UsageError(
            "eBIC needs the number of samples behind every covariance",
            f"fit-graphs: covariance has no n_samples, and {len(grid.cells)} x {len(grid.k)} points are to be compared",
            "add n_samples to the file, or give one value each for --rho, --gamma and --k",
        )
