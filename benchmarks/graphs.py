"""Joint graphical lasso against its peers: CPU seconds of one thread to equal primal gap, each on its own objective.

Run with ``OMP_NUM_THREADS=1 python benchmarks/graphs.py [--cells one joint] [--json FILE]``. Peers that are not
installed (GGLasso, scikit-learn, the R package glasso) are reported as absent. Compilation is done before timing and
printed on its own line. A peer's time is that of its first iteration count whose primal value is within 1e-6
(relative) of its own optimum, found by bisection over its iteration limit or tolerance; ours is a fit that *certifies*
1e-6, so its true primal gap is smaller.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cmgl_cli.graphs import correlation, fit_joint

TOL = 1e-6
RHO, GAMMA, WEIGHT = 0.05, 0.1, 0.5
R_SCRIPT = """
suppressMessages(library(glasso)); a <- commandArgs(TRUE); s <- as.matrix(read.table(a[1])); rho <- as.numeric(a[2])
value <- function(w) { d <- determinant(w)$modulus; sum(s*w) - d + rho*(sum(abs(w)) - sum(abs(diag(w)))) }
best <- value(glasso(s, rho, thr=1e-11, maxit=1e5, penalize.diagonal=FALSE)$wi)
for (thr in 10^-seq(2, 10, 0.5)) {
  t <- system.time(f <- glasso(s, rho, thr=thr, maxit=1e5, penalize.diagonal=FALSE))
  if (value((f$wi+t(f$wi))/2) - best <= 1e-6*max(1, abs(best))) break }
n <- max(1, floor(0.2/max(t[["elapsed"]], 1e-3)))
t <- system.time(for (i in 1:n) glasso(s, rho, thr=thr, maxit=1e5, penalize.diagonal=FALSE)); cat((t[[1]]+t[[2]])/n)
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


def cpu(work: Callable[[], object]) -> float:
    """Return the least CPU seconds of up to three runs."""
    times = []
    for _ in range(3):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
        if sum(times) > 3:
            break
    return min(times)


def ours(sigma: np.ndarray, rho: float, gamma: float) -> dict[str, float]:
    fit = fit_joint(sigma, WEIGHT, rho, gamma, tol=TOL)
    seconds = cpu(lambda: fit_joint(sigma, WEIGHT, rho, gamma, tol=TOL))
    return {"seconds": seconds, "gap": fit.relative_gap, "iterations": fit.n_iter}


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

    def solve(limit: int) -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):
            return ADMM_MGL(sigma, level, level, "GGL", start.copy(), tol=1e-20, rtol=1e-20, max_iter=limit)[0]["Theta"]

    def value(limit: int) -> float:
        omega = solve(limit)
        if min(np.linalg.eigvalsh(o)[0] for o in omega) <= 0:
            return np.inf
        fit = (sigma * omega).sum() - np.linalg.slogdet(omega)[1].sum()
        return fit + level * np.abs(omega * off).sum() + level * np.sqrt(((omega * off) ** 2).sum(0)).sum()

    limit = _bisect(value, value(800))
    return {"seconds": cpu(lambda: solve(limit)), "iterations": limit}


def sklearn_one(sigma: np.ndarray, level: float) -> dict[str, float]:
    import warnings

    from sklearn.covariance import graphical_lasso

    warnings.simplefilter("ignore")
    best = fit_joint(sigma, WEIGHT, 1.0, 2 * level, tol=1e-9).objective
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


def r_glasso(sigma: np.ndarray, level: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        table, script = Path(folder) / "s.txt", Path(folder) / "g.R"
        np.savetxt(table, sigma[0])
        script.write_text(R_SCRIPT)
        out = subprocess.run(
            ["Rscript", str(script), str(table), str(level)], capture_output=True, text=True, timeout=300
        )
        return {"seconds": float(out.stdout) if out.stdout else np.nan}


def compile_first() -> None:
    began = time.process_time()
    for n_classes in (1, 2):
        fit_joint(DATA["strong"](n_classes, 10), WEIGHT, RHO, GAMMA)
    print(
        f"# compilation or loading of compiled code: {time.process_time() - began:.1f} s (not in the figures)",
        flush=True,
    )


def have_r() -> bool:
    if shutil.which("Rscript") is None:
        return False
    return subprocess.run(["Rscript", "-e", "library(glasso)"], capture_output=True).returncode == 0


def run_cell(kind: str, n_classes: int, p: int, peers: set[str]) -> dict[str, object]:
    sigma = DATA[kind](n_classes, p)
    condition = float(np.linalg.cond(sigma[0]))
    row: dict[str, object] = {"data": kind, "C": n_classes, "p": p, "condition": round(condition, 1)}
    rho, gamma = (1.0, GAMMA) if n_classes == 1 else (RHO, GAMMA)
    row["ours"] = ours(sigma, rho, gamma)
    if n_classes == 1:
        if "r-glasso" in peers:
            row["r-glasso"] = r_glasso(sigma, gamma * WEIGHT)
        row["sklearn"] = sklearn_one(sigma, gamma * WEIGHT)
    else:
        if "gglasso" in peers:
            row["gglasso"] = gglasso_group(sigma, gamma * WEIGHT)
        if "paper" in peers:
            row["paper"] = paper(sigma, rho, gamma)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", nargs="*", help="kind,C,p; default: the whole table")
    parser.add_argument("--paper", action="store_true", help="time the paper's 200 sweeps too")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    default = [f"{kind},1,{p}" for p in (20, 50, 100, 200, 400) for kind in DATA]
    default += [
        f"{kind},{c},{p}"
        for c, sizes in ((10, (20, 50, 100, 200)), (100, (20, 50, 100, 200)))
        for p in sizes
        for kind in DATA
    ]
    peers = {"paper"} if args.paper else set()
    peers |= {"gglasso"} if importlib.util.find_spec("gglasso") else set()
    peers |= {"r-glasso"} if have_r() else set()
    for name in sorted({"gglasso", "r-glasso"} - peers):
        print(f"# absent: {name}")
    print("# absent: QUIC / skggm, JGL (no adapter)")
    compile_first()
    rows = []
    for cell in args.cells or default:
        kind, n_classes, p = cell.split(",")
        rows.append(run_cell(kind, int(n_classes), int(p), peers))
        print(json.dumps(rows[-1]), flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
