"""Tables of restoration errors and costs, every method in one run on the same masks.

python benchmarks/restoration.py --table synthetic --kind ps
python benchmarks/restoration.py --table colorado [--years 2] [--seeds 2] [--methods default,mvn-em-shrunk]
python benchmarks/restoration.py --table japan
python benchmarks/restoration.py --table cost
python benchmarks/restoration.py --table large
"""

import argparse
import csv
import json
import os
import resource
import time
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from sklearn.impute import KNNImputer

from cmgl_cli.restoration import (
    TrainingBatch,
    TrainingConfig,
    TwofoldConfig,
    UnrolledConfig,
    UnrolledRestorer,
    restore,
    solve_signal,
    train,
)
from cmgl_cli.restoration.gaussian import conditional_fill, em_covariance
from cmgl_cli.restoration.linear_operators import knn_edges
from cmgl_cli.restoration.matrix_baselines import graph_lowpass, svd_fill, train_baseline
from cmgl_cli.restoration.matrix_methods import choose_config, choose_rank
from cmgl_cli.restoration.peers import low_rank_fill
from cmgl_cli.restoration.synthetic import matrix_normal_signals, mcar_mask, piecewise_smooth_signals
from cmgl_cli.restoration.table import Stations, Variable, restore_table

DATA = Path(os.environ.get("CMGL_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "stations"
SETS = {"colorado": ("colorado_monthly", 1961, 1990, 0.05), "japan": ("jma_monthly", 1961, 2018, 0.02)}
RECORD_METHODS = (
    "default,mvn-em-shrunk,mvn-em,climatology-kriging,knn,soft-impute,linear,climatology,"
    "paper,iterative,graph-lowpass,svd"
)


def load_record(name):
    """Return values, times, stations and variables of a shared set, stations with few gaps only."""
    file, first, last, most = SETS[name]
    data = np.load(DATA / f"{file}.npz")
    year = np.array([int(month[:4]) for month in data["time"]])
    span = (year >= first) & (year <= last)
    values = data["values"][span].astype(float)
    kept = np.isfinite(data["lat"]) & (np.isnan(values).mean(axis=(0, 2)) < most)
    with (DATA / f"{file}_stations.csv").open(encoding="utf-8") as handle:
        height = {row["id"]: float(row["elev"] or "nan") for row in csv.DictReader(handle)}
    ids = data["station_id"][kept]
    stations = Stations(list(ids), data["lat"][kept], data["lon"][kept], np.array([height[i] for i in ids]))
    rain = ("ppt", "precip_total", "sunshine_total")
    variables = [Variable(str(n), lower=0.0 if n in rain else None) for n in data["modality"]]
    return values[:, kept], data["time"][span].astype("datetime64[M]"), stations, variables


def hidden_cells(shape, months, kind, rate, seed, every):
    """Hide cells in every third (short records: second) year: single cells, or six months of whole stations."""
    rng = np.random.default_rng(seed)
    year = months.astype("datetime64[Y]").astype(int)
    test = year % every == every - 1
    hidden = np.zeros(shape, dtype=bool)
    if kind == "mcar":
        hidden[test] = rng.random((int(test.sum()), *shape[1:])) < rate
        return hidden
    for one in np.unique(year[test]):
        rows = np.flatnonzero(year == one)
        for station in rng.permutation(shape[1])[: round(rate * shape[1])]:
            first = rows[0] + rng.integers(0, max(len(rows) - 6, 0) + 1)
            hidden[first : first + 6, station] = True
    return hidden


def station_table(name, options):
    """Print masked MSE of every method, per-variable standardised on observed cells, and the default's coverage."""
    values, months, stations, variables = load_record(name)
    if options.years:
        values, months = values[-12 * options.years :], months[-12 * options.years :]
    every = 3 if len(values) >= 60 else 2
    errors, covers, seconds = defaultdict(list), defaultdict(list), defaultdict(float)
    for seed in range(options.seeds):
        for kind in options.kinds.split(","):
            for rate in map(float, options.rates.split(",")):
                hidden = hidden_cells(values.shape, months, kind, rate, seed, every) & np.isfinite(values)
                record = np.where(hidden, np.nan, values)
                scale = np.nanstd(record, axis=(0, 1))
                for method in options.methods.split(","):
                    start = time.perf_counter()
                    result = restore_table(record, months, stations, variables, method=method, compare=())
                    seconds[method] += time.perf_counter() - start
                    difference = (result.values - values) / scale
                    errors[method, kind, rate].append(float((difference[hidden] ** 2).mean()))
                    inside = np.abs(difference) <= 1.645 * result.standard_error / scale
                    cover = [float(inside[..., v][hidden[..., v]].mean()) for v in range(values.shape[2])]
                    covers[method, kind, rate].append(cover)
                    print(
                        json.dumps(
                            {
                                "set": name,
                                "years": options.years,
                                "seed": seed,
                                "kind": kind,
                                "rate": rate,
                                "method": method,
                                "mse": round(errors[method, kind, rate][-1], 5),
                                "cover": np.round(cover, 3).tolist(),
                            }
                        ),
                        flush=True,
                    )
    cells = [(kind, rate) for kind in options.kinds.split(",") for rate in map(float, options.rates.split(","))]
    rows = [
        [m, *(f"{np.mean(errors[m, k, r]):.4f}" for k, r in cells), f"{seconds[m]:.0f}"]
        for m in options.methods.split(",")
    ]
    print_table([f"{name} {values.shape}", *(f"{k} {r:.0%}" for k, r in cells), "seconds"], rows)
    rows = [
        [m, *("/".join(f"{x:.2f}" for x in np.mean(covers[m, k, r], axis=0)) for k, r in cells)]
        for m in options.methods.split(",")
    ]
    print_table(["coverage of 90 %", *(f"{k} {r:.0%}" for k, r in cells)], rows)


def synthetic_fold(kind, rate, fold, options):
    """Return the masked MSE of every method on one fold: four graphs to train on, one to test."""
    generator = torch.Generator().manual_seed(1000)
    make = piecewise_smooth_signals if kind == "ps" else matrix_normal_signals
    sets = [make(generator, snr_db=options.snr) for _ in range(5)]
    batches = [
        TrainingBatch(s.observed.float(), mcar_mask(tuple(s.clean.shape), rate, generator), s.clean.float())
        for s in sets
    ]
    test, training = batches[fold], [b for i, b in enumerate(batches) if i != fold]
    config = TrainingConfig(epochs=options.epochs)
    hidden = ~test.mask
    rank = choose_rank(training[0], (1, 2, 4, 6, 8, 12))

    def error(signal):
        return float(((signal - test.target)[hidden] ** 2).mean())

    def unrolled(variant):
        model = UnrolledRestorer(UnrolledConfig(rank=rank, variant=variant))
        train(model, training, config)
        with torch.no_grad():
            return model(test.observed, test.mask)

    result = {
        "proposed (unrolled)": error(unrolled("signed")),
        "fixed modality": error(unrolled("fixed-modality")),
        "no graph learning": error(unrolled("no-graph-learning")),
        "iterative": error(restore(test.observed, test.mask, choose_config(test.observed, test.mask)).signal),
        "graph low-pass": error(graph_lowpass(test.observed, test.mask)),
        "svd": error(svd_fill(test.observed, test.mask)),
    }
    for name in ("autoencoder", "gcn", "tgsr-dau", "llap-dau"):
        model = train_baseline(name, training, config)
        with torch.no_grad():
            result[name] = error(model(test.observed, test.mask))
    result.update(row_peers(test, error))
    if kind == "mn":
        result["exact Bayes (true graphs)"] = error(bayes_answer(sets[fold], test))
    return result


def row_peers(test, error):
    """KNN over columns; softImpute and normal EM over the 1000 station rows of the fold."""
    rows = np.where(test.mask, test.observed, np.nan).reshape(-1, test.observed.shape[-1]).astype(float)

    def joined(filled):
        return torch.from_numpy(np.where(np.isnan(rows), filled, rows)).reshape(test.observed.shape).float()

    covariance, _ = em_covariance(
        rows, np.eye(rows.shape[1]), n_iter=30, regularize=lambda c: c + 0.01 * np.diag(np.diagonal(c))
    )
    return {
        "knn": error(joined(similar_columns(rows.reshape(test.observed.shape)).reshape(rows.shape))),
        "soft-impute": error(joined(low_rank_fill(rows))),
        "mvn-em": error(joined(conditional_fill(rows, covariance).values)),
    }


def similar_columns(matrices):
    """Fill each matrix from its five most similar columns."""
    imputer = KNNImputer(n_neighbors=5, weights="distance", keep_empty_features=True)
    return np.stack([imputer.fit_transform(matrix.T).T for matrix in matrices])


def bayes_answer(signals, test):
    """Posterior mean on the true graphs: (16) with mu = noise variance over signal scale."""
    root = torch.linalg.pinv(signals.spatial_laplacian).trace() * torch.linalg.pinv(signals.modality_laplacian).trace()
    scale = float((signals.clean**2).sum((-2, -1)).mean() / root)
    solved = solve_signal(
        signals.observed, test.mask, signals.spatial_laplacian, signals.modality_laplacian, signals.sigma**2 / scale
    )
    return solved.signal


def synthetic_table(options):
    """Print the paper's Table 1 or 2: folds in rows of JSON, then mean and spread."""
    rates = list(map(float, options.rates.split(",")))
    found = defaultdict(list)
    for rate in rates:
        for fold in range(options.folds):
            for method, value in synthetic_fold(options.kind, rate, fold, options).items():
                found[method, rate].append(value)
            print(
                json.dumps(
                    {"rate": rate, "fold": fold, **{m: round(v[-1], 5) for (m, r), v in found.items() if r == rate}}
                ),
                flush=True,
            )
    methods = list(dict.fromkeys(m for m, _ in found))
    rows = [[m, *(f"{np.mean(found[m, r]):.4f} ± {np.std(found[m, r]):.4f}" for r in rates)] for m in methods]
    print_table([f"{options.kind} {options.snr:.0f} dB", *(f"{r:.0%}" for r in rates)], rows)


def cost_table(options):
    """Print seconds an epoch, the gain of batching, and the cost against the number of stations."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(4):
        s = piecewise_smooth_signals(generator)
        batches.append(TrainingBatch(s.observed.float(), mcar_mask((20, 50, 60), 0.3, generator), s.clean.float()))
    start = time.perf_counter()
    train(UnrolledRestorer(), batches, TrainingConfig(epochs=3))
    print(f"unrolled training on 80 matrices of 50 x 60: {(time.perf_counter() - start) / 3:.2f} s an epoch")
    model, one = UnrolledRestorer(), batches[0]
    with torch.no_grad():
        whole = timed(lambda: model(one.observed, one.mask))
        loop = timed(lambda: [model(one.observed[i : i + 1], one.mask[i : i + 1]) for i in range(20)])
    print(f"20 samples at once {whole:.3f} s, in a loop {loop:.3f} s: ratio {loop / whole:.1f}")
    rows, times = [], []
    for n in (50, 141, 500, 2000):
        dense = timed(lambda n=n: one_restoration(n, sparse=False)) if n <= 500 else float("nan")
        sparse = timed(lambda n=n: one_restoration(n, sparse=True))
        times.append(sparse)
        rows.append([str(n), f"{dense:.2f}", f"{sparse:.2f}"])
    print_table(["stations", "dense s", "sparse s"], rows)
    print(f"sparse exponent {np.polyfit(np.log([50, 141, 500, 2000]), np.log(times), 1)[0]:.2f}")


def one_restoration(n, sparse, m=112):
    """Restore one n x m matrix of smooth signals with half its cells missing."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    waves = torch.randn(2, m, generator=generator)
    signal = torch.sin(3 * points.float() @ waves) + 0.1 * torch.randn(n, m, generator=generator)
    mask = mcar_mask((n, m), 0.5, generator)
    config = TwofoldConfig(outer=3, rank=6, spatial=(0.3, 1.0, 1.0), graph_iter=200, signal_iter=40)
    edges = knn_edges(points.numpy(), 8) if sparse else None
    result = restore(signal, mask, config, edges=edges)
    return float(((result.signal - signal)[~mask] ** 2).mean())


def large_table(options):
    """Restore 50,000 x 112 once and print time and peak memory."""
    for n in map(int, options.sizes.split(",")):
        start = time.perf_counter()
        error = one_restoration(n, sparse=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{n} x 112, half missing: {time.perf_counter() - start:.0f} s, peak {peak:.2f} GB, masked MSE {error:.4f}",
            flush=True,
        )


def timed(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def print_table(header, rows):
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=["synthetic", "japan", "colorado", "cost", "large"], required=True)
    parser.add_argument("--kind", choices=["ps", "mn"], default="ps")
    parser.add_argument("--kinds", default="mcar,outage")
    parser.add_argument("--rates", default="0.1,0.3,0.5")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--snr", type=float, default=20.0)
    parser.add_argument("--years", type=int, default=0)
    parser.add_argument("--sizes", default="2000,10000,50000")
    parser.add_argument("--methods", default=RECORD_METHODS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.table in SETS:
        station_table(options.table, options)
    else:
        {"synthetic": synthetic_table, "cost": cost_table, "large": large_table}[options.table](options)


if __name__ == "__main__":
    main()
