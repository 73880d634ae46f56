"""The unrolled network on a station record: trained with years left out, applied to the years that it has not seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmgl_cli.errors import InputError
from cmgl_cli.restoration.matrix_methods import choose_rank, training_batches
from cmgl_cli.restoration.peers import standardised_anomalies
from cmgl_cli.restoration.seasons import SeasonalBasis
from cmgl_cli.restoration.training import TrainingConfig, TrainingState, train
from cmgl_cli.restoration.unrolled import UnrolledConfig, UnrolledRestorer
from cmgl_cli.restoration.windows import from_windows, to_windows, window_starts

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TrainedNetwork:
    """One network of a record.

    Attributes
    ----------
    network : UnrolledRestorer
    left_out : frozenset of int
        Years that it has not seen.
    losses : tuple of float
        One an epoch.
    error : float
        Mean squared error on cells hidden in the left-out years, in units of the climatology's; NaN where none was
        left out.
    held_out : tuple of float
        Mean squared error on cells set aside in the years seen, before the first epoch and after every one; the
        network is that of the least.
    """

    network: UnrolledRestorer
    left_out: frozenset[int]
    losses: tuple[float, ...]
    error: float
    held_out: tuple[float, ...] = ()


def window_years(time: NDArray[np.datetime64], length: int) -> NDArray[np.int64]:
    """Return the year in the middle of every window."""
    years = time.astype("datetime64[Y]").astype(np.int64) + 1970
    return np.array([years[first + length // 2] for first in window_starts(len(time), length)])


def year_groups(years: NDArray[np.int64], n_groups: int) -> list[frozenset[int]]:
    """Return the years to leave out together, one group a network: single years where there are no more than groups.

    One group of all years would leave nothing to learn from, so below two groups none is left out.

    The last group is empty: a network for years that no network has seen.
    """
    distinct = np.unique(years)
    groups = np.array_split(distinct, min(n_groups, len(distinct))) if n_groups > 1 and len(distinct) > 1 else []
    return [*(frozenset(int(year) for year in group) for group in groups), frozenset()]


def train_left_out(
    values: Array,
    time: NDArray[np.datetime64],
    basis: SeasonalBasis,
    length: int,
    left_out: frozenset[int],
    config: TrainingConfig,
    *,
    state: TrainingState | None = None,
    on_epoch: Callable[[TrainingState], None] | None = None,
) -> TrainedNetwork:
    """Train one network without some years, keep its best epoch, and score it in those years.

    The epoch is chosen by cells of the years seen; the years left out have no say in it.

    Parameters
    ----------
    values : ndarray, shape (n_times, n_stations, n_variables)
        NaN where missing.
    time : ndarray of datetime64
    basis : SeasonalBasis
        Seasonal regressors; the climatology, too, is fitted without the years left out.
    length : int
        Steps a window.
    left_out : frozenset of int
        Years; windows belong to the year of their middle.
    config : TrainingConfig
    state, on_epoch : optional
        As for `train`.
    """
    years = window_years(time, length)
    seen = np.array([year not in left_out for year in years])
    training = values.copy()
    for first, known in zip(window_starts(len(time), length), seen, strict=True):
        if not known:
            training[first : first + length] = np.nan
    _, mean, spread = standardised_anomalies(training, basis)
    observed, mask = to_windows((values - mean) / spread, length)
    observed = torch.where(mask, observed, 0).float()
    inside = torch.from_numpy(seen)
    batches = training_batches(observed[inside], mask[inside], seed=config.seed)
    network = UnrolledRestorer(UnrolledConfig(rank=choose_rank(batches[0])))
    final = train(network, batches, config, state=state, on_epoch=on_epoch)
    error = _error(network, observed[~inside], mask[~inside], config.seed)
    return TrainedNetwork(network, left_out, final.losses, error, final.errors)


def _error(network: UnrolledRestorer, observed: Tensor, mask: Tensor, seed: int) -> float:
    if not len(observed):
        return float("nan")
    batch = training_batches(observed, mask, n_batches=1, seed=seed)[0]
    hidden = mask & ~batch.mask
    with torch.no_grad():
        restored = network(torch.where(batch.mask, observed, 0), batch.mask)
    return float(((restored - observed)[hidden] ** 2).mean() / (observed[hidden] ** 2).mean())


def fill_with_networks(
    networks: Sequence[TrainedNetwork], values: Array, time: NDArray[np.datetime64], basis: SeasonalBasis, length: int
) -> Array:
    """Fill a record, every window by a network that has not seen its year.

    Parameters
    ----------
    networks : sequence of TrainedNetwork
        The last one serves the years that none has left out.
    values : ndarray, shape (n_times, n_stations, n_variables)
        NaN where missing.
    time, basis, length
        As for `train_left_out`.
    """
    if length > len(values):
        raise InputError("the record is shorter than the network's window", f"{len(values)} < {length}", "train anew")
    anomalies, mean, spread = standardised_anomalies(values, basis)
    observed, mask = to_windows(anomalies, length)
    observed = torch.where(mask, observed, 0).float()
    years = window_years(time, length)
    choice = np.array([next((i for i, one in enumerate(networks) if year in one.left_out), -1) for year in years])
    restored = torch.zeros_like(observed)
    with torch.no_grad():
        for index in np.unique(choice):
            members = torch.from_numpy(np.flatnonzero(choice == index))
            # the graphs are those of the whole record: a handful of windows would be too few to learn them from
            restored[members] = networks[index].network(observed, mask)[members]
    filled = from_windows(restored, len(values), length)
    return np.where(np.isnan(values), filled * spread + mean, values)
