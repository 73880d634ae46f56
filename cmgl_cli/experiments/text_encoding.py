"""``cmgl experiment text-encoding``: how texts become a prior (CM-GLasso, Table 3).

``rendered`` draws them and reads the pages with the image encoder; ``none`` leaves the prior out; a text encoder named
with ``--text-encoder`` reads them as tokens, through a linear bridge to the nodes. Places of tokens mean nothing across
texts, so there the overlap of footprints (5) is averaged over texts, and not attention (4).
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cmgl_cli.artifacts import SampleTable, open_artifact, publish_file
from cmgl_cli.encoders.token_encoder import token_embeddings
from cmgl_cli.errors import InputError
from cmgl_cli.experiments.chain import Chain
from cmgl_cli.experiments.engine import Cell, Experiment, Request, Results
from cmgl_cli.experiments.measures import graph_scores, selection_measures
from cmgl_cli.experiments.prior_direction import RULES
from cmgl_cli.graphs import attention_prior, summarize_prior
from cmgl_cli.nodes.bridge import Bridged, bridge
from cmgl_cli.nodes.distillation import Distiller
from cmgl_cli.reports.ablation_figures import DotPanel, dots_figure

RENDERED, OTHER, NONE = "rendered", "text encoder", "none"


def cells(request: Request) -> list[Cell]:
    """Return the grid: rules of choice, encodings, seeds; a text encoder where one is named."""
    models = {RENDERED: "", OTHER: request.text_encoder or "", NONE: ""}
    rules = ("eBIC",) if request.quick else ("held-out", "eBIC")
    return [
        {"rule": rule, "encoding": encoding, "model": model, "seed": seed}
        for rule in rules
        for encoding, model in models.items()
        if model or encoding != OTHER
        for seed in range(request.seeds)
    ]


def run(cell: Cell, chain: Chain) -> dict[str, float]:
    """Fit graphs with one prior: accuracy, k*, the prior's spread, and whether the nodes recognise the texts."""
    seed, encoding, settings = int(cell["seed"]), str(cell["encoding"]), dict(RULES[str(cell["rule"])])
    nodes = chain.nodes(seed)
    found: dict[str, float] = {}
    if encoding == OTHER:
        file, found["texts recognised"] = _bridged_prior(chain, nodes, str(cell["model"]), seed)
        graphs = chain.graphs(chain.kind, nodes, None, seed, own_prior=file, **settings)
        found["spread"] = _spread(file)
    else:
        prior = chain.prior(nodes, direction="none" if encoding == NONE else "text-to-image")
        graphs = chain.graphs(chain.kind, nodes, prior, seed, **settings)
        if encoding == RENDERED:
            found = {"texts recognised": _recognised_pages(nodes), "spread": _spread(prior)}
    return {**graph_scores(chain, chain.kind, nodes, graphs, seed), **selection_measures(graphs), **found}


def _recognised_pages(nodes: Path) -> float:
    """Return the share of rendered pages that the proxy head, learned on images, takes for their class."""
    with open_artifact(nodes) as found:
        known = found["text/valid"] & (found["text/label"] >= 0)
        right = found["text/proxy"].argmax(axis=1) == found["text/label"]
    return float(right[known].mean())


def _spread(prior: Path) -> float:
    if prior.suffix == ".npz":
        with np.load(prior) as arrays:
            return summarize_prior(arrays["prior"]).spread
    with open_artifact(prior) as found:
        return summarize_prior(found["prior"]).spread


def _bridged_prior(chain: Chain, nodes: Path, model: str, seed: int) -> tuple[Path, float]:
    """Write the prior of a text encoder's tokens beside the cells; return the file and the held-out accuracy."""
    texts, labels, classes = _texts(chain)
    with open_artifact(nodes) as found:
        weights = found.group("weights")
    if "proxy/presence.weight" in weights:
        raise InputError(
            "a text encoder needs nodes that were learned on image classes",
            f"{nodes}: learned on pixel classes",
            "add to the configuration: distill: {proxy: image}",
        )
    distiller = Distiller.from_arrays({key: value for key, value in weights.items() if not key.startswith("proxy/")})
    head = weights["proxy/head.weight"], weights["proxy/head.bias"]
    seen = bridge(_tokens(model, texts), labels, distiller.eval().requires_grad_(False), head, seed)
    output = chain.cells / f"{nodes.stem}-{Path(model).name}-bridged{seed}.npz"
    arrays = {"prior": mean_overlap(seen, labels, len(classes)), "classes": np.array(classes, dtype=str)}
    chain.cells.mkdir(parents=True, exist_ok=True)
    publish_file(output, lambda file: np.savez(file, allow_pickle=False, **arrays))
    return output, seen.accuracy


@lru_cache(maxsize=1)
def _tokens(model: str, texts: tuple[str, ...]) -> list[np.ndarray]:
    return token_embeddings(model, texts)


def _texts(chain: Chain) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """Return the texts behind the rendered pages, their classes as numbers, and the names of the classes."""
    renders = chain.run.folder / "renders.h5"
    if not renders.exists():
        raise InputError(
            "a text encoder needs the texts of the experiment", f"{renders} does not exist", "run: cmgl render-text"
        )
    with open_artifact(renders, "renders") as found:
        table, texts = SampleTable.read(found), found["text"]
    first = {int(item): row for row, item in reversed(list(enumerate(table.items)))}
    kept = [item for item in sorted(first) if table.label[first[item]] >= 0]
    labels = np.array([table.label[first[item]] for item in kept], dtype=np.int64)
    return tuple(str(texts[item]) for item in kept), labels, table.classes.tolist()


def mean_overlap(seen: Bridged, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the prior [C, p, p]: the overlap of footprints within a text, averaged over the texts of a class."""
    overlaps = np.stack([attention_prior(maps)[0] for maps in seen.attention])
    missing = np.setdiff1d(np.arange(n_classes), labels)
    if len(missing):
        raise InputError("a class has no text", f"class number {missing[0]}", "add a text, or leave the class out")
    return np.stack([overlaps[labels == label].mean(axis=0) for label in range(n_classes)])


def figure(results: Results) -> Figure:
    """Draw accuracy and k*, one row of panels a rule."""
    panels = [
        DotPanel(f"{rule}: {title}", metric, "encoding", results.where(rule=rule))
        for rule in results.values("rule")
        for metric, title in (("accuracy", "accuracy"), ("k*", "sharpness chosen"))
    ]
    return dots_figure(panels, first=RENDERED, columns=2)


TEXT_ENCODING = Experiment(
    name="text-encoding",
    about="Texts rendered, read by a text encoder (--text-encoder), or left out (Table 3)",
    version=1,
    cells=cells,
    run=run,
    pages=("rule",),
    rows="encoding",
    columns=(),
    metric="accuracy",
    reference=RENDERED,
    figure=figure,
    needs="features",
    shown=("accuracy", "mIoU", "NLL", "k*", "k* = 0", "gain", "spread", "texts recognised"),
    gain="points",
)
