"""Errors as a set: each says what, where and how to mend it, in one voice; docs/errors.md lists them all.

``python -m tests.test_errors`` rewrites the list.
"""

import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from cmgl_cli import errors

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "errors.md"
MARK = "<!-- what follows is written by python -m tests.test_errors -->\n"
KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.CmglError) and kind is not errors.CmglError
}
# words that begin with a capital wherever they stand
NAMES = ("COCO", "CSV", "CUDA", "HDF5", "JSON", "NetCDF", "RGB", "StARS")


@dataclass(frozen=True)
class Raised:
    """One place where an error is made."""

    path: str
    line: int
    kind: str
    what: str
    where: str
    fix: str

    @property
    def code(self) -> int:
        return KINDS[self.kind].exit_code

    @property
    def room(self) -> str:
        return self.path.split("/")[0].removesuffix(".py")


def text_of(node: ast.expr) -> str:
    """Return a text as it stands in the source, with an ellipsis for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.IfExp):
        return f"{text_of(node.body)} / {text_of(node.orelse)}"
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return "did you mean …?" if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "suggest" else "…"


def raised() -> list[Raised]:
    found = []
    for path in sorted((ROOT / "cmgl_cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in KINDS:
                parts = [text_of(argument) for argument in node.args] + [""] * 3
                name = str(path.relative_to(ROOT / "cmgl_cli"))
                found.append(Raised(name, node.lineno, node.func.id, *parts[:3]))
    return found


ALL = raised()


@pytest.mark.parametrize("error", ALL, ids=lambda error: f"{error.path}:{error.line}")
def test_every_error_says_what_where_and_how_to_mend_it(error):
    assert error.what and error.where and error.fix, error
    for part in (error.what, error.fix):
        assert not part.endswith(".") or part.endswith("..."), f"no full stop: {part}"
        assert not re.match(r"[A-Z][a-z]", part) or part.startswith(NAMES), f"no capital: {part}"


def test_the_page_lists_them_all():
    assert PAGE.read_text() == page(), "run: python -m tests.test_errors"


def page() -> str:
    """Return the page: what a person wrote, and the list."""
    return PAGE.read_text().split(MARK, 1)[0] + MARK + "\n" + listed(ALL)


def listed(found: list[Raised]) -> str:
    by_code = defaultdict(lambda: defaultdict(set))
    for error in found:
        by_code[error.code][error.room].add((error.what, error.fix))
    parts = []
    for code in sorted(by_code):
        parts.append(f"## Exit code {code}\n")
        for room in sorted(by_code[code]):
            rows = sorted(by_code[code][room], key=lambda row: (row[0].lower(), row[1]))
            parts.append(f"### {room}, {code}\n\n| what | mend |\n|---|---|")
            parts.extend(f"| {cell(what)} | {cell(fix)} |" for what, fix in rows)
            parts.append("")
    return "\n".join(parts)


def cell(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    return re.sub(r"([|*_<>\[\]`])", r"\\\1", " ".join(text.split()))


if __name__ == "__main__":
    PAGE.write_text(page())
