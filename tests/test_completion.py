"""What the tab key offers, asked as a shell asks."""

import pytest
from typer.testing import CliRunner

from cmgl_cli import experiments, settings
from cmgl_cli.cli import app
from cmgl_cli.completion import files


def offered(line: str) -> list[str]:
    """Return what bash would offer at the end of a line."""
    words = line.split(" ")
    environment = {"_CMGL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    return CliRunner().invoke(app, [], env=environment, prog_name="cmgl").stdout.split()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "artifacts" / "digits"
    home.mkdir(parents=True)
    for name in ("graphs.h5", "nodes.h5", "graphs.partial.h5", "graphs.h5.lock", "notes.txt"):
        (home / name).touch()
    for name in ("run.yaml", "run.yml", "run.txt", ".hidden.yaml"):
        (tmp_path / name).touch()
    return tmp_path


def test_commands_datasets_and_words_are_offered(folder):
    assert offered("cmgl fit") == ["fit-graphs"]
    assert offered("cmgl extract --dataset voc") == ["voc2012"]
    assert offered("cmgl datasets cifar") == ["cifar10", "cifar100"]
    assert offered("cmgl prior --direction te") == ["text-to-image"]
    assert offered("cmgl experiment two") == ["twofold-synthetic", "twofold-stations"]


def test_the_experiments_offered_are_those_there_are():
    assert tuple(experiments.EXPERIMENTS) == settings.EXPERIMENTS


def test_only_finished_artifacts_are_offered(folder):
    here = "artifacts/digits/"
    assert offered("cmgl inspect artifacts/digits/") == [f"{here}graphs.h5", f"{here}nodes.h5"]
    assert offered("cmgl prior --nodes artifacts/digits/n") == [f"{here}nodes.h5"]


def test_a_folder_that_is_the_only_choice_is_entered(folder):
    assert offered("cmgl inspect a") == ["artifacts/digits/graphs.h5", "artifacts/digits/nodes.h5"]


def test_configurations_are_offered(folder):
    assert offered("cmgl run ru") == ["run.yaml", "run.yml"]
    assert offered("cmgl extract --config ru") == ["run.yaml", "run.yml"]


def test_files_answer_what_they_are_asked(folder):
    assert files(".yaml")("") == ["artifacts/", "run.yaml"]
    assert files(".yaml")(".h") == [".hidden.yaml"]
    assert files()("nowhere/at/all") == []
    (folder / "empty").mkdir()
    assert files()("em") == ["empty/"]
    assert files(".h5")(f"{folder}/artifacts/digits/g") == [f"{folder}/artifacts/digits/graphs.h5"]
