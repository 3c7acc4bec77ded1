from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import pytest

from curation import build_pairs
from curation.output import report
from curation.output.writer import Layout
from tests.curation.conftest import encoded, picture, row, write_tar
from tests.curation.test_build import config

HOSTILE = (
    "a red fox</script><script>alert(1)</script> and a <b>blue</b> car {{7*7}} &amp;lt;img src=x onerror=alert(2)>"
)


class Tags(html.parser.HTMLParser):
    """Every element of a page, as a browser would see it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    from tests.curation.conftest import EveryPhraseGrounder

    folder = tmp_path_factory.mktemp("report")
    rows = [row(index) for index in range(12)]
    rows += [
        row(12, json_caption=HOSTILE),
        row(13, json_caption=HOSTILE, jpg=b"x"),
        row(14, jpg=encoded(picture(3), "PNG")),  # near duplicate of row 3
        row(15, json_punsafe=0.99),
    ]
    write_tar(folder / "in" / "0.tar", rows)
    build_pairs(config(folder / "in", folder / "out"), EveryPhraseGrounder())
    return (folder / "out" / "report.html").read_text(), (folder / "out" / "pairs.html").read_text()


def test_captions_never_become_markup(pages: tuple[str, str]):
    for page, scripts in zip(pages, (0, 2), strict=True):
        tags = Tags(page).found
        assert sum(tag == "script" for tag, _ in tags) == scripts  # the page's own
        assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
        assert "{{7*7}}" in page and "<script>alert" not in page


def test_nothing_is_requested_from_elsewhere(pages: tuple[str, str]):
    for page in pages:
        addresses = [a[name] or "" for _, a in Tags(page).found for name in ("src", "href") if name in a]
        known = ("report.html", "pairs.html", "data:,")  # the last is no icon
        assert all(a.startswith("data:image/jpeg;base64,") or a in known for a in addresses)
        assert not re.search(r"url\(|@import", page)


def test_reasons_have_pictures_except_where_they_must_not_be_shown(pages: tuple[str, str]):
    def cell(reason: str) -> str:
        match = re.search(rf"<td>{reason}</td>.*?</tr>", pages[0], re.DOTALL)
        assert match, reason
        return match.group()

    assert "data:image/jpeg" in cell("duplicate near")
    assert "data:image/jpeg" not in cell("image unreadable")
    assert "data:image/jpeg" not in cell("unsafe score") and "on a table" in cell("unsafe score")


def test_the_pairs_to_browse_carry_their_boxes(pages: tuple[str, str]):
    match = re.search(r'<script id="data" type="application/json">(.*?)</script>', pages[1], re.DOTALL)
    assert match
    pairs = json.loads(match.group(1))
    assert len(pairs) > 30
    for pair in pairs:
        left, top, width, height = pair["box"]
        assert 0 <= left < 100 and 0 <= top < 100 and width > 0 and height == pytest.approx(80, abs=0.1)
        assert pair["phrase"].split()[-1] == pair["concept"]


def test_funnel_and_distributions_are_there(pages: tuple[str, str]):
    for words in (
        "Funnel",
        "Most frequent concepts",
        "Most frequent phrases",
        "Words in a phrase",
        "score of the pairs",
    ):
        assert words in pages[0]
    assert "similarity of the pairs" in pages[0]  # a column that the corpus has


def test_pages_stay_small_for_a_large_build(corpus: Path, tmp_path: Path, grounder, monkeypatch):
    monkeypatch.setattr(report, "BROWSED_PAIRS", 10)
    build_pairs(config(corpus, tmp_path / "out"), grounder)
    assert (tmp_path / "out" / "pairs.html").read_text().count('"picture"') == 10
    rows = report.sample_rows(Layout(tmp_path / "out", 3), 0)
    assert len({r["key"][:5] for r in rows}) > 1  # from more than one shard
