"""What `cmgl init` writes fits what was found, and says every setting truly."""

import json
import re

import numpy as np
import pytest
import yaml
from PIL import Image

from cmgl_cli.config import build_run
from cmgl_cli.settings import STAGE_CONFIGS
from tests.cli_helpers import cmgl


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(path)


def masked(root):
    for split in ("train", "val", "test"):
        picture(root / "images" / split / "a.png")
        (root / "masks" / split).mkdir(parents=True)
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(root / "masks" / split / "a.png")
    (root / "classes.json").write_text(json.dumps({"classes": ["ground", "line"]}))


def test_folders_of_classes_are_classified(place):
    for name in ("cat", "yes"):
        picture(place / "pets" / "train" / name / "1.png")
        picture(place / "pets" / "test" / name / "2.png")
    told = cmgl("init", "pets").out
    run = build_run(place / "pets.yaml")
    assert (run.dataset, str(run.root), run.name, run.until) == ("folder", "pets", "pets", ("classify",))
    assert "4 images: 2 test, 2 train" in told and "2 classes: cat, yes" in told
    assert "cmgl run pets.yaml" in told


def test_masks_are_segmented_and_bare_images_encoded(place):
    masked(place / "scenes")
    cmgl("init", "mine", "--root", "scenes", "--output", "there.yaml")
    assert build_run(place / "there.yaml").until == ("segment",)
    picture(place / "bare" / "1.png")
    cmgl("init", "bare")
    run = build_run(place / "bare.yaml")
    assert (run.dataset, run.until) == ("images", ("extract",))


def test_data_that_are_not_there_yet_get_the_layout_they_need(place):
    assert "cmgl datasets folder" in cmgl("init", "later").out
    assert "cmgl datasets voc2012" in cmgl("init", "voc", "--dataset", "voc2012").out
    assert build_run(place / "voc.yaml").until == ("segment",)


def test_every_setting_is_there_at_its_default(place):
    cmgl("init", "digits", "--dataset", "digits")
    text = (place / "digits.yaml").read_text()
    stages = list(yaml.safe_load(text))[3:]
    assert stages == ["render-text", "extract", "distill", "prior", "fit-graphs", "classify"]
    assert {name: build_run(place / "digits.yaml").stages[name] for name in stages} == {
        name: STAGE_CONFIGS[name]() for name in stages
    }
    # with every # taken away the same values are read, so what they say is what they are
    plain = re.sub(r"^(  )?#([a-z])", r"\1\2", text, flags=re.M)
    (place / "plain.yaml").write_text(plain)
    shown = yaml.safe_load(plain)
    for name in stages:
        fields = STAGE_CONFIGS[name].__dataclass_fields__
        assert set(shown[name]) == set(fields)
        assert build_run(place / "plain.yaml").stages[name] == STAGE_CONFIGS[name]()


def test_what_is_there_is_never_overwritten(place):
    (place / "mine.yaml").write_text("precious")
    error = cmgl("init", "mine", code=2).err
    assert "mine.yaml" in error and "--output" in error
    assert (place / "mine.yaml").read_text() == "precious"


def test_a_folder_that_cannot_be_read_leaves_no_file(place):
    masked(place / "bad")
    (place / "bad" / "classes.json").write_text("{")
    assert "classes.json" in cmgl("init", "bad", code=3).err
    (place / "file").write_text("")
    assert "folder of images" in cmgl("init", "x", "--root", "file", code=3).err
    cmgl("init", "x", "--dataset", "nope", code=2)
    assert "plain folder name" in cmgl("init", "a/b", code=2).err
    assert not list(place.glob("**/*.yaml"))


def test_the_file_runs(place, monkeypatch):
    monkeypatch.setenv("CMGL_DISTILL_EPOCHS", "2")
    cmgl("init", "tiny", "--dataset", "smoke")
    text = (place / "tiny.yaml").read_text()
    (place / "tiny.yaml").write_text(text.replace('"google/siglip2-base-patch16-224"', "builtin:tiny"))
    states = cmgl("status", "tiny.yaml", "--json").json
    assert {row["state"] for row in next(iter(states.values()))} == {"missing"}
