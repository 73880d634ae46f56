"""Segmentation from nothing to label maps on each published layout, in one command:
generated images in real folders, written back as each dataset writes its masks."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from cmgl_cli.artifacts import SampleTable, open_artifact
from cmgl_cli.datasets import open_dataset
from cmgl_cli.datasets.smoke import SmokeDataset
from cmgl_cli.datasets.voc import voc_palette
from tests.cli_helpers import cmgl
from tests.datasets import miniatures

COUNT = 24


def generated():
    """Yield (number, split, image [64, 64, 3], mask of 0, 1 or 2) of generated pictures."""
    dataset = SmokeDataset(images=COUNT)
    for number, sample in enumerate(dataset.samples()):
        yield number, "val" if number % 4 == 3 else "train", np.asarray(dataset.image(sample)), dataset.mask(sample)


def voc2012(root):
    home, names = root / "VOCdevkit" / "VOC2012", {"train": [], "trainaug": [], "val": [], "test": []}
    for number, split, image, mask in generated():
        name = f"2008_{number:06d}"
        aug = split == "train" and number % 3 == 0
        names["trainaug" if aug else split].append(name)
        miniatures.save(image, home / "JPEGImages" / f"{name}.jpg")
        objects = [["aeroplane", "person"][value - 1] for value in (1, 2) if (mask == value).any()]
        miniatures.write(home / "Annotations" / f"{name}.xml", miniatures.voc_annotation(objects))
        values = np.array([0, 1, 15], dtype=np.uint8)[mask]
        values[0, :] = 255
        if aug:
            miniatures.save(values, home / "SegmentationClassAug" / f"{name}.png")
        else:
            miniatures.save(values, home / "SegmentationClass" / f"{name}.png", voc_palette())
    miniatures.save(image, home / "JPEGImages" / "2010_000001.jpg")
    names["test"].append("2010_000001")
    names["trainaug"] += names["train"]
    for split, listed in names.items():
        miniatures.write(home / "ImageSets" / "Segmentation" / f"{split}.txt", "\n".join(listed) + "\n")


def ade20k(root):
    home = miniatures.ade20k(root)
    for folder in ("training", "validation"):
        for path in [*(home / "images" / folder).iterdir(), *(home / "annotations" / folder).iterdir()]:
            path.unlink()
    for number, split, image, mask in generated():
        folder, name = (
            ("training", f"ADE_train_{number:08d}") if split == "train" else ("validation", f"ADE_val_{number:08d}")
        )
        miniatures.save(image, home / "images" / folder / f"{name}.jpg")
        miniatures.save(np.array([0, 1, 150], dtype=np.uint8)[mask], home / "annotations" / folder / f"{name}.png")


def coco2014(root):
    from pycocotools import mask as rle

    home = root / "coco2014"
    categories = [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
    for split in ("train", "val"):
        images, annotations, captions = [], [], []
        for number, own, image, mask in generated():
            if own != split:
                continue
            name = f"COCO_{split}2014_{number + 1:012d}.jpg"
            miniatures.save(image, home / f"{split}2014" / name)
            images.append({"file_name": name, "height": 64, "width": 64, "id": number + 1})
            value = int(mask.max())
            counts = rle.encode(np.asfortranarray(mask == value))
            counts = {"size": counts["size"], "counts": counts["counts"].decode()}
            box = {"iscrowd": 1, "image_id": number + 1, "bbox": [0, 0, 1, 1], "area": int((mask > 0).sum())}
            annotations.append(
                {**box, "id": number + 1, "category_id": categories[value - 1]["id"], "segmentation": counts}
            )
            captions.append({"image_id": number + 1, "id": number, "caption": f"Picture {number}."})
        for kind, listed in (("instances", annotations), ("captions", captions)):
            content = {"info": {}, "licenses": [], "images": images, "annotations": listed}
            content |= {"categories": categories} if kind == "instances" else {}
            miniatures.write(home / "annotations" / f"{kind}_{split}2014.json", json.dumps(content))


def kvasir(root):
    home = root / "Kvasir-SEG"
    for number, _, image, mask in generated():
        miniatures.save(image, home / "images" / f"cju{number:04d}.jpg")
        miniatures.save(np.uint8(255 * (mask > 0)), home / "masks" / f"cju{number:04d}.jpg", quality=95)


BUILDERS = {"voc2012": voc2012, "ade20k": ade20k, "coco2014": coco2014, "kvasir": kvasir}
SETTINGS = {
    "render-text": {"templates": ["a picture of {name}"]},
    "extract": {"encoder": "builtin:tiny"},
    "distill": {"nodes": 4, "key_width": 8, "epochs": 2, "proxy": "pixel"},
    "fit-graphs": {"k": 0, "rho": 0.1, "gamma": 0.1, "windows": "none"},
    "segment": {"decoder": "generative", "baselines": False, "epochs": 1, "png": "labels"},
}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_published_layout_goes_to_label_maps_in_one_command(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    BUILDERS[name](tmp_path / "data")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"dataset": name, "until": "segment", **SETTINGS}))
    cmgl("run", "run.yaml")
    folder, dataset = tmp_path / "artifacts" / name, open_dataset(name, tmp_path / "data")
    judged = {sample.id for sample in dataset.samples("val")}
    with open_artifact(folder / "segmentation.h5") as found, open_artifact(folder / "features.h5") as features:
        assert set(found["id"]) == judged
        assert found["table/mean_iou"][0] > 0
        parts = SampleTable.read(features).parts
        assert set(parts) >= {"train", "validation", "val"}
        assert not set(features["id"][parts == "validation"]) & judged
    # the files read as the dataset's own masks do, and say what the artifact says
    written = sorted((tmp_path / "labels").rglob("*.png"))
    assert len(written) == len(judged)
    with open_artifact(folder / "segmentation.h5") as found:
        row = [name.rsplit("/", 1)[-1].split(".")[0] for name in found["id"]].index(written[0].stem)
        values, offsets = found["map/values"], found["map/offsets"]
        labels = values[offsets[row] : offsets[row + 1]].reshape(found["size"][row])
    np.testing.assert_array_equal(dataset.mask_values.decode(np.asarray(Image.open(written[0]))), labels)
