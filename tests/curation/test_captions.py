from __future__ import annotations

from pathlib import Path

import pytest

from curation.captions import clean_caption
from curation.config import BuildConfig
from curation.errors import Rejected

CONFIG = BuildConfig()
REAL = Path(__file__).parents[3] / "shared" / "data" / "laion" / "laion400m-10k.parquet"


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("a <b>red</b> fox<br/> on snow", "a red fox on snow"),
        ("a &lt;i&gt;red&lt;/i&gt; fox &amp; hare", "a red fox & hare"),
        ("<script>alert('x')</script>a red fox", "a red fox"),
        ("a red fox http://evil.example/x?y=1 on snow", "a red fox on snow"),
        ("red fox cushion $24.99 with tassels", "red fox cushion with tassels"),
        ("red fox cushion 24,99 € with tassels", "red fox cushion with tassels"),
        ("a\tred\x00 fox\n", "a red fox"),
        ("a red\u202e fox\u200b", "a red fox"),
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
