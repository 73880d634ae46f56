"""One look for all figures: colours that survive colour blindness, a light ground, and PNG bytes out.

Figures are built on `matplotlib.figure.Figure` with the Agg canvas, never through pyplot: no global state, no display
needed.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

BLUE, ORANGE = "#0072B2", "#D55E00"
"""Okabe and Ito's blue and vermilion: told apart under every common colour blindness, and in grey."""
INK, MUTED, RULE = "#1f2933", "#5f6c7b", "#d5dae1"
SERIES = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", INK)
DASHES = (0, (2.2, 0.9))
"""Line style of negative edges, so that their sign does not hang on colour alone."""
TINTS = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (106, 61, 154),
    (128, 84, 40),
    (120, 130, 30),
    (150, 20, 60),
    (40, 70, 110),
)
"""Colours of labels over a grey picture: Okabe and Ito's, and five more of other lightness."""
SEQUENTIAL = LinearSegmentedColormap.from_list("cmgl_blues", ["#ffffff", "#cfe3f2", "#6fb1da", BLUE, "#00314f"])
DIVERGING = LinearSegmentedColormap.from_list(
    "cmgl_blue_orange", ["#00446b", BLUE, "#8cc3e3", "#ffffff", "#f3b184", ORANGE, "#7a3500"]
)
"""Blue for negative, white for none, orange for positive."""
HIGHLIGHT = LinearSegmentedColormap.from_list("cmgl_orange", ["#ffffff", "#f8d3b6", "#ea9152", ORANGE, "#7a3500"])

LEAST_SLIMMED = 150_000
"""Bytes from which a figure's colours are counted: nobody sees 256 of them run out in a drawing."""

RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


@contextmanager
def styled() -> Iterator[None]:
    """Apply the house style to every axes created inside the context."""
    with matplotlib.rc_context(RC):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of the given size in inches with the Agg canvas and a layout that never overlaps."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def image_axes(axes: Axes) -> None:
    """Strip an axes that shows a picture of its ticks and frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def png(figure: Figure, dpi: int = 150) -> bytes:
    """Return the figure as PNG bytes; equal figures give equal bytes (no time stamp, no version)."""
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def slim(data: bytes, *, dither: bool = False) -> bytes:
    """Return a PNG with at most 256 colours where that makes it smaller; small ones are returned as they are.

    Photographs are dithered, or their shades would show contours.
    """
    if len(data) < LEAST_SLIMMED:
        return data
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        flat = _reduced(picture.convert("RGB"), Image.Dither.FLOYDSTEINBERG if dither else Image.Dither.NONE)
    flat.save(buffer, format="PNG")
    return min(data, buffer.getvalue(), key=len)


def _reduced(picture: Image.Image, dither: Image.Dither) -> Image.Image:
    """Return the picture in 256 colours, white among them: paper must stay white."""
    pixels = np.asarray(picture)
    palette = picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colours = (palette.getpalette() or [])[: 3 * 255]
    palette.putpalette([*colours, *[255] * (768 - len(colours))])
    reduced = np.array(picture.quantize(256, palette=palette, dither=dither))
    reduced[(pixels == 255).all(axis=2)] = 255
    flat = Image.fromarray(reduced, "P")
    flat.putpalette(palette.getpalette() or [])
    return flat
