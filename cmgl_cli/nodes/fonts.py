"""Fonts that say what they can draw.

A font without a glyph draws the same box for every character it lacks, so texts are checked against the
character map first. Text that runs from right to left or reorders its letters needs the "raqm" engine;
"basic" sets one glyph after the other.
"""

import hashlib
import importlib.util
import unicodedata
from collections.abc import Iterable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Literal

from fontTools.ttLib import TTFont, TTLibError
from PIL import ImageFont, features

from cmgl_cli.errors import InputError, UsageError, suggest

Engine = Literal["auto", "raqm", "basic"]
ENGINES = ("auto", "raqm", "basic")
_DEFAULT = "mpl-data/fonts/ttf/DejaVuSans.ttf"
# Devanagari to Myanmar without Thai, Lao and Tibetan; Khmer: scripts whose letters are reordered or joined.
_REORDERED = ((0x0900, 0x0DFF), (0x1000, 0x109F), (0x1780, 0x17FF))


class Font:
    """A scalable font, its character map and its identity.

    Parameters
    ----------
    data : bytes
        The font file.
    engine : {"raqm", "basic"}
        Shaping engine.
    where : str
        Name of the file, for errors.

    Attributes
    ----------
    name : str
        Full name from the font's own table.
    digest : str
        SHA-256 of the file, hexadecimal.
    coverage : frozenset of int
        Code points with a glyph.

    Raises
    ------
    InputError
        Not a scalable font.
    """

    def __init__(self, data: bytes, engine: Literal["raqm", "basic"], where: str):
        try:
            table = TTFont(BytesIO(data), fontNumber=0, lazy=True)
            self.coverage = frozenset(table.getBestCmap() or ())
            self.name = table["name"].getDebugName(4) or Path(where).stem
            ImageFont.truetype(BytesIO(data), 16)
        except (TTLibError, OSError, KeyError, AssertionError) as error:
            raise InputError(
                "the font cannot be used", f"{where}: {error}", "give a TrueType or OpenType font file (.ttf, .otf)"
            ) from error
        self.engine, self.where = engine, where
        self.digest = hashlib.sha256(data).hexdigest()
        self._data, self._sizes = data, dict[int, ImageFont.FreeTypeFont]()

    @property
    def identity(self) -> dict[str, str]:
        """What decides the pixels: the font's name and digest, and the shaping engine."""
        return {"font": self.name, "font_digest": self.digest, "shaping": self.engine}

    def at(self, px: int) -> ImageFont.FreeTypeFont:
        """Return the font at a size in pixels."""
        if px not in self._sizes:
            layout = ImageFont.Layout.RAQM if self.engine == "raqm" else ImageFont.Layout.BASIC
            self._sizes[px] = ImageFont.truetype(BytesIO(self._data), px, layout_engine=layout)
        return self._sizes[px]


def load_font(path: str | Path | None = None, engine: Engine = "auto") -> Font:
    """Load a font file, by default the DejaVu Sans that comes with matplotlib.

    Parameters
    ----------
    path : path, optional
        TrueType or OpenType file.
    engine : {"auto", "raqm", "basic"}
        Shaping engine; "auto" takes raqm where this Pillow has it. The choice is part of `Font.identity`.

    Raises
    ------
    InputError
        No such file, or not a font.
    UsageError
        An unknown engine, or raqm where Pillow lacks it.
    """
    if engine not in ENGINES:
        raise UsageError("unknown shaping engine", f"engine = {engine!r}", suggest(engine, ENGINES))
    has_raqm = features.check("raqm") is True
    if engine == "raqm" and not has_raqm:
        raise UsageError(
            "this Pillow cannot shape text with raqm", "engine = 'raqm'", "choose basic, or a Pillow wheel"
        )
    return _load(str(path or _default_path()), "raqm" if has_raqm and engine != "basic" else "basic")


@cache
def _load(path: str, engine: Literal["raqm", "basic"]) -> Font:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            "the font cannot be read", f"{path}: {error.strerror}", "give the path of a font file"
        ) from error
    return Font(data, engine, path)


def _default_path() -> Path:
    # Found without importing matplotlib, which takes a while.
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the default font is missing", "matplotlib is not installed", "install it, or give a font")
    return Path(spec.submodule_search_locations[0]) / _DEFAULT


def missing_glyphs(text: str, font: Font) -> tuple[str, ...]:
    """Return the distinct characters of `text` that `font` cannot draw, by code point."""
    return tuple(sorted({character for character in text if ord(character) not in font.coverage}))


def require_drawable(text: str, font: Font) -> None:
    """Raise unless `font` can draw `text` as it is meant to be read.

    Raises
    ------
    InputError
        Missing glyphs, each named with its code point, or a script that needs shaping under the basic engine.
    """
    missing = missing_glyphs(text, font)
    if missing:
        raise InputError(
            f"the font {font.name} has no glyph for {_named(missing)}",
            f"text {_shortened(text)!r}",
            "give a font that covers these characters, or correct the text",
        )
    unshaped = sorted({character for character in text if font.engine == "basic" and _needs_shaping(character)})
    if unshaped:
        raise InputError(
            f"the basic shaping engine would garble {_named(unshaped)}",
            f"text {_shortened(text)!r}",
            "use a Pillow with raqm (the wheels on PyPI have it)",
        )


def _needs_shaping(character: str) -> bool:
    reordered = any(first <= ord(character) <= last for first, last in _REORDERED)
    return reordered or unicodedata.bidirectional(character) in ("R", "AL")


def _named(characters: Iterable[str], limit: int = 10) -> str:
    every = [f"{character!r} (U+{ord(character):04X})" for character in characters]
    return ", ".join(every[:limit]) + (f" and {len(every) - limit} more" if len(every) > limit else "")


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
