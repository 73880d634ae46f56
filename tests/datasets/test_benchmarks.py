"""Each published dataset, read from a miniature in exactly its layout."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cmgl_cli.datasets import DATASETS, find_datasets, open_dataset
from cmgl_cli.datasets.coco import expand_runs
from cmgl_cli.errors import InputError, UsageError
from tests.datasets import miniatures

BUILDERS = {
    "cifar10": miniatures.cifar10,
    "cifar100": miniatures.cifar100,
    "cub200": miniatures.cub200,
    "caltech256": miniatures.caltech256,
    "voc2012": miniatures.voc2012,
    "ade20k": miniatures.ade20k,
    "coco2014": miniatures.coco2014,
    "kvasir": miniatures.kvasir,
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return a root that holds every dataset in miniature, each in a folder of its own name."""
    root = tmp_path_factory.mktemp("data")
    for name, build in BUILDERS.items():
        build(root if name == "coco2014" else root / name)
    return root


def test_every_published_dataset_has_a_miniature():
    assert set(BUILDERS) == {spec.name for spec in DATASETS.values() if spec.expects}


@pytest.mark.parametrize("name", BUILDERS)
def test_contract(built, name):
    dataset = open_dataset(name, built)
    samples = dataset.samples()
    assert len({sample.id for sample in samples}) == len(samples) > 0
    assert sum(len(dataset.samples(split)) for split in dataset.splits) == len(samples)
    for sample in samples:
        assert sample.id.startswith(f"{sample.split}/")
        assert list(sample.labels) == sorted(set(sample.labels))
        assert all(0 <= label < len(dataset.classes) for label in sample.labels)
    for sample in samples[:4]:
        image, mask = dataset.image(sample), dataset.mask(sample)
        assert image.mode == "RGB"
        if mask is not None:
            assert mask.shape == image.size[::-1]
            values = set(np.unique(mask).tolist()) - {dataset.ignore_label}
            assert values <= set(range(len(dataset.mask_classes)))
            assert dataset.present_classes(sample) == tuple(sorted(values))
    assert dataset.has_masks == any(dataset.mask(sample) is not None for sample in samples)


@pytest.mark.parametrize("name", BUILDERS)
def test_found_at_every_place_it_may_lie(built, name, tmp_path):
    spec = DATASETS[name]
    home = next(path for path in spec.candidates(built) if path.is_dir() and not spec.missing(path))
    below_name, published, itself = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    (below_name).mkdir()
    (below_name / name).symlink_to(home)
    place = published / (spec.published or name)
    place.parent.mkdir(parents=True)
    place.symlink_to(home)
    itself.symlink_to(home)
    wanted = open_dataset(name, built)
    expected = wanted.fingerprint(wanted.samples())
    for root in (below_name, published, itself):
        dataset = open_dataset(name, root)
        assert dataset.fingerprint(dataset.samples()) == expected
        dataset.image(dataset.samples()[0])


@pytest.mark.parametrize("name", BUILDERS)
def test_missing_lists_what_was_looked_for_where_and_the_page(name, tmp_path):
    with pytest.raises(InputError) as caught:
        open_dataset(name, tmp_path)
    spec = DATASETS[name]
    assert all(entry in caught.value.where for entry in spec.expects)
    assert str(tmp_path / name) in caught.value.where
    assert spec.page in caught.value.fix and "CMGL_DATA" in caught.value.fix


def test_partly_missing_names_only_the_rest(tmp_path):
    home = miniatures.cub200(tmp_path)
    (home / "classes.txt").unlink()
    with pytest.raises(InputError, match="was not found") as caught:
        open_dataset("cub200", tmp_path)
    assert caught.value.where.endswith(f"nearest {home} lacks classes.txt")


def test_root_from_the_environment(built, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="looked in data/kvasir"):
        open_dataset("kvasir")
    monkeypatch.setenv("CMGL_DATA", str(built))
    assert open_dataset("kvasir").splits == ("train", "val")


def test_find_datasets(built, tmp_path):
    found = {entry.spec.name: entry for entry in find_datasets(built)}
    assert all(found[name].path is not None and not found[name].missing for name in BUILDERS)
    assert found["digits"].path is None and not found["digits"].missing
    miniatures.cub200(tmp_path)
    (tmp_path / "CUB_200_2011" / "images.txt").unlink()
    partial = {entry.spec.name: entry for entry in find_datasets(tmp_path)}
    assert partial["cub200"].path is None and partial["cub200"].missing == ("images.txt",)
    assert partial["cifar100"].missing == ("meta", "train", "test")


def test_unknown_names_are_suggested(built):
    with pytest.raises(UsageError, match="did you mean 'voc2012'"):
        open_dataset("voc2021")
    with pytest.raises(UsageError, match="did you mean 'train_per_class'"):
        open_dataset("caltech256", built, train_per_clas=30)
    with pytest.raises(UsageError, match="did you mean 'train'"):
        open_dataset("voc2012", built).samples("trian")


# --- what is particular to each --------------------------------------------------------------------------------------


def test_cifar10_pixels_labels_and_order(built):
    dataset = open_dataset("cifar10", built)
    assert [len(dataset.samples(split)) for split in ("train", "test")] == [50, 10]
    assert dataset.classes[0] == "airplane" and len(dataset.classes) == 10
    sample = dataset.samples("train")[23]  # the fourth image of the third batch
    assert sample.id == "train/00023" and sample.labels == (3,)
    expected = miniatures.cifar_rows(10, 200)[3].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(dataset.image(sample)), expected)


def test_cifar100_uses_fine_labels(built):
    dataset = open_dataset("cifar100", built)
    assert len(dataset.classes) == 100 and dataset.classes[7] == "fine_7"
    assert [sample.labels for sample in dataset.samples("test")] == [((7 * i) % 100,) for i in range(8)]


def test_cub_splits_names_and_masks(built):
    dataset = open_dataset("cub200", built)
    assert dataset.classes == ("Black footed Albatross", "Laysan Albatross", "Sooty Albatross")
    assert len(dataset.samples("train")) == len(dataset.samples("test")) == 6
    sample = dataset.samples("test")[-1]
    assert sample.labels == (2,)
    mask = dataset.mask(sample)
    assert mask.sum() == 3 * 4 * 6  # only where most of the five people agreed


def test_cub_without_segmentations(tmp_path):
    miniatures.cub200(tmp_path, segmentations=False)
    dataset = open_dataset("cub200", tmp_path)
    assert not dataset.has_masks and dataset.mask(dataset.samples()[0]) is None
    assert dataset.present_classes(dataset.samples()[0]) == (1,)


def test_cub_with_an_unlabelled_image(tmp_path):
    home = miniatures.cub200(tmp_path)
    labels = (home / "image_class_labels.txt").read_text().splitlines()
    (home / "image_class_labels.txt").write_text("\n".join(labels[:-1]))
    with pytest.raises(InputError, match="image 12"):
        open_dataset("cub200", tmp_path).samples()


def test_caltech_split_clutter_and_strays(built):
    dataset = open_dataset("caltech256", built, train_per_class=3)
    assert dataset.classes == ("ak47", "american flag", "motorbikes")
    assert len(dataset.samples("train")) == 9 and len(dataset.samples("test")) == 6
    other = open_dataset("caltech256", built, train_per_class=3, split_seed=1)
    assert {s.id for s in other.samples()} != {s.id for s in dataset.samples()}
    with_clutter = open_dataset("caltech256", built, train_per_class=3, clutter=True)
    assert with_clutter.classes[-1] == "clutter"
    shared = {s.id for s in with_clutter.samples() if "clutter" not in s.id}
    assert shared == {s.id for s in dataset.samples()}


def test_caltech_split_survives_a_removed_image(tmp_path):
    home = miniatures.caltech256(tmp_path, per_class=8)
    before = {s.id for s in open_dataset("caltech256", tmp_path, train_per_class=4).samples("test")}
    (home / "001.ak47" / "001_0001.jpg").unlink()
    after = {s.id for s in open_dataset("caltech256", tmp_path, train_per_class=4).samples("test")}
    assert len(before - after) <= 1


def test_voc_masks_labels_and_palette(built):
    dataset = open_dataset("voc2012", built)
    assert dataset.splits == ("train", "val", "test") and len(dataset.mask_classes) == 21
    sample = dataset.samples("train")[0]
    assert [dataset.classes[label] for label in sample.labels] == ["aeroplane", "person"]
    assert dataset.present_classes(sample) == (0, 1, 15) and dataset.ignore_label == 255
    assert dataset.palette[15].tolist() == [192, 128, 128]  # person, as published
    assert dataset.palette[20].tolist() == [0, 64, 128]  # tv/monitor
    test = dataset.samples("test")[0]
    assert test.labels == () and dataset.mask(test) is None
    assert len(dataset.samples("trainval")) == 3
    with pytest.raises(InputError, match="splits with images: train, val, test"):
        dataset.samples("aug")


def test_voc_mask_roundtrip_in_its_own_palette(built, tmp_path):
    dataset = open_dataset("voc2012", built)
    sample = dataset.samples("train")[0]
    dataset.encode_mask(dataset.mask(sample)).save(tmp_path / "mask.png")
    original = built / "voc2012" / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000032.png"
    with Image.open(tmp_path / "mask.png") as written, Image.open(original) as published:
        assert written.mode == published.mode == "P"
        assert written.getpalette() == published.getpalette()
        assert np.array_equal(np.asarray(written), np.asarray(published))


def test_voc_reads_a_mask_saved_in_colours(built, tmp_path):
    home = miniatures.voc2012(tmp_path)
    path = home / "SegmentationClass" / "2007_000032.png"
    with Image.open(path) as image:
        palette, colours = np.asarray(image), image.convert("RGB")
    colours.save(path)
    dataset = open_dataset("voc2012", tmp_path)
    assert np.array_equal(dataset.mask(dataset.samples("train")[0]), palette)
    colours.resize((10, 8), Image.Resampling.BILINEAR).resize((20, 16)).save(path)
    with pytest.raises(InputError, match="colours that are not in the dataset's palette"):
        dataset.mask(dataset.samples("train")[0])


def test_voc_trainaug(tmp_path):
    miniatures.voc2012(tmp_path, aug=True)
    dataset = open_dataset("voc2012", tmp_path)
    assert [s.id for s in dataset.samples("aug")] == ["aug/2008_000008"]
    assert len(dataset.samples("trainaug")) == 3
    assert dataset.present_classes(dataset.samples("aug")[0]) == (0, 13, 15)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_voc_annotation_with_entities_is_refused(tmp_path, encoding):
    home = miniatures.voc2012(tmp_path)
    bomb = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 9 if i else "aeroplane"}">' for i in range(9))
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [{bomb}]>'
    text += "<annotation><object><name>&e8;</name></object></annotation>"
    (home / "Annotations" / "2007_000032.xml").write_bytes(text.encode(encoding))
    with pytest.raises(InputError, match="document type"):
        open_dataset("voc2012", tmp_path).samples()


def test_voc_cut_off_annotation(tmp_path):
    home = miniatures.voc2012(tmp_path)
    (home / "Annotations" / "2007_000032.xml").write_text("<annotation><object><name>dog")
    with pytest.raises(InputError, match=r"2007_000032\.xml"):
        open_dataset("voc2012", tmp_path).samples()


def test_ade_other_is_ignored_and_classes_count_from_zero(built, tmp_path):
    dataset = open_dataset("ade20k", built)
    assert len(dataset.classes) == 150 and dataset.classes[:2] == ("thing1", "thing2")
    sample = dataset.samples("train")[0]
    assert sample.captions == ("airport terminal",) and sample.labels == ()
    mask = dataset.mask(sample)
    assert set(np.unique(mask)) == {0, 149, 255} and dataset.ignore_label == 255
    assert dataset.present_classes(sample) == (0, 149)
    stored = np.asarray(dataset.encode_mask(mask))
    assert set(np.unique(stored)) == {1, 150, 0} and np.array_equal(stored == 0, mask == 255)


def test_coco_labels_captions_and_masks(built):
    dataset = open_dataset("coco2014", built)
    assert dataset.classes == ("person", "dog", "toothbrush")
    first, second, third = dataset.samples("train")
    assert first.id == "train/COCO_train2014_000000000009"
    assert (first.labels, second.labels, third.labels) == ((0, 1, 2), (0,), ())
    assert first.captions == ("Sentence 0 of a café by the sea.", "Sentence 3 of a café by the sea.")
    mask = dataset.mask(first)
    assert mask[4, 4] == 2  # the small dog stands before the large person
    assert mask[8, 8] == 1 and mask[0, 19] == 3 and mask[15, 5] == 0  # run lengths go down the columns
    assert (dataset.mask(third) == 0).all()


def test_coco_one_split_only_and_missing_image(tmp_path):
    home = miniatures.coco2014(tmp_path)
    (home / "annotations" / "instances_train2014.json").unlink()
    (home / "val2014" / "COCO_val2014_000000000042.jpg").unlink()
    dataset = open_dataset("coco2014", tmp_path)
    assert dataset.splits == ("val",)
    lost = dataset.samples("val")[0]
    assert lost.size is None
    with pytest.raises(InputError, match="missing"):
        dataset.image(lost)
    with pytest.raises(InputError, match="splits with images: val"):
        dataset.samples("train")


@pytest.mark.parametrize(
    "segmentation",
    [[[1, 2]], {"counts": [5], "size": [16, 20]}, {"counts": "zz", "size": [1, 1]}, {}, 7, [["a", "b"]], None],
)
def test_coco_damaged_segmentation_names_the_annotation(tmp_path, segmentation):
    home = miniatures.coco2014(tmp_path)
    path = home / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    content["annotations"][0] |= {"segmentation": segmentation, "id": 4711}
    path.write_text(json.dumps(content))
    dataset = open_dataset("coco2014", tmp_path)
    with pytest.raises(InputError, match="annotation 4711"):
        dataset.mask(dataset.samples("val")[0])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_coco_run_lengths_against_pycocotools(height, width, seed, share):
    coco_mask = pytest.importorskip("pycocotools.mask")
    region = np.random.default_rng(seed).random((height, width)) < share
    region = np.repeat(np.repeat(region, 3, axis=0), 2, axis=1)
    runs = coco_mask.encode(np.asfortranarray(region.astype(np.uint8)))
    assert np.array_equal(expand_runs(runs["counts"].decode(), *region.shape), region)


def test_kvasir_splits_and_jpeg_masks(built, tmp_path):
    dataset = open_dataset("kvasir", built)
    assert [len(dataset.samples(split)) for split in ("train", "val")] == [22, 3]
    mask = dataset.mask(dataset.samples("train")[0])
    assert set(np.unique(mask)) == {0, 1} and abs(int(mask.sum()) - 16 * 24) < 20
    assert set(np.unique(np.asarray(dataset.encode_mask(mask)))) == {0, 255}
    miniatures.kvasir(tmp_path, lists=True)
    listed = open_dataset("kvasir", tmp_path)
    assert [s.id for s in listed.samples("val")] == ["val/cju0000", "val/cju0001", "val/cju0002"]
