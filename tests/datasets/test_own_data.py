"""The user's own data: class folders, masks folders, flat images, and arrays in .npz."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from cmgl_cli.datasets import open_dataset
from cmgl_cli.errors import InputError, UsageError
from tests.datasets import miniatures
from tests.datasets.miniatures import picture, save


def ids(samples):
    return [sample.id for sample in samples]


# --- folders ---------------------------------------------------------------------------------------------------------


def test_class_folders_with_splits(tmp_path):
    miniatures.class_folders(tmp_path, ("training", "validation"))
    (tmp_path / "training" / "cat" / ".hidden.png").write_bytes(b"")
    (tmp_path / "training" / "cat" / "notes.txt").write_text("x")
    dataset = open_dataset("folder", tmp_path)
    assert dataset.classes == ("cat", "dog") and dataset.splits == ("train", "val")
    assert ids(dataset.samples("val")) == [f"val/{c}/{i:03d}.png" for c in ("cat", "dog") for i in range(4)]
    sample = dataset.samples("val")[5]
    assert sample.labels == (1,) and sample.size == (tmp_path / "validation/dog/001.png").stat().st_size
    assert np.array_equal(np.asarray(dataset.image(sample)), picture(11))
    assert dataset.mask(sample) is None and not dataset.has_masks
    with pytest.raises(InputError, match="splits with images: train, val"):
        dataset.samples("test")


def test_class_folders_without_splits_are_divided_by_class(tmp_path):
    miniatures.class_folders(tmp_path, per_class=20)
    dataset = open_dataset("folder", tmp_path)
    for split, count in (("train", 12), ("val", 3), ("test", 5)):
        assert [sample.labels for sample in dataset.samples(split)].count((0,)) == count
    again = open_dataset("folder", tmp_path)
    assert again.samples() == dataset.samples()
    assert open_dataset("folder", tmp_path, split_seed=1).samples() != dataset.samples()


def test_class_texts_beside_the_folders(tmp_path):
    miniatures.class_folders(tmp_path)
    miniatures.write(tmp_path / "texts.json", json.dumps({"cat": ["A cat.", "It purrs."], "dog": "A dog."}))
    assert open_dataset("folder", tmp_path).texts == {"cat": ("A cat.", "It purrs."), "dog": ("A dog.",)}
    for broken in ("[]", '{"cat": [""]}', '{"cat": []}', '{"cat": [1]}', "{", '{"cat": 3}'):
        miniatures.write(tmp_path / "texts.json", broken)
        with pytest.raises(InputError, match=r"texts\.json"):
            open_dataset("folder", tmp_path)


def test_masks_with_an_ignored_value_at_the_end(tmp_path):
    miniatures.masks_folder(tmp_path)
    dataset = open_dataset("folder", tmp_path)
    assert dataset.task == "segmentation" and dataset.has_masks
    assert dataset.classes == dataset.mask_classes == ("Sky", "Road", "Car")
    assert dataset.ignore_label == 3 and dataset.palette.tolist() == miniatures.CAMVID_CLASSES["palette"][:3]
    sample = dataset.samples("val")[1]
    assert dataset.present_classes(sample) == (1, 2)
    with Image.open(tmp_path / "masks" / "val" / "frame_1.png") as published:
        written = dataset.encode_mask(dataset.mask(sample))
        assert written.mode == "P" and np.array_equal(np.asarray(written), np.asarray(published))
        assert np.array_equal(np.asarray(written.convert("RGB")), np.asarray(published.convert("RGB")))


def test_masks_with_an_ignored_value_among_the_classes(tmp_path):
    about = {"classes": ["Void", "Road", "Car", "Tree"], "ignore_index": 0}
    miniatures.masks_folder(tmp_path, about=about)
    dataset = open_dataset("folder", tmp_path)
    assert dataset.classes == ("Road", "Car", "Tree") and dataset.ignore_label == 255
    sample = dataset.samples("train")[0]  # stored values 0, 2, 3
    assert set(np.unique(dataset.mask(sample))) == {255, 1, 2}
    with Image.open(tmp_path / "masks" / "train" / "frame_0.png") as stored:
        assert np.array_equal(np.asarray(dataset.encode_mask(dataset.mask(sample))), np.asarray(stored))


def test_masks_with_a_background_outside_the_classes(tmp_path):
    miniatures.masks_folder(tmp_path, about={"classes": ["Road", "Car", "Tree"], "background": True})
    dataset = open_dataset("folder", tmp_path)
    assert dataset.mask_offset == 1 and dataset.mask_classes == ("background", "Road", "Car", "Tree")
    assert dataset.present_classes(dataset.samples("train")[1]) == (1, 2, 3)


def test_binary_masks_of_any_value_without_splits(tmp_path):
    for number in range(20):
        save(picture(number), tmp_path / "images" / f"{number}.png")
        instances = np.zeros((16, 20), np.uint16)
        instances[2:5, 2:5], instances[8:10] = 1, 300
        save(instances, tmp_path / "instances" / f"{number}.png")
    dataset = open_dataset("folder", tmp_path, masks="instances", classes=["nucleus"], binary=True)
    assert dataset.mask_classes == ("background", "nucleus") and dataset.splits == ("train", "val", "test")
    mask = dataset.mask(dataset.samples("train")[0])
    assert mask.dtype == np.uint8 and mask.sum() == 9 + 40
    assert set(np.unique(np.asarray(dataset.encode_mask(mask)))) == {0, 255}


def test_class_folders_with_masks_beside(tmp_path):
    miniatures.class_folders(tmp_path / "images", ("train",))
    miniatures.class_folders(tmp_path, ())  # stray class folders outside images/ do not count
    save(np.ones((16, 20), np.uint8), tmp_path / "masks" / "train" / "cat" / "000.png")
    miniatures.write(tmp_path / "classes.json", json.dumps({"classes": ["cat", "dog"], "background": True}))
    dataset = open_dataset("folder", tmp_path)
    assert len(dataset.samples()) == 8
    cat, other = dataset.samples()[:2]
    assert cat.labels == (0,) and dataset.present_classes(cat) == (1,)
    assert dataset.mask(other) is None and dataset.present_classes(other) == (1,)


def test_masks_that_do_not_fit_are_refused(tmp_path):
    miniatures.masks_folder(tmp_path)
    dataset = open_dataset("folder", tmp_path)
    sample, path = dataset.samples("train")[0], tmp_path / "masks" / "train" / "frame_0.png"
    save(np.full((16, 20), 7, np.uint8), path)
    with pytest.raises(InputError, match=r"frame_0\.png: values 7; expected 0, 1, 2, or 3 to ignore"):
        dataset.mask(sample)
    save(np.zeros((16, 21), np.uint8), path)
    with pytest.raises(InputError, match=r"frame_0\.png: 21 x 16, image frame_0\.jpg: 20 x 16"):
        dataset.mask(sample)
    save(picture(3), path)
    with pytest.raises(InputError, match="not in the dataset's palette"):
        dataset.mask(sample)
    path.write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=r"frame_0\.png"):
        dataset.mask(sample)


def test_rgb_masks_without_a_palette_are_refused(tmp_path):
    miniatures.masks_folder(tmp_path, about={"classes": ["a", "b", "c", "d"]})
    save(picture(3), tmp_path / "masks" / "train" / "frame_0.png")
    dataset = open_dataset("folder", tmp_path)
    with pytest.raises(InputError, match="RGB image where class values are expected"):
        dataset.mask(dataset.samples("train")[0])


@pytest.mark.parametrize(
    "about",
    [
        [],
        {},
        {"classes": []},
        {"classes": ["a", "a"]},
        {"classes": [1]},
        {"classes": ["a", "b"], "binary": True},
        {"classes": ["a"], "ignore_idx": 3},
        {"classes": ["a"], "ignore_index": -1},
        {"classes": ["a"], "ignore_index": "255"},
        {"classes": ["a"], "background": True, "ignore_index": 0},
        {"classes": ["a"], "palette": [[1, 2]]},
        {"classes": ["a", "b"], "palette": [[1, 2, 3]]},
        {"classes": ["a"], "palette": [[1, 2, 300]]},
    ],
)
def test_broken_descriptions_are_refused(tmp_path, about):
    miniatures.masks_folder(tmp_path, about={"classes": ["a", "b", "c", "d"]})
    miniatures.write(tmp_path / "classes.json", json.dumps(about))
    with pytest.raises(InputError, match=r"classes\.json"):
        open_dataset("folder", tmp_path)


def test_a_masks_folder_needs_class_names(tmp_path):
    miniatures.masks_folder(tmp_path)
    (tmp_path / "classes.json").unlink()
    with pytest.raises(InputError, match=r"no .*classes\.json"):
        open_dataset("folder", tmp_path)


def test_two_masks_for_one_image(tmp_path):
    miniatures.masks_folder(tmp_path)
    save(np.zeros((16, 20), np.uint8), tmp_path / "masks" / "train" / "frame_0.bmp")
    with pytest.raises(InputError, match="two masks"):
        open_dataset("folder", tmp_path).samples()


def test_flat_images(tmp_path):
    save(picture(0), tmp_path / "a.jpg")
    save(picture(1), tmp_path / "deeper" / "b.PNG")
    (tmp_path / "c.txt").write_text("x")
    dataset = open_dataset("images", tmp_path)
    assert ids(dataset.samples()) == ["all/a.jpg", "all/deeper/b.PNG"] and dataset.classes == ()
    assert all(sample.labels == () for sample in dataset.samples("all"))


def test_empty_and_missing_folders(tmp_path):
    for name in ("images", "folder"):
        with pytest.raises(InputError, match="has no images"):
            open_dataset(name, tmp_path).samples()
        with pytest.raises(InputError, match="no such folder"):
            open_dataset(name, tmp_path / "none")
        with pytest.raises(UsageError, match="--root FOLDER"):
            open_dataset(name)


def test_links_out_of_the_folder_are_refused(tmp_path):
    outside = save(picture(0), tmp_path / "outside" / "secret.png")
    home = tmp_path / "home"
    save(picture(0), home / "inside.png")
    (home / "twin.png").symlink_to("inside.png")
    assert len(open_dataset("images", home).samples()) == 2
    (home / "link.png").symlink_to(outside)
    with pytest.raises(InputError, match=r"leads out of the dataset's folder"):
        open_dataset("images", home).samples()
    (home / "link.png").unlink()
    for target in (outside.parent, home, tmp_path):
        (home / "folder").symlink_to(target)
        with pytest.raises(InputError, match="leads out of"):
            open_dataset("images", home).samples()
        (home / "folder").unlink()
    (tmp_path / "alias").symlink_to(home)  # the folder itself may be a link
    assert len(open_dataset("images", tmp_path / "alias").samples()) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_folder(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(InputError, match="cannot be listed"):
        open_dataset("images", tmp_path).samples()


# --- npz -------------------------------------------------------------------------------------------------------------


def npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return open_dataset("npz", path)


IMAGES = np.stack([picture(i, (8, 6)) for i in range(20)])
LABELS = np.arange(20) % 2


def test_npz_with_one_set(tmp_path):
    dataset = npz(tmp_path / "x.npz", images=IMAGES, labels=LABELS, classes=["cat", "dog"])
    assert dataset.classes == ("cat", "dog")
    assert [len(dataset.samples(split)) for split in ("train", "val", "test")] == [12, 4, 4]
    sample = next(sample for sample in dataset.samples() if sample.id.endswith("/000007"))
    assert sample.labels == (1,) and np.array_equal(np.asarray(dataset.image(sample)), IMAGES[7])


def test_npz_with_split_captions_and_ids(tmp_path):
    split = np.array(["training"] * 15 + ["test"] * 5)
    names = np.array([f"n{i}" for i in range(20)])
    dataset = npz(
        tmp_path / "x.npz", images=IMAGES[..., 0], labels=LABELS[:, None], split=split, captions=names, ids=names
    )
    assert dataset.splits == ("train", "test") and dataset.classes == ("0", "1")
    assert ids(dataset.samples("test")) == [f"test/n{i}" for i in range(15, 20)]
    assert dataset.samples("test")[0].captions == ("n15",)


@pytest.mark.parametrize("pattern", ["{role}_{split}", "{split}_{role}"])
def test_npz_with_a_set_a_split(tmp_path, pattern):
    arrays = {}
    for split in ("train", "test"):
        arrays[pattern.format(role="x", split=split)] = IMAGES
        arrays[pattern.format(role="y", split=split)] = LABELS.astype(np.uint8)
    dataset = npz(tmp_path / "x.npz", **arrays)
    assert [len(dataset.samples(split)) for split in ("train", "test")] == [20, 20]


def test_npz_with_masks(tmp_path):
    masks = np.tile(np.array([0, 1, 2, 9, 2, 1, 0, 0], np.uint8), (20, 6, 1))
    dataset = npz(tmp_path / "x.npz", images=IMAGES, masks=masks, ignore_label=9)
    assert dataset.task == "segmentation" and dataset.classes == ("0", "1", "2") and dataset.ignore_label == 9
    assert dataset.present_classes(dataset.samples()[0]) == (0, 1, 2)
    with pytest.raises(InputError, match="masks"):
        npz(tmp_path / "x.npz", images=IMAGES, masks=masks[:, 1:])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 128, 255], np.int64), [0, 128, 255]),
        (np.array([0.0, 0.5, 1.0], np.float64), [0, 128, 255]),
        (np.array([0, 32768, 65535], np.uint16), [0, 128, 255]),
        (np.array([False, True, True]), [0, 255, 255]),
    ],
)
def test_npz_pixel_types(tmp_path, values, expected):
    dataset = npz(tmp_path / "x.npz", images=np.tile(values, (2, 1, 1)))
    assert np.asarray(dataset.image(dataset.samples()[0]))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    "arrays",
    [
        {"pictures": IMAGES},
        {"images": IMAGES[0, 0]},
        {"images": IMAGES.transpose(0, 2, 3, 1)},
        {"images": IMAGES.astype(float)},
        {"images": np.full((2, 4, 4), np.nan)},
        {"images": IMAGES.astype(int) - 5},
        {"images": IMAGES[:, :0]},
        {"images": IMAGES, "labels": LABELS[:-1]},
        {"images": IMAGES, "labels": LABELS.astype(float)},
        {"images": IMAGES, "labels": LABELS - 1},
        {"images": IMAGES, "labels": LABELS, "classes": ["one"]},
        {"images": IMAGES, "split": np.array(["train"] * 3)},
        {"images": IMAGES, "ids": np.array(["same"] * 20)},
        {"images": np.array([{}, {}], dtype=object)},
    ],
)
def test_npz_that_cannot_be_used(tmp_path, arrays):
    with pytest.raises(InputError):
        npz(tmp_path / "x.npz", **arrays).samples()


def test_npz_files_that_are_none(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 cut off")
    (tmp_path / "c.npz").write_bytes(b"")
    for name in ("a.npy", "b.npz", "c.npz"):
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            open_dataset("npz", tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        open_dataset("npz", tmp_path / "d.npz")


def test_npz_that_is_encrypted(tmp_path):
    np.savez(tmp_path / "locked.npz", images=np.zeros((2, 4, 4, 3), np.uint8), labels=np.arange(2))
    raw = bytearray((tmp_path / "locked.npz").read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = raw.find(mark)
        while place >= 0:
            raw[place + flags] |= 1
            place = raw.find(mark, place + 4)
    (tmp_path / "locked.npz").write_bytes(raw)
    with pytest.raises(InputError, match="locked.npz.*(password|encrypted)"):
        open_dataset("npz", tmp_path / "locked.npz").samples()


def test_npz_ids_that_climb_are_refused(tmp_path):
    for name in ("../../elsewhere", "a/../../b", "a\0b", "\x1b[31m"):
        arrays = {"images": np.zeros((12, 8, 8), np.uint8), "ids": np.array([f"{i}{name}" for i in range(12)])}
        arrays["ids"][0] = name
        np.savez(tmp_path / "mine.npz", **arrays)
        with pytest.raises(InputError, match="no plain path"):
            open_dataset("npz", tmp_path / "mine.npz").samples()


def test_npz_pickles_are_never_run(tmp_path):
    flag = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(flag),)

    np.savez(tmp_path / "x.npz", images=np.array([Evil()], dtype=object))
    with pytest.raises(InputError, match="objects"):
        open_dataset("npz", tmp_path / "x.npz")
    assert not flag.exists()


# --- the real ones ---------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_shared_sets_open_as_they_are(shared_data):
    cifar = open_dataset("npz", shared_data / "cifar10" / "cifar10_subset.npz")
    assert [len(cifar.samples(split)) for split in ("train", "test")] == [3000, 1000]
    assert cifar.samples("train")[0].id == "train/airplane/0012.jpg" and len(cifar.classes) == 10
    camvid = open_dataset("folder", shared_data / "camvid")
    assert [len(camvid.samples(split)) for split in ("train", "val", "test")] == [367, 101, 233]
    assert len(camvid.classes) == 11 and camvid.ignore_label == 11
    seen = {value for sample in camvid.samples("val") for value in np.unique(camvid.mask(sample)).tolist()}
    assert seen == set(range(12))
    nuclei = open_dataset("folder", shared_data / "nuclei", masks="instances", classes=["nucleus"], binary=True)
    assert sum(nuclei.mask(sample).any() for sample in nuclei.samples()) == 160
