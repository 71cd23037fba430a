"""The page: escaped, self-contained, the same bytes each time, written whole or not at all."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from brainmu.errors import InputError, OutputExistsError, StoreError
from brainmu.report import Report
from brainmu.report.figures.style import new_figure


class Page(HTMLParser):
    """Text, tags and the addresses of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.links, self.open = "", [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [v for k, v in attrs if k in ("href", "src", "srcset", "data", "action", "poster") and v]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.text += data


def small_figure():
    fig = new_figure(1.0, 2.0)
    fig.subplots().plot([0, 1], [0, 1])
    return fig


def whole() -> Report:
    r = Report("Title", lead="Lead.")
    r.section("First & <b>", "A paragraph.")
    r.figure(small_figure(), "What it shows. And more.")
    r.figure(small_figure(), "As vector.", vector=True)
    r.subsection("Below")
    r.table(pd.DataFrame({"stage": ["NREM", "REM"], "share": [0.61, -0.0831234]}), caption="Shares.")
    r.warning("one", "two")
    r.note("absent")
    r.verdict("It does.")
    r.section("First & <b>")
    r.comparison([{"quantity": "ripples", "planted": 10, "found": 9, "ok": True}, {"quantity": "x", "planted": 1.0, "found": float("nan"), "ok": None}])
    r.facts({"n": 3, "nothing": None, "empty": ""})
    r.details("Config", {"a": {"b": np.float64(1.5), "c": [1, 2]}})
    return r


def test_a_page_is_balanced_self_contained_and_without_scripts():
    html = whole().html()
    page = Page(html)
    assert page.open == []
    assert not any(tag in ("script", "link", "iframe", "object") for tag, _ in page.tags)
    assert page.links and all(link.startswith(("#", "data:image/")) for link in page.links)
    assert "default-src 'none'" in html and not re.search(r"url\(|@import|https?:", re.sub(r'src="data:[^"]*"', "", html))
    assert "Figure 1." in page.text and "Table 1. Shares." in page.text and "−0.08312" in page.text
    assert "nothing" not in page.text and "empty" not in page.text


def test_contents_point_to_sections_that_exist_once():
    page = Page(whole().html())
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert ids == ["first-b", "below", "first-b-2"] and [x for x in page.links if x.startswith("#")] == ["#first-b", "#below", "#first-b-2"]


def test_images_have_words_and_twice_the_pixels():
    page = Page(whole().html())
    png, svg = [a for tag, a in page.tags if tag == "img"]
    assert png["alt"] == "What it shows" and svg["alt"] == "As vector."
    image = Image.open(io.BytesIO(base64.b64decode(png["src"].split(",")[1])))
    assert image.size == (400, 200) and png["width"] == "200" and len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 2
    assert b"<svg" in base64.b64decode(svg["src"].split(",")[1])


def test_rare_colours_keep_their_hue_in_the_palette():
    fig = new_figure(3.0, 6.0)
    ax = fig.subplots()
    ax.imshow(np.random.default_rng(0).uniform(size=(60, 120)), cmap="viridis", aspect="auto")
    ax.plot([3, 4], [3, 4], color="#b5437f", linewidth=3)  # a few pixels among a thousand colours
    r = Report("t")
    r.figure(fig, "x")
    image = Image.open(io.BytesIO(base64.b64decode(Page(r.html()).links[0].split(",")[1])))
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    assert np.abs(pixels - (0xB5, 0x43, 0x7F)).max(1).min() <= 8 and (pixels == 255).all(1).any()


def test_same_calls_same_bytes():
    assert whole().html() == whole().html()


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_nothing_a_user_writes_becomes_markup(a, b):
    nasty = f"{a}<script>alert(1)</script>\"'>&{b}"
    r = Report("x" + nasty, lead=nasty)
    r.section("x" + nasty, nasty)
    r.subsection(nasty, nasty)
    r.table([[nasty, 1]], columns=[nasty, "n"], caption=nasty)
    r.warning(nasty)
    r.note(nasty, "b")
    r.verdict(nasty)
    r.facts({nasty: nasty})
    r.details(nasty, nasty)
    r.comparison([{"quantity": nasty, "planted": nasty, "found": nasty, "note": nasty}])
    page = Page(r.html())
    assert not any(tag == "script" or any(k.startswith("on") for k in attrs) for tag, attrs in page.tags)
    assert page.open == []


def test_captions_are_escaped_in_the_alt_text_too():
    r = Report("t")
    r.figure(small_figure(), 'Say "x" & <y>')
    assert next(a for tag, a in Page(r.html()).tags if tag == "img")["alt"] == 'Say "x" & <y>'


def test_wrong_tables_and_titles_are_refused():
    r = Report("t")
    with pytest.raises(InputError, match=r"has 1 cells, expected 2 \(a, b\)"):
        r.table([["x"]], columns=["a", "b"])
    with pytest.raises(InputError, match="expected also found, planted"):
        r.comparison([{"quantity": "x"}])
    with pytest.raises(InputError, match="empty title"):
        Report("  ")


def test_writing_refuses_what_is_there_and_leaves_nothing_half_written(tmp_path):
    r, out = whole(), tmp_path / "deep" / "r.html"
    assert r.write(out) == out and out.read_text() == r.html()
    with pytest.raises(OutputExistsError, match="pass --overwrite"):
        r.write(out)
    r.write(out, overwrite=True)
    with pytest.raises(InputError, match=r"ends in \.html"):
        r.write(tmp_path / "r.pdf")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(OutputExistsError, match="is a folder"):
        r.write(tmp_path / "folder.html", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        r.write(tmp_path / "file" / "r.html")
    assert sorted(p.name for p in out.parent.iterdir()) == ["r.html"]
