"""Figures: every one draws at its extremes, says what it should, leaves its arrays alone, and is reproducible."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cmgl_cli import reports

RNG = np.random.default_rng(0)


def texts(figure) -> str:
    """All text a figure shows."""
    figure.set_dpi(40)
    figure.canvas.draw()
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def graph(p: int, density: float) -> np.ndarray:
    upper = np.triu(RNG.normal(size=(p, p)) * (RNG.random((p, p)) < density), 1)
    return upper + upper.T


@pytest.mark.parametrize("n_classes", [2, 10, 25, 26, 200])
def test_confusion_draws_at_any_size(n_classes: int) -> None:
    counts = RNG.integers(0, 4, (n_classes, n_classes)) + 9 * np.eye(n_classes, dtype=int)
    figure = reports.confusion_figure(counts, [f"a rather long class name {i}" for i in range(n_classes)])
    shown = texts(figure)
    assert f"{np.trace(counts) / counts.sum():.1%} of {counts.sum():,} right" in shown
    assert ("Most frequent confusions" in shown) == (n_classes > 25)


def test_large_confusion_lists_the_most_frequent_pair_first() -> None:
    counts = np.eye(40, dtype=int) * 50
    counts[7, 3], counts[1, 2] = 20, 5
    shown = texts(reports.confusion_figure(counts, [f"c{i}" for i in range(40)]))
    assert shown.index("c7 → c3: 20") < shown.index("c1 → c2: 5")


def test_confusion_of_an_empty_class_and_a_flawless_classifier() -> None:
    counts = np.diag([3, 0, 2])
    assert "100.0% of 5 right" in texts(reports.confusion_figure(counts, "abc"))
    assert "none" in texts(reports.confusion_figure(np.eye(30, dtype=int), [str(i) for i in range(30)]))


def test_reliability_states_the_error_and_pales_thin_bins() -> None:
    edges = np.linspace(0, 1, 6)
    confidence = np.array([np.nan, 0.3, 0.5, 0.7, 0.9])
    accuracy = np.array([np.nan, 0.0, 0.5, 0.6, 0.8])
    figure = reports.reliability_figure(edges, confidence, accuracy, np.array([0, 2, 50, 50, 98]))
    expected = (2 * 0.3 + 50 * 0.1 + 98 * 0.1) / 200
    shown = texts(figure)
    assert f"calibration error {expected:.1%}" in shown and "fewer than 10" in shown


@pytest.mark.parametrize("p", [2, 3, 16, 64])
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_graphs_draw_with_no_few_and_all_edges(p: int, density: float) -> None:
    graphs = {"common": graph(p, density), "cat": graph(p, density / 2)}
    before = {name: matrix.copy() for name, matrix in graphs.items()}
    edges = np.count_nonzero(np.triu(graphs["common"], 1))
    for draw in (reports.circle_figure, reports.matrix_figure):
        assert f"{edges:,} edges" in texts(draw(graphs))
    for name, matrix in graphs.items():
        np.testing.assert_array_equal(matrix, before[name])
    assert ("45 strongest drawn" in texts(reports.circle_figure(graphs))) == (edges > 45)


def test_node_order_puts_a_hidden_chain_back_in_line() -> None:
    chain = np.eye(12, k=1) + np.eye(12, k=-1)
    shuffle = np.random.default_rng(3).permutation(12)
    order = reports.node_order(chain[np.ix_(shuffle, shuffle)])
    linked = np.abs(np.diff(shuffle[order])) == 1
    assert linked.sum() >= 9
    np.testing.assert_array_equal(np.sort(order), np.arange(12))


def test_prior_says_its_median() -> None:
    prior = np.full((4, 6, 6), 0.97)
    assert "median 0.97" in texts(reports.prior_figure(prior, list("abcd")))
    assert "1 classes" in texts(reports.prior_figure(prior[:1], ["a"]))


def test_attention_takes_grey_colour_bytes_and_floats() -> None:
    maps = RNG.random((5, 4, 7))
    pictures = [
        ("grey", RNG.integers(0, 255, (20, 30), dtype=np.uint8), maps),
        ("colour", RNG.random((20, 30, 3)), np.zeros_like(maps)),
    ]
    assert "node 4" in texts(reports.attention_figure(pictures, [0, 4]))


def test_curves() -> None:
    assert "kept: epoch 2" in texts(reports.training_figure({"training": [3, 2, 1]}, best_epoch=2))
    assert "accuracy" in texts(reports.training_figure({"training": [3.0]}, {"validation": [0.5]}))
    k = np.arange(0, 51, 5)
    ebic = np.array([(k - best) ** 2 for best in (0, 10, 20)])
    shown = texts(reports.selection_figure(k, ebic, ["a", "b", "c"]))
    assert "1 of 3 classes reject the prior" in shown and "mean k = 10.0" in shown
    assert "200 classes" in texts(reports.selection_figure(k, np.tile(ebic[:1], (200, 1)), ["x"] * 200))
    t = np.arange(1, 30)
    shown = texts(reports.convergence_figure(5 + np.exp(-t), np.append(np.exp(-t[:-1]), 0.0), tolerance=1e-6))
    assert "gap 0.0e+00 after 29 iterations" in shown


def test_png_is_reproducible_and_a_picture() -> None:
    one, two = (reports.png(reports.confusion_figure(np.eye(3, dtype=int), "abc")) for _ in range(2))
    assert one == two
    picture = Image.open(io.BytesIO(one)).convert("RGB")
    assert min(picture.size) > 400 and picture.getpixel((0, 0)) == (255, 255, 255)


def test_colours_stay_apart_in_grey_and_for_the_colour_blind() -> None:
    """Blue and orange differ in luminance from white alike, and by hue under simulated deuteranopia (Vienot 1999)."""
    from cmgl_cli.reports.style import BLUE, ORANGE

    def linear(colour: str) -> np.ndarray:
        return (np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255) ** 2.2

    deuteranope = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    apart = np.abs(deuteranope @ linear(BLUE) - deuteranope @ linear(ORANGE))
    assert apart.max() > 0.3


def test_reports_leave_pyplot_alone() -> None:
    code = "import sys, cmgl_cli.reports; sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
