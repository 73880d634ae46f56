"""What the shell may complete: datasets, words of a setting, and files of the kind that fits.

Runs at every press of the tab key, so nothing here imports more than the command line already has.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

ARTIFACT = (".h5",)
CONFIG = (".yaml", ".yml")
Completer = Callable[[str], list[str]]


def datasets(incomplete: str) -> list[str]:
    """Return the names of datasets that go on from what was typed."""
    from cmgl_cli.datasets.layouts import LAYOUTS

    return [entry["name"] for entry in LAYOUTS if entry["name"].startswith(incomplete)]


def words(known: Iterable[str]) -> Completer:
    """Return a completer of fixed words."""
    known = tuple(known)
    return lambda incomplete: [word for word in known if word.startswith(incomplete)]


def files(*suffixes: str) -> Completer:
    """Return a completer of folders, and of files with one of these suffixes (any, where none is given).

    Half-written artifacts are not offered. A folder that is the only choice is entered, because shells would put a
    blank behind it.
    """

    def complete(incomplete: str) -> list[str]:
        prefix, found = incomplete.rpartition("/")[0] + "/" * ("/" in incomplete), _beginning(incomplete, suffixes)
        while len(found) == 1 and found[0].is_dir():
            inside = _beginning(f"{prefix}{found[0].name}/", suffixes)
            if not inside:
                break
            prefix, found = f"{prefix}{found[0].name}/", inside
        return [f"{prefix}{path.name}{'/' if path.is_dir() else ''}" for path in found]

    return complete


def _beginning(incomplete: str, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the paths whose text begins with what was typed, sorted."""
    typed, slash, start = incomplete.rpartition("/")
    try:
        paths = sorted(Path(typed + slash).expanduser().iterdir())
    except OSError:
        return []
    return [path for path in paths if path.name.startswith(start) and _offered(path, start, suffixes)]


def _offered(path: Path, start: str, suffixes: tuple[str, ...]) -> bool:
    if path.name.startswith(".") and not start.startswith("."):
        return False
    return path.is_dir() or ".partial." not in path.name and (not suffixes or path.suffix.lower() in suffixes)
