"""How well edges come back, which priors are rejected, and what graphs are worth when classes differ in nothing else.

    OMP_NUM_THREADS=1 python benchmarks/graph_recovery.py --store recovery.jsonl

Simulated data: C = 10 classes, p = 50 nodes, 40 common edges and 20 of its own in every class, n_c samples a class.
Every method is tuned on the same five folds. Results are kept in ``--store`` line by line, so a second call goes on.
GGLasso is measured where it is installed. ``--nodes nodes.h5 --prior prior.h5`` (of `cmgl distill` and `cmgl prior`)
adds the rejection of priors on real observations, with shuffled priors as the control.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from itertools import product
from pathlib import Path

import numpy as np
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import average_precision_score, f1_score

from cmgl_cli.artifacts import open_artifact
from cmgl_cli.console import Console
from cmgl_cli.graphs import Grid, Selection, correlation, fit_joint, log_likelihood, partial_correlation, select_joint
from cmgl_cli.heads import GraphDiscriminant, shrink
from cmgl_cli.heads.shrinkage import WEIGHTS
from cmgl_cli.sufficient import Study, fold_correlations

CLASSES, NODES, COMMON, OWN, FOLDS, TEST = 10, 50, 40, 20, 5, 200
SIZES = (200, 60, 30)
SHARPNESS = (0, 2, 5, 20)
# the last rho decouples the classes at most gammas, so fits of every class alone are in the grid
RHO, GAMMA = (0.4, 0.8, 1.6, 4.0), (0.1, 0.2, 0.4, 0.8)
OFF, BEYOND = 5.0, 1e6  # penalties that leave no edge, and no common part
UPPER = np.triu_indices(NODES, 1)
Result = dict[str, float]


def truth(rng: np.random.Generator) -> np.ndarray:
    """Return precisions [C, p, p] of unit-variance classes that share COMMON edges and have OWN of their own."""
    pairs = np.array(UPPER).T[rng.permutation(len(UPPER[0]))]

    def edges(chosen: np.ndarray) -> np.ndarray:
        matrix = np.zeros((NODES, NODES))
        values = rng.choice([-1, 1], len(chosen)) * rng.uniform(0.4, 0.8, len(chosen))
        matrix[chosen[:, 0], chosen[:, 1]] = values
        return matrix + matrix.T

    shared, out = edges(pairs[:COMMON]), []
    for _ in range(CLASSES):
        omega = shared + edges(rng.permutation(pairs[COMMON:])[:OWN])
        omega += np.eye(NODES) * (0.3 - np.linalg.eigvalsh(omega)[0])
        scale = np.sqrt(np.diagonal(np.linalg.inv(omega)))
        out.append(omega * np.outer(scale, scale))
    return np.array(out)


def draw(rng: np.random.Generator, omega: np.ndarray, n: int) -> np.ndarray:
    """Return samples [C, n, p] with mean zero."""
    factors = np.linalg.cholesky(np.linalg.inv(omega))
    return rng.standard_normal((len(omega), n, omega.shape[1])) @ factors.transpose(0, 2, 1)


def covariances(x: np.ndarray) -> np.ndarray:
    """Return the covariances [C, p, p] of samples [C, n, p]."""
    centred = x - x.mean(axis=1, keepdims=True)
    return centred.transpose(0, 2, 1) @ centred / x.shape[1]


def folds_of(x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (train, test) a fold, in the units of the training part."""
    fold, out = np.arange(x.shape[1]) % FOLDS, []
    for f in range(FOLDS):
        train, test = x[:, fold != f], x[:, fold == f] - x[:, fold != f].mean(axis=1, keepdims=True)
        scatter, sigma = test.transpose(0, 2, 1) @ test / test.shape[1], covariances(train)
        scale = np.sqrt(np.diagonal(sigma, axis1=1, axis2=2))
        out.append((correlation(sigma), scatter / (scale[:, :, None] * scale[:, None, :])))
    return out


def informative(rng: np.random.Generator, omega: np.ndarray) -> np.ndarray:
    """Return priors that are high on most edges and low on most others."""
    prior = np.where(omega != 0, rng.beta(6, 2, omega.shape), rng.beta(2, 6, omega.shape))
    prior = np.triu(prior, 1)
    return prior + prior.transpose(0, 2, 1)


def shuffled(rng: np.random.Generator, prior: np.ndarray) -> np.ndarray:
    """Return every class's prior with its nodes in random order: the same values, saying nothing."""
    orders = [rng.permutation(prior.shape[1]) for _ in prior]
    return np.stack([values[np.ix_(order, order)] for values, order in zip(prior, orders, strict=True)])


def from_sample(sigma: np.ndarray) -> np.ndarray:
    """Return the prior a sample makes for itself: absolute partial correlations (ridge 0.3) over their maximum."""
    partial = np.abs(partial_correlation(np.linalg.inv(sigma + 0.3 * np.eye(sigma.shape[1]))))
    partial[:, np.arange(sigma.shape[1]), np.arange(sigma.shape[1])] = 0
    return partial / partial.max(axis=(1, 2), keepdims=True)


def search(sigma: np.ndarray, prior: np.ndarray, n: int, folds: Sequence[tuple], solver: str = "auto") -> Selection:
    """Tune rho, gamma and k by held-out likelihood."""
    grid = Grid(
        SHARPNESS if np.ptp(prior) else (0,),
        RHO if solver != "independent" else (1.0,),
        GAMMA,
        criterion="heldout",
        preserve_penalty=True,
        tol=1e-5,
        fit_options={"solver": solver, "weight_floor": 0.01},
    )
    return select_joint(sigma, prior, [n] * len(sigma), grid, folds=folds)


def recovery(precision: np.ndarray, omega: np.ndarray) -> Result:
    """Return average precision and F1 of the edges, averaged over classes."""
    wanted, score = omega[:, *UPPER] != 0, np.abs(partial_correlation(precision))[:, *UPPER]
    found = precision[:, *UPPER] != 0
    return {
        "AP": float(np.mean([average_precision_score(w, s) for w, s in zip(wanted, score, strict=True)])),
        "F1": float(np.mean([f1_score(w, f, zero_division=0) for w, f in zip(wanted, found, strict=True)])),
        "edges": float(found.sum(1).mean()),
    }


def rejection(found: Selection) -> Result:
    """Return the share of classes with k* = 0, by held-out samples and by eBIC (in the cell that eBIC likes best)."""
    best = min(found.cells, key=lambda cell: float(cell.ebic.min(axis=0).sum()))
    return {
        "k=0, held-out": float((found.best.k == 0).mean()),
        "k=0, eBIC": float((best.ebic.argmin(axis=0) == 0).mean()),
        "gain": float(found.gain.mean()),
    }


def accuracy(scores: np.ndarray) -> float:
    """Return the share of rightly classified rows of scores [C * TEST, C]."""
    return float((scores.argmax(axis=1) == np.repeat(np.arange(CLASSES), TEST)).mean())


def gglasso(sigma: np.ndarray, folds: Sequence[tuple], kind: str) -> np.ndarray:
    """Return the precisions of GGLasso's group ("GGL") or fused ("FGL") solver, tuned on the same folds."""
    from gglasso.solver.admm_solver import ADMM_MGL

    def fit(target: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
        start = np.repeat(np.eye(NODES)[None], CLASSES, axis=0)
        options = {"tol": 1e-6, "rtol": 1e-5, "max_iter": 1000, "verbose": False}
        with redirect_stdout(StringIO()):  # it prints a line a fit
            return ADMM_MGL(target, levels[0], levels[1], kind, start, **options)[0]["Theta"]

    def heldout(levels: tuple[float, float]) -> float:
        fits = [(fit(train, levels), test) for train, test in folds[:2]]
        if any(np.linalg.eigvalsh(theta).min() <= 0 for theta, _ in fits):
            return -np.inf
        return float(np.mean([log_likelihood(theta, test).mean() for theta, test in fits]))

    second = (0.05, 0.2) if kind == "GGL" else (0.01, 0.05)
    return fit(sigma, max(((a, b) for a in (0.1, 0.2, 0.4) for b in second), key=heldout))


def shrunken(means: np.ndarray, n: int) -> np.ndarray:
    """Return class means [C, p] of unit-variance nodes moved towards their mean: James and Stein's positive part."""
    centre = means.mean(axis=0)
    apart = means - centre
    keep = 1 - (apart.size - apart.shape[1] - 2) / n / (apart**2).sum()
    return centre + max(0.0, keep) * apart


def relaxed(sigma: np.ndarray, precision: np.ndarray, level: float) -> np.ndarray:
    """Return every class alone on the support of ``precision``, at a tenth of its penalty and none elsewhere."""
    weights = np.where(precision != 0, 0.1 * level / OFF, 1.0)
    return np.concatenate(
        [fit_joint(s, w, BEYOND, OFF, tol=1e-4).precision for s, w in zip(sigma, weights, strict=True)]
    )


def classifiers(x: np.ndarray) -> dict[tuple, GraphDiscriminant]:
    """Return a classifier for every fit without a prior, as it is and relaxed, with own, shrunken and common means."""
    raw, found = covariances(x), {}
    sigma, scale, own = correlation(raw), np.sqrt(np.diagonal(raw, axis1=1, axis2=2)), x.mean(axis=1)
    spread = scale.mean(axis=0)
    means = {"own": own, "shrunken": shrunken(own / spread, x.shape[1]) * spread}
    means |= {f"chosen {share}": shrink(own, weight=share) for share in WEIGHTS}
    for rho in (0.1, *RHO[::2], RHO[-1]):
        for gamma in GAMMA:
            plain = fit_joint(sigma, 0.5, rho, gamma, tol=1e-4).precision
            fits = {"plain": plain, "relaxed": relaxed(sigma, plain, min(rho, gamma / 2))}
            for (kind, fit), (name, centre) in product(fits.items(), means.items()):
                omega = fit / (scale[:, :, None] * scale[:, None, :])
                found[kind, name, rho, gamma] = GraphDiscriminant(omega, centre)
    return found


def for_the_task(x: np.ndarray, test: np.ndarray, kind: str, means: str) -> Result:
    """Choose rho and gamma by accuracy on held-out samples of the same folds; return the accuracy on new ones.

    ``means`` "chosen": with them, how far the class means are drawn together, as `cmgl classify` does.
    """
    fold, scores = np.arange(x.shape[1]) % FOLDS, Counter()
    for f in range(FOLDS):
        held, label = x[:, fold == f], np.repeat(np.arange(CLASSES), (fold == f).sum())
        for key, model in classifiers(x[:, fold != f]).items():
            scores[key] += float((model.scores(held.reshape(-1, NODES)).argmax(axis=1) == label).mean())
    best = max((key for key in scores if key[0] == kind and key[1].startswith(means)), key=scores.__getitem__)
    share = {"share of the common mean": float(best[1].removeprefix(means))} if means == "chosen" else {}
    return {"accuracy": accuracy(classifiers(x)[best].scores(test)), **share}


def jobs(n: int, seed: int) -> Iterator[tuple[str, Callable[[], Result]]]:
    """Yield what is measured on one simulated data set, by name."""
    rng = np.random.default_rng([seed, n])
    omega = truth(rng)
    x, test = draw(rng, omega, n), draw(rng, omega, TEST).reshape(-1, NODES)
    raw = covariances(x)
    sigma, scale, folds = correlation(raw), np.sqrt(np.diagonal(raw, axis1=1, axis2=2)), folds_of(x)
    guide = informative(rng, omega)
    none = np.full_like(guide, 0.5)
    priors = {
        "informative": guide,
        "useless": shuffled(rng, guide),
        "misleading": (1 - guide) * (1 - np.eye(NODES)),
        "self": from_sample(sigma),
    }

    def classified(precision: np.ndarray) -> Result:
        model = GraphDiscriminant(precision / (scale[:, :, None] * scale[:, None, :]), x.mean(axis=1))
        return {"accuracy": accuracy(model.scores(test))}

    def joint(prior: np.ndarray, solver: str = "auto", own: Sequence[tuple] = folds) -> Result:
        found = search(sigma, prior, n, own, solver)
        more = rejection(found) if np.ptp(prior) else {}
        return {**recovery(found.result.precision, omega), **classified(found.result.precision), **more}

    def lda() -> Result:
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        model.fit(x.reshape(-1, NODES), np.repeat(np.arange(CLASSES), n))
        return {"accuracy": accuracy(model.predict_proba(test))}

    def qda() -> Result:
        shrunk = np.array([ledoit_wolf(block)[0] for block in x])
        return {"accuracy": accuracy(GraphDiscriminant.from_covariances(shrunk, x.mean(axis=1)).scores(test))}

    yield "LDA (Ledoit-Wolf)", lda
    yield "QDA (Ledoit-Wolf)", qda
    oracle = GraphDiscriminant(omega, np.zeros((CLASSES, NODES)))
    yield "QDA at the true parameters", lambda: {"accuracy": accuracy(oracle.scores(test))}

    yield "joint, no prior", lambda: joint(none)
    for name, prior in priors.items():
        yield f"joint, {name} prior", lambda prior=prior: joint(prior)
    crossed = [(train, held, from_sample(train)) for train, held in folds]
    yield "joint, self prior, crossed", lambda: joint(priors["self"], own=crossed)
    yield "two-stage, no prior", lambda: joint(none, "two-stage")
    yield "independent, no prior", lambda: joint(none, "independent")
    yield "independent, informative prior (tailored)", lambda: joint(guide, "independent")
    for kind, means in product(("plain", "relaxed"), ("own", "shrunken", "chosen")):
        yield (
            f"joint, no prior, for the task, {kind}, {means} means",
            lambda kind=kind, means=means: for_the_task(x, test, kind, means),
        )
    if n > NODES:  # without a penalty the problem is unbounded otherwise
        yield "true support, relaxed", lambda: classified(relaxed(sigma, omega, 0.0))
    for kind, name in (("GGL", "group"), ("FGL", "fused")):
        yield (
            f"GGLasso {name}",
            lambda kind=kind: (lambda theta: {**recovery(theta, omega), **classified(theta)})(
                gglasso(sigma, folds, kind)
            ),
        )


def real_jobs(nodes: Path, prior: Path) -> Iterator[tuple[str, Callable[[], Result]]]:
    """Yield the rejection of priors on observations of one's own, with shuffled priors as the control."""
    with open_artifact(nodes) as observed, open_artifact(prior) as given:
        statistics = Study({"nodes": observed}, "image", "image", "pooled", 0, Console(quiet=True)).statistics()
        priors = {"self": given["image/overlap"], "text": given["text/overlap"]}
    priors["shuffled self"] = shuffled(np.random.default_rng(0), priors["self"])
    sigma, folds = correlation(statistics.whole.covariances()), fold_correlations(statistics.moments)
    levels = (0.02, 0.05, 0.1, 0.2)

    def measure(values: np.ndarray) -> Result:
        options = {"weight_floor": 0.01}
        grid = Grid(
            SHARPNESS, levels, levels, criterion="heldout", preserve_penalty=True, tol=1e-5, fit_options=options
        )
        found = select_joint(sigma, values, statistics.whole.counts, grid, folds=folds)
        worst = next(cell for cell in found.cells if (cell.rho, cell.gamma) == (levels[-1], levels[-1]))
        return {
            **rejection(found),
            "gain error": float(np.sqrt((found.gain_error**2).mean() / len(sigma))),
            "k=0, eBIC at 0.2, 0.2": float((worst.ebic.argmin(axis=0) == 0).mean()),
        }

    for name, values in priors.items():
        yield f"{name} prior", lambda values=values: measure(values)


def run(store: Path, key: str, name: str, job: Callable[[], Result], known: dict[str, Result]) -> None:
    """Run one job unless the store has it, and keep its result."""
    if f"{key} {name}" in known:
        return
    began = time.process_time()
    try:
        result = job()
    except ModuleNotFoundError as error:
        print(f"{key} {name}: skipped, {error}")
        return
    result["seconds"] = round(time.process_time() - began, 2)
    known[f"{key} {name}"] = result
    with store.open("a") as file:
        file.write(json.dumps({"key": key, "name": name, **result}) + "\n")
    print(key, name, {measure: round(value, 3) for measure, value in result.items()}, flush=True)


def table(known: dict[str, Result], prefix: str, seeds: int) -> None:
    """Print the means over seeds as Markdown."""
    names = dict.fromkeys(key.split(" ", 2)[2] for key in known if key.startswith(prefix))
    measures = ("AP", "F1", "edges", "accuracy", "k=0, held-out", "k=0, eBIC", "gain")
    print(
        f"\n{prefix.strip()}, {seeds} data sets\n\n| method | {' | '.join(measures)} |\n|---|{'---|' * len(measures)}"
    )
    for name in names:
        rows = [result for key, result in known.items() if key.startswith(prefix) and key.split(" ", 2)[2] == name]
        cells = [f"{np.mean([row[m] for row in rows]):.3f}" if all(m in row for row in rows) else "" for m in measures]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Measure what the store lacks, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("recovery.jsonl"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--nodes", type=Path)
    parser.add_argument("--prior", type=Path)
    arguments = parser.parse_args()
    known: dict[str, Result] = {}
    if arguments.store.exists():
        for line in map(json.loads, arguments.store.read_text().splitlines()):
            known[f"{line.pop('key')} {line.pop('name')}"] = line
    for seed in range(arguments.seeds):
        for n in SIZES:
            for name, job in jobs(n, seed):
                run(arguments.store, f"n={n} {seed}", name, job, known)
    if arguments.nodes and arguments.prior:
        for name, job in real_jobs(arguments.nodes, arguments.prior):
            run(arguments.store, "real 0", name, job, known)
    for n in SIZES:
        table(known, f"n={n} ", arguments.seeds)


if __name__ == "__main__":
    main()
