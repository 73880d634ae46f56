"""The notebook runs as it stands, and says what it said."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "first-graph.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_is_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    stored = nbformat.read(NOTEBOOK, as_version=4)
    ran = nbformat.from_dict(stored)
    for cell in ran.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(ran, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [kinds(cell) for cell in ran.cells] == [kinds(cell) for cell in stored.cells]
    with_graphs, without = (float(word.rstrip("%,")) for word in printed(ran).split() if "%" in word)
    assert with_graphs > without > 80
    assert "converged: True" in "".join(
        output.get("text", "") for cell in ran.cells for output in cell.get("outputs", ())
    )


def kinds(cell) -> set[str]:
    """Return what a cell puts out: text, pictures."""
    found = set()
    for output in cell.get("outputs", ()):
        found |= {"text"} if output.get("name") == "stdout" else set(output.get("data", ()))
    return found


def printed(notebook) -> str:
    """Return the last line that was printed."""
    return [o["text"] for cell in notebook.cells for o in cell.get("outputs", ()) if o.get("name") == "stdout"][-1]
