"""The ablations: cells say what the stages say, share what is equal, and lose nothing to a kill."""

import os
import signal
import time

import numpy as np
import pytest

from cmgl_cli.artifacts import open_artifact, read_header
from cmgl_cli.config import build_run
from cmgl_cli.experiments import EXPERIMENTS, Chain, Request
from cmgl_cli.experiments.chain import score_table
from tests.cli_helpers import cmgl, start

SETTINGS = """
dataset: digits
artifacts: {folder}
extract: {{encoder: "builtin:tiny", limit: 160}}
distill: {{nodes: 6, key_width: 8, epochs: 2}}
fit-graphs: {{k: "0,10", rho: 0.05, gamma: 0.05, select: ebic, observations: image}}
classify: {{observations: image, figures: false}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Return the settings of a run on a few digits, whose features exist."""
    folder = tmp_path_factory.mktemp("ablations")
    path = folder / "digits.yaml"
    path.write_text(SETTINGS.format(folder=folder / "artifacts"))
    cmgl("run", path)
    return path


@pytest.fixture(scope="module")
def chain(config):
    return Chain.of(build_run(config))


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
