"""``cmgl fit-graphs``: node observations, or covariances, and a prior in; common and class-specific graphs out."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from threadpoolctl import threadpool_limits

from cmgl_cli.artifacts import Artifact, ArtifactWriter, SampleTable, publish_file, read_header
from cmgl_cli.datasets import Dataset, open_dataset
from cmgl_cli.errors import InputError, NotConvergedError, UsageError
from cmgl_cli.evidence import Evidence, Given, Observed
from cmgl_cli.graphs import (
    Grid,
    JointResult,
    Selection,
    Stability,
    edge_frequencies,
    edge_table,
    edges_csv,
    edges_graphml,
    named_edges,
    prior_midpoint,
)
from cmgl_cli.matrices import OwnCovariances, OwnPrior, read_covariances, read_prior
from cmgl_cli.pipeline import Job, Prepared
from cmgl_cli.refits import ChosenPoint, cross_fits
from cmgl_cli.reports import path_figure, png
from cmgl_cli.search import criterion, search, selection_arrays
from cmgl_cli.segmentation.label_maps import LabelMaps, require_one_grid
from cmgl_cli.segmentation.pictures import Pictures
from cmgl_cli.segmentation.regions import RegionEvidence, RegionSource, parsed_windows
from cmgl_cli.segmentation.sequences import sequence_folds
from cmgl_cli.settings import GRID, SHARPNESSES, FitGraphsConfig
from cmgl_cli.sufficient import Study

REGION_RIDGE = 0.01
# criteria that ask what whole images are; regions of an image have no such answer
IMAGEWISE = ("score",)
PATCHWISE = ("patch", "region")
PICTURE_BYTES = 2**30
EDGE_FILES = (".csv", ".graphml", ".npz")
# with every prior at the midpoint of (11), all penalty weights are equal whatever k
NO_PRIOR = 0.5


@dataclass(frozen=True)
class Own:
    """What the user gave beside artifacts."""

    prior: OwnPrior | None
    covariances: OwnCovariances | None
    dataset: Dataset | None = None


def prepare(job: Job) -> Prepared:
    """Read matrices of the user's own; their content decides the output, not their paths."""
    config: FitGraphsConfig = job.config
    if config.edges and config.edges.suffix.lower() not in EDGE_FILES:
        raise UsageError(
            "unknown kind of edge list", f"fit-graphs: edges = {str(config.edges)!r}", f"use {', '.join(EDGE_FILES)}"
        )
    own = Own(
        read_prior(config.own_prior) if config.own_prior else None,
        read_covariances(config.covariance) if config.covariance else None,
    )
    found = {"own_prior": own.prior, "covariance": own.covariances}
    digests = {role: given.digest for role, given in found.items() if given}
    if _of_texts(job):
        # this prior may hold the numbers of a self-prior of images, but it is about the observations of texts
        digests["observations"] = "text"
    if job.step.variant == "region" and config.appearance and config.region != "image":
        dataset = _dataset(job)
        digests["dataset"] = dataset.fingerprint(dataset.samples())
        own = replace(own, dataset=dataset)
    return Prepared(digests, own)


def _of_texts(job: Job) -> bool:
    if "prior" not in job.inputs or job.step.variant == "region":
        return False
    return read_header(job.inputs["prior"])[0].config["direction"] == "image-to-text"


def _dataset(job: Job) -> Dataset:
    if not job.run.dataset:
        raise UsageError(
            "nodes that see pixels need the images, and no dataset is named",
            "cmgl fit-graphs --observations region",
            "give --dataset NAME (and --root), or leave these nodes out: --no-appearance",
        )
    return open_dataset(job.run.dataset, job.run.root, **job.run.dataset_options)


def compute(job: Job, own: Own, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    """Transform, accumulate covariances, choose k, rho and gamma, fit, certify."""
    # matrices of a few hundred nodes: more BLAS threads only wait for each other (measured: 0.4 s became 31 s)
    with threadpool_limits(1, user_api="blas"):
        _compute(job, own, inputs, out)


def _compute(job: Job, own: Own, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    config: FitGraphsConfig = job.config
    evidence = _evidence(job, own, inputs)
    _warn_of_small_classes(job, evidence)
    prior = _prior(own, inputs, evidence)
    grid = _grid(config, evidence, prior)
    selection = search(evidence, prior, grid, out, job.console, job.step.label, (config.stability, config.seed))
    result = selection.result
    job.console.info(f"{job.step.label}: solver {result.solver}")
    if not result.converged and not config.allow_unconverged:
        raise NotConvergedError(
            f"the fit stopped at a certified gap of {result.relative_gap:.2e}, above --tol {config.tol:g}",
            f"rho = {selection.best.rho}, gamma = {selection.best.gamma}, after {result.n_iter} iterations",
            "raise --max-iter or --tol, or accept it with --allow-unconverged",
        )
    fitted = {
        "precision": result.precision,
        "specific": result.specific,
        "k": selection.best.k,
        "weights": selection.weights,
    }
    arrays = {
        **evidence.arrays(),
        "common": result.common,
        **{name: evidence.for_all(np.asarray(values)) for name, values in fitted.items()},
    }
    for name, values in arrays.items():
        out.write(name, np.asarray(values))
    if isinstance(evidence, RegionEvidence) and job.config.cross_fit and evidence.n_sequence_folds > 1:
        out.write_group("crossfit", _cross_fits(job, evidence, selection, arrays))
    stability = _stability(job, evidence, selection)
    if stability is not None:
        out.write("stability/frequency", evidence.for_all(stability.frequency))
        out.write("stability/common_frequency", stability.common_frequency)
    table = selection_arrays(selection, grid)
    out.write_group("selection", table)
    # times differ from run to run, so they stay outside the content
    out.provenance["cpu_seconds"] = round(sum(cell.seconds for cell in selection.cells) + result.seconds, 3)
    out.provenance["solver"] = result.solver  # what "auto" came to
    out.write_group("history", _history_arrays(result))
    if config.edges:
        columns = edge_table(result, None if stability is None else stability.frequency)
        _write_edges(_edge_path(job), columns, evidence.classes.tolist(), arrays.get("nodes"), result)
    if config.figures and (len(grid.cells) > 1 or len(grid.k) > 1):
        publish_file(_figure_path(job), partial(_write_figure, table))


def _evidence(job: Job, own: Own, inputs: Mapping[str, Artifact]) -> Evidence:
    config: FitGraphsConfig = job.config
    if own.covariances:
        return Given(own.covariances, config.folds, config.seed)
    if job.step.variant == "region":
        return _regions(job, own, inputs)
    modality = "text" if _of_texts(job) else "image"
    return Observed(
        Study(inputs, job.step.variant, modality, config.scope, config.seed, job.console, n_folds=config.folds)
    )


def _regions(job: Job, own: Own, inputs: Mapping[str, Artifact]) -> RegionEvidence:
    """Accumulate what the masks give to each class; say which classes see too little for a graph of their own."""
    config: FitGraphsConfig = job.config
    nodes, features = inputs["nodes"], inputs["features"]
    table = SampleTable.read(nodes, "image")
    maps = LabelMaps.read(inputs["masks"], table.ids, nodes.path)
    pictures = None
    if own.dataset is not None:
        pictures = Pictures(own.dataset, table.ids.tolist(), maps.maps.shape[1], PICTURE_BYTES)
    windows = parsed_windows(config.windows, config.region)
    source = RegionSource(nodes, features, maps, require_one_grid(features), config.region, windows, pictures)
    usable, parts = nodes["image/valid"] & maps.known, table.parts
    train, held_out = (np.flatnonzero(usable & (parts == name)) for name in ("train", "validation"))
    if not len(train):
        raise InputError(
            "there are no training images with masks", f"{inputs['masks'].path}: none", "encode the split called train"
        )
    folds = np.random.default_rng(config.seed).permutation(len(train)) % config.folds
    sequences = sequence_folds(table.ids[train], config.folds)
    with job.console.progress(f"{job.step.label}: masks", len(train), "images") as ticker:
        evidence = RegionEvidence(source, train, held_out, folds, sequences, seed=config.seed, on_image=ticker.advance)
    if {config.select, config.select_k} & set(IMAGEWISE):
        job.console.warn(
            f"{job.step.label}: chosen by held-out likelihood; --select {config.select} is about whole images"
        )
    borrowed = maps.classes[evidence.borrowed]
    if len(borrowed):
        job.console.warn(
            f"{len(borrowed)} classes of the masks have fewer observations than there are nodes and take the mean "
            f"graph of the others: {', '.join(borrowed[:10])}"
        )
    return evidence


def _prior(own: Own, inputs: Mapping[str, Artifact], evidence: Evidence) -> np.ndarray:
    shape = evidence.correlations.shape
    if own.prior:
        nodes = own.covariances.nodes if own.covariances else ()
        return own.prior.for_classes(evidence.classes.tolist(), shape[1], nodes)
    return evidence.prior(inputs["prior"].finite("prior")) if "prior" in inputs else np.full(shape, NO_PRIOR)


def _grid(config: FitGraphsConfig, evidence: Evidence, prior: np.ndarray) -> Grid:
    rho, gamma, ks = config.rho, config.gamma, _sharpnesses(config, prior)
    by, by_k = criterion(config.select, config.select_k, evidence)
    if isinstance(evidence, RegionEvidence):
        # tens of thousands of observations a class: the least penalty always wins, and with it a prior says nothing
        rho, gamma = (rho if rho != GRID else GRID[:1]), (gamma if gamma != GRID else GRID[:1])
        ks = (0.0,) if config.k == "auto" else ks
        by, by_k = ("heldout" if name in IMAGEWISE else name for name in (by, by_k))
    cells, ridge = len(rho) * len(gamma), _ridge(config, evidence)
    if cells == 1 and by == "heldout" and (by_k == "ebic" or len(ks) == 1):
        by = "ebic"  # one cell needs no choice
    return Grid(
        k=ks,
        rho=rho,
        gamma=gamma,
        k_scope="shared" if config.k_shared else "class",
        criterion=by,
        k_criterion=by_k if len(ks) > 1 else "ebic",
        strictness=config.strictness,
        midpoint=_midpoint(config.midpoint, prior),
        preserve_penalty=config.preserve_penalty,
        scale_rho=config.scale_rho,
        tol=config.tol,
        fit_options={
            "solver": config.solver,
            "max_iter": config.max_iter,
            "penalize_diagonal": config.penalize_diagonal,
            "ridge": ridge,
            "weight_floor": config.weight_floor,
        },
    )


def _ridge(config: FitGraphsConfig, evidence: Evidence) -> float:
    """Return what is added to the diagonal; pixels need some: the three colours of a grey image are one node."""
    if config.ridge is not None:
        return config.ridge
    return REGION_RIDGE if isinstance(evidence, RegionEvidence) else 0.0


def _midpoint(text: str, prior: np.ndarray) -> float | np.ndarray:
    word, _, share = text.partition(":")
    if word != "quantile":
        return _number(text, "midpoint")
    quantile = _number(share, "midpoint") if share else 0.5
    if not 0 <= quantile <= 1:
        raise UsageError("a quantile lies in [0, 1]", f"fit-graphs: midpoint = {text!r}", "write quantile:0.8")
    return prior_midpoint(prior, quantile) if prior.shape[1] > 1 else NO_PRIOR


def _stability(job: Job, evidence: Evidence, selection: Selection) -> Stability | None:
    """Refit on subsamples of the images at the chosen point, so that every edge comes with a frequency."""
    config: FitGraphsConfig = job.config
    if not config.stability:
        return None
    point = _point(config, evidence, selection)
    with job.console.progress("fit-graphs: stability", config.stability, "fits") as ticker:
        matrices = evidence.resamples(config.stability, config.seed)
        return edge_frequencies(matrices, point.fit, lambda index: ticker.advance())


def _point(config: FitGraphsConfig, evidence: Evidence, selection: Selection) -> ChosenPoint:
    return ChosenPoint.of(
        selection,
        scale_rho=config.scale_rho,
        preserve_penalty=config.preserve_penalty,
        penalize_diagonal=config.penalize_diagonal,
        ridge=_ridge(config, evidence),
        weight_floor=config.weight_floor,
    )


def _cross_fits(
    job: Job, evidence: RegionEvidence, selection: Selection, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Fit once more without each fold of sequences, so that decoders can learn from scores of images that are new."""
    folds, point = evidence.sequence_folds, _point(job.config, evidence, selection)
    with job.console.progress(f"{job.step.label}: cross-fits", evidence.n_sequence_folds, "fits") as ticker:
        found = cross_fits(evidence.without_sequences(), evidence.kept, point, arrays, ticker.advance)
    return {"fold": folds, **found}


def _edge_path(job: Job) -> Path:
    """Return where the edge list goes: one file a kind of observation."""
    path: Path = job.config.edges
    variant = job.step.variant
    return path.with_name(f"{path.stem}-{variant}{path.suffix}") if variant in PATCHWISE else path


def _figure_path(job: Job) -> Path:
    return job.output.with_name(f"{job.output.stem}-path.png")


def _write_edges(
    path: Path, columns: Mapping[str, np.ndarray], classes: list[str], nodes: np.ndarray | None, result: JointResult
) -> None:
    """Write the edges of all classes in the format that the suffix names."""
    given = [] if nodes is None else nodes.tolist()
    named = named_edges(columns, classes, given)
    if path.suffix.lower() == ".csv":
        content = edges_csv(named).encode()
    elif path.suffix.lower() == ".graphml":
        content = edges_graphml(named, given or [f"node{i}" for i in range(len(result.common))])
    else:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **named)
        content = buffer.getvalue()
    publish_file(path, lambda file: file.write(content))


def _write_figure(table: Mapping[str, np.ndarray], file: IO[bytes]) -> None:
    file.write(png(path_figure(table)))


def _sharpnesses(config: FitGraphsConfig, prior: np.ndarray) -> tuple[float, ...]:
    entries = prior[:, *np.triu_indices(prior.shape[1], 1)]
    if entries.size == 0 or np.ptp(entries) == 0:
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


def _warn_of_small_classes(job: Job, evidence: Evidence) -> None:
    p, counts = evidence.correlations.shape[1], evidence.counts
    if counts is None:
        return
    small = np.flatnonzero(counts < p)
    if len(small):
        names = ", ".join(f"{evidence.classes[c]} ({counts[c]})" for c in small[:5])
        mend = "fewer --nodes in distill, or --observations patch, give" if evidence.sampled else "more samples give"
        job.console.warn(
            f"{len(small)} classes have fewer observations than the {p} nodes: {names}. "
            f"Their graphs rest on the penalty; {mend} them ground"
        )


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
    counts = artifact["counts"]
    values = {
        "classes x nodes": f"{precision.shape[0]} x {precision.shape[1]}",
        "observations a class": f"{counts.min()} to {counts.max()}" if counts.any() else "not given",
        "rho, gamma": f"{selection['chosen_rho']:g}, {selection['chosen_gamma']:g} ({selection['criterion'][0]})",
        "k": f"mean {k.mean():.1f}, {np.mean(k == 0):.0%} at 0 ({selection['k_criterion'][0]})",
        "edges a class": f"{edges.mean():.0f} of {len(upper[0])} (common {int((common[upper] != 0).sum())}, "
        f"specific {specific_edges.mean():.0f})",
        "certified gap": f"{float(history['relative_gap']):.1e} after {int(history['iterations'])} iterations",
    }
    if normality:
        values["Shapiro-Wilk passes"] = (
            f"{normality['before']:.0%} before, {normality['after']:.0%} after the transform"
            if "before" in normality
            else f"{normality['after']:.0%} after the transform"
        )
    job.console.fields(job.step.label, {**values, "output": str(job.output)})
    _say_what_the_prior_was_worth(selection, job)
    edges_of_grid = [name for name in selection["at_edge"].tolist() if name]
    if edges_of_grid:
        job.console.warn(
            f"{job.step.label}: {', '.join(edges_of_grid)} chosen at the end of the grid; a wider one may do better"
        )
    if {"rho", "gamma"} & set(edges_of_grid) and k.any():
        job.console.warn(
            f"{job.step.label}: where the grid of rho or gamma ends, a prior may be taken for the penalty it relieves, "
            "not for what it says; widen --rho and --gamma before reading anything into k"
        )


def _say_what_the_prior_was_worth(selection: Mapping[str, np.ndarray], job: Job) -> None:
    gain, error = selection["gain"], selection["gain_error"]
    if np.isfinite(gain).all() and len(selection["sharpness"]) > 1:
        job.console.info(
            f"{job.step.label}: on held-out samples the prior is worth {gain.mean():+.4f} nat a sample "
            f"(standard error {np.sqrt((error**2).mean()):.4f} a class) over the best fit without it"
        )
