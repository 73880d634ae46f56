import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.nodes.fonts import load_font, missing_glyphs
from cmgl_cli.nodes.preview import contact_sheet
from cmgl_cli.nodes.rendering import DEFAULT_TEMPLATES, Canvas, class_templates, normalise_text, render

FONT = load_font()
BASIC = load_font(engine="basic")
SENTENCE = "An airplane is a large, metal, winged vehicle that carries people through the air."


def ink(rendering):
    return rendering.pages.min(axis=(0, 3)) < 255


def assert_within_margin(rendering, canvas):
    dark = ink(rendering)
    inside = slice(canvas.margin, canvas.size - canvas.margin)
    assert dark.any()
    dark[inside, inside] = False
    assert not dark.any()


def joined(rendering):
    return "".join(line for page in rendering.lines for line in page)


words = st.text(st.sampled_from("aijlmMWfgÄéßŁΩж,.!-1"), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(words, min_size=1, max_size=60), st.booleans())
def test_nothing_is_cut_and_nothing_touches_the_margin(parts, shaped):
    canvas, text = Canvas(), normalise_text(" ".join(parts))
    rendering = render(text, FONT if shaped else BASIC, canvas)
    assert joined(rendering) == text
    assert_within_margin(rendering, canvas)
    assert rendering.pages.shape == (rendering.n_pages, 224, 224, 3) and rendering.pages.dtype == np.uint8
    assert canvas.min_px <= rendering.font_px <= canvas.max_px


def test_overhang_of_one_line_does_not_push_another_out():
    rendering = render("Ł 1MMmf", BASIC)
    assert_within_margin(rendering, Canvas())


@pytest.mark.parametrize("text", ["j", "Ǻ̃", "f" * 40, "ÅÄÖ " * 30, "W" * 500, SENTENCE * 40, "ﬃ ĳ Ǆ", "gjpqy|Á " * 9])
@pytest.mark.parametrize("canvas", [Canvas(), Canvas(size=96, margin=0), Canvas(size=512, margin=40, max_px=200)])
def test_hard_texts_stay_inside_the_margin(text, canvas):
    rendering = render(text, FONT, canvas)
    assert_within_margin(rendering, canvas)
    assert joined(rendering) == normalise_text(text)


def test_the_next_size_would_not_fit():
    for text in (SENTENCE, SENTENCE * 3, "two words", SENTENCE * 30):
        rendering = render(text, FONT)
        if rendering.font_px < 64:
            px = rendering.font_px + 1
            larger = render(text, FONT, Canvas(min_px=px, max_px=px)) if _words_fit(text, px) else None
            assert larger is None or larger.n_pages > rendering.n_pages


def _words_fit(text, px):
    return all(FONT.at(px).getlength(word) <= Canvas().inside for word in text.split())


def test_text_fills_the_canvas():
    dark = ink(render(SENTENCE, FONT))
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    assert np.ptp(rows) > 0.75 * 208 and np.ptp(columns) > 0.8 * 208


def test_more_text_means_smaller_letters_then_more_pages():
    renderings = [render(" ".join([SENTENCE] * n), FONT) for n in (1, 2, 4, 6, 40)]
    sizes = [rendering.font_px for rendering in renderings]
    assert sizes[:4] == sorted(sizes[:4], reverse=True) and sizes[0] > 2 * sizes[3]
    assert [rendering.n_pages for rendering in renderings[:4]] == [1, 1, 1, 1] and renderings[-1].n_pages >= 3


def test_pages_are_balanced_and_all_carry_text():
    rendering = render(SENTENCE * 40, FONT)
    counts = [len(page) for page in rendering.lines]
    assert max(counts) - min(counts) <= 1
    assert all((page < 255).any() for page in rendering.pages)


def test_short_words_are_never_broken_even_beside_one_that_must_be():
    rendering = render("hippopotamus " + "x" * 300, FONT)
    assert rendering.lines[0][0] == "hippopotamus "
    assert len(rendering.lines[0]) > 2


def test_a_letter_keeps_its_marks_when_a_word_is_broken():
    rendering = render("q\u0323\u0307" * 120, FONT)
    assert len(rendering.lines[0]) > 1
    assert all(line[0] == "q" for page in rendering.lines for line in page)


def test_black_on_white_and_equal_channels():
    pages = render(SENTENCE, FONT).pages
    assert pages.max() == 255 and pages.min() == 0
    assert np.all(pages == pages[..., :1]) and np.mean(pages == 255) > 0.5


def test_rendering_is_reproducible_and_differs_between_texts():
    assert np.array_equal(render(SENTENCE, FONT).pages, render(SENTENCE, FONT).pages)
    assert not np.array_equal(render("cat", FONT).pages, render("dog", FONT).pages)


def test_normalisation():
    assert normalise_text("  cafe\u0301\n\n au\tlait\u00a0 \u00ad") == "café au lait"
    assert np.array_equal(render("cafe\u0301", FONT).pages, render("café", FONT).pages)
    for empty in ("", " \n\t", "\ufeff\u00ad"):
        with pytest.raises(InputError, match="empty"):
            normalise_text(empty)


def test_missing_glyphs_are_named_with_code_points():
    assert missing_glyphs("Ein Fluß, 川, und α", FONT) == ("川",)
    with pytest.raises(InputError, match=r"'川' \(U\+5DDD\).*") as caught:
        render("川 and 犬", FONT)
    assert "U+72AC" in str(caught.value) and "font" in caught.value.fix
    with pytest.raises(InputError, match="and 15 more"):
        render("".join(chr(0x4E00 + i) for i in range(25)), FONT)


def test_text_that_needs_shaping_is_not_garbled_silently():
    with pytest.raises(InputError, match=r"U\+05D0"):
        render("אב", BASIC)
    if FONT.engine == "raqm":
        right_to_left = render("אב", FONT).pages
        assert np.array_equal(right_to_left, render("אב", FONT).pages) and (right_to_left < 255).any()


def test_identity_of_the_font(tmp_path):
    assert FONT.identity["font"] == "DejaVu Sans" and len(FONT.identity["font_digest"]) == 64
    assert BASIC.identity != FONT.identity or FONT.engine == "basic"
    assert len(FONT.coverage) > 5000
    with pytest.raises(InputError, match="no_such"):
        load_font(tmp_path / "no_such.ttf")
    (tmp_path / "text.ttf").write_text("hello")
    with pytest.raises(InputError, match="text.ttf"):
        load_font(tmp_path / "text.ttf")
    with pytest.raises(UsageError, match="basic"):
        load_font(engine="basics")


def test_another_font_draws_other_pixels():
    from importlib.util import find_spec
    from pathlib import Path

    serif = Path(find_spec("matplotlib").submodule_search_locations[0]) / "mpl-data/fonts/ttf/DejaVuSerif.ttf"
    assert not np.array_equal(render("cat", load_font(serif)).pages, render("cat", FONT).pages)


def test_impossible_canvases_are_refused():
    with pytest.raises(UsageError, match="margin = 120"):
        Canvas(margin=120)
    with pytest.raises(UsageError, match="min_px = 20"):
        Canvas(min_px=20, max_px=12)
    with pytest.raises(InputError, match="wider than the canvas"):
        render("Ǆ", FONT, Canvas(size=30, margin=0, min_px=28, max_px=30))


def test_templates_name_the_class():
    texts = class_templates(["traffic_light", "owl"])
    assert texts["owl"][0] == "A photo of an owl." and texts["traffic_light"][0] == "A photo of a traffic light."
    assert all(len(sentences) == len(DEFAULT_TEMPLATES) for sentences in texts.values())
    assert texts["owl"][-1].startswith("An owl ")
    assert class_templates(["x"], ["{name} {name}"]) == {"x": ["X x"]}
    for templates in (["a photo"], []):
        with pytest.raises(UsageError):
            class_templates(["x"], templates)
    with pytest.raises(InputError, match="empty"):
        class_templates(["__"])


def test_contact_sheet_shows_every_page():
    pages = np.stack([np.full((40, 50, 3), value, np.uint8) for value in (0, 60, 120, 180, 240)])
    sheet = np.asarray(contact_sheet(pages, ["a", "b", "c" * 200, "", "é"], columns=2))
    assert sheet.shape == (3 * (40 + 8 + 24) + 8, 2 * 58 + 8, 3)
    for i, value in enumerate((0, 60, 120, 180, 240)):
        x, y = 8 + i % 2 * 58, 8 + i // 2 * 72
        assert np.all(sheet[y : y + 40, x : x + 50] == value)
    assert np.all(sheet[:, -8:] == 226)
    with pytest.raises(InputError, match="2 sizes"):
        contact_sheet([pages[0], pages[0, :20]], ["a", "b"])
    with pytest.raises(InputError, match="0 images"):
        contact_sheet([], [])


@pytest.mark.shared
def test_real_prompts_fit_on_one_page_each(shared_data):
    prompts = json.loads((shared_data / "texts/cifar10_prompts_full.json").read_text())
    texts = [text for sentences in prompts.values() for text in sentences[:5]]
    for text in texts:
        rendering = render(text, FONT)
        assert rendering.n_pages == 1 and joined(rendering) == normalise_text(text)
        assert_within_margin(rendering, Canvas())


@pytest.mark.parametrize("letter", ["f", "j", "V"])
def test_slanted_letters_that_overhang_their_advance_stay_inside(letter):
    from importlib.util import find_spec
    from pathlib import Path

    fonts = Path(find_spec("matplotlib").submodule_search_locations[0]) / "mpl-data/fonts/ttf"
    oblique, canvas = load_font(fonts / "DejaVuSans-Oblique.ttf"), Canvas(size=96, margin=4)
    for n in range(1, 16):
        assert_within_margin(render(letter * n, oblique, canvas), canvas)
