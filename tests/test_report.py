"""The report: one page that shows everything, loads nothing and never breaks."""

import json
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pytest

from helpers import claims, figures, report


class Page(HTMLParser):
    """Tags with their attributes, text, and whether every tag was closed in order."""

    VOID = {"meta", "link", "img", "br", "path", "circle", "rect"}

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def make_page(folder, provenance=None):
    html = report.write(folder, provenance or {}).read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open
    return html, page


def make_figure(folder, name="bars", caption="Caption", alt="Alt", data=None):
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1])
    where = {"notebook": "00_meet_the_scenes", "profile": "demo"}
    return figures.save(
        fig, name, folder=folder / "figures", caption=caption, alt=alt, data=data, **where
    )


def make_run(folder, notebook="00_meet_the_scenes", **fields):
    run = {"notebook": notebook, "state": "ok", "seconds": 94.2, "peak_mib": 2048, "error": None}
    path = folder / "runs" / f"{notebook}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**run, "finished": "2030-01-31T10:00:00+00:00", **fields}))


def judge(folder, claim="p1-black-lowers-validation", measured=(10.0, 11.0, 12.0), **options):
    options = {"profile": "demo", "notebook": "01_background_removal", **options}
    return claims.judge(claim, measured, folder=folder / "claims", **options)


def test_an_empty_or_missing_folder_says_so(tmp_path):
    for folder in (tmp_path / "new" / "demo", tmp_path):
        _, page = make_page(folder)
        for words in ("No notebook", "No figure", "No claim", "Nothing was recorded"):
            assert words in page.text


def test_a_full_page_shows_runs_figures_claims_and_provenance(tmp_path):
    make_run(tmp_path)
    make_figure(tmp_path, alt="A rising line", data={"x": [1, 2]})
    judge(tmp_path)
    html, page = make_page(tmp_path, {"commit": "abc123", "device": "cpu"})
    for words in (
        "00 · Meet the scenes",
        "1 min 34 s",
        "2.0 GiB",
        "2030-01-31 10:00 UTC",
        "completed",
        "Caption",
        "11.26 points",
        "11.0 [8.5, 13.5] points",
        "n = 3 seeds",
        "Section V, Table I",
        "Reproduced",
        "abc123",
    ):
        assert words in page.text
    [image] = page.all("img")
    assert image["alt"] == "A rising line"
    [download] = [a for a in page.all("a") if "download" in a]
    assert download["href"].startswith("data:application/json;base64,")


def test_the_page_loads_nothing_from_outside(tmp_path):
    make_figure(tmp_path)
    judge(tmp_path)
    html, page = make_page(tmp_path)
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "poster"):
            assert attrs.get(name, "#").startswith(("data:", "#"))
    assert not re.search(r"@import|url\(|https?://", html)
    targets = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    for link in page.all("a"):
        if link["href"].startswith("#"):
            assert link["href"][1:] in targets


def test_ids_are_unique_and_language_and_viewport_are_set(tmp_path):
    for name in ("one", "two"):
        make_figure(tmp_path, name)
    make_run(tmp_path)
    judge(tmp_path)
    _, page = make_page(tmp_path)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert page.all("html")[0]["lang"] == "en"
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    assert [tag for tag, _ in page.tags if tag in ("h1", "h2")][0] == "h1"


def test_a_failed_notebook_shows_its_error_and_markup_is_escaped(tmp_path):
    make_run(tmp_path, state="failed", error="ValueError: <script>alert(1)</script> & more")
    make_figure(tmp_path, caption="<img src=x onerror=boom> & 'quotes'", alt='"><script>x</script>')
    judge(tmp_path, measured=None, because="<b>no data</b>")
    html, page = make_page(tmp_path, {"<i>": "</table>"})
    assert "1 of them failed" in page.text
    assert "ValueError: <script>alert(1)</script> & more" in page.text
    assert [a for a in page.all("img") if "onerror" in a] == []
    assert page.all("img")[0]["alt"] == '"><script>x</script>'
    assert len(page.all("script")) == 1
    assert page.all("b") == page.all("i") == []


@pytest.mark.parametrize(
    "content", [b"", b'{"a": ', b"[]", b"3", b"{}", b"\xff\xfe\x00", b'{"notebook": null}']
)
@pytest.mark.parametrize("kind", ["figures", "claims", "runs"])
def test_a_damaged_record_is_named_and_the_rest_is_shown(tmp_path, kind, content):
    make_run(tmp_path, "05_good")
    make_figure(tmp_path, caption="The good figure")
    judge(tmp_path)
    (tmp_path / kind / "damaged.json").write_bytes(content)
    _, page = make_page(tmp_path)
    assert f"{kind}/damaged.json" in page.text
    for words in ("05 · Good", "The good figure", "11.26 points"):
        assert words in page.text


def test_a_missing_or_damaged_picture_keeps_its_caption_and_description(tmp_path):
    make_figure(tmp_path, "gone", caption="First", alt="Alt one").png.unlink()
    broken = make_figure(tmp_path, "broken", caption="Second", alt="Alt two").png
    broken.write_bytes(broken.read_bytes()[:200])
    _, page = make_page(tmp_path)
    for words in ("gone.png is missing", "broken.png is damaged", "First", "Second", "Alt one"):
        assert words in page.text
    assert page.all("img") == []


def test_figures_stand_in_the_order_they_were_saved(tmp_path):
    for name in ("zebra", "apple"):
        make_figure(tmp_path, name, caption=f"The {name}")
    _, page = make_page(tmp_path)
    assert page.text.index("The zebra") < page.text.index("The apple")


def test_verdicts_are_told_by_word_and_sign_not_by_colour_alone(tmp_path):
    judge(tmp_path)
    judge(tmp_path, "p3-precision", [0.9, 0.8, 0.85])
    judge(tmp_path, "p4-backgrounds-suffice", [40.0, 41.0])
    judge(tmp_path, "p1-people-prefer", None)
    judge(tmp_path, "p1-mixed-lowers-validation", [-1.0, 3.0, 2.0])
    html, page = make_page(tmp_path)
    for verdict in claims.VERDICTS:
        assert f"1 {verdict}" in page.text
        assert verdict.capitalize() in page.text
    signs = re.findall(r'<svg class="icon".*?</svg>', html)
    assert len(signs) == 10  # in the tally and in the table
    assert len(set(signs)) == 5
    strips = re.findall(r'class="strip"[^>]*aria-label="([^"]+)"', html)
    assert any(s.startswith("Paper: 11.26 points. Ours: 11.0") for s in strips)


def test_claims_that_were_not_judged_are_listed(tmp_path):
    judge(tmp_path)
    _, page = make_page(tmp_path)
    assert f"{len(claims.load()) - 1} declared claims without a judgement" in page.text


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (119.8, "2 min 0 s"), (7260, "2 h 1 min")]
)
def test_durations_read_naturally(seconds, words):
    assert report._duration(seconds) == words
