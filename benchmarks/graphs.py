"""Joint graphical lasso against its peers: CPU seconds of one thread to equal primal gap, each on its own objective.

Run with ``OMP_NUM_THREADS=1 python benchmarks/graphs.py [--cells strong,10,50 ...] [--json FILE]``; ``--grid C kind``
times the 816-fit grid at p = 50, ``--many C ...`` strongly correlated classes at p = 50 to a certified 1e-5, ``--nodes
nodes.h5`` (of `cmgl distill`) the first and all classes of real node observations, image by image. Peers:
GGLasso and scikit-learn (``pip install cmgl[bench]``), the R packages glasso, QUIC and JGL. Those not installed are
named on the first lines.
Compilation is done before timing and printed on its own line. A peer's time is that of its loosest tolerance or least
iteration count whose primal value is within 1e-6 (relative) of the optimum of its objective; NaN: not found in 200
seconds, or it failed. Ours is given twice: ``seconds`` certifies 1e-6 by the dual, ``primal_seconds`` is measured like
a peer.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from cmgl_cli.artifacts import open_artifact
from cmgl_cli.console import Console
from cmgl_cli.graphs import correlation, fit_joint, prior_weights
from cmgl_cli.graphs.concurrency import run_each
from cmgl_cli.sufficient import Study

TOL = 1e-6
RHO, GAMMA, WEIGHT = 0.05, 0.1, 0.5
LEVELS = (0.01, 0.05, 0.1, 0.2)
PEER_SECONDS = 200
R_VALUE = """
a <- commandArgs(TRUE); s <- as.matrix(read.table(a[1])); p <- nrow(s); rho <- as.numeric(a[2])
best <- as.numeric(a[3])
value <- function(w) { d <- determinant(w)$modulus; sum(s*w) - d + rho*(sum(abs(w)) - sum(abs(diag(w)))) }
seconds <- function(f) { n <- 1; least <- Inf; runs <- 0
  repeat { t <- system.time(for (i in 1:n) f()); t <- t[[1]]+t[[2]]; if (t < .1) { n <- 3*n; next }
    least <- min(least, t/n); runs <- runs + 1; if (runs == 5 || t > 2) break }
  least }
first <- function(f, levels) { for (l in levels) if (value(f(l)) - best <= 1e-6*max(1, abs(best))) return(l); NA }
report <- function(f, levels) { l <- first(f, levels); cat(if (is.na(l)) NA else seconds(function() f(l))) }
"""
R_ONE = {
    "r-glasso": R_VALUE
    + """suppressMessages(library(glasso)); report(function(l) {
  w <- glasso(s, rho, thr=l, maxit=1e5, penalize.diagonal=FALSE)$wi; (w + t(w))/2 }, 10^-seq(2, 10, 0.5))""",
    "quic": R_VALUE
    + """suppressMessages(library(QUIC)); L <- matrix(rho, p, p); diag(L) <- 0
report(function(l) QUIC(s, L, tol=l, maxIter=1000, msg=0)$X, 10^-seq(1, 14, 0.5))""",
}
ONE = {"r-glasso", "quic", "gglasso", "sklearn"}
R_JGL = """
suppressMessages(library(JGL)); a <- commandArgs(TRUE); all <- as.matrix(read.table(a[1])); level <- as.numeric(a[2])
best <- as.numeric(a[3]); p <- ncol(all); C <- nrow(all)/p; n <- 3*p; set.seed(1)
S <- lapply(1:C, function(c) all[(c-1)*p + 1:p, ])
Y <- lapply(S, function(s) sqrt(n) * qr.Q(qr(scale(matrix(rnorm(n*p), n), TRUE, FALSE))) %*% chol(s))
value <- function(T) { v <- 0; for (c in 1:C) { o <- T[[c]]; v <- v + sum(S[[c]]*o) - determinant(o)$modulus +
  level*(sum(abs(o)) - sum(abs(diag(o)))) }
  q <- sqrt(Reduce("+", lapply(T, function(o) o^2))); v + level*(sum(q) - sum(diag(q))) }
for (tol in 10^-seq(2, 9)) { t <- system.time(f <- JGL(Y, "group", level, level, weights="equal", tol=tol, maxiter=3000,
  penalize.diagonal=FALSE, return.whole.theta=TRUE)); if (value(f$theta) - best <= 1e-6*max(1, abs(best))) break }
cat(if (value(f$theta) - best <= 1e-6*max(1, abs(best))) t[[1]] + t[[2]] else NA)
"""


def factor_data(n_classes: int, p: int, noise: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    loading = rng.standard_normal((p, 6))
    result = []
    for _ in range(n_classes):
        own = loading + 0.3 * rng.standard_normal((p, 6))
        x = rng.standard_normal((4 * p, 6)) @ own.T + noise * rng.standard_normal((4 * p, p))
        result.append(np.cov(x.T))
    return correlation(np.array(result))


def sparse_data(n_classes: int, p: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    base = (rng.random((p, p)) < 3 / p) * rng.uniform(0.3, 0.6, (p, p)) * rng.choice([-1, 1], (p, p))
    result = []
    for _ in range(n_classes):
        edges = np.triu(base * (rng.random((p, p)) < 0.8), 1)
        omega = edges + edges.T
        omega += np.diag(np.abs(omega).sum(1) + 0.5)
        x = np.linalg.solve(np.linalg.cholesky(omega).T, rng.standard_normal((p, 4 * p)))
        result.append(np.cov(x))
    return correlation(np.array(result))


DATA: dict[str, Callable[[int, int], np.ndarray]] = {
    "sparse": sparse_data,
    "mild": lambda n_classes, p: factor_data(n_classes, p, 3.0),
    "strong": lambda n_classes, p: factor_data(n_classes, p, 0.35),
}


def node_data(path: Path) -> np.ndarray:
    """Return the correlations [C, p, p] that `cmgl fit-graphs` would fit to the images of a nodes artifact."""
    with open_artifact(path) as nodes:
        statistics = Study({"nodes": nodes}, "image", "image", "pooled", 0, Console(quiet=True)).statistics()
    return correlation(statistics.whole.covariances())


def cpu(work: Callable[[], object]) -> float:
    """Return CPU seconds of one run: the least of five batches of a tenth of a second; one run where it takes two."""
    number, times = 1, []
    while len(times) < 5:
        began = time.process_time()
        for _ in range(number):
            work()
        seconds = time.process_time() - began
        if seconds < 0.1:
            number *= 3
            continue
        times.append(seconds / number)
        if seconds > 2:
            break
    return min(times)


def in_time(measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return what a peer in Python took, NaN where search and timing take more CPU time than there is."""

    def stop(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, PEER_SECONDS)
    try:
        return measure()
    except TimeoutError:
        return {"seconds": np.nan}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def ours(sigma: np.ndarray, rho: float, gamma: float) -> dict[str, object]:
    best = fit_joint(sigma, WEIGHT, rho, gamma, tol=1e-9).objective
    fit = fit_joint(sigma, WEIGHT, rho, gamma, tol=TOL)
    seconds = cpu(lambda: fit_joint(sigma, WEIGHT, rho, gamma, tol=TOL))
    for tol in 10.0 ** -np.arange(1, 6.5, 0.5):
        loose = fit_joint(sigma, WEIGHT, rho, gamma, tol=tol)
        if loose.objective - best <= TOL * max(1, abs(best)):
            break
    primal = cpu(lambda: fit_joint(sigma, WEIGHT, rho, gamma, tol=tol))
    return {
        "solver": fit.solver,
        "seconds": seconds,
        "primal_seconds": primal,
        "gap": fit.relative_gap,
        "iterations": fit.n_iter,
    }


def paper(sigma: np.ndarray, rho: float, gamma: float) -> dict[str, float]:
    best = fit_joint(sigma, WEIGHT, rho, gamma, tol=1e-8).objective
    began = time.process_time()
    fit = fit_joint(sigma, WEIGHT, rho, gamma, tol=TOL, solver="paper")
    return {"seconds": time.process_time() - began, "left": (fit.objective - best) / max(1, abs(best))}


def _bisect(run: Callable[[int], float], best: float) -> int:
    high = 10
    while run(high) - best > TOL * max(1, abs(best)) and high < 3000:
        high = int(high * 1.5)
    low = int(high / 1.5)
    while high - low > max(1, 0.05 * high):
        middle = (low + high) // 2
        low, high = (middle, high) if run(middle) - best > TOL * max(1, abs(best)) else (low, middle)
    return high


def gglasso_group(sigma: np.ndarray, level: float) -> dict[str, float]:
    from gglasso.solver.admm_solver import ADMM_MGL

    start = np.array([np.diag(1 / np.diag(s)) for s in sigma])
    off = 1 - np.eye(sigma.shape[1])

    def solve(limit: int, tol: float = 1e-20) -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):
            return ADMM_MGL(sigma, level, level, "GGL", start.copy(), tol=tol, rtol=tol, max_iter=limit)[0]["Theta"]

    def value(limit: int, tol: float = 1e-20) -> float:
        omega = solve(limit, tol)
        if min(np.linalg.eigvalsh(o)[0] for o in omega) <= 0:
            return np.inf
        fit = (sigma * omega).sum() - np.linalg.slogdet(omega)[1].sum()
        return fit + level * np.abs(omega * off).sum() + level * np.sqrt(((omega * off) ** 2).sum(0)).sum()

    best = value(800, 1e-8)
    limit = _bisect(value, best)
    return {"seconds": cpu(lambda: solve(limit)), "iterations": limit, "best": best}


def gglasso_one(sigma: np.ndarray, level: float, best: float) -> dict[str, float]:
    from gglasso.solver.single_admm_solver import ADMM_SGL

    start, off = np.diag(1 / np.diag(sigma[0])), 1 - np.eye(sigma.shape[1])

    def solve(limit: int) -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):
            return ADMM_SGL(sigma[0], level, start.copy(), tol=1e-20, rtol=1e-20, max_iter=limit)[0]["Theta"]

    def value(limit: int) -> float:
        omega = solve(limit)
        if np.linalg.eigvalsh(omega)[0] <= 0:
            return np.inf
        return (sigma[0] * omega).sum() - np.linalg.slogdet(omega)[1] + level * np.abs(omega * off).sum()

    limit = _bisect(value, best)
    if value(limit) - best > TOL * max(1, abs(best)):
        return {"seconds": np.nan}
    return {"seconds": cpu(lambda: solve(limit)), "iterations": limit}


def sklearn_one(sigma: np.ndarray, level: float, best: float) -> dict[str, float]:
    import warnings

    from sklearn.covariance import graphical_lasso

    warnings.simplefilter("ignore")
    off = 1 - np.eye(sigma.shape[1])
    for tol in 10.0 ** -np.arange(2, 9):
        try:
            omega = graphical_lasso(sigma[0], level, tol=tol, enet_tol=tol, max_iter=500)[1]
        except FloatingPointError:
            return {"seconds": np.nan}
        value = (sigma[0] * omega).sum() - np.linalg.slogdet(omega)[1] + level * np.abs(omega * off).sum()
        if value - best <= TOL * max(1, abs(best)):
            return {"seconds": cpu(lambda: graphical_lasso(sigma[0], level, tol=tol, enet_tol=tol, max_iter=500))}  # noqa: B023
    return {"seconds": np.nan}


def by_r(script: str, sigma: np.ndarray, level: float, best: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        table, path = Path(folder) / "s.txt", Path(folder) / "peer.R"
        np.savetxt(table, sigma.reshape(-1, sigma.shape[-1]))
        path.write_text(script)
        command = ["Rscript", str(path), str(table), repr(level), repr(float(best))]
        try:
            out = subprocess.run(command, capture_output=True, text=True, timeout=PEER_SECONDS).stdout
        except subprocess.TimeoutExpired:
            return {"seconds": np.nan}
        return {"seconds": float(out) if out and out != "NA" else np.nan}


def compile_first() -> None:
    began = time.process_time()
    for n_classes in (1, 2):
        fit_joint(DATA["strong"](n_classes, 10), WEIGHT, RHO, GAMMA)
    print(
        f"# compilation or loading of compiled code: {time.process_time() - began:.1f} s (not in the figures)",
        flush=True,
    )


def peers_present() -> set[str]:
    found = {"sklearn"} | ({"gglasso"} if importlib.util.find_spec("gglasso") else set())
    for package, name in (("glasso", "r-glasso"), ("QUIC", "quic"), ("JGL", "jgl")):
        if shutil.which("Rscript"):
            ready = subprocess.run(["Rscript", "-e", f"library({package})"], capture_output=True).returncode == 0
            found |= {name} if ready else set()
    for name in sorted({"gglasso", "r-glasso", "quic", "jgl"} - found):
        print(f"# absent: {name}")
    return found


def run_cell(kind: str, n_classes: int, p: int, peers: set[str]) -> dict[str, Any]:
    sigma = DATA[kind](n_classes, p)
    condition = float(np.linalg.cond(sigma[0]))
    row: dict[str, Any] = {"data": kind, "C": n_classes, "p": p, "condition": round(condition, 1)}
    rho, gamma = (1.0, GAMMA) if n_classes == 1 else (RHO, GAMMA)
    row["ours"] = ours(sigma, rho, gamma)
    level = gamma * WEIGHT
    if n_classes == 1:
        best = fit_joint(sigma, WEIGHT, rho, gamma, tol=1e-9).objective
        for name in sorted(peers & set(R_ONE)):
            row[name] = by_r(R_ONE[name], sigma, level, best)
        if "gglasso" in peers and p <= 400:
            row["gglasso"] = in_time(lambda: gglasso_one(sigma, level, best))
        if "sklearn" in peers and p <= 400:
            row["sklearn"] = in_time(lambda: sklearn_one(sigma, level, best))
    else:
        if "gglasso" in peers:
            row["gglasso"] = gglasso_group(sigma, level)
        if "jgl" in peers and "gglasso" in peers:
            row["jgl"] = by_r(R_JGL, sigma, level, row["gglasso"]["best"])
        if "paper" in peers:
            row["paper"] = paper(sigma, rho, gamma)
    return row


def run_rounds(cell: str, peers: set[str], rounds: int) -> dict[str, Any]:
    """Run a cell several times, peers and ours in turn, and keep the least time of each."""
    kind, n_classes, p = cell.split(",")
    rows = [run_cell(kind, int(n_classes), int(p), peers) for _ in range(rounds)]
    best = rows[0]
    for name, entry in best.items():
        for key in ("seconds", "primal_seconds") if isinstance(entry, dict) else ():
            if key in entry:
                entry[key] = float(np.nanmin([row[name][key] for row in rows]))
    times = [best[name]["seconds"] for name in ONE & set(best)]
    if times and int(n_classes) == 1:
        best["best_peer_over_primal"] = round(float(np.nanmin(times)) / best["ours"]["primal_seconds"], 2)
    return best


def run_grid(kind: str, n_classes: int, workers: int = 1, p: int = 50) -> dict[str, object]:
    """Time the 51 x 16 grid, warm along k, at certified 1e-6, with a prior of random similarity."""
    sigma, rng = DATA[kind](n_classes, p), np.random.default_rng(1)
    latent = rng.standard_normal((n_classes, p, 6))
    prior = np.array([np.abs(np.corrcoef(z @ rng.standard_normal((6, 120)) + rng.standard_normal((p, 120)) / 2))
                      for z in latent]).clip(0, 1)  # fmt: skip
    prior = (prior + prior.transpose(0, 2, 1)) / 2
    began, wall, gaps = time.process_time(), time.perf_counter(), []
    cells = [(rho, gamma) for rho in LEVELS for gamma in LEVELS]

    def path(index: int) -> float:
        (rho, gamma), last, worst = cells[index], None, 0.0
        for k in range(51):
            last = fit_joint(sigma, prior_weights(prior, float(k)), rho, gamma, tol=TOL, initial=last)
            worst = max(worst, last.relative_gap)
        return worst

    run_each(path, range(len(cells)), lambda index, gap: gaps.append(gap), workers, Event())
    return {
        "grid": kind, "C": n_classes, "fits": 51 * len(cells), "seconds": time.process_time() - began,
        "wall": time.perf_counter() - wall, "workers": workers, "worst_gap": max(gaps),
    }  # fmt: skip


def run_many(n_classes: int) -> dict[str, object]:
    sigma = DATA["strong"](n_classes, 50)
    fit = fit_joint(sigma, WEIGHT, RHO, GAMMA, tol=1e-5)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"C": n_classes, "seconds": fit.seconds, "gap": fit.relative_gap, "steps": fit.n_iter, "peak_gib": peak}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", nargs="*", help="kind,C,p; default: the whole table")
    parser.add_argument("--paper", action="store_true", help="time the paper's 200 sweeps too")
    parser.add_argument("--grid", nargs=2, metavar=("C", "KIND"), help="the 816-fit grid instead of the table")
    parser.add_argument("--many", nargs="*", type=int, metavar="C", help="the cost curve over classes instead")
    parser.add_argument("--rounds", type=int, default=1, help="repeat every cell, keep the least times: busy machines")
    parser.add_argument("--workers", type=int, default=1, help="threads of the grid")
    parser.add_argument("--nodes", type=Path, help="real node observations instead of the table")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    compile_first()
    if args.grid or args.many:
        for row in [run_grid(args.grid[1], int(args.grid[0]), args.workers)] if args.grid else map(run_many, args.many):
            print(json.dumps(row), flush=True)
        return 0
    default = [f"{kind},1,{p}" for p in (20, 50, 100, 200, 400) for kind in DATA] + ["sparse,1,1000", "sparse,1,2000"]
    default += [
        f"{kind},{c},{p}"
        for c, sizes in ((10, (20, 50, 100, 200)), (100, (20, 50, 100, 200)))
        for p in sizes
        for kind in DATA
    ]
    if args.nodes:
        sigma = node_data(args.nodes)
        DATA["nodes"] = lambda n_classes, p: np.ascontiguousarray(sigma[:n_classes, :p, :p])
        args.cells = [f"nodes,{c},{sigma.shape[1]}" for c in (1, len(sigma))]
    peers = peers_present() | ({"paper"} if args.paper else set())
    rows = []
    for cell in args.cells or default:
        rows.append(run_rounds(cell, peers, args.rounds))
        print(json.dumps(rows[-1]), flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
