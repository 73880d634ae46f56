"""Write each published dataset in miniature: the same folders, names and encodings, a handful of images.

Every builder takes the folder the archive would be unpacked into and returns the dataset's own folder.
"""

import io
import json
import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (20, 16)) -> np.ndarray:
    """Return a smooth random RGB picture, uint8 [height, width, 3], of a (width, height)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def save(array: np.ndarray, path: Path, palette: np.ndarray | None = None, **options) -> Path:
    """Write an array as an image file, as a palette image if there are colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette(palette.astype(np.uint8).tobytes())
    image.save(path, **options)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# --- CIFAR: pickles as Python 2 wrote them ---------------------------------------------------------------------------


class _Python2Pickler(pickle._Pickler):
    """Writes byte strings with Python 2's string opcodes, which Python 3 never does."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_python2_string(self, value):
        self.write_string(value)
        self.memoize(value)

    def write_string(self, value):
        if len(value) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(value)]) + value)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)

    dispatch[bytes] = save_python2_string

    def save_text(self, value):
        self.write_string(value.encode())

    dispatch[str] = save_text


def python2_pickle(value) -> bytes:
    """Pickle as Python 2 with an old numpy did: protocol 2, byte strings, ``numpy.core``."""
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def cifar_rows(count: int, seed: int) -> np.ndarray:
    return np.stack([picture(seed + i, (32, 32)).transpose(2, 0, 1).reshape(-1) for i in range(count)])


def cifar10(root: Path, per_batch: int = 10) -> Path:
    home = root / "cifar-10-batches-py"
    home.mkdir(parents=True)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    meta = {"num_cases_per_batch": per_batch, "label_names": names, "num_vis": 3072}
    (home / "batches.meta").write_bytes(python2_pickle(meta))
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        batch = {
            "batch_label": f"batch {number}",
            "labels": [i % 10 for i in range(per_batch)],
            "data": cifar_rows(per_batch, 100 * number),
            "filenames": [f"{i}.png" for i in range(per_batch)],
        }
        (home / name).write_bytes(python2_pickle(batch))
    return home


def cifar100(root: Path, count: int = 8) -> Path:
    home = root / "cifar-100-python"
    home.mkdir(parents=True)
    meta = {
        "fine_label_names": [f"fine_{i}" for i in range(100)],
        "coarse_label_names": [f"coarse_{i}" for i in range(20)],
    }
    (home / "meta").write_bytes(python2_pickle(meta))
    for seed, name in enumerate(("train", "test")):
        batch = {
            "filenames": [f"{i}.png" for i in range(count)],
            "batch_label": name,
            "fine_labels": [(7 * i) % 100 for i in range(count)],
            "coarse_labels": [i % 20 for i in range(count)],
            "data": cifar_rows(count, 1000 * seed),
        }
        (home / name).write_bytes(python2_pickle(batch))
    return home


# --- classification in files -----------------------------------------------------------------------------------------


def cub200(root: Path, segmentations: bool = True) -> Path:
    home = root / "CUB_200_2011"
    folders = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    images, labels, splits, key = [], [], [], 0
    for number, folder in enumerate(folders, start=1):
        for copy in range(4):
            key += 1
            name = f"{folder}/{folder[4:]}_{copy:04d}_{key}"
            save(picture(key), home / "images" / f"{name}.jpg")
            if segmentations:
                votes = np.zeros((16, 20), dtype=np.uint8)
                votes[4:12, 5:15], votes[6:10, 7:13] = 102, 255
                save(votes, root / "segmentations" / f"{name}.png")
            images.append(f"{key} {name}.jpg")
            labels.append(f"{key} {number}")
            splits.append(f"{key} {int(copy < 2)}")
    write(home / "images.txt", "\n".join(images) + "\n")
    write(home / "image_class_labels.txt", "\n".join(labels) + "\n")
    write(home / "train_test_split.txt", "\n".join(splits) + "\n")
    write(home / "classes.txt", "".join(f"{i} {folder}\n" for i, folder in enumerate(folders, start=1)))
    write(home / "bounding_boxes.txt", "".join(f"{i} 1.0 1.0 10.0 10.0\n" for i in range(1, key + 1)))
    return home


def caltech256(root: Path, per_class: int = 5) -> Path:
    home = root / "256_ObjectCategories"
    for number, name in ((1, "ak47"), (2, "american-flag"), (145, "motorbikes-101"), (257, "clutter")):
        for copy in range(1, per_class + 1):
            save(picture(1000 * number + copy), home / f"{number:03d}.{name}" / f"{number:03d}_{copy:04d}.jpg")
    # the published archive has these strays
    save(picture(1), home / "001.ak47" / "greg" / "vision309" / "001_0001.jpg")
    write(home / "002.american-flag" / "RENAME2", "stray\n")
    return home


# --- segmentation ----------------------------------------------------------------------------------------------------


def voc_annotation(names: list[str]) -> str:
    objects = "".join(
        f"<object><name>{name}</name><difficult>0</difficult>"
        "<part><name>head</name></part><bndbox><xmin>1</xmin></bndbox></object>"
        for name in names
    )
    return f"<annotation><folder>VOC2012</folder><source><name>x</name></source>{objects}</annotation>"


def voc2012(root: Path, aug: bool = False) -> Path:
    from cmgl_cli.datasets.voc import voc_palette

    home = root / "VOCdevkit" / "VOC2012"
    sets = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"], "test": ["2008_000006"]}
    contents = {"2007_000032": ["aeroplane", "person"], "2007_000039": ["tvmonitor"], "2007_000033": ["aeroplane"]}
    values = {"2007_000032": (1, 15), "2007_000039": (20,), "2007_000033": (1,)}
    if aug:
        sets["trainaug"] = [*sets["train"], "2008_000008"]
        contents["2008_000008"], values["2008_000008"] = ["horse", "person"], (13, 15)
    for name, listed in sets.items():
        write(home / "ImageSets" / "Segmentation" / f"{name}.txt", "\n".join(listed) + "\n")
    write(home / "ImageSets" / "Segmentation" / "trainval.txt", "\n".join(sets["train"] + sets["val"]) + "\n")
    for seed, name in enumerate(dict.fromkeys(name for listed in sets.values() for name in listed)):
        save(picture(seed), home / "JPEGImages" / f"{name}.jpg")
        if name not in contents:
            continue
        write(home / "Annotations" / f"{name}.xml", voc_annotation(contents[name]))
        mask = np.zeros((16, 20), dtype=np.uint8)
        for place, value in enumerate(values[name]):
            mask[3:9, 2 + 8 * place : 8 + 8 * place] = value
        mask[3, :] = 255
        if name == "2008_000008":
            save(mask, home / "SegmentationClassAug" / f"{name}.png")
        else:
            save(mask, home / "SegmentationClass" / f"{name}.png", voc_palette())
    return home


def ade20k(root: Path, classes: int = 150) -> Path:
    home = root / "ADEChallengeData2016"
    for folder, prefix, count in (("training", "train", 3), ("validation", "val", 2)):
        for number in range(1, count + 1):
            name = f"ADE_{prefix}_{number:08d}"
            save(picture(number), home / "images" / folder / f"{name}.jpg")
            mask = np.zeros((16, 20), dtype=np.uint8)
            mask[2:8, 3:9], mask[8:14, 10:18] = 1, classes
            save(mask, home / "annotations" / folder / f"{name}.png")
    rows = [f"{i}{' ' if i == 22 else ''}\t0.1\t10\t5\tthing{i}, synonym " for i in range(1, classes + 1)]
    write(home / "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tName\n" + "\n".join(rows) + "\n")
    write(home / "sceneCategories.txt", "ADE_train_00000001 airport_terminal\nADE_val_00000001 dining_room\n")
    return home


def coco_square(x: int, y: int, side: int) -> list[list[float]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def coco2014(root: Path) -> Path:
    home = root / "coco2014"
    categories = [
        {"supercategory": "person", "id": 1, "name": "person"},
        {"supercategory": "animal", "id": 18, "name": "dog"},
        {"supercategory": "indoor", "id": 90, "name": "toothbrush"},
    ]
    for split, start in (("train", 9), ("val", 42)):
        folder = f"{split}2014"
        images = []
        for number in range(3):
            image_id = start + number
            name = f"COCO_{folder}_{image_id:012d}.jpg"
            save(picture(image_id), home / folder / name)
            images.append({"license": 1, "file_name": name, "height": 16, "width": 20, "id": image_id})
        annotations = [
            _instance(1, start, 18, coco_square(2, 2, 4), 16),
            _instance(2, start, 1, coco_square(0, 0, 10), 100),
            _instance(3, start, 90, {"counts": [16 * 12, 16 * 8], "size": [16, 20]}, 128, crowd=1),
            _instance(4, start + 1, 1, coco_square(5, 5, 6), 36),
        ]
        content = {"info": {"year": 2014, "description": "COCO Döner"}, "images": images, "licenses": []}
        content |= {"annotations": annotations, "categories": categories}
        write(home / "annotations" / f"instances_{folder}.json", json.dumps(content, ensure_ascii=False))
        captions = [
            {"image_id": start + i % 3, "id": i, "caption": f"Sentence {i} of a café by the sea.\n"} for i in range(6)
        ]
        content = {"info": {}, "images": images, "licenses": [], "annotations": captions}
        write(home / "annotations" / f"captions_{folder}.json", json.dumps(content, ensure_ascii=False))
    return home


def _instance(key: int, image: int, category: int, segmentation, area: float, crowd: int = 0) -> dict:
    return {
        "segmentation": segmentation,
        "area": area,
        "iscrowd": crowd,
        "image_id": image,
        "bbox": [0, 0, 1, 1],
        "category_id": category,
        "id": key,
    }


def kvasir(root: Path, count: int = 25, lists: bool = False) -> Path:
    home = root / "Kvasir-SEG"
    names = [f"cju{number:04d}" for number in range(count)]
    for number, name in enumerate(names):
        save(picture(number, (40, 32)), home / "images" / f"{name}.jpg")
        mask = np.zeros((32, 40), dtype=np.uint8)
        mask[8:24, 8:32] = 255
        save(np.stack([mask] * 3, axis=-1), home / "masks" / f"{name}.jpg", quality=60)
    write(home / "kavsir_bboxes.json", "{}")
    if lists:
        write(home / "train.txt", "\n".join(names[3:]) + "\n")
        write(home / "val.txt", "\n".join(names[:3]) + "\n")
    return home


# --- the user's own --------------------------------------------------------------------------------------------------


def class_folders(root: Path, splits: tuple[str, ...] = (), per_class: int = 4) -> Path:
    for split in splits or ("",):
        for label, name in enumerate(("cat", "dog")):
            for copy in range(per_class):
                save(picture(10 * label + copy), root / split / name / f"{copy:03d}.png")
    return root


CAMVID_CLASSES = {
    "classes": ["Sky", "Road", "Car", "Unlabelled"],
    "ignore_index": 3,
    "palette": [[128, 128, 128], [128, 64, 128], [64, 0, 128], [0, 0, 0]],
}


def masks_folder(root: Path, splits: tuple[str, ...] = ("train", "val", "test"), about: dict | None = None) -> Path:
    about = CAMVID_CLASSES if about is None else about
    palette = np.array(about["palette"]) if about.get("palette") else None
    for split in splits or ("",):
        for number in range(3):
            save(picture(number), root / "images" / split / f"frame_{number}.jpg")
            mask = np.full((16, 20), number % 2, dtype=np.uint8)
            mask[4:8], mask[12:] = 2, 3
            save(mask, root / "masks" / split / f"frame_{number}.png", palette)
    write(root / "classes.json", json.dumps(about))
    return root
