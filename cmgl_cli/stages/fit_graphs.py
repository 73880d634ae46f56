"""``cmgl fit-graphs``: node observations and a prior in, common and class-specific graphs out."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from cmgl_cli.artifacts import Artifact, ArtifactWriter, publish_file
from cmgl_cli.errors import NotConvergedError, UsageError
from cmgl_cli.graphs import (
    Grid,
    JointResult,
    Moments,
    Selection,
    Stability,
    correlation,
    edge_stability,
    edge_table,
    fit_joint,
    penalty_scale,
    prior_midpoint,
    select_joint,
)
from cmgl_cli.pipeline import Job, Prepared
from cmgl_cli.settings import SHARPNESSES, FitGraphsConfig
from cmgl_cli.sufficient import Statistics, Study, deviations, fold_correlations


def prepare(job: Job) -> Prepared:
    """Nothing beside artifacts is read."""
    return Prepared()


def compute(job: Job, state: None, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    """Transform, accumulate covariances, choose k, rho and gamma, fit, certify."""
    # matrices of a few hundred nodes: more BLAS threads only wait for each other (measured: 0.4 s became 31 s)
    with threadpool_limits(1, user_api="blas"):
        _compute(job, inputs, out)


def _compute(job: Job, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    config: FitGraphsConfig = job.config
    nodes, prior = inputs["nodes"], inputs["prior"].finite("prior")
    modality = "text" if inputs["prior"].config["direction"] == "image-to-text" else "image"
    study = Study(inputs, job.step.variant, modality, config.scope, config.seed, job.console)
    statistics = study.statistics()
    moments = statistics.whole
    _warn_of_small_classes(job, moments, nodes["classes"])
    covariances = moments.covariances()
    correlations, scale = correlation(covariances), deviations(covariances)
    selection = _select(job, statistics, correlations, prior)
    result = selection.result
    if not result.converged and not config.allow_unconverged:
        raise NotConvergedError(
            f"the fit stopped at a certified gap of {result.relative_gap:.2e}, above --tol {config.tol:g}",
            f"rho = {selection.best.rho}, gamma = {selection.best.gamma}, after {result.n_iter} iterations",
            "raise --max-iter or --tol, or accept it with --allow-unconverged",
        )
    arrays = {
        "classes": nodes["classes"],
        "modality": np.array([modality], dtype=object),
        "precision": result.precision,
        "common": result.common,
        "specific": result.specific,
        "covariance": correlations,
        "scale": scale,
        "means": moments.means,
        "counts": moments.counts.astype(np.int64),
        "k": selection.best.k,
        "weights": selection.weights,
    }
    for name, values in arrays.items():
        out.write(name, np.asarray(values))
    stability = _stability(job, study, statistics, selection)
    if stability is not None:
        out.write("stability/frequency", stability.frequency)
        out.write("stability/common_frequency", stability.common_frequency)
    if config.edges:
        frequency = None if stability is None else stability.frequency
        _write_edges(_edge_path(job), edge_table(result, frequency), nodes["classes"])
    out.write_group("transform", statistics.transform.to_arrays())
    out.write_group("selection", _selection_arrays(selection, config, _sharpnesses(config, prior)))
    # times differ from run to run, so they stay outside the content
    out.provenance["cpu_seconds"] = round(sum(cell.seconds for cell in selection.cells) + result.seconds, 3)
    out.write_group("normality", {key: np.array(value) for key, value in statistics.normality.items()})
    out.write_group("history", _history_arrays(result))


def _select(job: Job, statistics: Statistics, correlations: np.ndarray, prior: np.ndarray) -> Selection:
    config: FitGraphsConfig = job.config
    cells = len(config.rho) * len(config.gamma)
    grid = Grid(
        k=_sharpnesses(config, prior),
        rho=config.rho,
        gamma=config.gamma,
        k_scope="shared" if config.k_shared else "class",
        criterion="heldout" if config.select == "held-out" and cells > 1 else "ebic",
        midpoint=prior_midpoint(prior) if config.midpoint == "quantile" else _number(config.midpoint, "midpoint"),
        preserve_penalty=config.preserve_penalty,
        tol=config.tol,
        fit_options={
            "solver": config.solver,
            "max_iter": config.max_iter,
            "penalize_diagonal": config.penalize_diagonal,
            "ridge": config.ridge,
            "weight_floor": config.weight_floor,
        },
    )
    folds = fold_correlations(statistics.moments) if grid.criterion == "heldout" else None
    with job.console.progress(f"{job.step.label}: grid", len(grid.cells), "cells") as ticker:
        return select_joint(
            correlations,
            prior,
            statistics.whole.counts,
            grid,
            folds=folds,
            on_cell=lambda cell, index, total: ticker.advance(),
        )


def _stability(job: Job, study: Study, statistics: Statistics, selection: Selection) -> Stability | None:
    """Refit on subsamples of the images at the chosen point, so that every edge comes with a frequency."""
    config: FitGraphsConfig = job.config
    if not config.stability:
        return None
    if study.kind == "patch":
        job.console.warn("--stability counts edges over subsamples of images; patch graphs are left without")
        return None
    z, labels = study.training_scores(statistics.transform)
    best, weights = selection.best, selection.weights
    level = best.gamma * (penalty_scale(weights) if config.preserve_penalty else 1.0)

    def refit(correlations: np.ndarray) -> JointResult:
        return fit_joint(
            correlations, weights, best.rho, level, tol=1e-5, ridge=config.ridge, weight_floor=config.weight_floor
        )

    with job.console.progress("fit-graphs: stability", config.stability, "fits") as ticker:
        return edge_stability(
            z, labels, refit, config.stability, seed=config.seed, on_resample=lambda index, total: ticker.advance()
        )


def _edge_path(job: Job) -> Path:
    """Return where the edge list goes: one file a kind of observation."""
    path: Path = job.config.edges
    return path if job.step.variant == "image" else path.with_name(f"{path.stem}-{job.step.variant}{path.suffix}")


def _write_edges(path: Path, columns: Mapping[str, np.ndarray], classes: np.ndarray) -> None:
    """Write the edges of all classes as CSV, classes by name."""
    named = {**columns, "class": classes[columns["class"]]}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(named)
    writer.writerows(zip(*(values.tolist() for values in named.values()), strict=True))
    publish_file(path, lambda file: file.write(text.getvalue().encode()))


def _sharpnesses(config: FitGraphsConfig, prior: np.ndarray) -> tuple[float, ...]:
    if np.ptp(prior[:, *np.triu_indices(prior.shape[1], 1)]) == 0:
        return (0.0,)  # a constant prior gives equal weights whatever k
    if config.k == "auto":
        return tuple(sorted({float(k) for k in (*SHARPNESSES, config.k_max) if k <= config.k_max}))
    if config.k == "all":
        return tuple(float(k) for k in range(config.k_max + 1))
    return tuple(_number(text, "k") for text in config.k.split(","))


def _number(text: str, key: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"cannot use this value for {key}",
            f"fit-graphs: {key} = {text!r}",
            "write a number, or see --help for the words",
        ) from None


def _warn_of_small_classes(job: Job, moments: Moments, classes: np.ndarray) -> None:
    p = moments.means.shape[1]
    small = np.flatnonzero(moments.counts < p)
    if len(small):
        names = ", ".join(f"{classes[c]} ({moments.counts[c]})" for c in small[:5])
        job.console.warn(
            f"{len(small)} classes have fewer observations than the {p} nodes: {names}. "
            "Their graphs rest on the penalty; fewer --nodes in distill, or --observations patch, give them ground"
        )


def _selection_arrays(selection: Selection, config: FitGraphsConfig, ks: tuple[float, ...]) -> dict[str, np.ndarray]:
    cells = selection.cells
    return {
        "rho": np.array([cell.rho for cell in cells]),
        "gamma": np.array([cell.gamma for cell in cells]),
        "score": np.array([cell.score for cell in cells]),
        "ebic": np.array([cell.final_ebic for cell in cells]),
        "k": np.array([cell.k for cell in cells]),
        "sharpness": np.array(ks),
        "ebic_of_k": np.array([cell.ebic for cell in cells]),
        "edges_of_k": np.array([cell.edges for cell in cells]),
        "gap": np.array([cell.gap.max() for cell in cells]),
        "chosen_rho": np.array(selection.best.rho),
        "chosen_gamma": np.array(selection.best.gamma),
        "criterion": np.array([config.select], dtype=object),
        "at_edge": np.array(list(selection.at_edge) or [""], dtype=object),
    }


def _history_arrays(result: JointResult) -> dict[str, np.ndarray]:
    return {
        "iteration": np.array([step.iteration for step in result.history], dtype=np.int64),
        "objective": np.array([step.objective for step in result.history], dtype=np.float64),
        "gap": np.array([step.gap for step in result.history], dtype=np.float64),
        "relative_gap": np.array(result.relative_gap),
        "kkt_residual": np.array(result.kkt_residual),
        "iterations": np.array(result.n_iter),
        "components": np.asarray(result.components),
    }


def summarize(artifact: Artifact, job: Job) -> None:
    """Say what was chosen, how sparse the graphs are, and how well the solution is certified."""
    precision, common, specific = (artifact[name] for name in ("precision", "common", "specific"))
    upper = np.triu_indices(precision.shape[1], 1)
    edges = (precision[:, *upper] != 0).sum(axis=1)
    specific_edges = (specific[:, *upper] != 0).sum(axis=1)
    selection, history, k = artifact.group("selection"), artifact.group("history"), artifact["k"]
    normality = {key: float(value) for key, value in artifact.group("normality").items()}
    values = {
        "classes x nodes": f"{precision.shape[0]} x {precision.shape[1]}",
        "observations a class": f"{artifact['counts'].min()} to {artifact['counts'].max()}",
        "rho, gamma": f"{selection['chosen_rho']:g}, {selection['chosen_gamma']:g} ({selection['criterion'][0]})",
        "k": f"mean {k.mean():.1f}, {np.mean(k == 0):.0%} at 0",
        "edges a class": f"{edges.mean():.0f} of {len(upper[0])} (common {int((common[upper] != 0).sum())}, "
        f"specific {specific_edges.mean():.0f})",
        "certified gap": f"{float(history['relative_gap']):.1e} after {int(history['iterations'])} iterations",
    }
    if normality:
        values["Shapiro-Wilk passes"] = (
            f"{normality['before']:.0%} before, {normality['after']:.0%} after the transform"
        )
    job.console.fields(job.step.label, {**values, "output": str(job.output)})
    edges_of_grid = [name for name in selection["at_edge"].tolist() if name]
    if edges_of_grid:
        job.console.warn(
            f"{job.step.label}: {', '.join(edges_of_grid)} chosen at the end of the grid; a wider one may do better"
        )
