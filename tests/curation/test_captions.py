from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from curation import build_pairs
from curation.config import BuildConfig
from curation.errors import Rejected
from curation.language.captions import clean_caption
from tests.curation.conftest import row, write_tar

CONFIG = BuildConfig()
REAL = Path(__file__).parents[3] / "shared" / "data" / "laion" / "laion400m-10k.parquet"


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("a <b>red</b> fox<br/> on snow", "a red fox on snow"),
        ("a &lt;i&gt;red&lt;/i&gt; fox &amp; hare", "a red fox & hare"),
        ("a fox &amp;amp; a hare", "a fox & a hare"),
        ("a fox &amp;amp;amp;amp; a hare", "a fox & a hare"),
        ("a fox&amp;#39;s &amp;quot;red&amp;quot; tail", 'a fox\'s "red" tail'),
        ("a &amp;lt;b&amp;gt;red&amp;lt;/b&amp;gt; fox", "a red fox"),
        ("a red &amp;nbsp; fox &ampamp; hare", "a red fox & hare"),
        ("<script>alert('x')</script>a red fox", "a red fox"),
        ("a red fox http://evil.example/x?y=1 on snow", "a red fox on snow"),
        ("red fox cushion $24.99 with tassels", "red fox cushion with tassels"),
        ("red fox cushion 24,99 € with tassels", "red fox cushion with tassels"),
        ("a\tred\x00 fox\n", "a red fox"),
        ("a red\u202e fox\u200b", "a red fox"),
        ("\ufeffa red fox", "a red fox"),
        ("a cafe\u0301 table", "a café table"),
        ("I <3 my dog", "I <3 my dog"),
    ],
)
def test_dirt_is_cleaned_away(dirty: str, clean: str):
    assert clean_caption(dirty, CONFIG) == clean


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("", "caption_empty"),
        ("<p></p>", "caption_empty"),
        ("https://example.com/a.jpg", "caption_empty"),
        ("red_fox-in-snow_01.JPG", "caption_file_name"),
        ("IMG_20190203_1122", "caption_file_name"),
        ("fox", "caption_too_short"),
        ("a red fox " * 200, "caption_too_long"),
        ("fox, snow, animal, red, winter, wild, cute, forest", "caption_keyword_list"),
        ("un renard roux dans la neige avec des arbres", "caption_not_english"),
        ("лиса на снегу в лесу", "caption_not_english"),
        ("ثعلب أحمر في الثلج", "caption_not_english"),
    ],
)
def test_hopeless_captions_have_a_reason(caption: str, reason: str):
    with pytest.raises(Rejected) as rejection:
        clean_caption(caption, CONFIG)
    assert rejection.value.reason == reason


@pytest.mark.parametrize(
    "piece", ["x", "<script>", "<a", "a@", "\u0301", "&lt;", "\u202e", "$1,", "www.", "\x00", "ثعلب "]
)
def test_a_caption_of_a_megabyte_is_refused_at_once(piece: str):
    with pytest.raises(Rejected, match="caption_too_long"):
        clean_caption(piece * (1_000_000 // len(piece)), CONFIG)


@pytest.mark.parametrize(
    "piece", ["<script>", "<a", "a@", "@", "\u0301", "&lt;", "&#x", "$1,", "www.", "a-", "1 ", "a.jpg"]
)
def test_no_caption_that_is_read_takes_long(piece: str):
    """A regular expression that backtracks would take minutes."""
    start = time.perf_counter()
    with suppress(Rejected):
        clean_caption(piece * (CONFIG.max_caption_chars // len(piece)), CONFIG)
    assert time.perf_counter() - start < 2


HOSTILE = {
    "of a megabyte": ("x" * 1_000_000, "caption_too_long"),
    "control characters": ("\x00\x01\x1b[31m\x7f", "caption_too_short"),
    "right to left": ("\u202eثعلب أحمر في الثلج", "caption_not_english"),
    "script": ("<script>alert(1)</script>", "caption_empty"),
    "half a surrogate pair": ("a red fox \ud83e on snow", "row_not_utf8"),
    "noncharacters": ("\uffff\ufdd0\U0010ffff", "caption_empty"),
    "not UTF-8": (b"a caf\xe9 in Paris", "row_not_utf8"),
}


def test_hostile_captions_are_counted_reasons_of_a_build(tmp_path: Path, grounder):
    rows = [row(0)]
    for index, (text, _) in enumerate(HOSTILE.values(), start=1):
        plain = isinstance(text, bytes)
        rows.append(
            row(index, txt=text if plain else b"", json=json.dumps({} if plain else {"caption": text}).encode())
        )
    write_tar(tmp_path / "in" / "00000.tar", rows)
    tally = build_pairs(BuildConfig(input=str(tmp_path / "in"), output=str(tmp_path / "out")), grounder).tally
    assert tally.row_reasons == Counter(reason for _, reason in HOSTILE.values())
    assert tally.rows_kept == 1 and tally.rows_read == 1 + len(HOSTILE)
    report = (tmp_path / "out" / "report.html").read_text()
    assert "<script>alert(1)" not in report


@pytest.mark.skipif(not REAL.is_file(), reason=f"no real captions at ../shared/data/laion/{REAL.name}")
def test_real_captions_give_phrases_inside_them(extractor):
    import pyarrow.parquet as pq

    captions = []
    for raw in pq.read_table(REAL, columns=["TEXT"])["TEXT"].to_pylist()[:400]:
        try:
            captions.append(clean_caption(raw or "", CONFIG))
        except Rejected:
            continue
    assert len(captions) > 340  # most of LAION is readable
    found = [phrase for e in extractor(captions) for phrase in e.phrases]
    assert len(found) > len(captions)
    for caption, extraction in zip(captions, extractor(captions), strict=True):
        for phrase in extraction.phrases:
            assert caption[phrase.start : phrase.end] == phrase.text
            assert phrase.head in phrase.text
            assert phrase.text == phrase.text.strip(" ,.:;'\"-()")
