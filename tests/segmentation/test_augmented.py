"""Further looks at training images through the command line: made, stored, taken in turns, refused."""

import shutil
from contextlib import chdir

import numpy as np
import pytest
from PIL import Image

from cmgl_cli.artifacts import SampleTable, open_artifact
from cmgl_cli.datasets import open_dataset
from cmgl_cli.encoders import load_encoder
from cmgl_cli.segmentation.augmentation import Augmentation
from cmgl_cli.segmentation.augmented import AugmentedRows
from cmgl_cli.segmentation.bench import Bench, open_bench
from cmgl_cli.segmentation.label_maps import shrunk
from cmgl_cli.segmentation.pictures import small_picture
from cmgl_cli.settings import SegmentConfig
from tests.cli_helpers import SMALL, cmgl

ENCODER = ["--encoder", "builtin:tiny"]
TRAIN = ["segment", "--dataset", "smoke", "--epochs", "4", "--decoder", "hybrid", "--mode", "train", "--no-baselines"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with two further looks at each training image of the generated set, and graphs."""
    folder = tmp_path_factory.mktemp("augmented")
    with chdir(folder):
        cmgl("extract", "--dataset", "smoke", *ENCODER, "--augment", "2")
        cmgl("distill", "--dataset", "smoke", *SMALL["distill"], "--proxy", "pixel")
        cmgl("prior", "--dataset", "smoke", "--direction", "self")
        cmgl("fit-graphs", "--dataset", "smoke", "--observations", "region", *SMALL["fit-graphs"])
    return folder


@pytest.fixture
def work(tmp_path, made, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "artifacts" / "smoke"


def bench_of(work, *more):
    """Return the bench of the artifacts."""
    names = ("features", "nodes", "masks", "region_graphs", *more)
    inputs = {name: open_artifact(work / f"{name}.h5") for name in names}
    return open_bench(SegmentConfig(batch_size=4), open_dataset("smoke"), inputs)


def test_copies_are_what_their_draws_say_encoded_like_any_image(work):
    dataset, encoder = open_dataset("smoke"), load_encoder("builtin:tiny", device="cpu")
    samples = {sample.id: sample for sample in dataset.samples()}
    with open_artifact(work / "augmented.h5", verify=True) as found, open_artifact(work / "masks.h5") as masks:
        table = SampleTable.read(masks)
        train = table.ids[table.parts == "train"].tolist()
        assert found["id"].tolist() == [f"{name}#{copy}" for name in train for copy in range(2)]
        assert found["valid"].all()
        for row in (0, 1, len(found["id"]) - 1):
            name, copy = found["id"][row].rsplit("#", 1)
            drawn = Augmentation.drawn(name, int(copy), 0)
            image = drawn.image(dataset.image(samples[name]))
            size, ignore = masks["mask"].shape[1], int(masks["ignore_label"][0])
            np.testing.assert_array_equal(found["picture"][row], small_picture(image, size))
            truth = shrunk(drawn.mask(dataset.mask(samples[name])), size, dataset.ignore_label, ignore)
            np.testing.assert_array_equal(found["mask"][row], truth)
            tokens = encoder.encode([encoder.preprocess(image)]).values[0]
            np.testing.assert_allclose(found["features"][row], tokens, rtol=2e-3, atol=2e-3)


def test_copies_are_not_made_unless_asked_for_and_change_nothing_else(work):
    with open_artifact(work / "features.h5") as found:
        assert "augment" not in found.config
        before = found.digest
    (work / "augmented.h5").unlink()
    out = cmgl("extract", "--dataset", "smoke", *ENCODER)
    assert not (work / "augmented.h5").exists() and "up to date" in out.err + out.out
    with open_artifact(work / "features.h5") as found:
        assert found.digest == before
    error = cmgl("extract", "--dataset", "smoke", *ENCODER, "--modality", "augmented", code=2).err
    assert "--augment 2" in error


def test_without_masks_there_is_nothing_to_look_at_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in "ab":
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (20, 20), (index, 0, 0)).save(tmp_path / "photos" / kind / f"{index}.png")
    photos = ["extract", "--dataset", "folder", "--root", "photos", "--name", "photos", *ENCODER, "--augment", "2"]
    out = cmgl(*photos)
    assert "augment does nothing here" in out.err and not (tmp_path / "artifacts/photos/augmented.h5").exists()
    assert cmgl(*photos, "--modality", "augmented", code=None).code != 0


def test_shards_join_to_the_file_of_one_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = ["--dataset", "smoke", *ENCODER, "--dataset-options", "{images: 240}"]
    cmgl("extract", *images, "--augment", "1")
    folder = tmp_path / "artifacts" / "smoke"
    with open_artifact(folder / "augmented.h5") as found:
        whole = found.digest
        assert len(found["id"]) > 64
    (folder / "augmented.h5").unlink()
    out = cmgl("extract", *images, "--augment", "1", "--shard", "0/2")
    assert "--modality augmented" in out.err + out.out and not (folder / "augmented.h5").exists()
    for part in ("0/2", "1/2"):
        cmgl("extract", *images, "--augment", "1", "--modality", "augmented", "--shard", part)
    cmgl("extract", *images, "--augment", "1", "--modality", "augmented", "--merge")
    with open_artifact(folder / "augmented.h5", verify=True) as found:
        assert found.digest == whole


def test_an_image_and_its_copies_take_turns(work):
    with open_artifact(work / "augmented.h5") as augmented, open_artifact(work / "features.h5") as features:
        ids = features["id"].tolist()
        rows = AugmentedRows(augmented, features, ids, 2**20)
        train = np.unique(list(rows.source.values()))
        turns = np.stack([rows.turn(train, number) for number in range(6)])
        for place, row in enumerate(train):
            seen = turns[:, place]
            assert sorted(seen[:3]) == sorted(seen[3:]) and len(set(seen)) == 3 and row in seen
            copies = [number for number in seen if number != row]
            assert {augmented["id"][copy - len(ids)] for copy in copies} == {f"{ids[row]}#0", f"{ids[row]}#1"}
        # a pass sees as many originals as the next, give or take one
        assert (np.abs((turns == train).sum(1) - len(train) / 3) <= 1).all()
        # images without copies are always themselves
        others = np.setdiff1d(np.arange(len(ids)), train)
        np.testing.assert_array_equal(rows.turn(others, 1), others)
        # nothing fits into memory: the same is read
        frugal = AugmentedRows(augmented, features, ids, 0)
        number = int(turns[turns >= len(ids)][0])
        for _ in range(2):
            for name, values in frugal.read(number).items():
                np.testing.assert_array_equal(values, rows.read(number)[name])


def test_training_sees_copies_whole_and_judging_never_does(work):
    bench = bench_of(work, "augmented")
    train, data = bench.train, bench.data
    with open_artifact(work / "augmented.h5") as augmented:
        seen = set()
        for number in range(3):
            for inputs, masks in data.batches(train)(number, looks=True):
                for place, row in enumerate(inputs.rows):
                    seen.add(row)
                    if row >= len(bench.table.ids):
                        copy = row - len(bench.table.ids)
                        np.testing.assert_array_equal(inputs.patches[place], augmented["features"][copy])
                        picture = augmented["picture"][copy].transpose(2, 0, 1) / np.float32(255)
                        np.testing.assert_array_equal(inputs.image[place], picture)
                        assert set(np.unique(masks[place])) <= set(np.unique(augmented["mask"][copy]))
        assert len(seen) == 3 * len(train)
    judged = [row for inputs, _ in data.batches(bench.validation, shuffle=False)(1) for row in inputs.rows]
    assert judged == bench.validation.tolist()


def test_copies_are_scored_by_graphs_that_never_saw_their_image(work):
    bench = bench_of(work, "augmented")
    fold, copies = bench.cross_fits.fold, bench.data.augmented.source
    assert len(copies) == 2 * len(bench.train)
    for copy, row in copies.items():
        assert fold[copy] == fold[row] >= 0


def test_a_pass_without_further_looks_is_that_of_the_images_alone(work):
    with_copies, alone = bench_of(work, "augmented"), bench_of(work)
    assert set(alone.tasks(alone.train)) == {False} and set(with_copies.tasks(alone.train)) == {False, True}
    task = with_copies.tasks(with_copies.train)[False]
    for mine, other in zip(task.batches(2), alone.tasks(alone.train)[False].batches(2), strict=True):
        assert mine.inputs.rows == other.inputs.rows
        np.testing.assert_array_equal(mine.inputs.patches, other.inputs.patches)
        np.testing.assert_array_equal(mine.masks, other.masks)


def test_the_validation_part_says_whether_decoders_learn_from_copies(work, monkeypatch):
    def table():
        with open_artifact(work / "decoder.h5") as found:
            names = ("method", "mean_iou", "looks")
            return "augmented" in found.identity.inputs, *(found[f"table/{name}"] for name in names)

    learnt = [*TRAIN[:-1], "--baselines"]
    cmgl(*learnt)
    given, methods, both, looks = table()
    assert given and set(looks) <= {0.0, 1.0}
    # controls are trained as the decoder they control
    own = looks[[str(name).startswith("hybrid") for name in methods]]
    assert len(own) == 4 and len(set(own)) == 1
    # with copies as the only choice
    tasks = Bench.tasks
    monkeypatch.setattr(Bench, "tasks", lambda *arguments: {True: tasks(*arguments)[True]})
    cmgl(*learnt, "--force")
    _, _, copies, always = table()
    assert (always == 1).all()
    monkeypatch.undo()
    monkeypatch.chdir(work.parent.parent)
    (work / "augmented.h5").unlink()
    cmgl(*learnt)
    given, _, alone, never = table()
    assert not given and (never == 0).all()
    for place in (0, list(methods).index("linear")):
        better = max(alone[place], copies[place])
        assert both[place] == better and looks[place] == (copies[place] > alone[place])
        assert copies[place] != alone[place]


def test_copies_that_do_not_belong_to_the_images_are_refused(work):
    # the same encoder, read otherwise
    cmgl("extract", "--dataset", "smoke", *ENCODER, "--augment", "2", "--modality", "augmented", "--dtype", "float32")
    error = cmgl(*TRAIN, code=None)
    assert error.code == 4 and "encoded differently" in error.err and "delete augmented.h5" in error.err


def test_an_image_that_cannot_be_read_has_no_copies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "own" / kind / "train").mkdir(parents=True)
    for index in range(6):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(f"own/images/train/{index}.png")
        mask = np.zeros((30, 40), dtype=np.uint8)
        mask[:, 20:] = 1
        Image.fromarray(mask).save(f"own/masks/train/{index}.png")
    (tmp_path / "own/classes.json").write_text('{"classes": ["left", "right"]}')
    whole = (tmp_path / "own/images/train/3.png").read_bytes()
    (tmp_path / "own/images/train/3.png").write_bytes(whole[: len(whole) // 2])
    cmgl("extract", "--dataset", "folder", "--root", "own", "--name", "own", *ENCODER, "--augment", "1")
    with open_artifact(tmp_path / "artifacts/own/augmented.h5") as found:
        bad = [name.startswith("train/3") for name in found["id"]]
        assert sum(bad) <= 1
        np.testing.assert_array_equal(found["valid"], np.logical_not(bad))
        assert all(problem for problem, wrong in zip(found["problem"], bad, strict=True) if wrong)
    wrong = cmgl(
        "extract", "--dataset", "folder", "--root", "own", "--name", "own", *ENCODER, "--augment", "65", code=2
    )
    assert "64" in wrong.err
