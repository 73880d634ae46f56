"""The chain as a user types it: finds its files, resumes, says why it runs, and what it prints."""

import csv
import json
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import yaml

from cmgl_cli.artifacts import SampleTable, open_artifact, read_header
from cmgl_cli.config import build_run
from tests.cli_helpers import SMALL, chain, cmgl
from tests.encoders.checkpoints import write_checkpoint

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    write_checkpoint("siglip", folder)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory, encoder):
    """A folder in which the whole chain has run once."""
    folder = tmp_path_factory.mktemp("finished")
    with chdir(folder):
        chain(encoder)
    return folder


@pytest.fixture
def workplace(tmp_path, finished, monkeypatch):
    """A copy of the finished folder, as the current one."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "artifacts" / "smoke"


def test_every_stage_finds_its_inputs_and_output(workplace):
    written = {path.name for path in workplace.iterdir()}
    artifacts = "renders features text_features nodes prior graphs patch_graphs classification".split()
    assert {f"{name}.h5" for name in artifacts} <= written
    assert {"classification-confusion.png", "classification-reliability.png"} <= written
    assert not [name for name in written if "partial" in name or name.endswith(".lock")]
    with open_artifact(workplace / "classification.h5", verify=True) as found:
        np.testing.assert_allclose(found["probability"].sum(axis=1), 1, rtol=1e-5)
        assert set(found["split"]) == {"test"}
        assert {"LDA", "QDA", "proxy head", "kNN"} <= set(found["table/method"])
        assert any("identity" in method for method in found["table/method"])


def test_graphs_keep_their_promises(workplace):
    for name in ("graphs.h5", "patch_graphs.h5"):
        with open_artifact(workplace / name) as found:
            precision = found["precision"]
            np.testing.assert_allclose(found["common"] + found["specific"], precision, atol=1e-12)
            assert np.linalg.eigvalsh(precision).min() > 0
            assert found["history/relative_gap"] <= 1e-6


def test_second_run_is_up_to_date_and_changes_no_file(workplace, encoder):
    before = {path.name: path.stat().st_mtime_ns for path in workplace.glob("*.h5")}
    outcome = cmgl("extract", "--dataset", "smoke", "--encoder", encoder)
    assert outcome.err.count("up to date") == 3
    for stage, options in SMALL.items():
        assert "up to date" in cmgl(stage, "--dataset", "smoke", *options).err
    assert before == {path.name: path.stat().st_mtime_ns for path in workplace.glob("*.h5")}


def test_dry_run_gives_the_reason_and_writes_nothing(workplace):
    before = (workplace / "nodes.h5").read_bytes()
    options = [*SMALL["distill"], "--seed", "7"]
    assert "setting seed changed: 0 -> 7" in cmgl("distill", "--dataset", "smoke", *options, "--dry-run").err
    assert (workplace / "nodes.h5").read_bytes() == before


def test_batch_size_changes_neither_identity_nor_content(workplace, encoder, tmp_path):
    cmgl("extract", "--dataset", "smoke", "--encoder", encoder, "--batch-size", 3, "--name", "other")
    for name in ("features.h5",):
        one, other = read_header(workplace / name), read_header(tmp_path / "artifacts" / "other" / name)
        assert one[0].key() == other[0].key() and one[1] == other[1]


def test_json_is_one_object_on_stdout(workplace):
    outcome = cmgl("prior", "--dataset", "smoke", "--json")
    assert outcome.json["prior"]["direction"] == "text-to-image"
    assert 0 <= outcome.json["prior"]["median"] <= 1


def test_stale_inputs_are_refused_with_the_mend(workplace):
    cmgl("distill", "--dataset", "smoke", *SMALL["distill"], "--seed", 3)
    error = cmgl("fit-graphs", "--dataset", "smoke", code=4).err
    assert "made from another nodes artifact" in error and "cmgl prior --dataset smoke" in error


def test_missing_input_names_the_stage_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = cmgl("distill", "--dataset", "smoke", code=3).err
    assert "features.h5" in error and "run: cmgl extract --dataset smoke" in error


def test_every_path_can_be_given(workplace, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("nodes", "prior"):
        shutil.move(workplace / f"{name}.h5", moved / f"my-{name}.h5")
    paths = ["--nodes", moved / "my-nodes.h5", "--prior", moved / "my-prior.h5", "--output", moved / "my-graphs.h5"]
    cmgl("fit-graphs", *paths, "--observations", "image", *SMALL["fit-graphs"])
    assert read_header(moved / "my-graphs.h5")[1] == read_header(workplace / "graphs.h5")[1]


def test_cross_fitted_nodes_differ_on_training_images_only(workplace):
    with open_artifact(workplace / "nodes.h5") as found:
        before, train = found["image/z"], SampleTable.read(found, "image").parts == "train"
    cmgl("distill", "--dataset", "smoke", *SMALL["distill"], "--folds", 2)
    with open_artifact(workplace / "nodes.h5") as found:
        after = found["image/z"]
        assert found["history/fold_agreement"].shape == (2, before.shape[1])
    np.testing.assert_array_equal(after[~train], before[~train])
    assert not np.allclose(after[train], before[train])


def test_edges_come_with_names_and_frequencies(workplace):
    options = [*SMALL["fit-graphs"], "--observations", "image", "--stability", 5, "--edges", "edges.csv"]
    cmgl("fit-graphs", "--dataset", "smoke", *options)
    with open("edges.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open_artifact(workplace / "graphs.h5") as found:
        upper = np.triu(found["precision"] != 0, 1)
        frequency = found["stability/frequency"]
    assert len(rows) == upper.sum() and {row["class"] for row in rows} <= {"disc", "stripes"}
    assert {float(row["stability"]) for row in rows} <= set(np.round(np.arange(6) / 5, 10)) | set(frequency.ravel())


@pytest.mark.parametrize("solver", ["admm", "two-stage"])
def test_other_solvers_are_a_flag_away(workplace, solver):
    options = [*SMALL["fit-graphs"], "--observations", "image", "--solver", solver, "--allow-unconverged"]
    before = read_header(workplace / "graphs.h5")[1]
    cmgl("fit-graphs", "--dataset", "smoke", *options)
    assert read_header(workplace / "graphs.h5")[1] != before


def test_run_and_status_follow_the_configuration(workplace, encoder, tmp_path):
    sections = {"extract": {"encoder": str(encoder)}, "distill": {"nodes": 4, "key-width": 8, "epochs": 2}}
    graphs = {"k": "0,10", "rho": 0.1, "gamma": 0.1, "select": "ebic"}
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"dataset": "smoke", **sections, "fit-graphs": graphs}))
    states = cmgl("status", config, "--json").json
    (rows,) = states.values()
    assert {row["state"] for row in rows} == {"up to date"}, rows
    config.write_text(
        yaml.safe_dump({"dataset": "smoke", **sections, "fit-graphs": graphs, "prior": {"direction": "self"}})
    )
    (rows,) = cmgl("status", config, "--json").json.values()
    assert {row["stage"]: row["state"] for row in rows}["prior"] == "stale"
    outcome = cmgl("run", config)
    assert "direction changed: text-to-image -> self" in outcome.err
    assert "distill: up to date" in outcome.err
    page = (workplace / "report.html").read_text()
    assert "<img" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert (workplace / "report.md").exists() and list((workplace / "report-figures").glob("*.png"))


def test_inspect_shows_everything_and_verifies(workplace):
    shown = cmgl("inspect", workplace / "graphs.h5", "--verify", "--json").json
    assert {row["name"] for row in shown["arrays"]} >= {"precision", "common", "specific"}
    assert "nodes" in shown["inputs"]


@pytest.mark.parametrize("config", sorted(ROOT.glob("configs/*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid(config):
    assert build_run(config).name


def test_images_without_labels_can_be_encoded(workplace, encoder, tmp_path):
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (40, 30), "red").save(folder / name)
    cmgl("extract", "--images", folder, "--encoder", encoder)
    with open_artifact(tmp_path / "artifacts" / "photos" / "features.h5") as found:
        assert found["label"].tolist() == [-1, -1]


def test_environment_and_datasets_answer(tmp_path):
    assert json.loads(cmgl("env", "--json").out)["environment"]["torch"]
    listed = cmgl("datasets", "--root", tmp_path, "--json").json["datasets"]
    names = {row["name"] for row in listed}
    assert {"cifar10", "cifar100", "cub200", "caltech256", "voc2012", "ade20k", "coco2014", "kvasir", "digits"} <= names
    assert "VOCdevkit" in cmgl("datasets", "voc2012").out


def test_a_name_in_the_configuration_wins_over_the_name_of_the_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "named.yaml").write_text("name: alps\ntwofold-restore:\n  input: rain.csv\n")
    (tmp_path / "unnamed.yaml").write_text("twofold-restore:\n  input: rain.csv\n")
    (tmp_path / "rain.csv").write_text(
        "station,time,rain\n" + "".join(f"a,2020-01-{d:02d},{d}\n" for d in range(1, 29))
    )
    assert "artifacts/alps/restored.h5" in cmgl("twofold-restore", "--config", "named.yaml", "--dry-run").err
    assert "artifacts/rain/restored.h5" in cmgl("twofold-restore", "--config", "unnamed.yaml", "--dry-run").err
