"""``cmgl fit-graphs``: node observations and a prior in, common and class-specific graphs out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cmgl_cli.artifacts import Artifact, ArtifactWriter, SampleTable
from cmgl_cli.errors import NotConvergedError, UsageError
from cmgl_cli.graphs import (
    Grid,
    JointResult,
    Moments,
    Nonparanormal,
    Selection,
    correlation,
    prior_midpoint,
    select_joint,
    shapiro_pass_rate,
)
from cmgl_cli.observations import image_observations, patch_observations, patch_sample
from cmgl_cli.pipeline import Job, Prepared
from cmgl_cli.settings import SHARPNESSES, FitGraphsConfig

FOLDS = 5
NORMALITY_SAMPLES = 2000


@dataclass(frozen=True)
class Statistics:
    """What the fit sees of the observations.

    Attributes
    ----------
    transform : Nonparanormal
    moments : list of Moments
        One a fold; merged they are the whole.
    normality : dict
        Shapiro-Wilk pass rates on held-out observations, before and after the transform.
    """

    transform: Nonparanormal
    moments: list[Moments]
    normality: dict[str, float]

    @property
    def whole(self) -> Moments:
        """All folds together."""
        return _merged(self.moments)


def prepare(job: Job) -> Prepared:
    """Nothing beside artifacts is read."""
    return Prepared()


def compute(job: Job, state: None, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    """Transform, accumulate covariances, choose k, rho and gamma, fit, certify."""
    config: FitGraphsConfig = job.config
    nodes, prior = inputs["nodes"], inputs["prior"].finite("prior")
    modality = "text" if inputs["prior"].config["direction"] == "image-to-text" else "image"
    statistics = _statistics(job, inputs, modality)
    moments = statistics.whole
    _warn_of_small_classes(job, moments, nodes["classes"])
    covariances = moments.covariances()
    correlations, scale = correlation(covariances), _deviations(covariances)
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
    out.write_group("transform", statistics.transform.to_arrays())
    out.write_group("selection", _selection_arrays(selection, config, _sharpnesses(config, prior)))
    # times differ from run to run, so they stay outside the content
    out.provenance["cpu_seconds"] = round(sum(cell.seconds for cell in selection.cells) + result.seconds, 3)
    out.write_group("normality", {key: np.array(value) for key, value in statistics.normality.items()})
    out.write_group("history", _history_arrays(result))


def _statistics(job: Job, inputs: Mapping[str, Artifact], modality: str) -> Statistics:
    nodes = inputs["nodes"]
    table = SampleTable.read(nodes, modality)
    usable = nodes[f"{modality}/valid"] & table.labelled
    train = np.flatnonzero(usable & (table.parts == "train"))
    table.require_classes(train, "training observation")
    held_out = np.flatnonzero(usable & (table.parts == "validation"))
    rng = np.random.default_rng(job.config.seed)
    folds = _folds(table, train, rng)
    collect = _patch_statistics if job.step.variant == "patch" else _image_statistics
    return collect(job, inputs, modality, table, train, held_out, folds)


def _folds(table: SampleTable, train: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the fold of every training row, stratified by class; a sample stays whole."""
    folds = np.empty(len(train), dtype=np.int64)
    for label in np.unique(table.label[train]):
        rows = np.flatnonzero(table.label[train] == label)
        folds[rng.permutation(rows)] = np.arange(len(rows)) % FOLDS
    return folds


def _image_statistics(job, inputs, modality, table, train, held_out, folds) -> Statistics:  # noqa: PLR0913
    z, labels = image_observations(inputs["nodes"], modality)
    groups = table.label[train] if job.config.scope == "class" else None
    transform = Nonparanormal(job.config.scope).fit(z[train], groups)
    moments = [Moments(len(table.classes), z.shape[1]) for _ in range(FOLDS)]
    for label in range(len(table.classes)):
        member = table.presence[train, label]
        transformed = transform.transform(z[train[member]], label if job.config.scope == "class" else None)
        for fold in range(FOLDS):
            chosen = folds[member] == fold
            if chosen.any():
                moments[fold].update(transformed[chosen], np.full(int(chosen.sum()), label))
    return Statistics(transform, moments, _normality(transform, z[held_out], table.label[held_out]))


def _patch_statistics(job, inputs, modality, table, train, held_out, folds) -> Statistics:  # noqa: PLR0913
    features = _patch_features(job, inputs, modality)
    nodes = inputs["nodes"]
    sample = patch_sample(nodes, features, train, job.config.seed)
    transform = Nonparanormal(job.config.scope).fit(
        sample.values, table.label[sample.rows] if job.config.scope == "class" else None
    )
    moments = [Moments(len(table.classes), sample.values.shape[1]) for _ in range(FOLDS)]
    fold_of = dict(zip(train.tolist(), folds.tolist(), strict=True))
    with job.console.progress("fit-graphs: patches", len(train), "images") as ticker:
        for row, observations in patch_observations(nodes, features, train):
            for label in np.flatnonzero(table.presence[row]):
                values = transform.transform(observations, int(label) if job.config.scope == "class" else None)
                moments[fold_of[row]].update(values, np.full(len(values), label))
            ticker.advance()
    held = patch_sample(nodes, features, held_out, job.config.seed) if len(held_out) else None
    normality = _normality(transform, held.values, table.label[held.rows]) if held is not None else {}
    return Statistics(transform, moments, normality)


def _patch_features(job: Job, inputs: Mapping[str, Artifact], modality: str) -> Artifact:
    role = "text_features" if modality == "text" else "features"
    if role not in inputs:
        raise UsageError(
            "patch observations need the patch tokens",
            f"{job.inputs['nodes'].parent}: no {role} artifact",
            "give --features FILE, or use --observations image",
        )
    return inputs[role]


def _normality(transform: Nonparanormal, z: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the pass rates within classes on observations the transform never saw."""
    single = labels >= 0
    z, labels = z[single][:NORMALITY_SAMPLES], labels[single][:NORMALITY_SAMPLES]
    if np.bincount(labels, minlength=1).max(initial=0) < 3:
        return {}
    after = transform.transform(z) if transform.scope == "pooled" else _by_class(transform, z, labels)
    return {"before": shapiro_pass_rate(z, labels), "after": shapiro_pass_rate(after, labels)}


def _by_class(transform: Nonparanormal, z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    out = np.empty(z.shape)
    for label in np.unique(labels):
        out[labels == label] = transform.transform(z[labels == label], int(label))
    return out


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
            "max_iter": config.max_iter,
            "penalize_diagonal": config.penalize_diagonal,
            "ridge": config.ridge,
            "weight_floor": config.weight_floor,
        },
    )
    folds = _fold_correlations(statistics.moments) if grid.criterion == "heldout" else None
    with job.console.progress(f"{job.step.label}: grid", len(grid.cells), "cells") as ticker:
        return select_joint(
            correlations,
            prior,
            statistics.whole.counts,
            grid,
            folds=folds,
            on_cell=lambda cell, index, total: ticker.advance(),
        )


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


def _merged(moments: list[Moments]) -> Moments:
    whole = Moments(*moments[0].means.shape)
    for part in moments:
        whole.merge(part)
    return whole


def _deviations(covariances: np.ndarray) -> np.ndarray:
    return np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))


def _fold_correlations(moments: list[Moments]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (train, test) matrices a fold, both in the units of the training part."""
    pairs = []
    for index, fold in enumerate(moments):
        if (fold.counts < 2).any():
            continue
        train = _merged([part for other, part in enumerate(moments) if other != index]).covariances()
        deviations = _deviations(train)
        test = fold.covariances() / (deviations[:, :, None] * deviations[:, None, :])
        pairs.append((correlation(train), test))
    if not pairs:
        raise UsageError(
            "held-out likelihood needs at least ten training samples a class",
            "fit-graphs: select = held-out",
            "use --select ebic, or give one value each for --rho and --gamma",
        )
    return pairs


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
