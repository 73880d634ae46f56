"""The documents say what the code does: schemas, configurations, links.

``python -m tests.test_docs`` rewrites the schemas.
"""

import re
from pathlib import Path

import pytest

from cmgl_cli.artifacts import SCHEMAS
from cmgl_cli.settings import STAGE_CONFIGS

ROOT = Path(__file__).resolve().parents[1]
FORMAT = ROOT / "docs" / "artifacts.md"


def schema_tables() -> str:
    """Return the schemas as Markdown."""
    parts = []
    for schema in SCHEMAS.values():
        parts.append(f"### {schema.name}, version {schema.version}\n\n{schema.about}\n")
        rows = [
            f"| `{name}`{'*' if field.optional else ''} | {' '.join(field.dims)} | {field.kind} | {field.about} |"
            for name, field in schema.fields.items()
        ]
        parts.append("| data set | axes | kind | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def split_page() -> str:
    """Return the page up to its schemas."""
    return FORMAT.read_text().split("### ", 1)[0].replace("{schemas}\n", "")


def test_schemas_are_documented_as_they_are():
    assert FORMAT.read_text() == split_page() + schema_tables(), "run: python -m tests.test_docs"


@pytest.mark.parametrize("page", sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")]), ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_site():
    listed = re.findall(r"([a-z0-9-]+\.(?:md|ipynb))", (ROOT / "mkdocs.yml").read_text())
    assert set(listed) == {path.name for pattern in ("*.md", "*.ipynb") for path in (ROOT / "docs").glob(pattern)}


def test_every_stage_command_in_the_readme_exists():
    commands = set(re.findall(r"^cmgl ([a-z-]+)", (ROOT / "README.md").read_text(), flags=re.M))
    assert set(STAGE_CONFIGS) <= commands


if __name__ == "__main__":
    FORMAT.write_text(split_page() + schema_tables())
