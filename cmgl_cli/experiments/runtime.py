"""``cmgl experiment runtime``: seconds by module (CM-GLasso, Table 11).

Every module is run anew into a temporary folder, on one thread; what it needs is there already. Times are CPU seconds
of this process: those of the clock depend on who else uses the machine. Run its cells one after the other.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from matplotlib.figure import Figure

from cmgl_cli.artifacts import open_artifact
from cmgl_cli.experiments.chain import Chain
from cmgl_cli.experiments.engine import Cell, Experiment, Request, Results
from cmgl_cli.graphs import Nonparanormal, fit_joint, penalty_scale
from cmgl_cli.heads import GraphDiscriminant
from cmgl_cli.reports.ablation_figures import DotPanel, dots_figure

ENCODED = 64
TOTAL, EACH = "seconds of the module", "seconds for 1,000 items"


def _extraction(chain: Chain, seed: int, folder: Path) -> float:
    """Encode some images with what loading the encoder costs; items are images."""
    made = chain.fresh(folder, "extract", "image", {}, seed, limit=ENCODED)
    with open_artifact(made) as found:
        return len(found["valid"])


def _nodes(chain: Chain, seed: int, folder: Path) -> float:
    """Train the probes and apply them to all samples; items are images and pages."""
    with open_artifact(chain.fresh(folder, "distill", "", chain.sources, seed)) as found:
        return sum(len(found[f"{modality}/id"]) for modality in ("image", "text") if f"{modality}/id" in found)


def _prior(chain: Chain, seed: int, folder: Path) -> float:
    """Average attention and compare footprints; items are classes."""
    with open_artifact(chain.fresh(folder, "prior", "", {"nodes": chain.nodes(seed)}, 0)) as found:
        return len(found["classes"])


def _search(chain: Chain, seed: int, folder: Path) -> float:
    """Choose rho, gamma and k for image graphs as the settings say; items are pairs of rho and gamma times k."""
    nodes = chain.nodes(seed)
    inputs = {"nodes": nodes, "prior": chain.prior(nodes)}
    with open_artifact(chain.fresh(folder, "fit-graphs", "image", inputs, seed)) as found:
        selection = found.group("selection")
    return len(selection["rho"]) * len(selection["sharpness"])


def _fit(chain: Chain, seed: int, folder: Path) -> float:
    """Fit once, at the chosen point."""
    config = chain.run.stages["fit-graphs"]
    with open_artifact(_graphs(chain, seed)) as found:
        weights, covariance = found["weights"], found["covariance"]
        rho, gamma = float(found["selection/chosen_rho"]), float(found["selection/chosen_gamma"])
    level = gamma * (penalty_scale(weights) if config.preserve_penalty else 1.0)
    rho *= len(weights) if config.scale_rho else 1
    fit_joint(covariance, weights, rho, level, tol=config.tol, weight_floor=config.weight_floor)
    return 1


def _inference(chain: Chain, seed: int, folder: Path) -> float:
    """Transform and score z of all images; items are images."""
    with open_artifact(_graphs(chain, seed)) as found, open_artifact(chain.nodes(seed)) as nodes:
        transform = Nonparanormal.from_arrays(found.group("transform"))
        precision = found["precision"] / (found["scale"][:, :, None] * found["scale"][:, None, :])
        means, z = found["means"], nodes["image/z"][nodes["image/valid"]].astype(np.float64)
    GraphDiscriminant(precision, means).scores(transform.transform(z))
    return len(z)


def _graphs(chain: Chain, seed: int) -> Path:
    nodes = chain.nodes(seed)
    return chain.graphs("image", nodes, chain.prior(nodes), seed, scope="pooled")


MODULES: Mapping[str, Callable[[Chain, int, Path], float]] = MappingProxyType(
    {
        "extraction": _extraction,
        "nodes": _nodes,
        "prior": _prior,
        "choice of rho, gamma, k": _search,
        "one joint fit": _fit,
        "inference": _inference,
    }
)
NEEDS_DATASET = "extraction"


def cells(request: Request) -> list[Cell]:
    """Return the grid: modules, repetitions; no extraction where no dataset is named."""
    names = [name for name in MODULES if name != NEEDS_DATASET or request.data.run.dataset]
    return [{"module": name, "seed": seed} for name in names for seed in range(request.seeds)]


def run(cell: Cell, chain: Chain) -> dict[str, float]:
    """Run one module against the clock; compiled code is compiled by then."""
    module, seed = MODULES[str(cell["module"])], int(cell["seed"])
    with tempfile.TemporaryDirectory() as folder:
        for warm_up in (_fit, _inference):
            warm_up(chain, seed, Path(folder))
        start = time.process_time()
        items = module(chain, seed, Path(folder))
        seconds = time.process_time() - start
    return {TOTAL: seconds, EACH: 1000 * seconds / items, "items": items}


def figure(results: Results) -> Figure:
    """Draw CPU seconds by module."""
    return dots_figure([DotPanel("CPU seconds, one thread", TOTAL, "module", results)])


RUNTIME = Experiment(
    name="runtime",
    about="CPU seconds by module: extraction, nodes, prior, choice, one fit, inference (Table 11)",
    version=2,
    cells=cells,
    run=run,
    pages=(),
    rows="module",
    columns=(),
    metric=TOTAL,
    reference="",
    figure=figure,
    needs="features",
    shown=(TOTAL, EACH, "items"),
)
