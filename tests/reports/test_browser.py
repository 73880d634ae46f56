"""The page in a real browser: nothing fetched, nothing logged, nothing cut off, readable, and reachable by keyboard.

Needs playwright and a Chromium, which are found or the tests are skipped; nothing is downloaded.
"""

import shutil

import numpy as np
import pytest

from cmgl_cli.reports import Figure, Section, Table, build_page, confusion_figure, png

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCHEMES = ("light", "dark")
ENOUGH_CONTRAST = 4.5

CONTRASTS = """() => {
  const linear = share => share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  const channel = value => linear(value / 255);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const ground = element => {
    for (let one = element; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent).join("").trim();
    if (!text) continue;
    const [a, b] = [light(numbers(getComputedStyle(element).color)), light(ground(element))];
    found.push([element.tagName + ": " + text.slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
  }
  return found;
}"""
UNREACHABLE = """() => [...document.querySelectorAll("a[href], summary, .scroll, .picture")]
  .filter(one => one.tabIndex < 0).length"""
CUT_OFF = """() => [...document.querySelectorAll("body *")].filter(one =>
  one.getBoundingClientRect().right > document.documentElement.clientWidth + 1
  && !one.closest(".scroll, .picture")).map(one => one.outerHTML.slice(0, 80))"""


def example() -> str:
    """Return a page with every kind of part, and texts that are hard to fit."""
    long = "averylongwordwithoutanyplacetobreak" * 3
    table = Table(
        ["method", "accuracy", "a rather long heading of a column"], [[long, "95.2 ± 0.2", "/a/b/" + long]], "t"
    )
    folded = Table(["class", "IoU"], [["cat", "0.5"]], "Class by class", emphasised=[0], folded=True)
    picture = png(confusion_figure(np.eye(3, dtype=int), "abc"), dpi=60)
    figures = [Figure(f"f{i}", picture, f"figure {i}", "A figure.", "How to read it.", photo=bool(i)) for i in range(2)]
    part = Section("A part", ["text"], [folded], points=["one", "two"], listing="a\n└─ b  " + "0" * 120)
    sections = [Section("First", ["text " + long], [table], figures), Section("Second", parts=[part]), Section("Third")]
    return build_page("A page", sections, subtitle="What came out", facts={"file": "/a/" + long})[0]


@pytest.fixture(scope="module")
def browser():
    """Return a headless browser, or skip with the reason."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser found: none of {', '.join(BROWSERS)} is on the path")
    with playwright.sync_playwright() as driver:
        try:
            opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"{path} does not start: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(example(), encoding="utf-8")
    return path.as_uri()


def opened(browser, address, *, width=1200, scheme="light"):
    """Open the page and collect what it logs and fetches."""
    page = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on(
        "request", lambda request: heard.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    page.goto(address)
    return page, heard


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_fetched_logged_or_cut_off(browser, address, width, scheme):
    page, heard = opened(browser, address, width=width, scheme=scheme)
    assert heard == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT_OFF) == []
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_stands_out_from_its_ground(browser, address, scheme):
    page, _ = opened(browser, address, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = page.evaluate(CONTRASTS)
    assert len(found) > 20
    assert [(text, round(ratio, 2)) for text, ratio in found if ratio < ENOUGH_CONTRAST] == []


def test_a_screen_reader_finds_its_way(browser, address):
    page, _ = opened(browser, address)
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(one => Number(one.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False)), levels
    assert page.evaluate("[...document.images].every(image => image.alt.trim().length > 0)")
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("[...document.querySelectorAll('[role=region]')].every(one => one.getAttribute('aria-label'))")
    assert page.evaluate(
        "[...document.querySelectorAll('a')].every(a => document.querySelector(a.getAttribute('href')))"
    )


def test_everything_is_reached_by_keyboard(browser, address):
    page, _ = opened(browser, address)
    assert page.evaluate(UNREACHABLE) == 0
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.tagName + ' ' + document.activeElement.className"))
    names = {one.split()[0] for one in seen}
    assert {"A", "SUMMARY", "DIV"} <= names
    page.focus("summary")
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('details').open")


def test_dark_pages_turn_drawings_round_but_not_photographs(browser, address):
    page, _ = opened(browser, address, scheme="dark")
    filters = page.evaluate("[...document.images].map(image => getComputedStyle(image).filter)")
    assert "invert" in filters[0] and filters[1] == "none"
