"""Which samples are learnt from, which ones choices are made by, and which are left to report on."""

import numpy as np
import pytest

from cmgl_cli.artifacts import SampleTable


def table(*groups):
    """Build a table of (split, count, labels of each) groups."""
    ids, splits, labels = [], [], []
    for split, count, each in groups:
        for number in range(count):
            ids.append(f"{split}/{number:03d}")
            splits.append(split)
            labels.append(each if isinstance(each, tuple) else (number % each,))
    return SampleTable.of(ids, splits, labels, ["a", "b"])


def counts(samples):
    names, numbers = np.unique(samples.parts, return_counts=True)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))


def test_a_validation_split_chooses_where_a_test_split_is_left_to_report_on():
    samples = table(("train", 20, 2), ("val", 10, 2), ("test", 6, 2))
    assert counts(samples) == {"train": 20, "validation": 10, "test": 6}
    assert [samples.part_of(name) for name in ("auto", "val", "valid", "test")] == [
        "test",
        "validation",
        "validation",
        "test",
    ]


@pytest.mark.parametrize("rest", [(), (("test", 6, ()),)], ids=["none", "unlabelled"])
def test_where_no_test_split_can_be_judged_validation_is_reported_and_never_chosen_by(rest):
    samples = table(("train", 40, 2), ("val", 10, 2), *rest)
    found = counts(samples)
    assert found["train"] == 36 and found["validation"] == 4 and found["val"] == 10
    assert (samples.splits[samples.parts == "validation"] == "train").all()
    assert samples.part_of("auto") == "val" and samples.part_of("val") == "val"


def test_samples_judged_by_masks_have_no_labels_and_their_test_split_counts():
    samples = table(("train", 20, ()), ("val", 10, ()), ("test", 6, ()))
    assert counts(samples) == {"train": 20, "validation": 10, "test": 6}


def test_the_images_that_make_train_trainaug_are_trained_on():
    samples = table(("train", 10, 2), ("aug", 30, 2), ("val", 10, 2), ("test", 3, ()))
    found = counts(samples)
    assert found["train"] == 36 and found["validation"] == 4 and found["val"] == 10 and samples.part_of("auto") == "val"


def test_a_part_that_was_settled_stays_whatever_the_labels_say():
    samples = table(("train", 20, 2), ("test", 6, 2))
    settled = SampleTable.read({**samples.to_arrays(), "part": samples.parts[::-1]})
    np.testing.assert_array_equal(settled.parts, samples.parts[::-1])
    assert "part" in settled.to_arrays() and "part" not in samples.to_arrays()
