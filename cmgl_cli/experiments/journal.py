"""The journal of an experiment: one line of JSON a finished cell, forced to disk before the next one counts."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmgl_cli.errors import OutputError


class Journal:
    """Finished cells of one experiment, on disk.

    Lines that another experiment, version or data set wrote are kept and ignored, so that one file serves a grid that
    grows. A line that a kill tore is dropped.

    Parameters
    ----------
    path : Path
        Created with the first cell.
    scope : mapping
        What decides a cell's numbers beside its parameters: experiment, version, digests of the data.

    Raises
    ------
    OutputError
        The file cannot be read or written.
    """

    def __init__(self, path: Path, scope: Mapping[str, Any]):
        self.path = path
        self._scope = dict(scope)
        self._found: dict[str, dict[str, float]] = {}
        text = self._read()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self._write(whole, "w")
        for line in whole.splitlines():
            entry = _parsed(line)
            if entry is not None:
                self._found[_key(entry["scope"], entry["cell"])] = {
                    name: float("nan") if value is None else value for name, value in entry["metrics"].items()
                }

    def __contains__(self, cell: Mapping[str, Any]) -> bool:
        """Tell whether the cell is finished."""
        return _key(self._scope, cell) in self._found

    def __getitem__(self, cell: Mapping[str, Any]) -> dict[str, float]:
        """Return the metrics of a finished cell."""
        return self._found[_key(self._scope, cell)]

    def add(self, cell: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Store a finished cell."""
        plain = {name: None if value != value else float(value) for name, value in metrics.items()}
        entry = {"scope": self._scope, "cell": dict(cell), "metrics": plain}
        self._write(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n", "a")
        self._found[_key(self._scope, cell)] = {name: float(value) for name, value in metrics.items()}

    def _read(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise OutputError("the journal cannot be read", f"{self.path}: {error}", "move it away") from error

    def _write(self, text: str, mode: str) -> None:
        try:
            with self.path.open(mode, encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError("the journal cannot be written", f"{self.path}: {error}", "free some space") from error


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    whole = isinstance(entry, dict) and all(isinstance(entry.get(key), dict) for key in ("scope", "cell", "metrics"))
    return entry if whole else None


def _key(scope: Mapping[str, Any], cell: Mapping[str, Any]) -> str:
    return json.dumps([dict(scope), dict(cell)], sort_keys=True, ensure_ascii=False)
