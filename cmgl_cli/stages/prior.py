"""``cmgl prior``: attention in, priors on the edges out."""

from collections.abc import Mapping

import numpy as np

from cmgl_cli.artifacts import Artifact, ArtifactWriter, SampleTable
from cmgl_cli.errors import InputError
from cmgl_cli.graphs import attention_prior, summarize_prior
from cmgl_cli.nodes.attention import AttentionMean, page_weights, resample_attention
from cmgl_cli.pipeline import Job, Prepared

BLOCK_ROWS = 256
# with every prior at the midpoint of (11), all penalty weights are equal whatever k
NO_PRIOR = 0.5


def prepare(job: Job) -> Prepared:
    """Nothing beside artifacts is read."""
    return Prepared()


def compute(job: Job, state: None, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    """Average the attention of every class and modality (4), and take the overlap of the footprints (5, 6)."""
    nodes = inputs["nodes"]
    modalities = [name for name in ("image", "text") if f"{name}/attention" in nodes]
    direction = job.config.direction
    if direction in {"text-to-image", "image-to-text"} and "text" not in modalities:
        raise InputError(
            f"the direction {direction} needs the nodes of rendered texts",
            f"{nodes.path} has images only",
            f"run: {job.command('render-text')}, then extract and distill again; or choose --direction self",
        )
    overlaps = {}
    for name in modalities:
        mean, count = _mean_attention(nodes, name)
        overlaps[name] = attention_prior(mean)
        out.write(f"{name}/attention", mean)
        out.write(f"{name}/overlap", overlaps[name])
        out.write(f"{name}/count", count)
    out.write("classes", nodes["classes"])
    out.write("prior", _chosen(direction, overlaps))


def _mean_attention(nodes: Artifact, name: str) -> tuple[np.ndarray, np.ndarray]:
    table = SampleTable.read(nodes, name)
    usable = nodes[f"{name}/valid"] & table.labelled & (table.parts == "train" if name == "image" else True)
    if name == "text":
        table.require_classes(np.flatnonzero(usable), "text")
    grids, attention = nodes[f"{name}/grid"], nodes.stream(f"{name}/attention")
    weights = page_weights(table.items) if name == "text" else np.ones(len(table))
    common = tuple(int(n) for n in np.median(grids[usable], axis=0).round())
    mean = AttentionMean(len(table.classes), attention.shape[1], common[0] * common[1])
    for start in range(0, len(table), BLOCK_ROWS):
        rows = np.flatnonzero(usable[start : start + BLOCK_ROWS])
        if not len(rows):
            continue
        maps = _on_grid(attention[start : start + BLOCK_ROWS][rows], grids[start + rows], common)
        mean.update(maps, table.presence[start + rows], weights[start + rows])
    count = np.array([len(np.unique(table.items[usable & table.presence[:, c]])) for c in range(len(table.classes))])
    # masks show what they show: a class that no training image does looks where the others look
    return mean.mean(table.classes.tolist(), pooled=name == "image"), count


def _on_grid(attention: np.ndarray, grids: np.ndarray, common: tuple[int, ...]) -> np.ndarray:
    if (grids == common).all():
        return attention[..., : common[0] * common[1]]
    target = (common[0], common[1])
    return np.stack(
        [resample_attention(a, (int(g[0]), int(g[1])), target) for a, g in zip(attention, grids, strict=True)]
    )


def _chosen(direction: str, overlaps: Mapping[str, np.ndarray]) -> np.ndarray:
    if direction == "none":
        return np.full_like(overlaps["image"], NO_PRIOR)
    return overlaps["text" if direction == "text-to-image" else "image"]


def summarize(artifact: Artifact, job: Job) -> None:
    """Print the distribution of the off-diagonal priors, and say so when they carry nothing."""
    direction = artifact.config["direction"]
    summary = summarize_prior(artifact["prior"])
    names = ("least", "25 %", "median", "75 %", "most")
    values = {name: round(value, 4) for name, value in zip(names, summary.quantiles, strict=True)}
    job.console.fields(
        "prior",
        {
            "direction": direction,
            **values,
            "spread (5 % to 95 %)": round(summary.spread, 4),
            "share above 0.95": round(summary.share_near_one, 4),
            "output": str(job.output),
        },
    )
    if direction == "none":
        return
    unseen = artifact["classes"][artifact["image/count"] == 0]
    if len(unseen):
        job.console.warn(f"{len(unseen)} classes have no training image: {', '.join(unseen[:10])}")
    if not summary.informative:
        job.console.warn(
            "these priors hardly differ from edge to edge, so they cannot guide the graphs: the nodes' footprints "
            "overlap alike. Sharper nodes (more epochs, more texts) would help; --midpoint quantile in fit-graphs "
            "uses what spread there is."
        )
