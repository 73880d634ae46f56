"""The example at the end of every help text is run as it stands, on few images."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmgl_cli.cli import EXAMPLES, app
from cmgl_cli.settings import STAGE_CONFIGS
from tests.cli_helpers import cmgl

ROOT = Path(__file__).resolve().parents[1]
# settings may come from the environment, so what is typed stays what the help says
QUICK = {
    "CMGL_EXTRACT_LIMIT": "100",
    "CMGL_FIT_GRAPHS_WINDOWS": "none",
    "CMGL_FIT_GRAPHS_APPEARANCE": "false",
    "CMGL_DISTILL_EPOCHS": "3",
    "CMGL_SEGMENT_BASELINES": "false",
    "CMGL_EXPERIMENT_ONLY": "method=knn,rate=0.3",
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Return a folder with what the examples name: configurations, a record, images."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "configs").symlink_to(ROOT / "configs")
    rng = np.random.default_rng(0)
    rows = ["station,time,temperature"]
    rows += [
        f"{name},2020-{1 + day // 28:02d}-{1 + day % 28:02d},{value:.2f}"
        for name in "abcd"
        for day, value in enumerate(rng.normal(10, 3, 84))
        if rng.random() < 0.9
    ]
    (folder / "observations.csv").write_text("\n".join(rows) + "\n")
    stations = [f"{name},{40 + i},{5 + i},{100 * i}" for i, name in enumerate("abcd")]
    (folder / "stations.csv").write_text("\n".join(["station,latitude,longitude,elevation", *stations]) + "\n")
    for name in ("train/cat/1.png", "train/dog/2.png", "test/cat/3.png"):
        (folder / "photos" / name).parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "photos" / name)
    return folder


def test_every_command_has_an_example():
    assert set(EXAMPLES) == {command.name for command in app.registered_commands} and set(STAGE_CONFIGS) < set(EXAMPLES)


@pytest.mark.parametrize("command", EXAMPLES)
def test_help_ends_with_the_example(command):
    words = " ".join(cmgl(command, "--help").out.split())
    assert words.endswith(f"Example: {EXAMPLES[command]}")


@pytest.mark.parametrize("command", EXAMPLES)
def test_the_example_runs(workplace, monkeypatch, command):
    monkeypatch.chdir(workplace)
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    program, *arguments = shlex.split(EXAMPLES[command])
    assert program == "cmgl"
    assert cmgl(*arguments).out.strip()
