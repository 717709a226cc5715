"""Pages of pictures that need nothing but themselves."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

from emcache_warehouse.report.content import Picture, Section
from emcache_warehouse.report.page import report_page

EVIL = "<script>alert('x')</script> & \"quotes\""


class Reader(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.text = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def page():
    one = Picture(b"\x89PNG one", "slice 0", "outlines on slice 0")
    more = [Picture(b"two", EVIL, EVIL), Picture(b"three", "c", "a")]
    sections = [Section("sharp", "sharp", pictures=[one]), Section("evil", EVIL, pictures=more)]
    return Reader(report_page("Demo", f"Lede {EVIL}", sections, {"Scores": "iou.html", EVIL: EVIL}))


def test_pictures_are_inlined_with_alternative_texts():
    first, *others = page().all("img")
    assert first["src"] == "data:image/png;base64," + base64.b64encode(b"\x89PNG one").decode()
    assert first["alt"] == "outlines on slice 0"
    assert [picture["alt"] for picture in others] == [EVIL, "a"]


def test_nothing_is_fetched_and_nothing_runs():
    read = page()
    assert read.all("script") == read.all("link") == read.all("iframe") == []
    assert all(picture["src"].startswith("data:") for picture in read.all("img"))


def test_every_string_is_escaped():
    read = page()
    text = "".join(read.text)
    assert text.count(EVIL) == 5
    links = [link["href"] for link in read.all("a")]
    assert links == ["#sharp", "#sharp", "#evil", "iou.html", EVIL]


def test_headings_group_the_pictures_in_order():
    read = page()
    assert [tag for tag, _ in read.tags if tag in ("h1", "h2", "img")] == [
        "h1",
        "h2",
        "img",
        "h2",
        "img",
        "img",
    ]


def test_it_follows_light_and_dark():
    assert "prefers-color-scheme: dark" in report_page("t", "l", [])
