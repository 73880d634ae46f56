"""Kills, interrupts, full disks, second writers, spoilt inputs: nothing lost, nothing half-written, all explained."""

import os
import shutil
import signal
import subprocess
import time

import h5py
import numpy as np
import pytest
from PIL import Image

from cmgl_cli.artifacts import SampleTable, open_artifact, partial_path, read_header
from tests.cli_helpers import SMALL, chain, cmgl, start
from tests.test_cli import encoder, finished, workplace  # noqa: F401 (fixtures)


def wait_for(condition, process, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.time() < end, "timed out"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Write 400 small images of two classes, enough for several blocks."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(400):
        folder = root / ("train" if number % 4 else "test") / ("warm" if number % 2 else "cold")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        pixels[..., 2 * (number % 2)] = 255
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return root


def done_blocks(path):
    try:
        with h5py.File(partial_path(path), "r", locking=False) as file:
            return int(file["_progress/0"][()].sum())
    except (OSError, KeyError):
        return 0


def extract(photos, encoder):  # noqa: F811
    return [
        "extract",
        "--dataset",
        "folder",
        "--root",
        photos,
        "--name",
        "mine",
        "--encoder",
        encoder,
        "--batch-size",
        8,
    ]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_extract_killed_and_rerun_equals_the_undisturbed_one(tmp_path, monkeypatch, photos, encoder, how):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    cmgl(*extract(photos, encoder), "--output", tmp_path / "whole.h5", "--modality", "image")
    path = tmp_path / "artifacts" / "mine" / "features.h5"
    # small batches, which change nothing but the pace: the signal must not come too late
    process = start(*extract(photos, encoder)[:-1], 1, folder=tmp_path)
    wait_for(lambda: done_blocks(path) >= 1, process)
    process.send_signal(how)
    _, error = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130), error
    assert "Traceback" not in error
    assert not path.exists() and partial_path(path).exists()
    assert "resuming" in cmgl(*extract(photos, encoder)).err
    assert read_header(path)[1] == read_header(tmp_path / "whole.h5")[1]
    assert not list(path.parent.glob("*partial*")) + list(path.parent.glob("*.lock"))


def test_distill_killed_and_rerun_equals_the_undisturbed_one(tmp_path, monkeypatch, photos, encoder):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    cmgl(*extract(photos, encoder))
    folder = tmp_path / "artifacts" / "mine"
    options = ["distill", "--name", "mine", "--nodes", 4, "--key-width", 8, "--epochs", 40, "--patience", 40]
    cmgl(*options, "--output", tmp_path / "whole.h5")
    process = start(*options, folder=tmp_path)
    checkpoint = folder / "nodes.checkpoint.partial.h5"
    wait_for(checkpoint.exists, process)
    process.kill()
    process.communicate()
    assert not (folder / "nodes.h5").exists()
    assert "going on from the last finished epoch" in cmgl(*options).err
    assert read_header(folder / "nodes.h5")[1] == read_header(tmp_path / "whole.h5")[1]
    assert not list(folder.glob("*partial*"))


def test_two_processes_two_shards_one_killed_one_file(tmp_path, monkeypatch, photos, encoder):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    cmgl(*extract(photos, encoder), "--output", tmp_path / "whole.h5", "--modality", "image")
    folder = tmp_path / "artifacts" / "mine"
    ranks = [{"RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)]
    processes = [start(*extract(photos, encoder), folder=tmp_path, **rank) for rank in ranks]
    victim = folder / "features.shard-1-of-2.h5"
    wait_for(lambda: done_blocks(victim) >= 1 or victim.exists(), processes[1])
    processes[1].kill()
    for process in processes:
        process.communicate(timeout=60)
    assert processes[0].returncode == 0
    if not victim.exists():
        error = cmgl(*extract(photos, encoder), "--merge", code=3).err
        assert "--shard 1/2" in error
    again = start(*extract(photos, encoder), folder=tmp_path, SLURM_PROCID="1", SLURM_NTASKS="2")
    assert again.wait(60) == 0
    cmgl(*extract(photos, encoder), "--merge")
    merged, whole = read_header(folder / "features.h5"), read_header(tmp_path / "whole.h5")
    assert merged[1] == whole[1] and merged[0].key() == whole[0].key()
    assert "up to date" in cmgl(*extract(photos, encoder)).err


def test_second_writer_exits_5_and_names_the_first(tmp_path, monkeypatch, photos, encoder):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "artifacts" / "mine" / "features.h5"
    process = start(*extract(photos, encoder), folder=tmp_path)
    wait_for(lambda: done_blocks(path) >= 1, process)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        assert f"process {process.pid} on" in cmgl(*extract(photos, encoder), code=5).err
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def test_full_disk_is_explained_and_the_next_run_goes_on(tmp_path, photos, encoder):  # noqa: F811
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", small]).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        output = small / "features.h5"
        command = [*extract(photos, encoder), "--output", output, "--modality", "image"]
        process = start(*command, folder=tmp_path)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 3 and "disk space" in error and "Traceback" not in error
        assert not output.exists()
        subprocess.run(["mount", "-o", "remount,size=100m", small], check=True)
        cmgl(*command)
        with open_artifact(output, verify=True) as found:
            assert len(found["id"]) == 400
    finally:
        subprocess.run(["umount", small], check=True)


def test_unreadable_images_are_listed_or_stop_a_strict_run(tmp_path, monkeypatch, encoder):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (30, 30), (number * 80, 10, 10)).save(folder / f"{number}.png")
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    outcome = cmgl("extract", "--images", folder, "--encoder", encoder)
    assert "1 of 3 images could not be read" in outcome.err and "1.png" in outcome.out
    with open_artifact(tmp_path / "artifacts" / "photos" / "features.h5") as found:
        assert found["valid"].tolist() == [True, False, True] and found["problem"][1]
        assert not found["features"][1].any() and found["features"][2].any()
    error = cmgl("extract", "--images", folder, "--encoder", encoder, "--strict", "--force", code=3).err
    assert "1.png" in error


def test_reasons_in_any_script_are_stored_whole(tmp_path, monkeypatch, encoder):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ("日" * 60)
    folder.mkdir()
    Image.new("RGB", (30, 30)).save(folder / "0.png")
    for extra in range(3):  # so that the cut falls on each byte of a character
        (folder / ("本" * 40 + "a" * extra + ".png")).write_bytes(b"nothing")
    outcome = cmgl("extract", "--images", folder, "--encoder", encoder, "--name", "mine")
    assert "3 of 4 images could not be read" in outcome.err
    with open_artifact(tmp_path / "artifacts" / "mine" / "features.h5", verify=True) as found:
        assert all("日" in text for text in found["problem"][~found["valid"]])


def test_names_that_are_no_text_are_refused_before_the_work(tmp_path, monkeypatch, encoder):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with open(os.fsencode(tmp_path / "photos") + b"/\xff\xfe.png", "wb") as file:
        Image.new("RGB", (30, 30)).save(file, "PNG")
    assert "udcff" in cmgl("extract", "--images", "photos", "--encoder", encoder, code=3).err
    (tmp_path / "artifacts").mkdir()
    error = cmgl("distill", "--name", "n" * 300, code=3).err
    assert "File name too long" in error and "n" * 300 in error


def test_damage_is_named_where_it_breaks_something_and_mended_with_verify(workplace):  # noqa: F811
    nodes = workplace / "nodes.h5"
    digest = read_header(nodes)[1]
    with h5py.File(nodes, "r+") as file:
        file["image/labels/offsets"][-1] = 10**9
    error = cmgl("prior", "--dataset", "smoke", "--force", code=3).err
    assert "does not match its digest" in error and "nodes.h5" in error
    assert "up to date" in cmgl("distill", "--dataset", "smoke", *SMALL["distill"], code=None).err
    assert "damaged" in cmgl("prior", "--dataset", "smoke", "--verify", code=3).err
    assert "unusable: the content" in cmgl("distill", "--dataset", "smoke", *SMALL["distill"], "--verify").err
    assert read_header(nodes)[1] == digest
    cmgl("prior", "--dataset", "smoke", "--verify")


def test_an_input_that_is_replaced_while_a_stage_starts_is_noticed(workplace, monkeypatch):  # noqa: F811
    from cmgl_cli import pipeline

    before = pipeline._identity

    def swapped(job, headers, digests):
        with h5py.File(workplace / "nodes.h5", "r+") as file:
            file.attrs["content_digest"] = "sha256:another"
        return before(job, headers, digests)

    monkeypatch.setattr(pipeline, "_identity", swapped)
    assert "replaced while prior was starting" in cmgl("prior", "--dataset", "smoke", "--force", code=4).err


@pytest.mark.parametrize(
    "mode, size", [("L", (9, 9)), ("P", (9, 9)), ("RGBA", (9, 9)), ("CMYK", (9, 9)), ("I;16", (9, 9)), ("RGB", (1, 1))]
)
def test_every_kind_of_image_is_encoded(tmp_path, monkeypatch, encoder, mode, size):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new(mode, size, 100).save(folder / ("a.tif" if mode in {"CMYK", "I;16"} else "a.png"))
    assert (
        cmgl("extract", "--images", folder, "--encoder", encoder, "--json").json["extract (image)"]["unreadable"] == 0
    )


BAD = {
    "unknown dataset": (["extract", "--dataset", "cifar11"], 2, "cifar10"),
    "unknown option": (["extract", "--dataset", "smoke", "--batchsize", "3"], 2, "batch-size"),
    "unknown word": (["prior", "--dataset", "smoke", "--direction", "text2image"], 2, "text-to-image"),
    "unknown split": (["extract", "--dataset", "smoke", "--encoder", "ENCODER", "--split", "tset"], 2, "test"),
    "number out of range": (["distill", "--dataset", "smoke", "--nodes", "1"], 2, "at least 2"),
    "not a number": (["distill", "--dataset", "smoke", "--config", "CONFIG:distill: {nodes: many}"], 2, "whole number"),
    "unknown key": (["run", "CONFIG:dataset: smoke\ndistil: {}"], 2, "distill"),
    "unknown setting": (["run", "CONFIG:dataset: smoke\ndistill: {node: 3}"], 2, "nodes"),
    "broken yaml": (["run", "CONFIG:a: [1"], 2, "not valid YAML"),
    "missing dataset": (["extract", "--dataset", "voc2012", "--root", "nowhere"], 3, "nowhere"),
    "missing folder": (["extract", "--images", "nowhere", "--encoder", "ENCODER"], 3, "nowhere"),
    "no dataset": (["distill"], 2, "--dataset"),
    "no CUDA": (["extract", "--dataset", "smoke", "--encoder", "ENCODER", "--device", "cuda"], 2, "cuda"),
    "unreachable encoder": (["extract", "--dataset", "smoke", "--encoder", "nobody/no-such-model"], 3, "builtin:tiny"),
    "missing encoder folder": (["extract", "--dataset", "smoke", "--encoder", "./nowhere"], 2, "nowhere"),
    "not a shard": (["extract", "--dataset", "smoke", "--shard", "4/4"], 2, "from 0"),
    "empty text": (["render-text", "--dataset", "smoke", "--texts", "TEXTS:{}: ['']"], 3, "empty"),
    "missing glyph": (["render-text", "--texts", "TEXTS:cat: ['\u732b']"], 3, "U+732B"),
    "missing artifact": (["inspect", "nothing.h5"], 3, "does not exist"),
}


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
def test_bad_input_is_explained(tmp_path, monkeypatch, encoder, case):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments, code, hint = BAD[case]
    typed = []
    for text in arguments:
        if text == "ENCODER":
            text = encoder
        elif text.startswith(("CONFIG:", "TEXTS:")):
            (tmp_path / "file.yaml").write_text(text.split(":", 1)[1].replace("{}", "stripes"))
            text = tmp_path / "file.yaml"
        typed.append(text)
    if case == "missing glyph":
        typed += ["--name", "glyphs"]
    outcome = cmgl(*typed, code=code)
    assert hint in outcome.err, outcome.err
    assert not list(tmp_path.rglob("*.h5"))


def test_spoilt_inputs_are_refused_by_the_next_stage(workplace):  # noqa: F811
    nodes = workplace / "nodes.h5"
    spare = nodes.read_bytes()
    shutil.copy(workplace / "prior.h5", nodes)
    assert "expected a nodes artifact, found prior" in cmgl("prior", "--dataset", "smoke", code=3).err
    nodes.write_bytes(spare[: len(spare) // 2])
    assert "truncated" in cmgl("prior", "--dataset", "smoke", code=3).err
    nodes.write_text("not HDF5")
    assert "not HDF5" in cmgl("prior", "--dataset", "smoke", code=3).err
    nodes.write_bytes(spare)
    with h5py.File(nodes, "r+") as file:
        file["image/z"][0, 0] = np.nan
    error = cmgl(
        "fit-graphs", "--dataset", "smoke", "--observations", "image", *SMALL["fit-graphs"], "--force", code=3
    ).err
    assert "image/z[0, 0]" in error
    error = cmgl("prior", "--dataset", "smoke", "--verify", "--force", code=3).err
    assert "does not match its digest" in error
    nodes.write_bytes(spare)
    with h5py.File(nodes, "r+") as file:
        file.attrs["schema_version"] = 99
    assert "newer" in cmgl("prior", "--dataset", "smoke", code=3).err


def test_a_constant_node_is_named(workplace):  # noqa: F811
    nodes = workplace / "nodes.h5"
    with h5py.File(nodes, "r+") as file:
        file["image/z"][:, 2] = 1.0
    options = ["--observations", "image", *SMALL["fit-graphs"], "--force"]
    assert "node 2" in cmgl("fit-graphs", "--dataset", "smoke", *options, code=3).err


def test_class_without_samples_and_class_smaller_than_p(tmp_path, monkeypatch, photos, encoder):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data"
    shutil.copytree(photos, root)
    for path in list((root / "train" / "warm").iterdir())[3:]:
        path.unlink()
    common = ["--dataset", "folder", "--root", root, "--name", "few"]
    cmgl("render-text", *common)
    cmgl("extract", *common, "--encoder", encoder)
    cmgl("distill", "--name", "few", "--nodes", 6, "--key-width", 8, "--epochs", 1)
    cmgl("prior", "--name", "few")
    fit = ["fit-graphs", "--name", "few", "--observations", "image", *SMALL["fit-graphs"]]
    assert "fewer observations than the 6 nodes: warm" in cmgl(*fit).err
    for path in (root / "train" / "warm").iterdir():
        path.unlink()
    cmgl("extract", *common, "--encoder", encoder)
    assert "warm" in cmgl("distill", "--name", "few", "--nodes", 6, "--key-width", 8, code=3).err


def test_chain_runs_without_texts(tmp_path, monkeypatch, encoder):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    cmgl("extract", "--dataset", "smoke", "--encoder", encoder)
    cmgl("distill", "--dataset", "smoke", *SMALL["distill"])
    assert "render-text" in cmgl("prior", "--dataset", "smoke", code=3).err
    cmgl("prior", "--dataset", "smoke", "--direction", "self")


def test_text_graphs_from_image_priors(tmp_path, monkeypatch, encoder):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    chain(encoder, until="distill")
    cmgl("prior", "--dataset", "smoke", "--direction", "image-to-text")
    cmgl("fit-graphs", "--dataset", "smoke", "--observations", "image", *SMALL["fit-graphs"])
    with open_artifact(tmp_path / "artifacts" / "smoke" / "graphs.h5") as found:
        with open_artifact(tmp_path / "artifacts" / "smoke" / "nodes.h5") as nodes:
            assert found["modality"].tolist() == ["text"]
            assert found["counts"].sum() == (SampleTable.read(nodes, "text").parts == "train").sum() > 0
    (tmp_path / "artifacts" / "smoke" / "patch_graphs.h5").unlink(missing_ok=True)
    assert "graphs of texts cannot classify images" in cmgl("classify", "--dataset", "smoke", code=3).err
