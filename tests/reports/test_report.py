"""The report as a whole: what can be shown is there, the twin says the same, and what is missing is named."""

import html
import json
import re
import shutil
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from cmgl_cli.artifacts import open_artifact
from cmgl_cli.heads import Shares
from cmgl_cli.reports import Figure, Section, png
from cmgl_cli.reports.budget import within
from cmgl_cli.reports.material import Found, runs_of_files
from cmgl_cli.reports.sections import evidence, experiments, parts, restoration
from cmgl_cli.reports.sections.model import view
from cmgl_cli.reports.style import new_figure, slim
from tests.cli_helpers import cmgl
from tests.reports.large import large_run, write


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the classification of a small run."""
    return large_run(tmp_path_factory.mktemp("runs") / "a", 4, 6, 40)


@pytest.fixture(scope="module")
def page(run):
    """Return what the command says of a report, with the page and its twin."""
    said = cmgl("report", run, "--json").json["report"]
    return said, (run.parent / "report.html").read_text(), (run.parent / "report.md").read_text()


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave pictures undrawn, which takes most of a report's time."""
    blank = png(new_figure(1, 1), dpi=10)
    monkeypatch.setattr(parts, "png", lambda drawing: blank)


def test_everything_that_can_be_shown_is(page):
    said, shown, _ = page
    assert said["sections"][:3] == ["What the graph says", "Does the graph earn its keep?", "Why this class?"]
    headings = [html.unescape(text) for text in re.findall(r"<h2[^>]*>(.*?)</h2>", shown)]
    assert headings == said["sections"]
    for words in (
        "What tells a class",
        "Graphs of image observations",
        "Where the nodes look",
        "The prior",
        "What was run",
    ):
        assert any(heading.startswith(words) for heading in headings), words
    assert "Fitted by the solver splitting." in shown
    assert "http" not in re.sub(r"base64,[^\"]+", "", shown)


def test_the_twin_says_the_same(run, page):
    _, shown, twin = page
    assert len(re.findall(r"<h2", shown)) == len(re.findall(r"^## ", twin, re.M))
    assert len(re.findall(r"<table", shown)) == len(re.findall(r"^\| ---|^\|( ---:? \|)", twin, re.M))
    pictures = re.findall(r"\]\((report-figures/[\w-]+\.png)\)", twin)
    assert len(pictures) == len(re.findall(r"<img", shown)) > 5
    assert all((run.parent / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert "├─ " in twin and "```" in twin


def test_every_picture_says_how_to_read_it(page):
    for caption in re.findall(r"<figcaption><b>.*?</b>(.*?)</figcaption>", page[1]):
        assert len(caption.split()) > 8, caption


def test_it_is_the_same_whenever_it_is_made(run, no_pictures, tmp_path):
    made = []
    for name in ("one", "two"):
        cmgl("report", run, "--output", tmp_path / name / "report.html", "--quiet")
        made.append((tmp_path / name / "report.html").read_text())
    assert made[0] == made[1]


def test_one_artifact_alone_is_enough(run, no_pictures, tmp_path):
    for name in ("graphs.h5", "prior.h5", "nodes.h5", "classification.h5"):
        shutil.copy(run.parent / name, tmp_path / name)
        said = cmgl("report", tmp_path / name, "--json")
        assert said.json["report"]["sections"], name
        (tmp_path / name).unlink()
    assert any("was made from nodes.h5" in note for note in said.json["report"]["missing"])


def test_several_runs_are_compared(run, no_pictures, tmp_path):
    other = large_run(tmp_path / "b", 4, 6, 40, seed=1)
    cmgl("report", run, other, "--output", tmp_path / "both.html")
    text = (tmp_path / "both.md").read_text()
    assert text.startswith("# cmgl: a, b") and "2 runs that differ in their seed alone" in text
    assert "50.0 ± 0.0 %" in text
    assert "### a" in text and "### b" in text


def test_what_cannot_be_reported_on_is_said_in_three_lines(run, tmp_path):
    foreign = tmp_path / "x.h5"
    foreign.write_bytes(b"GIF89a")
    config = tmp_path / "c.yaml"
    config.write_text(f"dataset: digits\nartifacts: {tmp_path}\n")
    for arguments, code, words in (
        ([foreign], 3, "cannot be read"),
        ([tmp_path / "none.h5"], 3, "does not exist"),
        ([run, "--output", tmp_path / "x.txt"], 2, "HTML page"),
        ([run, config], 2, "one configuration"),
        ([config], 3, "nothing to report on"),
        ([run, "--dataset-options", "[1"], 2, "dataset_options"),
    ):
        outcome = cmgl("report", *arguments, code=code)
        assert words in outcome.err and len(outcome.err.strip().splitlines()) == 3, outcome.err


def test_a_configuration_names_what_is_missing(run, no_pictures, tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()
    for path in run.parent.glob("*.h5"):
        shutil.copy(path, folder)
    config = tmp_path / "c.yaml"
    config.write_text(f"dataset: digits\nartifacts: {tmp_path}\n")
    shutil.copy(run, folder / "damaged.h5")
    (folder / "damaged.h5").write_bytes(b"no")
    missing = " ".join(cmgl("report", config, "--json").json["report"]["missing"])
    assert "patch_graphs.h5 does not exist yet" in missing and "damaged.h5 is left out" in missing
    assert "patch_graphs.h5 does not exist yet" in (folder / "report.md").read_text().replace("\\", "")


@pytest.mark.slow
def test_many_classes_and_nodes_stay_within_bounds(tmp_path):
    cmgl("report", large_run(tmp_path / "big", 200, 64, 400))
    page = (tmp_path / "big" / "report.html").read_text()
    assert len(page) < 15e6
    assert "the first 25 of 200" in page


def test_pictures_too_heavy_are_drawn_coarser():
    drawing = new_figure(8, 8)
    drawing.figimage(np.random.default_rng(0).random((1200, 1200, 3)))
    heavy = Figure("a", png(drawing), "noise")
    light = replace(heavy, name="b", png=png(new_figure(1, 1)))
    (section,) = within([Section("x", parts=[Section("y", figures=[heavy, light])])], len(heavy.png) // 3)
    one, other = section.all_figures
    assert len(one.png) < len(heavy.png) / 3 and other == light
    assert one.size == heavy.size


def test_fewer_colours_keep_white_paper_white():
    drawing = new_figure(6, 6)
    axes = drawing.add_subplot()
    axes.scatter(*np.random.default_rng(0).random((2, 4000)), c=np.linspace(0, 1, 4000), cmap="hsv", alpha=0.3)
    full = png(drawing)
    reduced = slim(full)
    assert len(reduced) < len(full)
    assert Image.open(BytesIO(reduced)).convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_the_classifier_is_rebuilt_as_it_scored(run, no_pictures):
    (one,) = runs_of_files([run])
    seen = view(one, "image")
    with open_artifact(run.parent / "graphs.h5") as graphs:
        matrices = graphs["precision"]
        half = 0.5 * matrices + 0.5 * matrices.mean(axis=0)
        means = 0.75 * graphs["means"] + 0.25 * graphs["means"].mean(axis=0)
    assert seen.shares == Shares(0.5, 0.25) and np.ptp(means, axis=0).max() > 0.1
    np.testing.assert_allclose(seen.model.precision, half)
    np.testing.assert_allclose(seen.model.means, means)
    (section,) = evidence.sections([one])
    assert section.figures[0].name == "evidence"


def test_experiments_are_summed_up_over_seeds(tmp_path):
    names = np.array(["a", "a", "b", "b"], dtype=object)
    arrays = {
        "parameters/method": names,
        "parameters/seed": np.array([0.0, 1, 0, 1]),
        "parameters/rate": np.full(4, 0.3),
        "metrics/MSE": np.array([1.0, 3.0, 5.0, np.nan]),
    }
    path = write(tmp_path / "experiment.h5", "experiment", 1, "experiment", arrays, experiment="x")
    (section,) = experiments.sections(runs_of_files([path]))
    assert section.tables[0].columns == ("method", "MSE", "cells")
    assert section.tables[0].rows == [["a", "2 ± 1", "2"], ["b", "5", "2"]]


def test_a_restored_record_has_its_figures_and_skill(no_pictures, tmp_path):
    rng = np.random.default_rng(0)
    shape = (30, 3, 2)
    text = lambda *values: np.array(values, dtype=object)  # noqa: E731
    arrays = {
        "time": np.datetime_as_string(np.arange("2020-01", "2022-07", dtype="datetime64[M]"), unit="D").astype(object),
        "station": text("p", "q", "r"),
        "variable": text("sun", "rain"),
        "unit": text("h", "mm"),
        "coordinates": np.array([[45.0, 7, 100], [46, 8, 200], [47, 9, 300]]),
        "values": rng.random(shape),
        "standard_error": rng.random(shape),
        "filled": rng.random(shape) < 0.3,
        "hidden": np.zeros(shape, dtype=bool),
        **{f"skill/{name}": rng.random(4) for name in ("rmse", "mae")},
        "skill/method": text("default", "knn", "default", "knn"),
        "skill/variable": text("sun", "sun", "rain", "rain"),
        "skill/n": np.full(4, 9),
        "graphs/modality_weights": np.array([[0, -0.5], [-0.5, 0]]),
        "graphs/spatial_edges": np.array([[0, 1], [1, 2]]),
        "graphs/spatial_weights": np.array([0.5, 1.0]),
        "notes": text("a note"),
    }
    path = write(tmp_path / "restored.h5", "restoration", 1, "twofold-restore", arrays)
    runs = runs_of_files([path])
    (section,) = restoration.sections(runs)
    assert [figure.name for figure in section.figures] == [
        f"restoration-{name}" for name in ("gaps", "filled", "skill", "spatial-graph", "modality-graph")
    ]
    said = " ".join(restoration.says(runs[0]))
    assert "sun and rain move against each other" in said and "closest ties are q and r; p and q" in said
    shown = json.loads(cmgl("report", path, "--json").out)["report"]["sections"]
    assert shown == ["What the graph says", "The restored record", "What was run"]
    assert Found.at(path).kind == "restoration"
