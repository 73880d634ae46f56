r"""The default restoration against SAITS (PyPOTS) on a station record: error against CPU seconds of one thread.

python benchmarks/saits.py --input colorado_monthly.npz --stations colorado_monthly_stations.csv --start 1961-01 \
    --end 1990-12 --complete 0.95

SAITS sees the anomalies that the other peers see, in windows of a year that start at every month, as one feature a
series; a twentieth of the observed cells are its validation set. PyPOTS is an optional peer (pip install pypots).
"""

import argparse
import contextlib
import io
import logging
import time
import warnings

import numpy as np
import torch

from cmgl_cli.datasets.stations import read_stations
from cmgl_cli.experiments.twofold_stations import hidden_cells
from cmgl_cli.restoration.peers import standardised_anomalies
from cmgl_cli.restoration.seasons import seasonal_basis
from cmgl_cli.restoration.table import Stations, Variable, restore_table

STEPS = 12


def load(options):
    """Return the record of the stations that observed enough of the period."""
    table = read_stations(options.input, options.stations).select(start=options.start, end=options.end)
    share = table.observed.mean(axis=(0, 2))
    return table.select(stations=[s for s, part in zip(table.stations, share, strict=True) if part >= options.complete])


def restored_by_default(record, table):
    """Return the record as the default fills it."""
    places = Stations(table.stations, table.latitude, table.longitude, table.elevation)
    lower = [0.0 if np.nanmin(table.values[..., v]) == 0 else None for v in range(len(table.variables))]
    variables = [Variable(name, lower=least) for name, least in zip(table.variables, lower, strict=True)]
    return restore_table(record, table.time, places, variables, compare=()).values


class Saits:
    """PyPOTS' SAITS on yearly windows of anomalies, trained some epochs at a time."""

    def __init__(self, record, time_axis, epochs, seed=0):
        from pypots.imputation import SAITS
        from pypots.optim import Adam

        torch.manual_seed(seed)
        self.record = record
        anomalies, self.mean, self.spread = standardised_anomalies(record, seasonal_basis(time_axis))
        self.rows = anomalies.reshape(len(record), -1).astype(np.float32)
        held = np.isfinite(self.rows) & (np.random.default_rng(seed).random(self.rows.shape) < 0.05)
        training = np.where(held, np.nan, self.rows)
        self.training = {"X": windows(training, 1)}
        self.validation = {"X": windows(training, STEPS), "X_ori": windows(self.rows, STEPS)}
        width = {"d_model": 256, "n_heads": 4, "d_k": 64, "d_v": 64, "d_ffn": 512}
        self.model = SAITS(
            STEPS, self.rows.shape[1], n_layers=2, dropout=0.1, epochs=epochs, batch_size=32,
            optimizer=Adam(lr=1e-3), device="cpu", verbose=False, **width,
        )  # fmt: skip

    def train(self):
        """Train some epochs more."""
        self.model.fit(self.training, self.validation)

    def fill(self):
        """Return the filled record: windows that do not overlap, the last one flush with the end."""
        parts = self.model.impute({"X": windows(self.rows, STEPS)}).reshape(-1, self.rows.shape[1])
        filled = np.empty_like(self.rows)
        filled[: len(parts)] = parts[: len(filled)]
        if len(filled) % STEPS:
            filled[-STEPS:] = self.model.impute({"X": self.rows[None, -STEPS:]})[0]
        values = filled.reshape(self.record.shape) * self.spread + self.mean
        return np.where(np.isnan(self.record), values, self.record)


def windows(rows, stride):
    """Return windows of a year, shape (n_windows, STEPS, n_series)."""
    return np.stack([rows[i : i + STEPS] for i in range(0, len(rows) - STEPS + 1, stride)])


def main():
    """Print error against seconds for SAITS, and both for the default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--input", "--stations", "--start", "--end"):
        parser.add_argument(name, required=name == "--input")
    parser.add_argument("--complete", type=float, default=0.95)
    parser.add_argument("--pattern", choices=("MCAR", "outage"), default="MCAR")
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--epochs", type=int, default=20, help="between two looks at the error")
    parser.add_argument("--most", type=float, default=600.0, help="CPU seconds after which SAITS is stopped")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    table = load(options)
    hidden = hidden_cells(table, options.pattern, options.rate, 0)
    record = np.where(hidden, np.nan, table.values)
    scale = np.nanstd(record, axis=(0, 1))

    def error(values):
        return float((((values - table.values) / scale)[hidden] ** 2).mean())

    start = time.process_time()
    ours = error(restored_by_default(record, table))
    seconds = time.process_time() - start
    print(f"{table.values.shape[1]} stations, {options.pattern} {options.rate:.0%}")
    print(f"default: masked MSE {ours:.4f} in {seconds:.1f} s", flush=True)
    try:
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")):
            saits = Saits(record, table.time, options.epochs)
    except ImportError:
        print("SAITS: skipped, PyPOTS is not installed")
        return
    logging.disable(logging.CRITICAL)
    spent, epochs, found = 0.0, 0, np.inf
    while found > ours and spent < options.most:
        start = time.process_time()
        saits.train()
        spent, epochs = spent + time.process_time() - start, epochs + options.epochs
        found = error(saits.fill())
        ratio = spent / seconds
        print(f"SAITS: masked MSE {found:.4f} after {epochs} epochs, {spent:.0f} s ({ratio:.0f} x)", flush=True)


if __name__ == "__main__":
    main()
