"""The only place that prints: results on stdout, everything else on stderr."""

import json
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from cmgl_cli.errors import EXIT_BUG, CmglError, from_outside

LINE_EVERY_SECONDS = 30.0
# tables in files and pipes: wide enough not to fold the comparison
PLAIN_WIDTH = 160


class Console:
    """What a command says to its user.

    Parameters
    ----------
    quiet : bool
        Only results, warnings and errors.
    as_json : bool
        Results as one JSON object on stdout instead of tables.
    debug : bool
        Show tracebacks.
    """

    def __init__(self, quiet: bool = False, as_json: bool = False, debug: bool = False):
        self.quiet, self.as_json, self.debug = quiet, as_json, debug
        self._err = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self._out = RichConsole(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
        self._results: dict[str, Any] = {}

    def info(self, text: str) -> None:
        """Say what is going on."""
        if not self.quiet:
            self._err.print(escape(text))

    def warn(self, text: str) -> None:
        """Say what the user should look at."""
        self._err.print(f"[yellow]warning:[/yellow] {escape(text)}")

    def fields(self, title: str, values: Mapping[str, Any]) -> None:
        """Give one result: names and values."""
        self._results[title] = dict(values)
        if self.as_json:
            return
        table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
        for key, value in values.items():
            table.add_row(escape(str(key)), escape(_text(value)))
        self._out.print(table)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Give one result: a table."""
        self._results[title] = [dict(zip(columns, row, strict=True)) for row in rows]
        if self.as_json:
            return
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2), header_style="bold")
        for index, column in enumerate(columns):
            numeric = all(isinstance(row[index], int | float) or row[index] is None for row in rows)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(escape(_text(value)) for value in row))
        self._out.print(table)

    def finish(self) -> None:
        """Write the JSON object, when JSON was asked for."""
        if self.as_json:
            text = json.dumps(self._results, default=_json_value, ensure_ascii=False, allow_nan=False)
            sys.stdout.write(_writable(text) + "\n")
            sys.stdout.flush()

    def error(self, error: BaseException) -> int:
        """Show an error in three lines and return its exit code."""
        if self.debug:
            self._err.print(escape("".join(traceback.format_exception(error))))
        error = from_outside(error)
        if isinstance(error, CmglError):
            self._err.print(f"[bold red]error:[/bold red] {escape(error.what)}")
            for name, text in (("where", error.where), ("mend", error.fix)):
                if text:
                    self._err.print(f"[bold]{name + ':':<6}[/bold] {escape(text)}")
            return error.exit_code
        self._err.print(
            f"[bold red]error:[/bold red] this is a bug in cmgl: {escape(f'{type(error).__name__}: {error}')}"
        )
        self._err.print(
            "[bold]mend: [/bold] run it again with --debug and report what it prints, with the output of: cmgl env"
        )
        return EXIT_BUG

    @contextmanager
    def progress(self, label: str, total: int, unit: str = "items", done: int = 0) -> Iterator["_Ticker"]:
        """Show progress with speed and time left; one line every 30 s when nobody watches."""
        if self.quiet or not self._err.is_terminal:
            yield _LineTicker(self, label, total, unit, done)
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        with Progress(*columns, TimeRemainingColumn(), console=self._err, transient=True) as bar:
            task = bar.add_task(escape(label), total=total, completed=done, rate="")
            yield _BarTicker(bar, task, unit)


class _Ticker:
    """Counts finished items."""

    def advance(self, count: int = 1) -> None:
        """Count `count` more items."""


class _BarTicker(_Ticker):
    def __init__(self, bar: Progress, task: Any, unit: str):
        self._bar, self._task, self._unit = bar, task, unit
        self._start, self._count = time.monotonic(), 0

    def advance(self, count: int = 1) -> None:
        self._count += count
        rate = self._count / max(1e-9, time.monotonic() - self._start)
        self._bar.update(self._task, advance=count, rate=f"{rate:.3g} {self._unit}/s")


class _LineTicker(_Ticker):
    def __init__(self, console: Console, label: str, total: int, unit: str, done: int):
        self._console, self._label, self._total, self._unit = console, label, total, unit
        self._done, self._count, self._start = done, 0, time.monotonic()
        self._next = self._start + LINE_EVERY_SECONDS

    def advance(self, count: int = 1) -> None:
        self._done, self._count = self._done + count, self._count + count
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LINE_EVERY_SECONDS
        rate = self._count / (now - self._start)
        left = (self._total - self._done) / rate
        self._console.info(
            f"{self._label}: {self._done} of {self._total} {self._unit}, {rate:.3g} {self._unit}/s, {left:.0f} s left"
        )


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return _writable(str(value))


def _writable(text: str) -> str:
    """Return a text with halves of characters, as undecodable file names have them, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json_value(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
