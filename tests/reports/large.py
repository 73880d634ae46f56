"""Artifacts of a large experiment, made of random numbers: what the report must survive, not what it should say."""

from pathlib import Path

import numpy as np

from cmgl_cli.artifacts import Identity, create_artifact
from cmgl_cli.graphs import Nonparanormal
from cmgl_cli.reports.material import Found

GRID = 14


def write(path: Path, schema: str, version: int, stage: str, arrays: dict, inputs=(), **config) -> Path:
    """Write an artifact that was made from others."""
    entries = {one.stem: {"file": one.name, "digest": Found.at(one).digest} for one in inputs}
    with create_artifact(path, Identity(schema, version, stage, 1, config, entries)) as out:
        for name, values in arrays.items():
            out.write(name, values)
        if schema == "graphs":
            out.provenance["solver"] = "splitting"
        if schema == "classification":
            out.provenance["chosen"] = "graph classifier (image)"
    return path


def texts(values) -> np.ndarray:
    return np.array([str(value) for value in values], dtype=object)


def samples(n: int, n_classes: int) -> dict:
    label = np.arange(n) % n_classes
    return {
        "id": texts(f"image {i}" for i in range(n)),
        "split": texts("train" if i < n // 2 else "test" for i in range(n)),
        "label": label,
        "labels/values": label,
        "labels/offsets": np.arange(n + 1),
        "item": np.arange(n),
    }


def large_run(folder: Path, n_classes: int, p: int, n: int, seed: int = 0) -> Path:
    """Write nodes, prior, graphs and classification of so many classes, nodes and images; return the last."""
    rng = np.random.default_rng(seed)
    classes = texts(f"a class with a rather long name {i}" for i in range(n_classes))
    table = samples(n, n_classes)
    attention = rng.dirichlet(np.full(GRID * GRID, 0.1), (n, p)).astype(np.float16)
    z = rng.normal(size=(n, p))
    nodes = write(
        folder / "nodes.h5",
        "nodes",
        1,
        "distill",
        {
            "classes": classes,
            **{f"history/{name}": rng.random(5) for name in ("train_loss", "validation_loss", "validation_score")},
            "history/best_epoch": np.array([3]),
            **{f"image/{name}": values for name, values in table.items()},
            "image/z": z,
            "image/attention": attention,
            "image/pooled": np.zeros((n, 4)),
            "image/proxy": np.zeros((n, n_classes)),
            "image/grid": np.full((n, 2), GRID),
            "image/valid": np.ones(n, dtype=bool),
            "weights/query": np.zeros((p, 4)),
        },
        nodes=p,
        seed=seed,
    )
    overlap = rng.random((n_classes, p, p)).astype(np.float32)
    prior = write(
        folder / "prior.h5",
        "prior",
        1,
        "prior",
        {
            "classes": classes,
            "prior": overlap,
            "image/attention": np.full((n_classes, p, GRID * GRID), 1 / GRID**2, dtype=np.float32),
            "image/overlap": overlap,
            "image/count": np.full(n_classes, 9),
        },
        [nodes],
        direction="self",
    )
    graphs = write(
        folder / "graphs.h5",
        "graphs",
        2,
        "fit-graphs",
        _graphs(rng, classes, z, p),
        [nodes, prior],
        variant="image",
    )
    methods = ["graph classifier (image)", "control: diagonal (image)", "kNN"]
    own = {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    numbers = ("accuracy", "macro_f1", "nll", "brier", "ece", "validation_accuracy")
    half = n // 2
    return write(
        folder / "classification.h5",
        "classification",
        1,
        "classify",
        {
            "classes": classes,
            **{name: table[name][half:] for name in ("id", "split", "label")},
            "prediction": table["label"][half:],
            "probability": np.full((n - half, n_classes), 1 / n_classes, dtype=np.float32),
            "score": np.zeros((n - half, n_classes)),
            "confusion": rng.integers(0, 3, (n_classes, n_classes)) + 5 * np.eye(n_classes, dtype=int),
            "table/method": texts(methods),
            "table/inputs": texts(["z"] * 3),
            "table/chosen": texts(["shrinkage 0.5, mean shrinkage 0.25", "", ""]),
            **{f"table/{name}": np.full(3, 0.5) for name in numbers},
            **{f"per_class/{name}": np.full(n_classes, value) for name, value in own.items()},
            "per_class/support": np.full(n_classes, 5),
            "reliability/edges": np.linspace(0, 1, 4),
            "reliability/confidence": np.array([0.2, 0.5, 0.8]),
            "reliability/accuracy": np.array([0.2, 0.5, 0.8]),
            "reliability/count": np.array([5, 50, 5]),
        },
        [nodes, graphs],
        shrinkage="auto",
        class_prior="uniform",
    )


def _graphs(rng: np.random.Generator, classes: np.ndarray, z: np.ndarray, p: int) -> dict:
    n_classes = len(classes)
    weak = rng.normal(size=(n_classes, p, p)) * 0.02 * (rng.random((n_classes, p, p)) < 0.2)
    specific = np.triu(weak, 1) + np.triu(weak, 1).transpose(0, 2, 1) + 2 * np.eye(p)
    common = np.eye(p) + 0.1 * (np.eye(p, k=1) + np.eye(p, k=-1))
    ks = np.array([0.0, 10.0])
    selection = {
        **{name: np.array([0.1, 0.2]) for name in ("rho", "gamma")},
        "chosen_rho": np.array(0.1),
        "chosen_gamma": np.array(0.1),
        "sharpness": ks,
        "ebic_of_k": rng.random((2, 2, n_classes)),
    }
    history = {"iteration": np.arange(9), "objective": np.linspace(9, 1, 9), "gap": np.logspace(0, -8, 9)}
    return {
        "classes": classes,
        "modality": texts(["image"]),
        "precision": common + specific,
        "common": common,
        "specific": specific,
        "covariance": np.tile(np.eye(p), (n_classes, 1, 1)),
        "scale": np.ones((n_classes, p)),
        "means": rng.normal(size=(n_classes, p)) * 0.3,
        "counts": np.full(n_classes, 9),
        "k": ks[np.arange(n_classes) % 2],
        "weights": np.ones((n_classes, p, p)),
        **{f"transform/{name}": values for name, values in Nonparanormal().fit(z).to_arrays().items()},
        **{f"selection/{name}": values for name, values in selection.items()},
        **{f"history/{name}": values for name, values in history.items()},
    }
