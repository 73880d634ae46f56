"""``cmgl twofold-restore``: station records with gaps in, the same records filled out, with standard errors."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from cmgl_cli.artifacts import Artifact, ArtifactWriter
from cmgl_cli.datasets.stations import Restored, StationTable, diagnose, read_stations, write_restored
from cmgl_cli.errors import InputError, UsageError, suggest
from cmgl_cli.pipeline import Job, Prepared
from cmgl_cli.restoration.synthetic import mcar_mask, outage_mask
from cmgl_cli.restoration.table import COMPARED, METHODS, RestoredTable, Stations, Variable, restore_table
from cmgl_cli.settings import TwofoldRestoreConfig

LAYOUTS: Mapping[str, Literal["own", "netcdf", "csv"]] = {".nc": "netcdf", ".csv": "csv"}
# pairs of which the first never exceeds the second, by the names people give them
ORDERED = (("tmin", "tmax"), ("tn", "tx"), ("temperature_min", "temperature_max"))


def prepare(job: Job) -> Prepared:
    """Read the stations; the content of the files decides the output, not their paths."""
    config: TwofoldRestoreConfig = job.config
    if not config.input:
        raise UsageError("there is nothing to restore", "twofold-restore", "give --input FILE")
    if config.method not in METHODS:
        raise UsageError(
            "unknown method", f"twofold-restore: method = {config.method!r}", suggest(config.method, METHODS)
        )
    table = read_stations(config.input, config.stations, variables=config.variables or None, frequency=config.frequency)
    unknown = [name for name in config.exclude if name not in table.stations]
    if unknown:
        raise UsageError("--exclude names a station that is not there", unknown[0], suggest(unknown[0], table.stations))
    kept = [name for name in table.stations if name not in config.exclude]
    if config.exclude or config.start or config.end:
        table = table.select(stations=kept, start=config.start, end=config.end)
    return Prepared({"stations": table.digest()}, table)


def compute(job: Job, table: StationTable, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    """Restore the record; with --simulate, first hide observed cells and report the errors there."""
    config: TwofoldRestoreConfig = job.config
    for finding in diagnose(table):
        job.console.warn(f"{finding.sentence}: {', '.join(finding.names[:8])}" if finding.names else finding.sentence)
    values = table.values.copy()
    hidden = _hidden(config, values)
    values[hidden] = np.nan
    job.console.info(
        f"twofold-restore: {table.frequency} record, {values.shape[0]} times x {values.shape[1]} stations x "
        f"{values.shape[2]} variables, {np.isnan(values).mean():.1%} missing"
    )
    variables = [_variable(name, table.units[i], values[..., i]) for i, name in enumerate(table.variables)]
    ordered = [pair for pair in ORDERED if set(pair) <= set(table.variables)]
    compare = COMPARED if config.compare else ()
    result = restore_table(
        values,
        table.time,
        _stations(job, table),
        variables,
        method=config.method,
        compare=compare,
        ordered=ordered,
        seed=config.seed,
    )
    _write(out, table, result, hidden)


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
    """Give a variable the bounds its observations show: exact zeros and nothing below, percents up to 100."""
    seen = values[np.isfinite(values)]
    lower = 0.0 if len(seen) and seen.min() == 0 else None
    upper = 100.0 if unit.strip() in {"%", "percent"} and len(seen) and seen.max() <= 100 else None
    return Variable(name, lower=lower, upper=upper)


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
    """Print the hold-out skill of every variable, what to beware of, and export when asked to."""
    filled, hidden = artifact["filled"], artifact["hidden"]
    variables, units = artifact["variable"].tolist(), artifact["unit"].tolist()
    skill = artifact.group("skill")
    rows = [
        (variable, units[variables.index(variable)], method, round(float(rmse), 4), round(float(mae), 4), int(n))
        for variable, method, rmse, mae, n in zip(
            *(skill[k] for k in ("variable", "method", "rmse", "mae", "n")), strict=True
        )
    ]
    job.console.table("skill on held-out observations", ("variable", "unit", "method", "RMSE", "MAE", "cells"), rows)
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
    values = {"filled": f"{int(filled.sum())} of {filled.size} cells ({filled.mean():.1%})", "output": str(job.output)}
    if job.config.export:
        values["exported"] = ", ".join(map(str, _export(artifact, job)))
    job.console.fields("twofold-restore", values)


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
