"""What restoration costs, in CPU seconds of one thread, every ratio measured in one run (errors: cmgl experiment).

python benchmarks/restoration.py --table training   # an epoch; batched against a loop
python benchmarks/restoration.py --table cost       # against the number of stations, dense and sparse, with exponents
python benchmarks/restoration.py --table direct     # the signal step against a sparse direct solver
python benchmarks/restoration.py --table large      # one large restoration, with its peak memory
"""

import argparse
import resource
import time
import warnings

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch

from cmgl_cli.restoration import (
    TrainingBatch,
    TrainingConfig,
    TwofoldConfig,
    UnrolledRestorer,
    restore,
    solve_signal,
    train,
)
from cmgl_cli.restoration.linear_operators import knn_edges
from cmgl_cli.restoration.synthetic import matrix_normal_signals, mcar_mask, piecewise_smooth_signals

DENSE_AT_MOST = 2000


def training_table(options):
    """Print seconds an epoch of unrolled training on 80 matrices of 50 x 60, and what batching gains."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(4):
        s = piecewise_smooth_signals(generator)
        batches.append(TrainingBatch(s.observed.float(), mcar_mask((20, 50, 60), 0.3, generator), s.clean.float()))
    train(UnrolledRestorer(), batches, TrainingConfig(epochs=1))
    seconds = timed(lambda: train(UnrolledRestorer(), batches, TrainingConfig(epochs=3))) / 3
    print(f"unrolled training on 80 matrices of 50 x 60: {seconds:.2f} s an epoch")
    model, one = UnrolledRestorer(), batches[0]

    def forward(observed, mask):
        with torch.no_grad():
            model(observed, mask)

    def trained(observed, mask):
        model.zero_grad()
        ((model(observed, mask) - observed) ** 2).mean().backward()

    rows = []
    for name, action in (("forward", forward), ("forward and backward", trained)):
        shared, own, loop = batching(action, one.observed, one.mask)
        rows += [
            [f"{name}: shared graphs, at once", f"{shared:.3f}", f"{loop / shared:.1f}"],
            [f"{name}: graphs of their own, at once", f"{own:.3f}", f"{loop / own:.1f}"],
            [f"{name}: in a loop", f"{loop:.3f}", "1"],
        ]
    print_table(["20 samples", "s", "times as fast as the loop"], rows)


def batching(action, observed, mask, rounds=5):
    """Return the least seconds with graphs shared, with graphs of their own at once (the loop's work), in a loop."""
    ways = (
        lambda: action(observed, mask),
        lambda: action(observed[:, None], mask[:, None]),
        lambda: [action(observed[i : i + 1], mask[i : i + 1]) for i in range(len(observed))],
    )
    return np.min([[timed(way) for way in ways] for _ in range(rounds)], axis=0)


def cost_table(options):
    """Print the cost of one restoration against the number of stations."""
    sizes = list(map(int, options.sizes.split(",")))
    dense, sparse = {}, {}
    for n in sizes:
        sparse[n] = timed(lambda n=n: one_restoration(n, sparse=True))
        if n <= DENSE_AT_MOST:
            dense[n] = timed(lambda n=n: one_restoration(n, sparse=False))
        print(f"{n} stations: sparse {sparse[n]:.2f} s, dense {dense.get(n, float('nan')):.2f} s", flush=True)
    rows = [[str(n), f"{dense[n]:.2f}" if n in dense else "-", f"{sparse[n]:.2f}"] for n in sizes]
    rows.append(["exponent, from 500 stations", exponent(dense), exponent(sparse)])
    print_table(["stations x 112, three rounds", "dense, s", "8 neighbours, s"], rows)


def exponent(costs):
    """Return the slope of log cost against log size among the larger sizes."""
    sizes = [n for n in costs if n >= 500]
    return f"{np.polyfit(np.log(sizes), np.log([costs[n] for n in sizes]), 1)[0]:.2f}" if len(sizes) > 1 else "-"


def direct_table(options):
    """Print the signal step (16) by conjugate gradient against a sparse direct solve of the Kronecker system."""
    rows = []
    for n, m in ((20, 24), (50, 60), (100, 60), (200, 60)):
        generator = torch.Generator().manual_seed(0)
        s = matrix_normal_signals(generator, n=n, m=m, n_signals=1)
        mask = mcar_mask((n, m), 0.3, generator)
        data, mu = s.observed[0], 0.1
        found = {}

        def ours(s=s, mask=mask, data=data, mu=mu, found=found):
            solved = solve_signal(data, mask, s.spatial_laplacian, s.modality_laplacian, mu, tol=1e-8)
            found["ours"] = solved.signal

        def direct(s=s, mask=mask, data=data, mu=mu, found=found):
            system = mu * scipy.sparse.kron(s.spatial_laplacian.numpy(), s.modality_laplacian.numpy(), "csc")
            weights = mask.double().reshape(-1).numpy()
            system = system + scipy.sparse.diags(weights, format="csc")
            solved = scipy.sparse.linalg.splu(system).solve(weights * data.reshape(-1).numpy())
            found["direct"] = torch.from_numpy(solved).reshape(data.shape)

        times = timed(ours), timed(direct)
        apart = float((found["ours"] - found["direct"]).abs().max())
        rows.append([f"{n} x {m}", f"{times[0]:.3f}", f"{times[1]:.3f}", f"{times[1] / times[0]:.1f}", f"{apart:.0e}"])
        print(rows[-1], flush=True)
    print_table(["matrix", "conjugate gradient, s", "sparse LU, s", "ratio", "apart"], rows)


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
        start = time.process_time()
        error = one_restoration(n, sparse=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{n} x 112, half missing: {time.process_time() - start:.0f} s, peak {peak:.2f} GB, masked MSE {error:.4f}",
            flush=True,
        )


def timed(action):
    """Return the CPU seconds of this process: a busy machine does not count."""
    start = time.process_time()
    action()
    return time.process_time() - start


def print_table(header, rows):
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def main():
    """Print one table."""
    tables = {"training": training_table, "cost": cost_table, "direct": direct_table, "large": large_table}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=tables, required=True)
    parser.add_argument("--sizes", default="")
    options = parser.parse_args()
    options.sizes = options.sizes or ("50000" if options.table == "large" else "50,141,500,2000,10000,50000")
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    tables[options.table](options)


if __name__ == "__main__":
    main()
