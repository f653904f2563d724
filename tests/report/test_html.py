"""A page in one file."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

from volseg.report.html import Page


class Reader(HTMLParser):
    """Open tags that were never closed, texts, and what a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_page_is_whole_escapes_its_texts_and_loads_nothing() -> None:
    page = Page("A & <b>", "sub")
    page.heading("Scores")
    page.paragraph("x < y")
    page.table(("", "Mean"), [["left <i>", "0.5"]])
    page.picture(b"\x89PNG fake", 'a "quoted" case')
    page.folded("recipe", "a: <1>\nb: 2")
    text = page.render()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    for shown in ("A & <b>", "x < y", "left <i>", "0.5", 'a "quoted" case', "a: <1>\nb: 2"):
        assert shown in reader.texts
    (picture,) = reader.loads
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")) == b"\x89PNG fake"
    assert not re.search(r"https?:|@import|url\(", text)
