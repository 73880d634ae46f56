"""What cmgl can tell about an artifact, the datasets, this machine and itself."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

from cmgl_cli import __version__
from cmgl_cli.artifacts import open_artifact
from cmgl_cli.console import Console
from cmgl_cli.datasets import dataset_spec, find_datasets

PACKAGES = (
    "torch",
    "transformers",
    "numpy",
    "scipy",
    "numba",
    "scikit-learn",
    "h5py",
    "pillow",
    "matplotlib",
    "typer",
    "rich",
    "pyyaml",
)


def inspect_artifact(path: Path, console: Console, *, verify: bool = False) -> None:
    """Show schema, provenance and arrays of one artifact; with `verify`, recompute its digest."""
    with open_artifact(path, verify=verify) as artifact:
        identity = artifact.identity
        console.fields(
            str(path),
            {
                "schema": f"{identity.schema} (version {identity.schema_version})",
                "stage": f"{identity.stage} (version {identity.stage_version})",
                "content digest": artifact.digest + (" (verified)" if verify else ""),
                "size": f"{path.stat().st_size / 1e6:.1f} MB",
            },
        )
        console.fields("settings", {key: _short(value) for key, value in identity.config.items()})
        console.fields(
            "inputs", {role: f"{entry['file']} {entry['digest'][:19]}" for role, entry in identity.inputs.items()}
        )
        if identity.digests:
            console.fields("digests", {key: _short(value) for key, value in identity.digests.items()})
        console.fields("provenance", {key: _short(value) for key, value in artifact.provenance.items()})
        rows = [
            (name, " x ".join(map(str, dataset.shape)) or "1", _kind(dataset), artifact.about(name))
            for name, dataset in ((name, artifact.stream(name)) for name in artifact)
        ]
        console.table("arrays", ("name", "shape", "type", "meaning"), rows)


def _kind(dataset: Any) -> str:
    return "text" if dataset.dtype.kind in "OS" else str(dataset.dtype)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:297] + "..."


def list_datasets(name: str | None, root: Path | None, console: Console) -> None:
    """List all datasets, or show one in full: its page and the layout it is expected in."""
    if name is not None:
        spec = dataset_spec(name)
        console.fields(
            spec.name, {"title": spec.title, "task": spec.task, "page": spec.page or "-", "layout": "\n" + spec.layout}
        )
        return
    rows = []
    for found in find_datasets(root):
        where = "bundled" if found.spec.bundled else str(found.path) if found.path else "not found"
        rows.append((found.spec.name, found.spec.task, where, found.spec.title))
    console.table("datasets", ("name", "task", "found at", "title"), rows)
    console.info(
        "The layout one expects: cmgl datasets NAME. Your own images: --images FOLDER, or dataset folder or npz."
    )


def environment() -> dict[str, Any]:
    """Return versions, devices and settings, as a bug report needs them."""
    values: dict[str, Any] = {
        "cmgl": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
    }
    for package in PACKAGES:
        try:
            values[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            values[package] = "missing"
    values.update(_devices())
    values.update(
        {name: value for name, value in os.environ.items() if name.startswith(("CMGL_", "OMP_NUM", "CUDA_VIS"))}
    )
    return values


def _devices() -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        return {"devices": f"torch cannot be imported: {error}"}
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [torch.cuda.get_device_name(index) for index in range(count)]
    return {
        "devices": ", ".join(names) or f"CPU only ({torch.get_num_threads()} threads)",
        "cpu units": torch.backends.cpu.get_cpu_capability(),
    }


def demo_config() -> Path:
    """Return the configuration of the demo, which ships with the package."""
    return Path(__file__).parent / "demo.yaml"


def list_experiments(console: Console) -> None:
    """List the experiments that ``cmgl experiment`` repeats."""
    from cmgl_cli.experiments import EXPERIMENTS

    words = {"": "-", "stations": "a record: --input", "features": "--config or --dataset"}
    rows = [(one.name, words[one.needs], one.about) for one in EXPERIMENTS.values()]
    console.table("experiments", ("name", "needs", "what"), rows)
