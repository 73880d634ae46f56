"""``cmgl init``: a commented file of settings for data of one's own, filled in with what was found there."""

import json
from collections import Counter
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import IO, Any

from cmgl_cli.artifacts.disk import publish_file
from cmgl_cli.config import build_run
from cmgl_cli.console import Console
from cmgl_cli.datasets import Dataset, dataset_spec, open_dataset
from cmgl_cli.datasets.registry import data_root
from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.settings import STAGE_CONFIGS

CHAIN = ("render-text", "extract", "distill", "prior", "fit-graphs")
LINE = 110
MASK_OPTIONS = (
    "#dataset_options: {masks: masks, classes: [first, second]}    # masks elsewhere, or without classes.json"
)


@dataclass(frozen=True)
class Found:
    """What is known of the data: the reader's name, where they lie, the stages worth running, and remarks."""

    dataset: str
    root: Path | None
    until: tuple[str, ...]
    remarks: tuple[str, ...]


def write_starter(
    name: str, console: Console, *, dataset: str | None = None, root: Path | None = None, output: Path | None = None
) -> Path:
    """Write the settings of a new experiment, and say what to run next.

    Parameters
    ----------
    name : str
        Name of the experiment; the file is called after it.
    console : Console
    dataset : str, optional
        A known dataset; default: the reader that fits what lies at `root`.
    root : Path, optional
        Default for data of one's own: the folder called `name`.
    output : Path, optional
        Default: ``NAME.yaml``.

    Raises
    ------
    UsageError
        The file is there already, or the dataset is unknown.
    InputError
        What lies at `root` cannot be read.
    """
    build_run(None, {"name": name})  # holds the name against its rules
    path = output or Path(f"{name}.yaml")
    if path.exists():
        raise UsageError("the file is there already", str(path), "name another with --output, or remove it first")
    found = look(name, dataset, root)
    text = starter(name, found)
    publish_file(path, partial(_write, text.encode()))
    console.fields("settings", {"file": path, "data": "; ".join(found.remarks), "next": f"cmgl run {path}"})
    return path


def _write(data: bytes, file: IO[bytes]) -> None:
    file.write(data)


def look(name: str, dataset: str | None, root: Path | None) -> Found:
    """Look at the data, and decide which reader and which stages fit them."""
    if dataset is None:
        root = root or Path(name)
        dataset = _reader_of(root)
    spec = dataset_spec(dataset)
    if spec.own and root is None:
        raise UsageError("data of one's own need a place", f"--dataset {dataset}", "add --root FOLDER")
    there = root.exists() if spec.own and root else spec.bundled or spec.locate(data_root(root)) is not None
    if not there:
        place = root if spec.own else data_root(root)
        hint = f"not found at {place} yet; the layout it expects: cmgl datasets {dataset}"
        return Found(dataset, root, _until(spec.task, dataset), (hint,))
    opened = open_dataset(dataset, root)
    return Found(dataset, root, _until(opened.task, dataset), tuple(_remarks(opened)))


def _reader_of(root: Path) -> str:
    if root.suffix == ".npz":
        return "npz"
    if not root.exists() or (root / "masks").is_dir() or _has_classes(root):
        return "folder"
    return "images"


def _has_classes(root: Path) -> bool:
    if not root.is_dir():
        raise InputError("data of one's own are a folder of images, or one .npz file", str(root), "give --root FOLDER")
    return bool(open_dataset("folder", root).classes)


def _until(task: str, dataset: str) -> tuple[str, ...]:
    if dataset == "images":
        return ("extract",)
    return ("segment",) if task == "segmentation" else ("classify",)


def _remarks(dataset: Dataset) -> list[str]:
    samples = list(dataset.samples())
    splits = Counter(sample.split for sample in samples)
    parts = ", ".join(f"{count} {split}" for split, count in splits.items())
    lines = [f"{len(samples)} images: {parts}"]
    if dataset.classes:
        lines.append(f"{len(dataset.classes)} classes: {_listed(dataset.classes)}")
        own = [label for label in dataset.classes if label in dataset.texts]
        lines.append(f"texts of {len(own)} classes" if own else "no texts: sentences from templates take their place")
    if dataset.task == "segmentation":
        lines.append("with masks")
    return lines


def _listed(names: tuple[str, ...], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def starter(name: str, found: Found) -> str:
    """Return the text of the file: what was found, and every setting of the stages concerned at its default."""
    head = [
        f"# Settings of the experiment {name!r}.",
        f"#   cmgl run {name}.yaml       computes what is not up to date, and writes a report",
        f"#   cmgl status {name}.yaml    says what that is, and why",
        "# Settings right behind a # are at their defaults: take the # away to change one.",
        *(f"# found: {remark}" for remark in found.remarks),
        "",
        f"dataset: {found.dataset}",
        *([f"root: {_scalar(str(found.root))}"] if found.root else []),
        *([MASK_OPTIONS] if found.dataset == "folder" else []),
        f"name: {_scalar(name)}",
        f"until: [{', '.join(found.until)}]    # what `cmgl run` is for: classify, segment, or any other stage",
        "#seed: 0    # of all stages that have one",
    ]
    stages = [*CHAIN, *found.until] if "extract" not in found.until else ["extract"]
    return "\n".join([*head, *(line for stage in stages for line in _section(stage))]) + "\n"


def _section(stage: str) -> list[str]:
    config = STAGE_CONFIGS[stage]
    lines = ["", f"# {(config.__doc__ or '').strip()}", f"{stage}:"]
    for item in fields(config):
        lines += [f"  # {text}" for text in _wrapped(_meaning(item.metadata))]
        setting = f"{item.name}: {_default(stage, item)}"
        lines.append(f"  {setting}" if (stage, item.name) == ("extract", "encoder") else f"  #{setting}")
        if (stage, item.name) == ("extract", "encoder"):
            lines.insert(-1, "  # (builtin:tiny is small and bundled, for a first run without a model hub)")
    return lines


def _meaning(metadata: Any) -> str:
    choices = f" One of: {', '.join(metadata['choices'])}." if metadata["choices"] else ""
    return metadata["about"] + choices


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > LINE:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _default(stage: str, item: Any) -> str:
    value = getattr(STAGE_CONFIGS[stage](), item.name)
    if isinstance(value, tuple):
        return f"[{', '.join(_scalar(one) for one in value)}]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """Return a value as YAML writes it; texts that YAML could read as something else in quotes."""
    plain = isinstance(value, str) and value.replace("-", "").replace("_", "").replace("/", "").isalpha()
    return value if plain and value not in {"none", "null", "yes", "no", "on", "off"} else json.dumps(value)
