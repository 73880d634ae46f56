"""Run `cmgl` as a user does, and a chain of stages on generated images."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from cmgl_cli.cli import app

SMALL = {
    "distill": ["--nodes", "4", "--key-width", "8", "--epochs", "2"],
    "prior": [],
    "fit-graphs": ["--k", "0,10", "--rho", "0.1", "--gamma", "0.1", "--select", "ebic"],
    "classify": [],
}


@dataclass
class Outcome:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


def cmgl(*arguments, code: int | None = 0) -> Outcome:
    """Run a command in this process; check its exit code and that no traceback reached the user."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    outcome = Outcome(result.exit_code, result.stdout, result.stderr)
    if code is not None:
        assert outcome.code == code, f"exit {outcome.code}, expected {code}\n{outcome.err}\n{result.exception!r}"
    assert "Traceback" not in outcome.err
    return outcome


def start(*arguments, folder: Path, **environment) -> subprocess.Popen:
    """Start a command in a process of its own, in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "cmgl_cli", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that runs the tests in the background has interrupts ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def chain(encoder: Path | str, *more, until: str = "classify", dataset: str = "smoke") -> None:
    """Run the stages one after the other in the current folder, up to `until`."""
    cmgl("render-text", "--dataset", dataset, *more)
    cmgl("extract", "--dataset", dataset, "--encoder", encoder, *more)
    for stage, options in SMALL.items():
        if until == "extract":
            return
        cmgl(stage, "--dataset", dataset, *options, *more)
        if stage == until:
            return
