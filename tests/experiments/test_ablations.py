"""The ablations: cells say what the stages say, share what is equal, and lose nothing to a kill."""

import os
import signal
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cmgl_cli.artifacts import open_artifact, read_header
from cmgl_cli.config import build_run
from cmgl_cli.encoders.token_encoder import token_embeddings
from cmgl_cli.errors import UsageError
from cmgl_cli.experiments import EXPERIMENTS, Chain, Request, measures, text_encoding
from cmgl_cli.experiments.measures import edge_counts, score_table
from cmgl_cli.experiments.prior_direction import shuffled
from cmgl_cli.nodes.bridge import Bridged
from tests.cli_helpers import cmgl, start

SHAPES = """
dataset: smoke
artifacts: {folder}
extract: {{encoder: "builtin:tiny"}}
distill: {{nodes: 4, key_width: 8, epochs: 2}}
fit-graphs: {{k: "0,10", select: ebic, region: mean, windows: none, appearance: false}}
"""


def run_all(name, chain, **request):
    experiment = EXPERIMENTS[name]
    cells = experiment.cells(Request(data=chain, seeds=1, **request))
    return [(cell, experiment.run(cell, chain)) for cell in cells]


def test_cells_that_ask_for_the_same_share_it_and_the_users_own_serves(chain):
    nodes = chain.nodes(0)
    assert nodes == chain.run.folder / "nodes.h5"
    other = chain.nodes(1)
    assert other.parent.name == "cells" and chain.nodes(1) == other
    before = other.stat().st_mtime_ns
    assert chain.nodes(1).stat().st_mtime_ns == before
    assert read_header(other)[0].config["seed"] == 1
    assert chain.nodes(0, epochs=1) not in {nodes, other}


def test_matrix_says_what_classify_says(chain):
    reported = score_table(chain.run.folder / "classification.h5")
    found = {cell["matrix"]: metrics for cell, metrics in run_all("matrix", chain, quick=True)}
    assert found["common + specific"]["accuracy"] == reported["graph classifier (image)"]["accuracy"]
    assert found["common + specific"]["NLL"] == reported["graph classifier (image)"]["NLL"]
    for matrix, control in (("identity", "identity"), ("only common", "common only"), ("no edges", "diagonal")):
        assert found[matrix]["NLL"] == reported[f"control: {control} (image)"]["NLL"]
    assert found["identity"]["edges"] == found["no edges"]["edges"] == 0
    both, common, specific = (found[name]["edges"] for name in ("common + specific", "only common", "only specific"))
    assert max(common, specific) <= both <= common + specific
    assert found["random graph"]["edges"] == both


def digest_of(folder, name):
    return read_header(folder / "artifacts" / "digits" / "experiments" / f"{name}.h5")[1]


@pytest.mark.slow
def test_a_kill_loses_at_most_the_cell_at_work(tmp_path, config):
    """Killed in the middle, a run goes on, and ends with the digest of an undisturbed one."""
    command = ["experiment", "matrix", "--config", config, "--quick", "--seeds", "2"]
    artifacts = tmp_path / "artifacts"
    features = build_run(config).folder
    (artifacts / "digits").mkdir(parents=True)
    for file in ("renders.h5", "features.h5", "text_features.h5", "masks.h5"):
        (artifacts / "digits" / file).symlink_to(features / file)
    journal = artifacts / "digits" / "experiments" / "matrix.cells.jsonl"
    process = start(*command, "--artifacts", artifacts, folder=tmp_path)
    while process.poll() is None and (not journal.exists() or journal.read_text().count("\n") < 3):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = journal.read_text()
    assert kept.count("\n") < 12
    cmgl(*command, "--artifacts", artifacts)
    assert journal.read_text().startswith(kept[: kept.rfind("\n") + 1])
    cmgl(*command)
    assert digest_of(tmp_path, "matrix") == digest_of(config.parent, "matrix")
    with open_artifact(artifacts / "digits" / "experiments" / "matrix.h5", "experiment", verify=True) as found:
        assert np.isfinite(found["metrics/accuracy"]).all()


def test_without_features_the_user_is_told_what_to_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--dataset" in cmgl("experiment", "matrix", "--name", "nothing", code=3).err


def test_no_prior_is_chosen_where_there_is_none_and_shuffling_moves_numbers_only(chain):
    found = {cell["direction"]: metrics for cell, metrics in run_all("prior-direction", chain, quick=True)}
    assert found["none"]["k*"] == 0 and found["none"]["k* = 0"] == 1
    assert "accuracy" not in found["image-to-text"] and "accuracy" in found["self"]
    reported = score_table(chain.run.folder / "classification.h5")["graph classifier (image)"]
    assert found["text-to-image"]["accuracy"] == reported["accuracy"]
    prior = chain.prior(chain.nodes(0), direction="text-to-image")
    with open_artifact(prior) as artifact, np.load(shuffled(chain, prior, 0)) as moved:
        for own, other in zip(artifact["prior"], moved["prior"], strict=True):
            assert np.array_equal(np.sort(own.ravel()), np.sort(other.ravel())) and not np.array_equal(own, other)
            assert np.array_equal(other, other.T) and (np.diagonal(other) == 1).all()


def test_penalties_thin_the_graphs(chain):
    found = {(cell["rho"], cell["gamma"]): metrics for cell, metrics in run_all("sensitivity", chain, quick=True)}
    assert set(found) == {(rho, gamma) for rho in (0.05, 0.1) for gamma in (0.05, 0.1)}
    assert found[0.1, 0.1]["edges"] <= found[0.05, 0.05]["edges"]
    reported = score_table(chain.run.folder / "classification.h5")["graph classifier (image)"]
    assert found[0.05, 0.05]["NLL"] == reported["NLL"]


def test_classes_alone_share_no_edge(chain):
    found = {cell["method"]: metrics for cell, metrics in run_all("optimisation", chain)}
    assert found["independent"]["common ratio"] == 0
    assert 0 <= found["joint"]["common ratio"] <= 1
    for metrics in found.values():
        assert metrics["gap"] == metrics["training accuracy"] - metrics["accuracy"]


def test_without_a_transform_normality_stays_as_it_was(chain):
    found = {cell["transform"]: metrics for cell, metrics in run_all("nonparanormal", chain, quick=True)}
    assert found["none"]["pass before"] == found["none"]["pass after"]
    assert found["none"]["pass before"] == found["one for all classes"]["pass before"]
    reported = score_table(chain.run.folder / "classification.h5")["graph classifier (image)"]
    assert found["one for all classes"]["NLL"] == reported["NLL"] != found["none"]["NLL"]


def test_mappings_differ_and_cross_attention_is_the_users_own(chain):
    found = {cell["mapping"]: metrics for cell, metrics in run_all("mapping", chain, quick=True)}
    reported = score_table(chain.run.folder / "classification.h5")["graph classifier (image)"]
    assert found["cross-attention"]["NLL"] == reported["NLL"]
    assert len({metrics["NLL"] for metrics in found.values()}) == 3
    for metrics in found.values():
        assert 0 <= metrics["unconfirmed"] <= 1 and 0 <= metrics["by chance"] <= 1


def test_unconfirmed_edges_of_equal_halves_are_none(chain, monkeypatch):
    nodes = chain.nodes(0)
    graphs = chain.graphs("image", nodes, chain.prior(nodes), 0)
    monkeypatch.setattr(measures, "_halves", lambda labels, rng: (np.arange(len(labels)),) * 2)
    found = measures.unconfirmed_edges(chain, nodes, graphs, 0)
    assert found["unconfirmed"] == 0
    density = edge_counts(graphs)["precision"] / 15
    assert found["by chance"] == pytest.approx(1 - density, abs=0.02)


def test_graphs_know_whose_observations_a_prior_is_about(chain, tmp_path):
    """The self-prior of images and the prior from images to texts hold the same numbers."""
    nodes = chain.nodes(0)
    for direction, again in (("self", False), ("image-to-text", True), ("image-to-text", False)):
        prior = chain.prior(nodes, direction=direction)
        given = ["--nodes", nodes, "--prior", prior, "--output", tmp_path / "graphs.h5"]
        told = cmgl("fit-graphs", "--observations", "image", "--k", 0, "--rho", 0.1, "--gamma", 0.1, *given).err
        assert ("digest of the observations changed" in told) == again


def test_modules_are_timed_outside_the_users_folder(chain):
    before = sorted(chain.run.folder.iterdir())
    experiment = EXPERIMENTS["runtime"]
    cells = [cell for cell in experiment.cells(Request(data=chain, seeds=1)) if cell["module"] != "nodes"]
    for cell in cells:
        found = experiment.run(cell, chain)
        assert found["seconds of the module"] > 0
        assert found["seconds for 1,000 items"] == 1000 * found["seconds of the module"] / found["items"]
    assert {cell["module"] for cell in cells} >= {"extraction", "one joint fit", "inference"}
    assert sorted(chain.run.folder.iterdir()) == before
    nameless = replace(chain, run=replace(chain.run, dataset=None))
    assert "extraction" not in {cell["module"] for cell in experiment.cells(Request(data=nameless, seeds=1))}


def test_texts_reach_the_nodes_rendered_or_through_a_text_encoder(chain, text_encoder):
    found = run_all("text-encoding", chain, quick=True, text_encoder=str(text_encoder))
    metrics = {cell["encoding"]: values for cell, values in found}
    assert set(metrics) == {"rendered", "text encoder", "none"}
    assert metrics["none"]["k*"] == 0 and "spread" not in metrics["none"]
    reported = score_table(chain.run.folder / "classification.h5")["graph classifier (image)"]
    assert metrics["rendered"]["NLL"] == reported["NLL"]
    for name in ("rendered", "text encoder"):
        assert 0 < metrics[name]["spread"] <= 1 and 0 <= metrics[name]["texts recognised"] <= 1
    without = EXPERIMENTS["text-encoding"].cells(Request(data=chain))
    assert {cell["encoding"] for cell in without} == {"rendered", "none"}


def test_the_prior_of_texts_is_the_mean_overlap_within_texts(chain, text_encoder):
    texts, labels, classes = text_encoding._texts(chain)
    assert len(texts) == len(labels) and set(labels) == set(range(len(classes)))
    one = np.eye(3)[:, :3]
    apart, together = Bridged([one, one], 1.0, 1), Bridged([np.full((3, 4), 0.25)] * 2, 1.0, 1)
    assert np.array_equal(text_encoding.mean_overlap(apart, np.array([0, 1]), 2), np.stack([np.eye(3)] * 2))
    np.testing.assert_allclose(text_encoding.mean_overlap(together, np.array([0, 1]), 2), 1.0)
    tokens = token_embeddings(str(text_encoder), ["a zebra", "a very much longer text"])
    alone = token_embeddings(str(text_encoder), ["a zebra"])[0]
    assert tokens[0].shape == alone.shape != tokens[1].shape
    np.testing.assert_allclose(tokens[0], alone, atol=1e-5)


@pytest.mark.parametrize("case", ["not installed", "not there"])
def test_a_text_encoder_that_cannot_be_had_is_explained(tmp_path, monkeypatch, config, case):
    name = tmp_path / "nothing"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if case == "not installed":
        monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    command = ["experiment", "text-encoding", "--config", config, "--quick", "--only", "encoding=text encoder"]
    told = cmgl(*command, "--text-encoder", name, code=2 if case == "not installed" else 3).err
    assert ("cmgl[text]" if case == "not installed" else str(name)) in told


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    """Return the chain of a few generated images with masks, scored as if they showed several classes each."""
    folder = tmp_path_factory.mktemp("regions")
    path = folder / "smoke.yaml"
    path.write_text(SHAPES.format(folder=folder / "artifacts"))
    cmgl("render-text", "--config", path)
    cmgl("extract", "--config", path)
    return replace(Chain.of(build_run(path)), kind="region")


@pytest.mark.slow
def test_images_of_several_classes_are_scored_by_their_regions(regions):
    found = {cell["matrix"]: metrics for cell, metrics in run_all("matrix", regions)}
    assert set(found) == {"common + specific", "only common", "no edges", "random graph"}
    assert all(0 <= metrics["mIoU"] <= metrics["accuracy"] <= 1 for metrics in found.values())
    (cell, metrics), *_ = run_all("sensitivity", regions, quick=True)
    nodes = regions.nodes(0)
    graphs = regions.graphs("region", nodes, regions.prior(nodes), 0, rho=(cell["rho"],), gamma=(cell["gamma"],))
    with open_artifact(regions.labels(nodes, graphs, 0)) as labels:
        assert metrics["mIoU"] == labels["table/mean_iou"][0]
        assert labels["table/method"].tolist() == ["generative"]
    directions = {cell["direction"] for cell in EXPERIMENTS["prior-direction"].cells(Request(data=regions))}
    assert "image-to-text" not in directions
    with pytest.raises(UsageError, match="one class each"):
        EXPERIMENTS["nonparanormal"].cells(Request(data=regions))


def test_images_without_classes_and_masks_are_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.new("RGB", (64, 64), (80 * i, 0, 0)).save(tmp_path / "photos" / f"{i}.png")
    cmgl("extract", "--images", "photos", "--encoder", "builtin:tiny", "--name", "mine")
    assert "one class each, or masks" in cmgl("experiment", "matrix", "--name", "mine", code=3).err


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = cmgl("experiment", "matrix", "--dataset", "smoke", "--dry-run").err
    assert "extract (text): missing, would be made" in told and "would write" in told
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
