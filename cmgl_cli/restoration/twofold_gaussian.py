"""The default restoration: a multivariate normal over (station, variable) with the twofold structure as its prior.

The covariance is ``(1 - a)`` times what the record says (EM) plus ``a`` times a fitted sum of
[spatial kernel (x) signed modality matrix], a one number a variable; each station's own slow and fast departures from
its neighbours are smoothed through the gaps, or, where steps are fine, the steps around each one join it. Every choice
is made on observed cells hidden for the purpose, in the shapes of the record's own gaps. Few cells choose by chance, in
part: then cells are drawn again, and the record's restorations by the choices of all draws are averaged.
"""

from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cmgl_cli.restoration.anomaly_model import AnomalyModel, Problem
from cmgl_cli.restoration.holdout import transplanted_gaps
from cmgl_cli.restoration.lags import LaggedModel, affordable_reach

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SHARES = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0)
# Shares are compared on so many rows, or as many more as it takes to see so many hidden cells of a variable.
MAX_SCORED_ROWS, SCORED_CELLS = 120, 500
Z90 = 1.6448536269514722
# The choices were made on the very cells that calibrate the bands, which look too good there, the more so the fewer
# they are: the bands are widened by this over the root of their number (3 % for 4,000 cells, 7 % for 800).
SELECTION = 2.0
# Cells are hidden anew until so many a variable have been, in so many draws at most.
ENOUGH_CELLS, MAX_DRAWS = 2000, 4
# With fewer hold-out cells than this the model's own standard errors are the better half of the answer.
TRUSTED_CELLS = 30
# Years from which on a climatology is known so well that fitting it again with the weather taken off changes nothing.
LONG = 9.0
# Steps of a year from which on the steps around one say much of it: days and hours do, months forget each other.
FINE_STEPS = 300


@dataclass(frozen=True)
class Choices:
    """What one draw of hold-out cells decided.

    Attributes
    ----------
    share : ndarray, shape (n_variables,)
        a, the weight of the structured prior.
    refined : ndarray of bool, shape (n_variables,)
        Whether the climatology was fitted again with the weather taken off.
    offsets : ndarray of bool, shape (n_variables,)
        Whether station offsets are on.
    root : ndarray of bool, shape (n_variables,)
        Variables worked on as square roots.
    reach : int
        Steps to either side that were tried as further variables; 0 where they were not.
    lagged : ndarray of bool, shape (n_variables,)
        Whether those steps predict the variable, in place of the offsets.
    """

    share: Array
    refined: Mask
    offsets: Mask
    root: Mask
    reach: int
    lagged: Mask


@dataclass(frozen=True)
class Draw:
    """One draw of hold-out cells, and the record without them.

    Attributes
    ----------
    hidden : ndarray of bool, shape (n_times, n_stations, n_variables)
        The hold-out cells.
    restored, error : ndarray, shape (n_times, n_stations, n_variables)
        What the record without them is restored to, and the model's standard errors.
    choices : Choices
        What they decided.
    """

    hidden: Mask
    restored: Array
    error: Array
    choices: Choices


@dataclass(frozen=True)
class GaussianRestoration:
    """Result of `restore_gaussian`.

    Attributes
    ----------
    values, standard_error : ndarray, shape (n_times, n_stations, n_variables)
        Filled record in its own units and calibrated standard errors (0 where observed).
    choices : tuple of Choices
        What hold-out decided, one a draw.
    widening : ndarray, shape (n_variables,)
        Factor on the standard errors that makes 90 % bands cover 90 % of the hidden cells.
    hidden : ndarray of bool
        The hold-out cells of the first draw.
    hidden_values : ndarray
        The record restored with those cells hidden.
    modality : ndarray, shape (n_variables, n_variables)
        Signed modality correlation of the structured part.
    """

    values: Array
    standard_error: Array
    choices: tuple[Choices, ...]
    widening: Array
    hidden: Mask
    hidden_values: Array
    modality: Array


def restore_gaussian(problem: Problem, period: int, seed: int = 0, *, rounds: int = 2) -> GaussianRestoration:
    """Restore a record, every choice by hold-out.

    Parameters
    ----------
    problem : Problem
        The record; ``root`` marks the candidates for the square root, which hold-out may refuse.
    period : int
        Steps of the year, for the shape of the hold-out gaps.
    seed : int
        Of the hold-out.
    rounds : int
        Rounds of covariance and offsets.
    """
    values = problem.values
    missing = np.isnan(values)
    draws = _draws(problem, period, seed, rounds)
    filled, variance = np.zeros_like(values), np.zeros_like(values)
    for draw in draws:
        model = AnomalyModel(replace(problem, root=draw.choices.root))
        model.run_em(4)
        if draw.choices.refined.any():
            model.refine_means(draw.choices.refined)
        one, error = _predict(model, draw.choices, rounds)
        filled += one / len(draws)
        variance += error**2 / len(draws)
    widening = _widening(draws, values)
    first = draws[0]
    return GaussianRestoration(
        np.where(missing, filled, values),
        np.where(missing, np.sqrt(variance) * widening, 0.0),
        tuple(draw.choices for draw in draws),
        widening,
        first.hidden,
        np.where(first.hidden | missing, first.restored, values),
        model.modality,
    )


def _draws(problem: Problem, period: int, seed: int, rounds: int) -> list[Draw]:
    """Hide cells and choose on them, again and again until enough have been hidden in all, or often enough."""
    missing = np.isnan(problem.values)
    n_variables = max(1, int((~missing).any(axis=(0, 1)).sum()))
    reach = affordable_reach(problem.shape[1] * problem.shape[2]) if period >= FINE_STEPS else 0
    draws: list[Draw] = []
    hidden_cells = 0
    while not draws or (hidden_cells < ENOUGH_CELLS * n_variables and len(draws) < MAX_DRAWS):
        hidden = transplanted_gaps(missing, period, np.random.default_rng([seed, len(draws)] if draws else seed))
        training = replace(problem, values=np.where(hidden, np.nan, problem.values))
        if problem.root.any():
            training = _choose_root(training, problem.values, hidden)
        draws.append(_choose(training, problem.values, hidden, rounds, reach))
        hidden_cells += int(hidden.sum())
    return draws


def _predict(model: AnomalyModel, choices: Choices, rounds: int) -> tuple[Array, Array]:
    """Return values and standard errors of a model without offsets or lags, with those that were chosen."""
    lagged = choices.lagged
    ahead = LaggedModel(model, choices.reach).predict(choices.share, lagged) if lagged.any() else None
    if ahead is not None and lagged.all():
        return ahead
    behind = _with_offsets(model, choices.share, choices.offsets, rounds).predict(choices.share)
    if ahead is None:
        return behind
    return np.where(lagged, ahead[0], behind[0]), np.where(lagged, ahead[1], behind[1])


def _errors(restored: Array, values: Array, hidden: Mask) -> Array:
    """Return each variable's mean squared error on hidden cells (NaN without any)."""
    square = np.where(hidden, (restored - values) ** 2, 0.0).sum(axis=(0, 1))
    return square / np.where(hidden.any(axis=(0, 1)), hidden.sum(axis=(0, 1)), np.nan)


def _choose_root(training: Problem, values: Array, hidden: Mask) -> Problem:
    """Return the training record with the square roots that hidden cells agree to."""
    rows = np.flatnonzero(hidden.any(axis=(1, 2)))
    scores = []
    for root in (training.root, np.zeros_like(training.root)):
        model = AnomalyModel(replace(training, root=root))
        scores.append(_errors(model.means(model.structured, rows), values[rows], hidden[rows]))
    return replace(training, root=training.root & ~(scores[1] < scores[0]))


def _choose(training: Problem, values: Array, hidden: Mask, rounds: int, reach: int) -> Draw:
    """Fit the record without the hidden cells and decide shares, climatology, offsets and lags on them."""
    n_variables = training.shape[2]
    rows = np.flatnonzero(hidden.any(axis=(1, 2)))
    model = AnomalyModel(training)
    model.run_em(4)
    share = _choose_share(model, values, hidden, rows)
    model, share, refined = _choose_means(model, share, values, hidden, rows)
    start, (plain, _) = copy(model), model.predict(share)
    model = _with_offsets(model, share, np.ones(n_variables, dtype=bool), rounds)
    share = _choose_share(model, values, hidden, rows)
    restored, error = model.predict(share)
    offsets = ~(_errors(plain, values, hidden) < _errors(restored, values, hidden))
    if not offsets.all():
        model = _with_offsets(copy(start), share, offsets, rounds)
        restored, error = model.predict(share)
    if not offsets.any():
        share = _choose_share(model, values, hidden, rows)
        restored, error = model.predict(share)
    lagged = np.zeros(n_variables, dtype=bool)
    if reach:
        longer = LaggedModel(start, reach)
        other = _choose_share(longer, values, hidden, rows)
        ahead = longer.predict(other, ~lagged)
        lagged = _errors(ahead[0], values, hidden) < _errors(restored, values, hidden)
        restored, error = np.where(lagged, ahead[0], restored), np.where(lagged, ahead[1], error)
        share, offsets = np.where(lagged, other, share), offsets & ~lagged
    return Draw(hidden, restored, error, Choices(share, refined, offsets, training.root, reach, lagged))


def _choose_means(
    model: AnomalyModel, share: Array, values: Array, hidden: Mask, rows: NDArray[np.int64]
) -> tuple[AnomalyModel, Array, Mask]:
    """Refine the climatology of the variables whose hidden cells come nearer by it; return those, model and shares."""
    refined = np.zeros(len(share), dtype=bool)
    if model.problem.basis.years > LONG:
        return model, share, refined
    trial = copy(model)
    trial.refine_means(~refined)
    errors = [_errors(one.predict(share, rows)[0], values[rows], hidden[rows]) for one in (trial, model)]
    refined = errors[0] < errors[1]
    if refined.all():
        model = trial
    elif refined.any():
        model.refine_means(refined)
    return model, _choose_share(model, values, hidden, rows) if refined.any() else share, refined


def _with_offsets(model: AnomalyModel, share: Array, active: Mask, rounds: int) -> AnomalyModel:
    """Fit offsets and covariance in turn, starting from a model without offsets."""
    for _ in range(rounds if active.any() else 0):
        model.update_offsets(share, active)
        model.fit_structured()
        model.run_em(2)
    return model


def _choose_share(model: AnomalyModel | LaggedModel, values: Array, hidden: Mask, rows: NDArray[np.int64]) -> Array:
    """Return the share with the least error on hidden cells, for each variable.

    A short record has few hidden cells, and with fewer rows than columns a small share can only seem good.
    """
    cells = int(hidden.sum(axis=(0, 1)).min())
    rows = rows[:: max(1, min(len(rows) // MAX_SCORED_ROWS, cells // SCORED_CELLS))]
    usable = [share for share in SHARES if share >= model.cautious / 2]
    table = []
    for share in usable:
        restored = model.means(model.covariance(share), rows)
        table.append(np.nan_to_num(_errors(restored, values[rows], hidden[rows])))
    return np.array(usable)[np.stack(table).argmin(axis=0)]


def _widening(draws: list[Draw], values: Array) -> Array:
    """Return each variable's factor on the standard errors, from the hidden cells of all draws."""
    result = np.ones(values.shape[2])
    for v in range(values.shape[2]):
        ratios = []
        for draw in draws:
            cells = draw.hidden[..., v] & (draw.error[..., v] > 0)
            ratios.append(np.abs(draw.restored[..., v] - values[..., v])[cells] / draw.error[..., v][cells])
        ratio = np.concatenate(ratios)
        if len(ratio) >= 20:
            factor = max(float(np.quantile(ratio, 0.9)) / Z90, 1e-3)
            count = float(len(ratio))
            result[v] = (1 + SELECTION / count**0.5) * factor ** (count / (count + TRUSTED_CELLS))
    return result
