"""``cmgl twofold-restore``: station records with gaps in, the same records filled out, with standard errors."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from cmgl_cli.artifacts import Artifact, ArtifactWriter, publish_bytes
from cmgl_cli.datasets.stations import Restored, StationTable, diagnose, read_stations, write_restored
from cmgl_cli.errors import InputError, UsageError, suggest
from cmgl_cli.pipeline import Job, Prepared
from cmgl_cli.reports import png
from cmgl_cli.reports.station_figures import parameters_figure, station_figures
from cmgl_cli.restoration.record_network import (
    TrainedNetwork,
    fill_with_networks,
    train_left_out,
    window_years,
    year_groups,
)
from cmgl_cli.restoration.seasons import seasonal_basis
from cmgl_cli.restoration.synthetic import mcar_mask, outage_mask
from cmgl_cli.restoration.table import (
    COMPARED,
    METHODS,
    RestoredTable,
    Stations,
    Variable,
    restore_table,
    steps_per_year,
    window_length,
)
from cmgl_cli.restoration.training import TrainingConfig, TrainingState, state_arrays, state_from_arrays
from cmgl_cli.restoration.unrolled import UnrolledConfig, UnrolledRestorer
from cmgl_cli.settings import TwofoldRestoreConfig

LAYOUTS: Mapping[str, Literal["own", "netcdf", "csv"]] = {".nc": "netcdf", ".csv": "csv"}
# pairs of which the first never exceeds the second, by the names people give them
ORDERED = (("tmin", "tmax"), ("tn", "tx"), ("temperature_min", "temperature_max"))

_HUMIDITY = re.compile(r"humid|^rh(_|$)|^hurs$")


def prepare(job: Job) -> Prepared:
    """Read the stations; the content of the files decides the output, not their paths."""
    config: TwofoldRestoreConfig = job.config
    if not config.input:
        raise UsageError("there is nothing to restore", "twofold-restore", "give --input FILE")
    if config.method not in METHODS:
        raise UsageError(
            "unknown method", f"twofold-restore: method = {config.method!r}", suggest(config.method, METHODS)
        )
    if "model" in job.inputs and config.method not in {"default", "paper"}:
        raise UsageError(
            "--model is the paper's method", f"twofold-restore: method = {config.method!r}", "leave out one of the two"
        )
    table = read_stations(config.input, config.stations, variables=config.variables or None, frequency=config.frequency)
    unknown = [name for name in config.exclude if name not in table.stations]
    if unknown:
        raise UsageError("--exclude names a station that is not there", unknown[0], suggest(unknown[0], table.stations))
    kept = [name for name in table.stations if name not in config.exclude]
    if config.exclude or config.start or config.end:
        table = table.select(stations=kept, start=config.start, end=config.end)
    _bounds(config.bounds, table.variables)
    return Prepared({"stations": table.digest()}, table)


def compute(job: Job, table: StationTable, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    """Restore the record, or learn networks on it; with --simulate, first hide observed cells."""
    config: TwofoldRestoreConfig = job.config
    for note in table.notes:
        job.console.warn(note)
    for finding in diagnose(table):
        job.console.warn(f"{finding.sentence}: {', '.join(finding.names[:8])}" if finding.names else finding.sentence)
    values = table.values.copy()
    hidden = _hidden(config, values)
    values[hidden] = np.nan
    job.console.info(
        f"twofold-restore: {table.frequency} record, {values.shape[0]} times x {values.shape[1]} stations x "
        f"{values.shape[2]} variables, {np.isnan(values).mean():.1%} missing"
    )
    if job.step.variant == "network":
        _train(job, replace(table, values=values), out)
        return
    # thousands of small systems: more BLAS threads only wait for each other (measured: 1.0 s of CPU became 8 to 74 s)
    with threadpool_limits(1, user_api="blas"):
        _restore(job, table, values, hidden, inputs, out)


def _restore(  # noqa: PLR0913
    job: Job,
    table: StationTable,
    values: np.ndarray,
    hidden: np.ndarray,
    inputs: Mapping[str, Artifact],
    out: ArtifactWriter,
) -> None:
    config: TwofoldRestoreConfig = job.config
    given = _bounds(config.bounds, table.variables)
    variables = [
        given.get(name) or _variable(name, table.units[i], values[..., i]) for i, name in enumerate(table.variables)
    ]
    ordered = [pair for pair in ORDERED if set(pair) <= set(table.variables)]
    compare = COMPARED if config.compare else ()
    result = restore_table(
        values,
        table.time,
        _stations(job, table),
        variables,
        method=_filler(inputs["model"], table) if "model" in inputs else config.method,
        compare=compare,
        ordered=ordered,
        seed=config.seed,
    )
    _write(out, table, result, hidden)


def _train(job: Job, table: StationTable, out: ArtifactWriter) -> None:
    """Learn one network a group of years left out, and one on all; a checkpoint an epoch."""
    config: TwofoldRestoreConfig = job.config
    basis = seasonal_basis(table.time)
    length = min(window_length(steps_per_year(table.time)), len(table.time))
    groups = year_groups(window_years(table.time, length), config.folds)
    training = TrainingConfig(epochs=config.epochs, seed=config.seed)
    stored = out.load_checkpoint() or {}
    done = sum(len(stored.get(f"{fold}/losses", ())) for fold in range(len(groups)))
    if done:
        job.console.info(f"twofold-restore (network): going on after {done} of {len(groups) * config.epochs} epochs")
    networks = []
    with job.console.progress("training", len(groups) * config.epochs, "epochs", done) as ticker:
        for fold, left_out in enumerate(groups):
            known = {name.partition("/")[2]: a for name, a in stored.items() if name.startswith(f"{fold}/")}

            def keep(state: TrainingState, fold: int = fold) -> None:
                stored.update({f"{fold}/{name}": array for name, array in state_arrays(state).items()})
                out.save_checkpoint(stored)
                ticker.advance()

            state = state_from_arrays(known) if known else None
            networks.append(
                train_left_out(table.values, table.time, basis, length, left_out, training, state=state, on_epoch=keep)
            )
    _write_networks(out, table, networks, length)


def _write_networks(out: ArtifactWriter, table: StationTable, networks: Sequence[TrainedNetwork], length: int) -> None:
    pairs = [(year, fold) for fold, one in enumerate(networks) for year in sorted(one.left_out)]
    out.write("variable", np.array(table.variables, dtype=object))
    out.write("length", np.array([length]))
    out.write("rank", np.array([one.network.config.rank for one in networks]))
    out.write("left_out/year", np.array([year for year, _ in pairs], dtype=np.int64))
    out.write("left_out/fold", np.array([fold for _, fold in pairs], dtype=np.int64))
    out.write("losses", np.array([one.losses for one in networks]))
    out.write("held_out", np.array([one.held_out for one in networks]))
    out.write("error", np.array([one.error for one in networks]))
    for name in networks[0].network.state_dict():
        values = [one.network.state_dict()[name].numpy() for one in networks]
        out.write(f"parameters/{name}", np.stack(values))


def _filler(artifact: Artifact, table: StationTable) -> Callable[[np.ndarray], np.ndarray]:
    """Return what fills a record with the networks of an artifact."""
    variables = tuple(artifact["variable"].tolist())
    if variables != table.variables:
        raise InputError(
            "the networks were learnt on other variables",
            f"{artifact.path}: {', '.join(variables)}; the record has {', '.join(table.variables)}",
            "choose them with --variables, or train anew",
        )
    length, basis = int(artifact["length"][0]), seasonal_basis(table.time)
    years, folds = artifact["left_out/year"], artifact["left_out/fold"]
    networks = []
    for fold, rank in enumerate(artifact["rank"].tolist()):
        network = UnrolledRestorer(UnrolledConfig(rank=rank))
        network.load_state_dict({k: torch.from_numpy(v[fold]) for k, v in artifact.group("parameters").items()})
        networks.append(TrainedNetwork(network, frozenset(years[folds == fold].tolist()), (), float("nan")))
    return lambda values: fill_with_networks(networks, values, table.time, basis, length)


def _stations(job: Job, table: StationTable) -> Stations:
    unknown = [
        name for name, at in zip(table.stations, table.coordinates, strict=True) if not np.isfinite(at[:2]).all()
    ]
    if unknown:
        job.console.warn(
            f"{len(unknown)} of {len(table.stations)} stations have no coordinates ({', '.join(unknown[:5])}), "
            "so nothing can lean on the map; give --stations FILE, or leave them out with --exclude"
        )
        return Stations(table.stations)
    elevation = table.elevation if np.isfinite(table.elevation).all() else None
    return Stations(table.stations, table.latitude, table.longitude, elevation)


def _variable(name: str, unit: str, values: np.ndarray) -> Variable:
    """Give a variable the bounds its observations show: exact zeros and nothing below, percents from 0 to 100."""
    seen, unit = values[np.isfinite(values)], unit.strip()
    if not len(seen):
        return Variable(name)
    # without a unit, a humidity that comes near 100 is one in percent, and no fraction or grams a kilogram
    named = not unit and _HUMIDITY.search(name.lower()) and seen.max() > 40
    percent = seen.min() >= 0 and (unit in {"%", "percent"} or bool(named))
    lower = 0.0 if seen.min() == 0 or percent else None
    upper = 100.0 if percent and seen.max() <= 100 else None
    return Variable(name, lower=lower, upper=upper)


def _bounds(texts: Sequence[str], names: Sequence[str]) -> dict[str, Variable]:
    """Return the variables whose bounds were typed, as ``name=lower:upper`` with either side left out."""
    found = {}
    for text in texts:
        match = re.fullmatch(r"(.+)=([-+\d.eE]*):([-+\d.eE]*)", text)
        try:
            lower, upper = (float(part) if part else None for part in match.groups()[1:]) if match else (None, None)
        except ValueError:
            match = None
        if not match or (lower is not None and upper is not None and lower > upper):
            raise UsageError("not a pair of bounds", f"--bounds {text}", "write rain=0: or humidity=0:100")
        if match[1] not in names:
            raise UsageError("--bounds names a variable that is not there", match[1], suggest(match[1], names))
        found[match[1]] = Variable(match[1], lower, upper)
    return found


def _hidden(config: TwofoldRestoreConfig, values: np.ndarray) -> np.ndarray:
    """Return the observed cells to hide, bool [time, station, variable]: ``mcar:RATE`` or ``outage:RATE:STEPS``."""
    observed = np.isfinite(values)
    if config.simulate is None:
        return np.zeros_like(observed)
    match = re.fullmatch(r"mcar:([\d.]+)|outage:([\d.]+):(\d+)d?", config.simulate)
    rate = float(match[1] or match[2]) if match and re.fullmatch(r"\d*\.?\d+", match[1] or match[2]) else -1.0
    if not match or not 0 < rate < 1:
        raise UsageError(
            "not a pattern of gaps",
            f"twofold-restore: simulate = {config.simulate!r}",
            "write mcar:0.3, or outage:0.3:14 (a share of the stations silent for so many steps)",
        )
    generator = torch.Generator().manual_seed(config.seed)
    if match[1]:
        kept = mcar_mask(values.shape, rate, generator).numpy()
        return observed & ~kept
    length = int(match[3])
    window = max(length, min(len(values), 2 * length))
    kept = np.ones(values.shape[:2], dtype=bool)
    for start in range(0, len(values) - window + 1, window):
        kept[start : start + window] = outage_mask(window, values.shape[1], rate, length, generator).numpy()
    return observed & ~kept[..., None]


def _write(out: ArtifactWriter, table: StationTable, result: RestoredTable, hidden: np.ndarray) -> None:
    arrays = {
        "time": np.datetime_as_string(table.time, unit="s"),
        "station": np.array(table.stations, dtype=object),
        "variable": np.array(table.variables, dtype=object),
        "unit": np.array(table.units, dtype=object),
        "coordinates": table.coordinates,
        "values": result.values,
        "standard_error": result.standard_error,
        "filled": result.filled,
        "hidden": hidden,
    }
    for name, values in arrays.items():
        out.write(name, values)
    skill = result.skill
    out.write_group(
        "skill",
        {
            "variable": np.array([row.variable for row in skill], dtype=object),
            "method": np.array([row.method for row in skill], dtype=object),
            "rmse": np.array([row.rmse for row in skill], dtype=np.float64),
            "mae": np.array([row.mae for row in skill], dtype=np.float64),
            "n": np.array([row.n for row in skill], dtype=np.int64),
        },
    )
    graphs = result.graphs
    out.write("graphs/spatial_edges", graphs.spatial_edges)
    out.write("graphs/spatial_weights", graphs.spatial_weights)
    out.write("graphs/modality_weights", graphs.modality_weights)
    out.write("notes", np.array(result.diagnostics.notes or [""], dtype=object))
    if hidden.any():
        out.write_group("simulated", _simulated(table.values, result, hidden))
    out.provenance["settings_chosen"] = {key: str(value) for key, value in result.diagnostics.settings.items()}


def _simulated(truth: np.ndarray, result: RestoredTable, hidden: np.ndarray) -> dict[str, np.ndarray]:
    """Return per variable the errors on the hidden cells, and the share that a 90 % band covers."""
    rows: dict[str, list[float]] = {"rmse": [], "mae": [], "coverage": [], "n": []}
    for i in range(truth.shape[2]):
        cells = hidden[..., i]
        error = (result.values[..., i] - truth[..., i])[cells]
        band = 1.645 * result.standard_error[..., i][cells]
        rows["rmse"].append(float(np.sqrt(np.mean(error**2))) if cells.any() else np.nan)
        rows["mae"].append(float(np.abs(error).mean()) if cells.any() else np.nan)
        rows["coverage"].append(float((np.abs(error) <= band).mean()) if cells.any() else np.nan)
        rows["n"].append(int(cells.sum()))
    return {name: np.array(values) for name, values in rows.items()}


def summarize(artifact: Artifact, job: Job) -> None:
    """Print what came out, draw it, and export when asked to."""
    if job.step.variant == "network":
        _summarize_networks(artifact, job)
    else:
        _summarize_restoration(artifact, job)


def _summarize_networks(artifact: Artifact, job: Job) -> None:
    years, folds = artifact["left_out/year"], artifact["left_out/fold"]
    held_out, error = artifact["held_out"], artifact["error"]
    rows = []
    for fold, errors in enumerate(held_out):
        own = years[folds == fold]
        name = f"{own.min()}-{own.max()}" if len(own) > 1 else str(own[0]) if len(own) else "none"
        best, there = int(errors.argmin()), None if np.isnan(error[fold]) else round(float(error[fold]), 4)
        rows.append((name, best, round(float(errors[0]), 5), round(float(errors[best]), 5), there))
    columns = ("years left out", "best epoch", "held-out MSE untrained", "at its best", "error there / climatology")
    job.console.table("networks", columns, rows)
    if job.config.figures:
        _draw(job, {"parameters": parameters_figure(artifact.group("parameters"))})
    model = f"cmgl twofold-restore --input ... --model {job.output}"
    job.console.fields("twofold-restore", {"output": str(job.output), "apply it": model})


def _summarize_restoration(artifact: Artifact, job: Job) -> None:
    filled, hidden = artifact["filled"], artifact["hidden"]
    variables, units = artifact["variable"].tolist(), artifact["unit"].tolist()
    skill = artifact.group("skill")
    rows = [
        (variable, units[variables.index(variable)], method, round(float(rmse), 4), round(float(mae), 4), int(n))
        for variable, method, rmse, mae, n in zip(
            *(skill[k] for k in ("variable", "method", "rmse", "mae", "n")), strict=True
        )
        if n
    ]
    if rows:
        columns = ("variable", "unit", "method", "RMSE", "MAE", "cells")
        job.console.table("skill on held-out observations", columns, rows)
    if hidden.any():
        simulated = artifact.group("simulated")
        lines = [
            (
                name,
                units[i],
                *(round(float(simulated[key][i]), 4) for key in ("rmse", "mae", "coverage")),
                int(simulated["n"][i]),
            )
            for i, name in enumerate(variables)
        ]
        job.console.table(
            "errors on the simulated gaps", ("variable", "unit", "RMSE", "MAE", "90 % band covers", "cells"), lines
        )
    for note in artifact["notes"].tolist():
        if note:
            job.console.warn(note)
    if job.config.figures:
        _draw(job, station_figures(artifact, job.config.show))
    values = {"filled": f"{int(filled.sum())} of {filled.size} cells ({filled.mean():.1%})", "output": str(job.output)}
    if job.config.export:
        values["exported"] = ", ".join(map(str, _export(artifact, job)))
    job.console.fields("twofold-restore", values)


def _draw(job: Job, figures: Mapping[str, Figure]) -> None:
    for name, figure in figures.items():
        publish_bytes(job.output.with_name(f"{job.output.stem}-{name}.png"), png(figure))


def _export(artifact: Artifact, job: Job) -> tuple[Path, ...]:
    config: TwofoldRestoreConfig = job.config
    target = Path(config.export or "")
    if artifact["hidden"].any():
        raise UsageError("a simulation is not exported", f"--export {target}", "leave --simulate away")
    layout = LAYOUTS.get(target.suffix.lower(), "own") if config.layout == "auto" else config.layout
    table: StationTable = prepare(job).state
    if table.digest() != artifact.identity.digests["stations"]:
        raise InputError("the input changed since it was restored", str(config.input[0]), "run the same command again")
    return write_restored(target, Restored(table, artifact["values"], artifact["standard_error"]), layout)
