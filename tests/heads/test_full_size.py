"""Label maps made strip by strip are those of interpolating everything at once."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cmgl_cli.errors import InputError
from cmgl_cli.heads import full_size
from cmgl_cli.heads.full_size import bilinear_matrix, full_size_labels, possible_labels


@pytest.mark.parametrize(
    ("grid", "size"), [((14, 14), (360, 481)), ((3, 5), (7, 2)), ((1, 4), (9, 9)), ((6, 1), (1, 1))]
)
def test_matrix_interpolates_as_torch_does(grid, size):
    maps = torch.from_numpy(np.random.default_rng(0).standard_normal((4, *grid)).astype(np.float32))
    expected = functional.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0].numpy()
    rows, columns = bilinear_matrix(grid[0], size[0]), bilinear_matrix(grid[1], size[1])
    np.testing.assert_allclose(np.einsum("Rr,crk,Kk->cRK", rows, maps.numpy(), columns), expected, atol=1e-5)
    # ties aside, which random logits do not have, the labels are the same
    np.testing.assert_array_equal(full_size_labels(maps.numpy(), size), expected.argmax(axis=0))


def test_strips_change_nothing_and_bound_the_memory(monkeypatch):
    logits = np.random.default_rng(1).standard_normal((5, 8, 8)).astype(np.float32)
    whole = full_size_labels(logits, (200, 150))
    monkeypatch.setattr(full_size, "STRIP_BYTES", 4 * 5 * 150 * 7)
    np.testing.assert_array_equal(full_size_labels(logits, (200, 150)), whole)
    assert whole.dtype == np.uint8


def test_many_classes_fit_their_type():
    logits = np.zeros((300, 2, 2), dtype=np.float32)
    logits[299] = 1
    assert full_size_labels(logits, (4, 4)).max() == 299


def test_an_empty_axis_is_refused():
    with pytest.raises(InputError, match="logits must be"):
        full_size_labels(np.zeros((0, 2, 2), dtype=np.float32), (4, 4))


def test_only_labels_that_cannot_win_are_left_out():
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((40, 6, 7)).astype(np.float32)
    logits[5:] -= rng.uniform(0, 6, 35).astype(np.float32)[:, None, None]
    maps = functional.interpolate(torch.from_numpy(logits)[None], size=(90, 80), mode="bilinear")[0].numpy()
    possible = possible_labels(logits)
    winners = maps.argmax(axis=0)
    # between the centres of rows 1 and 2 of logits
    assert possible[np.unique(winners[23:37]), 1].all()
    assert set(np.unique(winners)) <= set(np.flatnonzero(possible.any(axis=1)))
    assert possible.any(axis=1).sum() < 40 and possible.mean() < possible.any(axis=1).mean(), "nothing was left out"
    np.testing.assert_array_equal(full_size_labels(logits, (90, 80)), maps.argmax(axis=0))
