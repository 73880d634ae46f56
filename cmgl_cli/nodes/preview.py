"""A contact sheet: many small pictures with a line of text under each."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from cmgl_cli.errors import InputError
from cmgl_cli.nodes.fonts import Font, load_font

_GAP, _CAPTION_PX, _PAPER = 8, 12, (226, 226, 226)


def contact_sheet(
    pages: Sequence[np.ndarray] | np.ndarray, captions: Sequence[str], *, columns: int = 6, font: Font | None = None
) -> Image.Image:
    """Lay out images of one size in rows.

    Parameters
    ----------
    pages : sequence of ndarray of uint8, [height, width, 3]
        Images.
    captions : sequence of str
        One for each image, shortened where it is wider than the image.
    columns : int
        Most images in a row.
    font : Font, optional
        For the captions; DejaVu Sans by default.

    Raises
    ------
    InputError
        No image, images of several sizes, or another number of captions.
    """
    shapes = {np.shape(page) for page in pages}
    if len(shapes) != 1 or len(captions) != len(pages):
        raise InputError(
            "a contact sheet takes images of one size, each with a caption",
            f"{len(pages)} images of {len(shapes)} sizes, {len(captions)} captions",
            "give one caption an image",
        )
    height, width = shapes.pop()[:2]
    columns = min(columns, len(pages))
    step_x, step_y = width + _GAP, height + _GAP + 2 * _CAPTION_PX
    sheet = Image.new("RGB", (columns * step_x + _GAP, -(-len(pages) // columns) * step_y + _GAP), _PAPER)
    draw, face = ImageDraw.Draw(sheet), (font or load_font()).at(_CAPTION_PX)
    for i, (page, caption) in enumerate(zip(pages, captions, strict=True)):
        x, y = _GAP + i % columns * step_x, _GAP + i // columns * step_y
        sheet.paste(Image.fromarray(np.asarray(page)), (x, y))
        shown = caption
        while shown and face.getlength(shown + "…") > width:
            shown = shown[:-1]
        draw.text((x, y + height + 3), caption if shown == caption else shown + "…", fill=0, font=face)
    return sheet
