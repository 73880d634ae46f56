"""The paper's methods and baselines on a record: anomalies cut into matrices, restored, joined again."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.alternation import TwofoldConfig, restore
from cmgl_cli.restoration.matrix_baselines import graph_lowpass, svd_fill, train_baseline
from cmgl_cli.restoration.matrix_normal import restore_matrix_normal
from cmgl_cli.restoration.peers import standardised_anomalies
from cmgl_cli.restoration.seasons import SeasonalBasis
from cmgl_cli.restoration.training import TrainingBatch, TrainingConfig, train
from cmgl_cli.restoration.unrolled import UnrolledConfig, UnrolledRestorer, Variant
from cmgl_cli.restoration.windows import from_windows, to_windows

Array = NDArray[np.float64]

VARIANTS: dict[str, Variant] = {
    "paper": "signed",
    "fixed-modality": "fixed-modality",
    "no-graph-learning": "no-graph-learning",
}
NETWORKS = ("autoencoder", "gcn", "tgsr-dau", "llap-dau")
MATRIX_METHODS = (*VARIANTS, "iterative", "matrix-normal", "graph-lowpass", "svd", *NETWORKS)
RANK_CANDIDATES = (1, 2, 4, 8, 16)
ITERATIVE_CANDIDATES = tuple(
    TwofoldConfig(mu=0.1, spatial=(theta, 1.0, 1.0), modality=(1.0, 1.0, 1.0), rank=rank, outer=outer)
    for theta in (0.1, 1.0)
    for rank in (1, 6)
    for outer in (6,)
)


def choose_config(
    observed: Tensor, mask: Tensor, candidates: tuple[TwofoldConfig, ...] = ITERATIVE_CANDIDATES, *, seed: int = 0
) -> TwofoldConfig:
    """Return the settings of the alternation that restore a tenth of the observed cells best.

    Parameters
    ----------
    observed, mask : Tensor, shape (samples, n, m)
        As for `restore`.
    candidates : tuple of TwofoldConfig
        Ranks beyond the number of columns are left out.
    seed : int
        Of the hold-out.
    """
    hidden = mask & (torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)) < 0.1).to(mask.device)
    usable = [config for config in candidates if config.rank <= observed.shape[-1]]
    errors = [
        float(((restore(observed, mask & ~hidden, config).signal - observed)[hidden] ** 2).mean()) for config in usable
    ]
    return usable[errors.index(min(errors))]


def training_batches(observed: Tensor, mask: Tensor, *, n_batches: int = 4, seed: int = 0) -> list[TrainingBatch]:
    """Return batches that hide observed cells: the gaps of another window, and a fifth of the cells at random."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(n_batches):
        order = torch.randperm(len(mask), generator=generator)
        random = torch.rand(mask.shape, generator=generator) < 0.2
        batches.append(TrainingBatch(observed, mask & mask[order] & ~random, observed, mask))
    return batches


def fill_with_matrices(
    method: str, values: Array, basis: SeasonalBasis, length: int, *, epochs: int = 30, seed: int = 0
) -> Array:
    """Fill a record with one of `MATRIX_METHODS`.

    Parameters
    ----------
    method : str
        Name.
    values : ndarray, shape (n_times, n_stations, n_variables)
        NaN where missing.
    basis : SeasonalBasis
        Seasonal regressors.
    length : int
        Steps a matrix (28 days in the paper; a year of months here).
    epochs : int
        Of training, for the methods that train.
    seed : int
        Of training and hold-out.
    """
    anomalies, mean, spread = standardised_anomalies(values, basis)
    observed, mask = to_windows(anomalies, min(length, len(values)))
    observed = torch.where(mask, observed, 0).float()
    restored = _restorer(method, epochs, seed)(observed, mask)
    filled = from_windows(restored, len(values), min(length, len(values)))
    return np.where(np.isnan(values), filled * spread + mean, values)


def _restorer(method: str, epochs: int, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    if method == "graph-lowpass":
        return lambda observed, mask: graph_lowpass(observed, mask, seed=seed)
    if method == "svd":
        return lambda observed, mask: svd_fill(observed, mask, seed=seed)
    if method == "matrix-normal":
        return lambda observed, mask: restore_matrix_normal(observed, mask, seed=seed)
    if method == "iterative":
        return lambda observed, mask: restore(observed, mask, choose_config(observed, mask, seed=seed)).signal
    if method in NETWORKS or method in VARIANTS:
        return lambda observed, mask: _trained(method, observed, mask, TrainingConfig(epochs=epochs, seed=seed))
    raise InputError("unknown method", f"method={method!r}", f"known: {', '.join(MATRIX_METHODS)}")


def _trained(method: str, observed: Tensor, mask: Tensor, config: TrainingConfig) -> Tensor:
    batches = training_batches(observed, mask, seed=config.seed)
    if method in NETWORKS:
        model: nn.Module = train_baseline(method, batches, config)
    else:
        rank = choose_rank(batches[0]) if method == "paper" else 1
        model = UnrolledRestorer(UnrolledConfig(rank=rank, variant=VARIANTS[method]))
        train(model, batches, config)
    with torch.no_grad():
        return model(observed, mask)


def choose_rank(batch: TrainingBatch, candidates: tuple[int, ...] = RANK_CANDIDATES) -> int:
    """Return the rank of the signs with which the untrained network restores the hidden cells best."""
    known = torch.ones_like(batch.mask) if batch.known is None else batch.known
    hidden = known.bool() & ~batch.mask.bool()
    best, chosen = float("inf"), 1
    for rank in candidates:
        if rank <= batch.observed.shape[-1]:
            with torch.no_grad():
                restored = UnrolledRestorer(UnrolledConfig(rank=rank)).to(batch.observed)(batch.observed, batch.mask)
            error = float(((restored - batch.target)[hidden] ** 2).mean())
            best, chosen = min((best, chosen), (error, rank))
    return chosen
