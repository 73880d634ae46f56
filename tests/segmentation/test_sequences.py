"""Folds that keep the frames of a sequence together."""

import numpy as np
import pytest

from cmgl_cli.segmentation.sequences import sequence_folds, sequences


def names(*parts: tuple[str, int]) -> np.ndarray:
    return np.array([f"train/{stem}_{i:05d}" for stem, count in parts for i in range(count)])


def test_names_alike_but_for_their_last_number_are_one_sequence():
    ids = np.array(["a/drive1_001.png", "a/drive1_002.png", "b/drive1_001.png", "a/drive2_9", "a/drive2_10", "x"])
    found = sequences(ids)
    assert found[0] == found[1] and found[3] == found[4]
    assert len({found[0], found[2], found[3], found[5]}) == 4


def test_sequences_stay_whole_and_folds_even():
    ids = names(("0001TP", 62), ("0006R0", 101), ("0016E5", 204))
    mixed = np.random.default_rng(0).permutation(ids)
    for n_folds, expected in ((5, [62, 101, 204]), (2, [163, 204])):
        folds = sequence_folds(mixed, n_folds)
        assert sorted(np.bincount(folds)) == expected
        for stem in ("0001TP", "0006R0", "0016E5"):
            assert len(set(folds[np.char.find(mixed, stem) >= 0])) == 1


@pytest.mark.parametrize(
    "ids",
    [
        names(("frame", 40)),  # one sequence
        names(("long", 39), ("short", 5)),  # one that is nearly all
        np.array([f"{i:032x}f" for i in range(40)]),  # names that say nothing
    ],
)
def test_without_sequences_a_fold_is_a_run_of_neighbours(ids):
    order = np.random.default_rng(1).permutation(len(ids))
    folds = np.empty(len(ids), dtype=int)
    folds[order] = sequence_folds(ids[order], 4)
    assert (np.diff(folds[np.argsort(ids)]) >= 0).all()
    assert np.ptp(np.bincount(folds)) <= 1 and folds.max() == 3


def test_few_images():
    assert sequence_folds(np.array(["a_1"]), 5).tolist() == [0]
    assert len(sequence_folds(np.array([], dtype=str), 5)) == 0
    assert sorted(sequence_folds(np.array(["a_1", "a_2"]), 5)) == [0, 1]
