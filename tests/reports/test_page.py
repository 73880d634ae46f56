"""The page: self-contained, escaped, accessible; and a Markdown twin that says the same."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from cmgl_cli.errors import InputError
from cmgl_cli.reports import Figure, Section, Table, build_page, confusion_figure, png

PNG = png(confusion_figure(np.eye(2, dtype=int), "ab"), dpi=40)
TABLE = Table(
    ["method", "accuracy", "NLL", "note"],
    [["graph | mine", "95.2 ± 0.2", "0.18", "k=5"], ["<i>kNN</i>", "-", "1e-3", "7"], ["x", "<1 %", "−2", "slow"]],
    caption="three seeds",
    emphasised=[0],
)
SECTIONS = [
    Section("Result", ["a <script>alert(1)</script> & *b*"], [TABLE]),
    Section("Result", figures=[Figure("conf", PNG, 'alt "quoted" <b>', "caption")]),
    Section("Ω?", ["end"]),
]


class Reader(HTMLParser):
    """Collects tags with attributes, and checks that every element is closed in order."""

    VOID = {"meta", "img", "wbr", "link", "br"}

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.stack: list[str] = []
        self.feed(html)
        assert not self.stack, f"unclosed: {self.stack}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page() -> tuple[str, str]:
    facts = {"weights": "a/b.h5", "seed": "0"}
    return build_page("T & <t>", SECTIONS, subtitle="one *line*", facts=facts)


def test_html_is_well_formed_and_needs_nothing_else(page: tuple[str, str]) -> None:
    reader = Reader(page[0])
    assert "script" not in {tag for tag, _ in reader.tags}
    for _, attributes in reader.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert "http" not in page[0] and "url(" not in page[0] and "@import" not in page[0]
    assert "prefers-color-scheme: dark" in page[0]
    assert any(attributes.get("name") == "viewport" for tag, attributes in reader.tags if tag == "meta")


def test_text_arrives_as_written(page: tuple[str, str]) -> None:
    text = Reader(page[0]).text
    for words in (
        "a <script>alert(1)</script> & *b*",
        "<i>kNN</i>",
        "T & <t>",
        "graph | mine",
        "three seeds",
        "a/b.h5",
    ):
        assert words in text


def test_pictures_are_inlined_whole_with_alternative_text(page: tuple[str, str]) -> None:
    (image,) = [attributes for tag, attributes in Reader(page[0]).tags if tag == "img"]
    assert image["alt"] == 'alt "quoted" <b>'
    assert base64.b64decode(image["src"].split(",")[1]) == PNG


def test_anchors_are_unique_and_linked(page: tuple[str, str]) -> None:
    tags = Reader(page[0]).tags
    identifiers = [attributes["id"] for tag, attributes in tags if tag == "h2"]
    links = [attributes["href"][1:] for tag, attributes in tags if tag == "a"]
    assert identifiers == links == ["result", "result-2", "section"]


def test_number_columns_are_found_and_set_right(page: tuple[str, str]) -> None:
    assert TABLE.numeric == [False, True, True, False]
    right = ["number" in attributes.get("class", "") for tag, attributes in Reader(page[0]).tags if tag in ("th", "td")]
    assert right[:8] == [False, True, True, False] * 2
    assert Table(["a"], [["-"], [""]]).numeric == [False]


@pytest.mark.parametrize(
    "cell", ["12", "1,234.5", "95.2 %", "95.2%", "0.18", "1.2e-5", "3.4 s", "94.1 ± 0.3", "+2", "< 0.1"]
)
def test_numbers_are_recognised(cell: str) -> None:
    assert Table(["x"], [[cell]]).numeric == [True]


@pytest.mark.parametrize("cell", ["k=5", "5 neighbours", "cosine", "1-2", "2026-01-01"])
def test_other_text_is_not_a_number(cell: str) -> None:
    assert Table(["x"], [[cell]]).numeric == [False]


def test_markdown_twin(page: tuple[str, str]) -> None:
    markdown = page[1]
    lines = markdown.splitlines()
    assert lines[0] == r"# T & \<t\>"
    assert "| --- | ---: | ---: | --- |" in lines
    assert r"| **graph \| mine** | **95.2 ± 0.2** | **0.18** | **k=5** |" in lines
    assert '![alt "quoted" \\<b\\>](figures/conf.png)' in lines
    assert "\n\n\n" not in markdown and not re.search(r" $", markdown, re.M)
    table = lines.index("| --- | ---: | ---: | --- |")
    assert lines[table - 2] == "" and lines[table + 4] == "", "a table must stand between blank lines"


def test_without_extras_there_are_no_empty_parts() -> None:
    html, markdown = build_page("T", [Section("Only", ["x"])])
    tags = {tag for tag, _ in Reader(html).tags}
    assert not tags & {"nav", "dl", "figure", "table"}
    assert markdown == "# T\n\n## Only\n\nx\n"


def test_is_deterministic(page: tuple[str, str]) -> None:
    facts = {"weights": "a/b.h5", "seed": "0"}
    assert build_page("T & <t>", SECTIONS, subtitle="one *line*", facts=facts) == page


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: Table(["a", "b"], [["1", "2"], ["1"]]), "row 1: 1 cells for 2 columns"),
        (lambda: Figure("../x", PNG, "alt"), "'../x'"),
        (lambda: Figure("x", b"GIF89a", "alt"), "must be PNG"),
        (lambda: Figure("x", PNG, " "), "alternative text"),
        (
            lambda: build_page("t", [Section("h", figures=[Figure("x", PNG, "a"), Figure("x", PNG, "b")])]),
            "share a name",
        ),
    ],
)
def test_refuses_what_would_break_the_page(build, named: str) -> None:
    with pytest.raises(InputError) as caught:
        build()
    assert named in str(caught.value)
