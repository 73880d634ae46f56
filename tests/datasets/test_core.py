"""Samples, splits, subsets, fingerprints, bundled sets, and what must never happen."""

import os
import pickle
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmgl_cli.datasets import DATASETS, MaskValues, Sample, open_dataset, subset
from cmgl_cli.datasets.files import checked_name, list_files
from cmgl_cli.datasets.json_stream import stream_items
from cmgl_cli.datasets.splits import assign_splits, proportional
from cmgl_cli.datasets.unpickle import read_pickle
from cmgl_cli.errors import CmglError, InputError, UsageError
from tests.datasets import miniatures


def test_importing_the_room_is_light():
    heavy = "('torch', 'sklearn', 'scipy', 'h5py', 'pandas', 'yaml')"
    code = f"import sys, cmgl_cli.datasets; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- splits and subsets ----------------------------------------------------------------------------------------------


@given(st.dictionaries(st.integers(), st.floats(0.01, 1), min_size=1, max_size=8), st.integers(0, 1000))
def test_proportional_is_exact_and_close(weights, total):
    counts = proportional(weights, total)
    assert sum(counts.values()) == total
    scale = total / sum(weights.values())
    assert all(abs(count - weights[key] * scale) < 1 + 1e-6 for key, count in counts.items())


def test_splits_hardly_move_when_images_are_added():
    shares = {"train": 0.6, "val": 0.15, "test": 0.25}
    before = assign_splits({f"{i}": "a" for i in range(200)}, shares, seed=0)
    after = assign_splits({f"{i}": "a" for i in range(210)}, shares, seed=0)
    assert sum(before[name] != after[name] for name in before) <= 10
    assert Counter(before.values()) == {"train": 120, "val": 30, "test": 50}


def make_samples(counts):
    rows = [(split, label) for (split, label), count in counts.items() for _ in range(count)]
    return tuple(Sample(f"{split}/{i}", split, label) for i, (split, label) in enumerate(rows))


def test_subset_is_stratified_seeded_and_in_order():
    samples = make_samples({("train", (0,)): 60, ("train", (1,)): 30, ("test", (0,)): 10, ("test", ()): 20})
    chosen = subset(samples, 12, seed=3)
    assert Counter((s.split, s.labels) for s in chosen) == {
        ("train", (0,)): 6,
        ("train", (1,)): 3,
        ("test", (0,)): 1,
        ("test", ()): 2,
    }
    assert chosen == subset(samples, 12, seed=3) != subset(samples, 12, seed=4)
    assert list(chosen) == sorted(chosen, key=samples.index)
    assert subset(samples, None) == subset(samples, 999) == samples
    for limit in (0, -1):
        with pytest.raises(UsageError, match=f"limit = {limit}"):
            subset(samples, limit)


def test_subset_files_samples_under_their_rarest_label():
    samples = make_samples({("train", (0,)): 90, ("train", (0, 1)): 10})
    assert Counter(s.labels for s in subset(samples, 10)) == {(0,): 9, (0, 1): 1}


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 5))
def test_subset_size(count, limit, seed):
    samples = make_samples({("train", (i % 7,)): 1 + i for i in range(count % 10 + 1)})
    assert len(subset(samples, limit, seed)) == min(limit, len(samples))


def test_classes_without_samples_are_named_only_when_asked():
    dataset = open_dataset("digits")
    few = [sample for sample in dataset.samples("train") if sample.labels[0] not in (3, 7)]
    with pytest.raises(InputError, match="without samples: three, seven"):
        dataset.require_classes(few)
    dataset.require_classes(few, ["zero", "nine"])
    with pytest.raises(UsageError, match="did you mean 'seven'"):
        dataset.require_classes(few, ["sven"])


# --- bundled ---------------------------------------------------------------------------------------------------------


def test_digits():
    dataset = open_dataset("digits")
    assert [len(dataset.samples(split)) for split in dataset.splits] == [1078, 269, 450]
    for split, low, high in (("train", 104, 110), ("val", 26, 28), ("test", 43, 46)):
        counts = Counter(sample.labels[0] for sample in dataset.samples(split))
        assert low <= min(counts.values()) and max(counts.values()) <= high
    sample = dataset.samples("train")[0]
    image, mask = np.asarray(dataset.image(sample)), dataset.mask(sample)
    assert image.shape == (112, 112, 3) and (image == image[..., :1]).all()
    assert set(np.unique(mask)) == {0, 1 + sample.labels[0]}
    assert image[mask > 0].max() < image[mask == 0].min() + 2  # the mask is the dark ink
    assert open_dataset("digits", size=28).image(sample).size == (28, 28)
    with pytest.raises(UsageError, match="size = 4"):
        open_dataset("digits", size=4)


def test_digits_texts():
    texts = open_dataset("digits").texts
    assert tuple(texts) == open_dataset("digits").classes
    sentences = [sentence for several in texts.values() for sentence in several]
    assert min(len(several) for several in texts.values()) >= 12 and len(set(sentences)) == len(sentences)


def test_smoke_is_deterministic_and_balanced():
    dataset, again = open_dataset("smoke"), open_dataset("smoke")
    samples = dataset.samples()
    assert [len(dataset.samples(split)) for split in ("train", "val", "test")] == [8, 4, 4]
    assert Counter((s.split, s.labels) for s in samples)["val", (1,)] == 2
    assert dataset.fingerprint(samples) == again.fingerprint(again.samples())
    assert set(dataset.texts) == set(dataset.classes)
    assert all(dataset.present_classes(s) == (0, 1 + s.labels[0]) for s in samples)
    assert len(open_dataset("smoke", images=200, size=32).samples("train")) == 100
    with pytest.raises(UsageError, match="images = 1"):
        open_dataset("smoke", images=1)


def test_a_foreign_sample_is_refused(tmp_path):
    stranger = Sample("train/stranger", "train")
    miniatures.class_folders(tmp_path, ("train",))
    for dataset in (open_dataset("smoke"), open_dataset("digits"), open_dataset("folder", tmp_path)):
        with pytest.raises(UsageError, match="train/stranger"):
            dataset.image(stranger)


# --- fingerprints ----------------------------------------------------------------------------------------------------


def test_fingerprint_sees_what_matters_and_nothing_else(tmp_path):
    home = miniatures.class_folders(tmp_path / "a", ("train", "test"))

    def fingerprint(root, split=None):
        dataset = open_dataset("folder", root)
        return dataset.fingerprint(dataset.samples(split))

    first = fingerprint(home)
    os.utime(home / "train" / "cat" / "000.png", (1, 1))
    moved = home.rename(tmp_path / "b")
    assert fingerprint(moved) == first
    assert fingerprint(moved, "train") != first
    with open(moved / "train" / "cat" / "000.png", "ab") as file:
        file.write(b"x")
    assert fingerprint(moved) != first


def test_fingerprint_sees_pixels_of_arrays_and_options():
    small, large = open_dataset("digits", size=56), open_dataset("digits")
    samples = large.samples()[:5]
    assert small.fingerprint(samples) != large.fingerprint(samples)
    smoke = open_dataset("smoke")
    before = smoke.fingerprint(smoke.samples())
    smoke._images[smoke.samples()[3].id][0, 0, 0] += 1
    assert smoke.fingerprint(smoke.samples()) != before


def test_fingerprint_is_the_same_on_every_machine():
    smoke = open_dataset("smoke", images=2, size=8)
    expected = "4bdb5d17d58b2cd66adb5d109296f36ea6d276cd9fe7d4222d0f2d56c29cdca2"
    assert smoke.fingerprint(smoke.samples()) == expected


# --- masks -----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=40, unique=True),
    st.one_of(st.none(), st.integers(0, 300)),
    st.integers(0, 100),
)
def test_mask_values_roundtrip(stored, ignored, seed):
    convention = MaskValues(tuple(v for v in stored if v != ignored) or (ignored + 1,), ignored)
    present = list(convention.stored) + ([] if ignored is None else [ignored])
    values = np.random.default_rng(seed).choice(present, (5, 7)).astype(np.int32)
    mask = convention.decode(values)
    assert np.array_equal(np.asarray(convention.encode(mask)), values)
    assert ((mask == convention.ignore_label) == (values == ignored)).all() if ignored is not None else True
    with pytest.raises(InputError):
        convention.decode(np.array([[max(present) + 1]]))


# --- hostile lists and pickles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../x.jpg", "a/../../x.jpg", "/etc/passwd", "..", "", "C:\\x", "a\\..\\x", "C:/x", "a\0b"]
)
def test_listed_names_never_leave_the_dataset(name):
    with pytest.raises(InputError, match="outside the dataset"):
        checked_name(name, "list.txt")


def test_a_climbing_list_is_refused_by_every_list_reader(tmp_path):
    home = miniatures.voc2012(tmp_path / "v")
    miniatures.write(home / "ImageSets/Segmentation/train.txt", "../../../secret\n")
    with pytest.raises(InputError, match=r"train\.txt"):
        open_dataset("voc2012", tmp_path / "v").samples()
    home = miniatures.cub200(tmp_path / "c")
    lines = (home / "images.txt").read_text().replace("001.Black", "../Black", 1)
    miniatures.write(home / "images.txt", lines)
    with pytest.raises(InputError, match=r"images\.txt"):
        open_dataset("cub200", tmp_path / "c").samples()
    home = miniatures.coco2014(tmp_path / "o")
    path = home / "annotations" / "instances_val2014.json"
    miniatures.write(path, path.read_text().replace("COCO_val", "/etc/COCO_val", 1))
    with pytest.raises(InputError, match="instances_val2014"):
        open_dataset("coco2014", tmp_path / "o").samples()
    home = miniatures.kvasir(tmp_path / "k", lists=True)
    miniatures.write(home / "val.txt", "../../x\n")
    with pytest.raises(InputError, match=r"val\.txt"):
        open_dataset("kvasir", tmp_path / "k").samples()


def test_a_doubled_line_is_refused(tmp_path):
    home = miniatures.cub200(tmp_path)
    for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt"):
        last = (home / name).read_text().splitlines()[-1].split(maxsplit=1)[1]
        with open(home / name, "a") as file:
            file.write(f"99 {last}\n")
    with pytest.raises(InputError, match="listed twice"):
        open_dataset("cub200", tmp_path).samples()


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_malicious_batch_runs_nothing(tmp_path):
    home = miniatures.cifar10(tmp_path)
    flag = tmp_path / "ran"
    for evil in (
        Evil(os.system, f"touch {flag}"),
        Evil(os.mkdir, str(flag)),
        Evil(eval, f"open({str(flag)!r}, 'w')"),
        Evil(getattr, "text", "upper"),
        Evil(np.load, str(flag)),
    ):
        for protocol in range(6):
            (home / "data_batch_1").write_bytes(pickle.dumps({b"data": evil, b"labels": []}, protocol=protocol))
            with pytest.raises(InputError, match="data_batch_1: it (asks for|uses the instruction)"):
                open_dataset("cifar10", tmp_path).samples()
    assert not flag.exists()


@pytest.mark.parametrize(
    "array",
    [
        np.array([{}, 1], dtype=object),
        np.array([("a", 1)], dtype=[("x", "O"), ("y", "i4")]),
        np.array(["text"]),
        np.array([1 + 2j]),
        np.array(["2020-01-01"], dtype="M8[D]"),
    ],
)
def test_arrays_of_anything_but_numbers_are_refused(tmp_path, array):
    (tmp_path / "batch").write_bytes(miniatures.python2_pickle({"data": array}))
    with pytest.raises(InputError, match="not a pickle of plain arrays"):
        read_pickle(tmp_path / "batch")


@pytest.mark.parametrize("dtype", ["u1", "<i4", ">i4", "<f8", ">u2", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_survive_the_restricted_unpickler(tmp_path, dtype, order):
    array = np.asarray(np.random.default_rng(0).integers(0, 2, (3, 4)), dtype=dtype, order=order)
    whole = {b"data": array, b"labels": [1, 2], b"name": b"x"}
    for raw in (miniatures.python2_pickle(whole), *(pickle.dumps(whole, protocol=p) for p in range(2, 6))):
        (tmp_path / "batch").write_bytes(raw)
        content = read_pickle(tmp_path / "batch")
        assert np.array_equal(content["data"], array) and content["data"].dtype == array.dtype
        assert content["labels"] == [1, 2] and content["name"] == b"x"


def test_a_memo_made_to_exhaust_memory_is_refused(tmp_path):
    (tmp_path / "batch").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(InputError, match="place 2147483647 of its memo"):
        read_pickle(tmp_path / "batch")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_fuzzed_batches_are_read_or_refused(tmp_path_factory, data):
    whole = bytearray(miniatures.python2_pickle({"data": np.zeros((2, 6), np.uint8), "labels": [1, 2]}))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6)):
        whole[place] = value
    path = tmp_path_factory.getbasetemp() / "fuzzed_batch"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        read_pickle(path)
    except CmglError as error:
        assert str(path) in error.where


@pytest.mark.parametrize(
    "change",
    [
        {"labels": [99] * 10},
        {"labels": [-1] * 10},
        {"labels": ["a"] * 10},
        {"labels": None},
        {"labels": [1] * 9},
        {"data": np.zeros((10, 3071), np.uint8)},
        {"data": np.zeros((10, 3072), np.float32)},
        {"data": "text"},
    ],
)
def test_damaged_batches_are_named(tmp_path, change):
    home = miniatures.cifar10(tmp_path)
    batch = {"labels": [1] * 10, "data": np.zeros((10, 3072), np.uint8)} | change
    (home / "test_batch").write_bytes(miniatures.python2_pickle(batch))
    with pytest.raises(InputError, match="test_batch"):
        open_dataset("cifar10", tmp_path).samples()


# --- json in a moving window -----------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=4),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.floats(allow_nan=False),
            lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=12,
        ),
        max_size=5,
    ),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from([None, 2]),
)
def test_streamed_items_are_what_json_reads(tmp_path_factory, content, chunk, ascii_only, indent):
    import json

    from cmgl_cli.datasets import json_stream

    path = tmp_path_factory.getbasetemp() / "stream.json"
    path.write_text(json.dumps(content, ensure_ascii=ascii_only, indent=indent), encoding="utf-8")
    whole, json_stream._CHUNK = json_stream._CHUNK, chunk
    try:
        found = list(stream_items(path))
    finally:
        json_stream._CHUNK = whole
    expected = [(key, item) for key, value in content.items() if isinstance(value, list) for item in value]
    assert [(item.key, item.value) for item in found] == expected
    raw = path.read_bytes()
    assert all(json.loads(raw[item.offset : item.offset + item.length]) == item.value for item in found)
    path.write_bytes(raw[: len(raw) * (chunk - 1) // 9])
    with pytest.raises(InputError, match="not complete, valid JSON"):
        list(stream_items(path))


# --- size ------------------------------------------------------------------------------------------------------------


def test_listing_eight_thousand_files_is_quick(tmp_path):
    for folder in range(4):
        (tmp_path / "train" / f"class_{folder:02d}").mkdir(parents=True)
        for number in range(2000):
            (tmp_path / "train" / f"class_{folder:02d}" / f"{number:05d}.jpg").touch()
    start = time.process_time()
    dataset = open_dataset("folder", tmp_path)
    samples = dataset.samples()
    dataset.fingerprint(samples)
    elapsed = time.process_time() - start
    assert len(samples) == 8_000 and elapsed < 2, f"{elapsed:.1f} s"


def test_listing_is_sorted_and_skips_what_is_hidden(tmp_path):
    for name in ("b.jpg", "a.PNG", ".DS_Store", "._a.jpg", "deep/c.gif", ".git/d.jpg", "Thumbs.db"):
        miniatures.write(tmp_path / name, "x")
    assert list_files(tmp_path) == {"a.PNG": 1, "b.jpg": 1, "deep/c.gif": 1}
    with pytest.raises(InputError, match="cannot be listed"):
        list_files(tmp_path / "none")


def test_the_documentation_has_every_dataset_and_layout():
    text = (Path(__file__).resolve().parents[2] / "docs" / "datasets.md").read_text()
    for spec in DATASETS.values():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{spec.name}` |"))
        assert spec.title in row and spec.page in row
        assert spec.layout in text
