"""What was run: which artifact was made from which, the settings that differ from the defaults, versions and times."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from cmgl_cli.reports.material import Found, Run, short_digest
from cmgl_cli.reports.page import Section, Table
from cmgl_cli.settings import STAGE_CONFIGS

SHOWN_VERSIONS = ("cmgl", "python", "torch", "transformers", "numpy", "scipy", "numba", "sklearn")
LONGEST = 120


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return the provenance of every run."""
    parts = [_of_run(run) for run in runs]
    text = (
        "Every artifact carries a digest of its content and the digests of what it was made from. The tree is read "
        "from the top: a result, and indented below it what it was computed from. Two reports with equal digests show "
        "equal numbers."
    )
    if len(parts) == 1:
        only = parts[0]
        return [
            Section("What was run", [text, *only.paragraphs], only.tables, points=only.points, listing=only.listing)
        ]
    return [Section("What was run", [text], parts=parts)]


def _of_run(run: Run) -> Section:
    tables = [table for table in (_settings(run), _made(run)) if table.rows]
    return Section(run.name, [], tables, points=run.notes, listing=tree(run))


def tree(run: Run) -> str:
    """Return which artifact was made from which as lines of text, results first."""
    by_digest = {one.digest: one for one in run.found.values()}
    used = {entry["digest"] for one in run.found.values() for entry in one.identity.inputs.values()}
    lines: list[str] = []
    shown: set[str] = set()
    for one in run.found.values():
        if one.digest not in used:
            lines += _branch(one, by_digest, shown, "", "")
    return "\n".join(lines)


def _branch(one: Found, by_digest: Mapping[str, Found], shown: set[str], first: str, rest: str) -> list[str]:
    line = f"{first}{one.path.name}  {short_digest(one.digest)}"
    inputs = list(one.identity.inputs.values())
    if one.digest in shown and inputs:
        return [line + "  (see above)"]
    shown.add(one.digest)
    lines = [line]
    for at, entry in enumerate(inputs):
        last = at == len(inputs) - 1
        step, deeper = ("└─ ", "   ") if last else ("├─ ", "│  ")
        source = by_digest.get(entry["digest"])
        if source is None:
            lines.append(f"{rest}{step}{entry['file']}  {short_digest(entry['digest'])}  (not here)")
        else:
            lines += _branch(source, by_digest, shown, rest + step, rest + deeper)
    return lines


def _settings(run: Run) -> Table:
    rows = []
    for one in run.found.values():
        default = defaults(one.identity.stage)
        for key, value in sorted(one.identity.config.items()):
            if key in default and plain(value) != plain(default[key]):
                rows.append([one.path.name, key, _text(value), _text(default[key])])
    return Table(("artifact", "setting", "value", "default"), rows, "Settings that differ from the defaults")


def defaults(stage: str) -> dict[str, Any]:
    """Return the default settings of a stage, as an artifact stores them."""
    config = STAGE_CONFIGS.get(stage)
    return {item.name: item.default for item in fields(config)} if config else {}


def plain(value: Any) -> Any:
    """Return a value as JSON gives it back, so that tuples equal lists."""
    return json.loads(json.dumps(value, default=str))


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _made(run: Run) -> Table:
    rows = []
    for one in run.found.values():
        made = one.provenance
        found = made.get("versions", {})
        versions = ", ".join(f"{name} {found[name]}" for name in SHOWN_VERSIONS if name in found)
        seconds = made.get("seconds")
        rows.append(
            [
                one.path.name,
                f"{one.identity.stage} v{one.identity.stage_version}",
                short_digest(one.digest),
                str(made.get("written", "")).replace("T", " ").replace("+00:00", " UTC"),
                "" if seconds is None else f"{seconds:.1f}",
                versions,
                str(made.get("command", "")),
            ]
        )
    columns = ("artifact", "stage", "digest", "written", "seconds", "versions", "command")
    return Table(columns, rows, "When, how long, and with what each artifact was made", folded=True)
