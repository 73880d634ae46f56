"""Segmentation figures: colours where the labels are, nodes where they look."""

import numpy as np
import pytest

from cmgl_cli import reports

RNG = np.random.default_rng(0)
PALETTE = np.array([[128, 0, 0], [0, 128, 0], [0, 0, 128]], np.uint8)
PICTURE = RNG.integers(0, 255, (12, 18, 3), dtype=np.uint8)


def texts(figure) -> str:
    figure.set_dpi(40)
    figure.canvas.draw()
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_overlay_lists_the_classes_that_occur_and_leaves_ignored_pixels_alone() -> None:
    truth = np.zeros((12, 18), int)
    truth[:, 9:] = 255
    figure = reports.overlay_figure([(PICTURE, truth, np.full((12, 18), 2))], PALETTE, ["sky", "tree", "road"])
    shown = texts(figure)
    assert "sky" in shown and "road" in shown and "tree" not in shown
    drawn = np.asarray(figure.axes[1].images[0].get_array())
    np.testing.assert_allclose(drawn[:, 9:], PICTURE[:, 9:] / 255)
    np.testing.assert_allclose(drawn[:, :9], 0.4 * PICTURE[:, :9] / 255 + 0.6 * PALETTE[0] / 255)
    # a negative ignore label is no class counted from the end
    truth[truth == 255] = -1
    rows = [(PICTURE, truth, np.zeros((12, 18), int))]
    legend = reports.overlay_figure(rows, PALETTE, ["sky", "tree", "road"], ignore_label=-1).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["sky"]


def test_overlay_without_any_mask_has_two_columns_and_with_some_says_so() -> None:
    labels = np.ones((12, 18), int)
    assert len(reports.overlay_figure([(PICTURE, None, labels)], PALETTE, "abc").axes) == 2
    figure = reports.overlay_figure([(PICTURE, None, labels), (PICTURE, labels, labels)], PALETTE, "abc")
    assert "no mask" in texts(figure)


@pytest.mark.parametrize("p", [1, 8, 13])
def test_attention_grid_shows_every_node(p: int) -> None:
    shown = texts(reports.attention_grid_figure(PICTURE, RNG.random((p, 4, 6))))
    assert f"node {p - 1}" in shown and f"node {p}" not in shown


def test_centres_of_a_point_a_plain_and_an_empty_map() -> None:
    maps = np.zeros((3, 4, 6))
    maps[0, 3, 0] = 2.0
    maps[1] = 0.1
    centres, focus = reports.attention_centres(maps, (40, 60))
    np.testing.assert_allclose(centres, [[4.5, 34.5], [29.5, 19.5], [29.5, 19.5]])
    np.testing.assert_allclose(focus, [1, 0, 0], atol=1e-12)


def test_graph_on_image_draws_the_strongest_edges_with_their_sign() -> None:
    graph = np.zeros((5, 5))
    graph[0, 1] = graph[1, 0] = 0.5
    graph[2, 3] = graph[3, 2] = -0.9
    graph[0, 4] = graph[4, 0] = 0.1
    maps = RNG.random((5, 4, 6))
    figure = reports.graph_on_image_figure(PICTURE, maps, [("cat", graph), ("none", np.zeros((5, 5)))], most_edges=2)
    lines, empty = (axes.collections[0] for axes in figure.axes[:2])
    assert len(lines.get_segments()) == 2 and len(empty.get_segments()) == 0
    centres, _ = reports.attention_centres(maps, (12, 18))
    np.testing.assert_allclose(lines.get_segments()[-1], centres[[2, 3]])
    strong, weak = lines.get_colors()[-1], lines.get_colors()[0]
    assert strong[2] > strong[0] and weak[0] > weak[2], "blue negative, orange positive"
    assert lines.get_linewidths()[-1] > lines.get_linewidths()[0]
