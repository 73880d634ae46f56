"""``cmgl experiment twofold-synthetic``: the paper's Tables 1 and 2 and Figure 3, and the anti-correlated set.

A cell is one method on one fold, scored on the signals of one graph. Methods that train learn from three of the other
four graphs and keep the epoch that does best on the fourth.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.impute import KNNImputer
from torch import Tensor, nn

from cmgl_cli.experiments.engine import Cell, Experiment, Request, Results
from cmgl_cli.reports.experiment_figures import Panel, panels_figure
from cmgl_cli.restoration import TrainingBatch, TrainingConfig, UnrolledConfig, UnrolledRestorer, restore, train
from cmgl_cli.restoration.matrix_baselines import graph_lowpass, svd_fill, train_baseline
from cmgl_cli.restoration.matrix_methods import choose_config, choose_rank
from cmgl_cli.restoration.matrix_normal import fill_columns, fill_stations, restore_matrix_normal
from cmgl_cli.restoration.peers import low_rank_fill
from cmgl_cli.restoration.synthetic import (
    SyntheticSignals,
    anti_correlated_signals,
    matrix_normal_signals,
    mcar_mask,
    piecewise_smooth_signals,
    posterior_mean,
)
from cmgl_cli.restoration.unrolled import Variant

PIECEWISE, NORMAL, ANTI = "piecewise smooth", "matrix normal", "anti-correlated"
MAKERS: Mapping[str, Callable[..., SyntheticSignals]] = MappingProxyType(
    {PIECEWISE: piecewise_smooth_signals, NORMAL: matrix_normal_signals, ANTI: anti_correlated_signals}
)
FOLDS, EPOCHS = 5, 50
OURS, BAYES = "twofold normal", "posterior mean"
UNROLLED: Mapping[str, Variant] = MappingProxyType(
    {
        "proposed": "signed",
        "proposed (unsigned)": "unsigned",
        "fixed modality": "fixed-modality",
        "no graph learning": "no-graph-learning",
    }
)
NETWORKS = ("tgsr-dau", "llap-dau", "autoencoder", "gcn")
METHODS = (
    OURS,
    *UNROLLED,
    "iterative",
    "graph low-pass",
    "svd",
    *NETWORKS,
    "knn",
    "soft-impute",
    "mvn-em over columns",
    "mvn-em over stations",
)
RANKS = (1, 2, 4, 6, 8, 12)


def cells(request: Request) -> list[Cell]:
    """Return the grid: five missing rates at 20 dB, three at the other ratios."""
    folds = range(1 if request.quick else FOLDS)
    grid = [(20, rate) for rate in (0.1, 0.2, 0.3, 0.4, 0.5)]
    grid += [(snr, rate) for snr in (15, 10, 5) for rate in (0.1, 0.3, 0.5)]
    kinds, epochs = list(MAKERS), EPOCHS
    if request.quick:
        grid, kinds, epochs = [(20, 0.3)], [NORMAL], 1
    return [
        {"kind": kind, "snr": snr, "rate": rate, "method": method, "epochs": epochs, "fold": fold}
        for kind in kinds
        for snr, rate in grid
        for method in (*METHODS, *((BAYES,) if kind == NORMAL else ()))
        for fold in folds
    ]


def run(cell: Cell, data: Any = None) -> dict[str, float]:
    """Restore one fold with one method: mean squared error on hidden cells, and on all against the clean signal."""
    signals, batches = _batches(str(cell["kind"]), float(cell["rate"]), float(cell["snr"]))
    fold, method = int(cell["fold"]), str(cell["method"])
    test = batches[fold]
    if method == BAYES:
        restored = posterior_mean(signals[fold], test.mask)
    else:
        restored = restored_by(method, test, [b for i, b in enumerate(batches) if i != fold], int(cell["epochs"]))
    square = (restored - test.target) ** 2
    return {"masked MSE": float(square[~test.mask].mean()), "MSE": float(square.mean())}


@lru_cache(maxsize=1)
def _batches(kind: str, rate: float, snr: float) -> tuple[list[SyntheticSignals], list[TrainingBatch]]:
    generator = torch.Generator().manual_seed(1000)
    signals = [MAKERS[kind](generator, snr_db=snr) for _ in range(FOLDS)]
    masks = [mcar_mask(tuple(s.clean.shape), rate, generator) for s in signals]
    pairs = zip(signals, masks, strict=True)
    return signals, [TrainingBatch(s.observed.float(), mask, s.clean.float()) for s, mask in pairs]


def restored_by(method: str, test: TrainingBatch, training: list[TrainingBatch], epochs: int) -> Tensor:
    """Return the test signals restored by one of `METHODS`.

    Of several graphs to train on, the last chooses the epoch: cells of the others cannot tell how the network does on a
    graph that it has not seen.
    """
    observed, mask = torch.where(test.mask, test.observed, 0), test.mask
    config = TrainingConfig(epochs=epochs)
    if method in UNROLLED or method in NETWORKS:
        judge = training[-1:] if len(training) > 1 else []
        training = training[:-1] or training
        if method in NETWORKS:
            model: nn.Module = train_baseline(method, training, config, judge=judge)
        else:
            rank = choose_rank(training[0], RANKS) if UNROLLED[method] == "signed" else 1
            model = UnrolledRestorer(UnrolledConfig(rank=rank, variant=UNROLLED[method]))
            train(model, training, config, judge=judge)
        with torch.no_grad():
            return model(observed, mask)
    return _UNTRAINED[method](observed, mask)


def _similar_columns(observed: Tensor, mask: Tensor) -> Tensor:
    """Fill each matrix from its five most similar columns."""
    imputer = KNNImputer(n_neighbors=5, weights="distance", keep_empty_features=True)
    gaps = torch.where(mask, observed, torch.nan).numpy()
    return torch.from_numpy(np.stack([imputer.fit_transform(matrix.T).T for matrix in gaps]))


def _rows_filled(observed: Tensor, mask: Tensor, fill: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Fill the last axis of all matrices at once, each of the other axes' vectors one row of a table."""
    rows = torch.where(mask, observed, torch.nan).reshape(-1, observed.shape[-1]).double().numpy()
    return torch.from_numpy(np.where(np.isnan(rows), fill(rows), rows)).reshape(observed.shape).float()


_UNTRAINED: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        OURS: lambda observed, mask: restore_matrix_normal(observed, mask),
        "iterative": lambda observed, mask: restore(observed, mask, choose_config(observed, mask)).signal,
        "graph low-pass": graph_lowpass,
        "svd": svd_fill,
        "knn": _similar_columns,
        "soft-impute": lambda observed, mask: _rows_filled(observed, mask, low_rank_fill),
        "mvn-em over columns": fill_columns,
        "mvn-em over stations": fill_stations,
    }
)


def figure(results: Results) -> Figure:
    """Draw masked MSE against missing rate at 20 dB, and both errors against the signal-to-noise ratio."""
    panels = []
    for kind in results.values("kind"):
        part = results.where(kind=kind)
        panels.append(Panel(f"{kind}, 20 dB", "missing rate", "masked MSE", part.where(snr=20), "rate"))
        for metric in ("masked MSE", "MSE"):
            panels.append(Panel(f"{kind}, all rates", "SNR, dB", metric, part, "snr"))
    return panels_figure(panels, columns=3, first=OURS)


TWOFOLD_SYNTHETIC = Experiment(
    name="twofold-synthetic",
    about="Restoration of synthetic signals: the paper's Tables 1 and 2 and Figure 3, all methods, five folds",
    version=4,
    cells=cells,
    run=run,
    pages=("kind", "snr"),
    rows="method",
    columns=("rate",),
    metric="masked MSE",
    reference=OURS,
    aside=frozenset({BAYES}),
    figure=figure,
)
