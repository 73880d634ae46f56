"""Who may import whom (docs/architecture.md), read from the source, and what importing the command line costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "cmgl_cli"
MATHEMATICS = {"graphs", "restoration", "nodes", "heads", "encoders"}
# room -> other parts of cmgl_cli it may import (its own room and errors always)
ALLOWED = {
    **{room: set() for room in MATHEMATICS},
    "limits": set(),
    "datasets": {"artifacts", "limits"},
    "artifacts": {"limits"},
    "settings": set(),
    "config": {"settings"},
    "console": set(),
    "sharding": {"artifacts", "console"},
    "sufficient": {"artifacts", "console", "graphs", "observations"},
    "matrices": {"artifacts", "datasets"},
    "evidence": {"graphs", "heads", "matrices", "observations", "sufficient"},
    "search": {"artifacts", "console", "evidence", "graphs"},
    "refits": {"graphs", "sufficient"},
    "observations": {"artifacts", "graphs", "heads", "nodes"},
    "steps": {"config", "datasets"},
    "pipeline": {"artifacts", "config", "console", "settings", "steps"},
    "sources": {"datasets", "pipeline", "settings"},
    "segmentation": MATHEMATICS - {"restoration"}
    | {"artifacts", "datasets", "evidence", "observations", "settings", "sufficient"},
    "stages": MATHEMATICS
    | {
        "refits",
        "sources",
        "artifacts",
        "datasets",
        "settings",
        "pipeline",
        "steps",
        "sharding",
        "observations",
        "segmentation",
        "sufficient",
        "reports",
        "experiments",
        "evidence",
        "matrices",
        "search",
    },
    "reports": MATHEMATICS | {"artifacts", "config", "console", "datasets", "observations", "settings", "steps"},
    "experiments": MATHEMATICS
    | {"artifacts", "config", "console", "datasets", "pipeline", "reports", "settings", "steps", "sufficient"},
    "about": {"artifacts", "console", "datasets", "experiments"},
    "commands": {"artifacts", "settings", "config", "console", "pipeline", "sharding", "steps"},
    "completion": {"datasets"},
    "flags": {"commands", "completion", "steps"},
    "starter": {"artifacts", "config", "console", "datasets", "settings"},
    "cli": {"commands", "completion", "config", "console", "flags", "pipeline", "settings", "steps"},
    "errors": set(),
    "__main__": {"cli"},
}
LAZY_IN_CLI = {"about", "reports", "starter"}
ONLY_IN = {
    "h5py": {"artifacts"},
    "typer": {"cli", "flags"},
    "rich": {"console"},
    "transformers": {"encoders"},
    "yaml": {"config", "datasets"},
}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path, top_level_only: bool = False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "cmgl_cli")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_plan(path):
    room = room_of(path)
    if room == "__init__":
        return
    allowed = ALLOWED[room] | {room, "errors"} | (LAZY_IN_CLI if room == "cli" else set())
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "cmgl_cli" and len(parts) > 1 and parts[1] != "__version__":
            assert parts[1] in allowed, f"{path.name} in {room} must not import cmgl_cli.{parts[1]}"
        if parts[0] in ONLY_IN:
            assert room in ONLY_IN[parts[0]], f"{path.name} in {room} must not import {parts[0]}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "stages").glob("*.py")), ids=lambda path: path.name)
def test_stages_never_import_each_other(path):
    others = {other.stem for other in (PACKAGE / "stages").glob("*.py")} - {path.stem}
    assert not [name for name in imports(path) if name.split(".")[-1] in others and ".stages" in name]


def test_importing_the_command_line_leaves_the_heavy_libraries_out():
    code = (
        "import sys, cmgl_cli.cli\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'matplotlib', 'numba', 'scipy'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
