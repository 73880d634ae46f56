"""What cells look like does not change with the light."""

import pytest
import torch

from cmgl_cli.heads.appearance import APPEARANCE_NODES, FLOOR, appearance, cell_grid, fine_grid

CELLS = (8, 8)


def scene(seed=0):
    return 0.2 + 0.6 * torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_neither_exposure_nor_the_colour_of_the_light_changes_the_looks(monkeypatch):
    monkeypatch.setattr("cmgl_cli.heads.appearance.FLOOR", 0.0)
    monkeypatch.setattr("cmgl_cli.heads.appearance.SPREAD_FLOOR", 1e-9)
    image = scene()
    looks = appearance(image, CELLS)
    assert looks.shape == (2, APPEARANCE_NODES, *CELLS)
    torch.testing.assert_close(appearance(0.25 * image, CELLS), looks, atol=1e-5, rtol=0)
    tinted = appearance(image * torch.tensor([1.0, 0.7, 0.4])[:, None, None], CELLS)
    torch.testing.assert_close(tinted[:, :9], looks[:, :9], atol=1e-5, rtol=0)


def test_with_floors_the_light_changes_the_looks_little():
    image = scene()
    moved = (appearance(0.5 * image, CELLS) - appearance(image, CELLS))[:, :9].abs().mean()
    absolute = ((0.5 * image + FLOOR).log() - (image + FLOOR).log()).abs().mean()
    assert moved < 0.1 * absolute


def test_a_bright_spot_is_bright_in_its_own_cell_and_around_it():
    image = torch.full((1, 3, 32, 32), 0.2)
    image[..., 12:16, 12:16] = 0.8
    looks = appearance(image, CELLS)
    assert looks[0, 0].argmax() == 3 * 8 + 3
    assert looks[0, 3, 2:5, 2:5].min() > looks[0, 3, 0, 0]


@pytest.mark.parametrize(
    ("side", "picture", "cells", "fine"),
    [(14, 112, 56, 56), (14, 224, 56, 56), (28, 112, 56, 56), (28, 224, 56, 112), (37, 112, 37, 37), (7, 112, 28, 28)],
)
def test_a_network_looks_closer_than_graphs_where_the_picture_has_the_pixels(side, picture, cells, fine):
    """A quarter of a patch, and two pixels at least; graphs stop at 64 cells a side."""
    assert cell_grid((side, side)) == (cells, cells)
    assert fine_grid((side, side), picture) == (fine, fine)
