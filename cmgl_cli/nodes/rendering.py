"""Texts as images: black on white, as large as fits, never cut.

The image encoder reads a text as a picture of it. The size is found by bisection: the largest at which the
wrapped text fits. A text too long for one image at the smallest size takes as many pages as it needs there,
and then the largest size that needs no more.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.nodes.fonts import Font, require_drawable

DEFAULT_TEMPLATES = (
    "A photo of {article} {name}.",
    "A close-up photo of {article} {name}.",
    "A picture that shows {article} {name}.",
    "The subject of this image is {article} {name}.",
    "{article} {name} in its usual surroundings.",
)
_INVISIBLE = {0xFEFF: None, 0x00AD: None, 0x200B: " "}
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True)
class Rendering:
    """A text as images.

    Attributes
    ----------
    pages : ndarray of uint8, [n_pages, size, size, 3]
        Black on white.
    font_px : int
        Size of the font, the same on every page.
    lines : tuple of tuple of str
        The lines of every page. Breaks lie after spaces, which stay with their line, or inside words too
        long for a line: all lines joined are the text.
    """

    pages: np.ndarray
    font_px: int
    lines: tuple[tuple[str, ...], ...]

    @property
    def n_pages(self) -> int:
        """The number of images."""
        return len(self.pages)


@dataclass(frozen=True)
class Canvas:
    """Where to draw: a square of `size` px, a white `margin`, and font sizes from `min_px` to `max_px`."""

    size: int = 224
    min_px: int = 10
    max_px: int = 64
    margin: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.min_px <= self.max_px or self.margin < 0 or self.inside < self.min_px:
            raise UsageError(
                "the canvas leaves no room for a line of text",
                f"size = {self.size}, margin = {self.margin}, min_px = {self.min_px}, max_px = {self.max_px}",
                "give a larger canvas, a smaller margin, or smaller font sizes",
            )

    @property
    def inside(self) -> int:
        """Width and height between the margins."""
        return self.size - 2 * self.margin


def render(text: str, font: Font, canvas: Canvas = Canvas()) -> Rendering:  # noqa: B008 (frozen)
    """Draw a text.

    Parameters
    ----------
    text : str
        Any text; it is normalised first (`normalise_text`).
    font : Font
        From `fonts.load_font`.
    canvas : Canvas
        Size, margin and range of font sizes in px.

    Raises
    ------
    InputError
        An empty text, a missing glyph, or a character wider than the canvas.
    """
    text = normalise_text(text)
    require_drawable(text, font)
    typesetter = _Typesetter(text, font, canvas)
    px, lines = typesetter.largest()
    pages = _balanced(lines, -(-len(lines) // typesetter.lines_per_page(px, lines)))
    images = np.stack([_draw(page, font.at(px), canvas) for page in pages])
    return Rendering(np.repeat(images[..., None], 3, axis=3), px, pages)


def normalise_text(text: str) -> str:
    """Return the text in NFC with every run of white space as one space, and without soft hyphens.

    Raises
    ------
    InputError
        Nothing is left.
    """
    normal = " ".join(unicodedata.normalize("NFC", text).translate(_INVISIBLE).split())
    if not normal:
        raise InputError("a text is empty", f"text {text!r}", "write a sentence, or remove the entry")
    return normal


def class_templates(class_names: Sequence[str], templates: Sequence[str] = DEFAULT_TEMPLATES) -> dict[str, list[str]]:
    """Return texts for classes that have none: class name -> one sentence a template.

    Parameters
    ----------
    class_names : sequence of str
        Names; underscores become spaces in the sentences.
    templates : sequence of str
        Sentences with ``{name}`` and optionally ``{article}`` (a or an).

    Raises
    ------
    UsageError
        No templates, or one without ``{name}``.
    """
    for template in templates:
        if "{name}" not in template:
            raise UsageError("a template does not mention the class", f"template {template!r}", "write {name} in it")
    if not templates:
        raise UsageError("there are no templates", "templates = []", "give at least one sentence with {name}")
    return {
        name: [_filled(template, normalise_text(name.replace("_", " "))) for template in templates]
        for name in class_names
    }


def _filled(template: str, name: str) -> str:
    article = "an" if name[0].lower() in "aeiou" else "a"
    sentence = template.replace("{article}", article).replace("{name}", name)
    return sentence[0].upper() + sentence[1:]


class _Typesetter:
    """Breaks one text into lines at any size, and finds the largest size that fits."""

    def __init__(self, text: str, font: Font, canvas: Canvas):
        self.font, self.canvas = font, canvas
        # A word is broken only if it is too long for a line even at the smallest size.
        smallest = font.at(canvas.min_px)
        self.words = [(word, _width(word, smallest) > canvas.inside) for word in text.split(" ")]

    def largest(self) -> tuple[int, list[str]]:
        """Return the largest size that needs no more pages than the smallest, and its lines."""
        low, high = self.canvas.min_px, self.canvas.max_px + 1
        best = self.lines(low)
        if best is None:
            raise InputError(
                "a character is wider than the canvas", f"{self.canvas}", "give a larger canvas or a smaller min_px"
            )
        n_pages = self.n_pages(low, best)
        while high - low > 1:
            middle = (low + high) // 2
            lines = self.lines(middle)
            if lines is not None and self.n_pages(middle, lines) <= n_pages:
                low, best = middle, lines
            else:
                high = middle
        return low, best

    def lines(self, px: int) -> list[str] | None:
        """Break the text at a size; None where a word that must not be broken does not fit."""
        font, done, line = self.font.at(px), list[str](), ""
        for word, breakable in self.words:
            if line and _width(line + word, font) <= self.canvas.inside:
                line += word + " "
                continue
            if line:
                done.append(line)
            pieces = _broken(word, font, self.canvas.inside) if breakable else [word]
            if any(_width(piece, font) > self.canvas.inside for piece in pieces):
                return None
            done += pieces[:-1]
            line = pieces[-1] + " "
        return [*done, line.removesuffix(" ")]

    def n_pages(self, px: int, lines: list[str]) -> int:
        """Return how many pages lines take."""
        return -(-len(lines) // self.lines_per_page(px, lines))

    def lines_per_page(self, px: int, lines: list[str]) -> int:
        """Return how many lines fit on a page: at least one, with room for what sticks out of the first and last."""
        font = self.font.at(px)
        boxes = [font.getbbox(line.rstrip(" "), anchor="la") for line in lines]
        above = max(0.0, -min(box[1] for box in boxes))
        below = max(_pitch(font), *(box[3] for box in boxes))
        return max(1, int((self.canvas.inside - above - below) // _pitch(font)) + 1)


def _pitch(font: ImageFont.FreeTypeFont) -> int:
    return sum(font.getmetrics())


def _width(line: str, font: ImageFont.FreeTypeFont) -> float:
    """Width of the ink and the advance of a line, whichever reaches farther, without trailing space."""
    line = line.rstrip(" ")
    left, _, right, _ = font.getbbox(line, anchor="la")
    return max(right, font.getlength(line)) - min(0.0, left)


def _broken(word: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break a word into pieces as long as fit; a piece is at least one character with its marks."""
    pieces = [""]
    for cluster in _clusters(word):
        if pieces[-1] and _width(pieces[-1] + cluster, font) > width:
            pieces.append("")
        pieces[-1] += cluster
    return pieces


def _clusters(word: str) -> list[str]:
    """Split a word into characters, each with the combining marks and joiners that belong to it."""
    clusters: list[str] = []
    for character in word:
        joined = unicodedata.category(character).startswith("M") or character in _JOINERS
        if clusters and (joined or clusters[-1][-1] in _JOINERS):
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters


def _balanced(lines: list[str], n_pages: int) -> tuple[tuple[str, ...], ...]:
    """Deal lines out to pages in order, as evenly as possible."""
    bounds = [len(lines) * i // n_pages for i in range(n_pages + 1)]
    return tuple(tuple(lines[start:stop]) for start, stop in zip(bounds[:-1], bounds[1:], strict=True))


def _draw(lines: Sequence[str], font: ImageFont.FreeTypeFont, canvas: Canvas) -> np.ndarray:
    """Draw lines as a block in the middle of a grey image, left-aligned."""
    visible = [line.rstrip(" ") for line in lines]
    boxes = [font.getbbox(line, anchor="la") for line in visible]
    top = min(0.0, *(i * _pitch(font) + box[1] for i, box in enumerate(boxes)))
    bottom = max(len(lines) * _pitch(font), *(i * _pitch(font) + box[3] for i, box in enumerate(boxes)))
    width = max(_width(line, font) for line in visible)
    x = canvas.margin + int((canvas.inside - width) // 2)
    y = canvas.margin + int((canvas.inside - (bottom - top)) // 2 - top)
    image = Image.new("L", (canvas.size, canvas.size), 255)
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(visible):
        # each line by its own overhang: one line's left and another's right together can be wider than either
        draw.text((x - min(0.0, boxes[i][0]), y + i * _pitch(font)), line, fill=0, font=font, anchor="la")
    return np.asarray(image)
