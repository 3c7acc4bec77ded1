"""Any corpus ends in rows and counted reasons, or in one line: names, captions, rows, headers, metadata blocks."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from curation.config import BuildConfig
from curation.errors import Rejected, UserError
from curation.filters import check_scores
from curation.language.captions import clean_caption
from curation.language.concepts import names
from curation.language.phrases import PhraseExtractor
from curation.pipeline import ShardMiner
from curation.records import BadRow, Sample
from curation.safety import MISSING, SAFE, as_probability, normal
from curation.sources import open_source
from curation.sources.dialects import find_columns, to_sample
from curation.sources.names import group_rows, is_hidden, is_picture
from curation.vision.images import decode
from tests.curation.blocks import DISPLAY_P3, ORIENTATION, exif, profile
from tests.curation.conftest import EveryPhraseGrounder, encoded, picture

CONFIG = BuildConfig()
PICTURE = picture(1, 48, 40)
PNG = encoded(PICTURE, "PNG")

WORDS = [
    "a red fox",
    "hot-dog",
    "&amp;amp;",
    "<b>",
    "two-seater",
    "teddy‑bear",
    "’",
    "-",
    "—",
    "12",
    "é",
    "e\u0301",
    "狐",
]
captions = st.lists(st.sampled_from(WORDS) | st.sampled_from(WORDS) | st.text(max_size=12), max_size=12).map(" ".join)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
SAID = ["NSFW", "unlikely ", "Mature", "0,99", "97%", "None", "ＮＳＦＷ", "safe?", "1e999", "s", ""]
said = st.sampled_from(SAID) | scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(max_size=3), scalars)
KEYS = [
    "url",
    "URL",
    "caption",
    "TEXT ",
    "nsfw",
    "NSFW",
    "is_safe",
    "punsafe",
    "pwatermark",
    "file_name",
    "image",
    "status",
]
rows = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), said | captions, max_size=6)
PARTS = [
    "0",
    "a",
    "é",
    "e\u0301",
    ".",
    "..",
    "jpg",
    "JPG",
    "png",
    "txt",
    "json",
    "tiff",
    "mask",
    " ",
    "_",
    "__MACOSX",
    "/",
    "*",
]
file_names = st.lists(st.sampled_from(PARTS), min_size=1, max_size=7).map("".join)
contents = st.sampled_from([PNG, b"", b"a red fox", b'{"nsfw": 1}', b'{"text": "x"}', b"\xff\xfe\0"])
texts = st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
KINDS = ["csv", "tsv", "jsonl", "csv.gz", "parquet", "tar"]
HEADS = [b"", b"URL,TEXT,NSFW\n", b'\xef\xbb\xbf"url"\t"text"\n', b'{"url": "u", "text": "t"}\n', b"PAR1"]
TAGS = [0x0112, 0x010F, 0x011A, 0x8769, 0x8825, 0x9286, 0x927C]


@pytest.fixture(scope="session")
def extractor() -> PhraseExtractor:
    return PhraseExtractor(CONFIG)


@given(caption=captions | st.text(max_size=80))
@example(caption="&amp;amp;lt;b&amp;amp;gt;a hot-dog's teddy-bear -- two-seater-sofa")
def test_captions(caption: str, extractor: PhraseExtractor, outcomes: Counter[str]):
    try:
        text = clean_caption(caption, CONFIG)
    except Rejected as rejection:
        outcomes[rejection.reason] += 1
        return
    text.encode()
    found = extractor([text])[0]
    for phrase in found.phrases:
        assert text[phrase.start : phrase.end] == phrase.text and phrase.head in phrase.text
        assert phrase.noun in phrase.text and phrase.concept
        assert names(phrase.text, phrase.head, phrase.concept)[0] == phrase.concept
    outcomes["with phrases" if found.phrases else "without a phrase"] += 1
    extractor.forget()


@given(column=st.sampled_from(["nsfw", "NSFW ", "punsafe", "Safety", "unsafe"]), value=said)
def test_safety_values(column: str, value: object, outcomes: Counter[str]):
    """What passes says nothing, is a word that is known to be safe, or a number that is low enough."""
    row = {"url": "u", "caption": "c", column: value}
    sample = to_sample(row, find_columns(tuple(row)), key="k", max_image_bytes=9)
    if isinstance(sample, BadRow):
        outcomes[sample.reason] += 1
        return
    try:
        check_scores(sample, CONFIG)
    except Rejected as rejection:
        outcomes[rejection.reason] += 1
        return
    for single in value if isinstance(value, list) else [value]:
        text = str(single).encode("utf-8", "backslashreplace").decode()
        number = as_probability(text)
        known = single is None or normal(text) in MISSING | SAFE
        assert known or (number is not None and number <= CONFIG.max_punsafe)
    outcomes["passes"] += 1


@given(found=st.lists(file_names, max_size=12))
def test_names_are_grouped(found: list[str], outcomes: Counter[str]):
    """Every picture is in one row."""
    groups = list(group_rows((name, name) for name in found))
    placed = [name for group in groups for suffix, name in group.parts.items() if is_picture(f"x.{suffix}")]
    assert sorted(placed) == sorted(filter(is_picture, found))
    outcomes.update(group.reason or "row" for group in groups)


@given(members=st.lists(st.tuples(file_names, contents), max_size=9))
def test_tars_of_any_names(members: list[tuple[str, bytes]], outcomes: Counter[str]):
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(f"{folder}/a.tar", "w") as tar:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        items = read(folder, "laion", outcomes)
    there = sum(is_picture(name.rstrip("/")) and not is_hidden(name) for name, _ in members)
    assert there <= len(items)


@given(members=st.lists(st.tuples(file_names, contents), min_size=1, max_size=9))
def test_folders_of_any_names(members: list[tuple[str, bytes]], outcomes: Counter[str]):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in members:
            path = Path(folder, "in", name.strip("/"))
            if ".." in PurePosixPath(name).parts or path.is_dir() or any(parent.is_file() for parent in path.parents):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        files = [
            path.relative_to(f"{folder}/in").as_posix() for path in Path(folder, "in").rglob("*") if path.is_file()
        ]
        items = read(f"{folder}/in", "folder", outcomes)
    assert len(items) == sum(is_picture(name) and not is_hidden(name) for name in files)


@given(
    lines=st.lists(rows.map(json.dumps) | st.text(max_size=20), max_size=8),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_lists_of_any_objects(lines: list[str], encoding: str, outcomes: Counter[str]):
    """Each line that is not blank is a row or a reason."""
    lines = [line.replace("\n", " ").replace("\r", " ") for line in ['{"url": "u", "text": "t"}', *lines]]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "x.jsonl").write_bytes("\n".join(lines).encode(encoding, "surrogatepass"))
        items = read(folder, "laion", outcomes)
    assert len(items) == sum(bool(line.lstrip("\ufeff").strip()) for line in lines) or encoding == "utf-16"


@given(data=st.binary(max_size=200) | texts, kind=st.sampled_from(KINDS), head=st.sampled_from(HEADS))
def test_files_of_any_bytes(data: bytes, kind: str, head: bytes, outcomes: Counter[str]):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"x.{kind}").write_bytes(head + data)
        read(folder, "laion", outcomes)


def read(folder: str, source: str, outcomes: Counter[str]) -> list[Sample | BadRow]:
    """All rows, whose number is what the shards say it is; none where there is one line that says why."""
    try:
        shards = open_source(BuildConfig(source=source, input=folder, rows_per_shard=3)).shards()
        items = [list(shard.read()) for shard in shards]
    except UserError as error:
        assert "\n" not in str(error)
        outcomes["one line"] += 1
        return [BadRow("", "")] * 99 if source == "laion" and "no .tar" in str(error) else []
    for shard, found in zip(shards, items, strict=True):
        there = sum(item.rows if isinstance(item, BadRow) else 1 for item in found)
        assert shard.rows == there and shard.count(2) == min(2, there)
    flat = [item for found in items for item in found]
    outcomes.update(item.reason if isinstance(item, BadRow) else "row" for item in flat)
    return flat


entries = st.tuples(
    st.sampled_from(TAGS) | st.integers(0, 2**16 - 1),
    st.integers(0, 16),
    st.integers(0, 9) | st.integers(0, 2**32 - 1),
    st.binary(min_size=4, max_size=4),
)
blocks = st.builds(exif, st.lists(entries | st.just(ORIENTATION), max_size=6), st.binary(max_size=64))


@given(format=st.sampled_from(["JPEG", "PNG", "WEBP"]), block=blocks | st.binary(max_size=64))
def test_exif_blocks(format: str, block: bytes, outcomes: Counter[str]):
    """No block is a reason to refuse a picture, or changes more than which way up it is."""
    buffer = io.BytesIO()
    PICTURE.save(buffer, format, exif=block)
    image = decode(buffer.getvalue(), CONFIG)
    assert image.size in ((48, 40), (40, 48)) and image.mode == "RGB"
    assert abs(np.asarray(image, float).mean() - np.asarray(PICTURE, float).mean()) < 3
    outcomes["upright" if image.size == (48, 40) else "turned"] += 1


@given(data=st.data(), mode=st.sampled_from(["RGB", "L", "RGBA", "P", "1", "LA"]))
def test_colour_profiles(data: st.DataObject, mode: str, outcomes: Counter[str]):
    """No profile is a reason to refuse a picture."""
    block = bytearray(profile(DISPLAY_P3))
    for _ in range(data.draw(st.integers(0, 6))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(len(block)) | st.integers(1, len(block)))
    buffer = io.BytesIO()
    PICTURE.convert(mode).save(buffer, "PNG", icc_profile=bytes(block[:cut]))
    image = decode(buffer.getvalue(), CONFIG)
    assert image.mode == "RGB" and image.size == (48, 40)
    plain = np.array_equal(np.asarray(image), np.asarray(PICTURE.convert(mode).convert("RGB")))
    outcomes["as it is" if plain else "converted"] += 1


samples = st.builds(
    Sample,
    key=st.text(max_size=6).map(lambda text: text.encode("utf-8", "replace").decode()),
    caption=captions.map(lambda text: text.encode("utf-8", "replace").decode()),
    image=st.sampled_from(
        [PNG, encoded(picture(2), "JPEG"), PNG[:60], b"", b"GIF89a", encoded(Image.new("L", (64, 64)))]
    ),
    nsfw=st.none() | st.sampled_from(SAID),
    punsafe=st.none() | st.floats(),
    pwatermark=st.none() | st.floats(),
)
bad_rows = st.builds(BadRow, st.text(max_size=4), st.sampled_from(["broken_list", "row_bad_json"]), st.text(max_size=4),
                     st.integers(1, 5))  # fmt: skip


@given(found=st.lists(samples | bad_rows, max_size=8), limit=st.none() | st.integers(1, 10))
def test_rows_through_the_miner(found, limit, extractor: PhraseExtractor, outcomes: Counter[str]):
    """Rows kept plus reasons are what there was."""
    miner = ShardMiner(CONFIG, extractor, EveryPhraseGrounder())
    pairs = [pair for chunk in miner.mine(found, limit) for pair in chunk]
    there = sum(row.rows if isinstance(row, BadRow) else 1 for row in found)
    miner.tally.check("rows", there if limit is None else min(limit, there))
    assert miner.tally.pairs == len(pairs)
    outcomes.update(miner.tally.row_reasons)
    outcomes["row"] += miner.tally.rows_kept
