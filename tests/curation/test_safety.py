"""What corpora say of safety: known words pass or are refused, numbers are compared, and nothing is guessed."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.config import BuildConfig
from curation.errors import Rejected
from curation.filters import check_scores
from curation.records import BadRow, Sample
from tests.curation.conftest import row, write_tar
from tests.curation.rows import read, write_table

CONFIG = BuildConfig()
SAFE = [
    "UNLIKELY",
    "unlikely ",
    "UNSURE",
    "None",
    "sfw",
    "Safe",
    "not nsfw",
    "non-NSFW",
    False,
    "False",
    "no",
    0,
    "0",
    0.03,
]
SAFE += [
    "0.03",
    "0,03",
    "3 %",
    "VERY_UNLIKELY",
    "general",
    "rating:general",
    "g",
    "neutral",
    "ＳＦＷ",
    '"safe"',
    ["UNLIKELY"],
]
SAFE += [None, "", "  ", math.nan, "nan", "NULL", "n/a", "<NA>", []]
FLAGGED = [
    "NSFW",
    "Nsfw ",
    "nsfw\u200b",
    "ＮＳＦＷ",
    '"NSFW"',
    True,
    "true",
    "Yes",
    "X",
    "XXX",
    "Mature",
    "Soft",
    "PG-13",
    "R",
]
FLAGGED += ["unsafe", "NOT_SAFE", "not safe for work", "LIKELY", "very-likely", "explicit", "rating:e", "questionable"]
FLAGGED += ["porn", "Hentai", "sexy", "18+", ["UNLIKELY", "NSFW"], "n\u00adsfw"]
SCORED = [1, "1", 0.97, "0.97", "0,97", "97%", "97 %", "０．９７", "9.7e-1", " .97 ", 2, 97]
UNREADABLE = ["??", "-", "maybe", "unknown", "s", "safe?", "!safe", -1, "-0.5", math.inf, "1e999", "0.9 or so", "NЅFW"]
UNREADABLE += [{"label": "NSFW"}, {}, [["NSFW"]], "0.97 0.01", "✗", "sfw|nsfw"]


def outcome(value: object, column: str = "nsfw", other: str = "url") -> str:
    """The reason by which a row with this cell is refused, "" where it passes."""
    from curation.sources.dialects import find_columns, to_sample

    cells = {other: "u", "caption": "a red fox", column: value}
    made = to_sample(cells, find_columns(tuple(cells)), key="k", max_image_bytes=9)
    if isinstance(made, BadRow):
        return made.reason
    try:
        check_scores(made, CONFIG)
    except Rejected as rejection:
        return rejection.reason
    return ""


@pytest.mark.parametrize("column", ["nsfw", "NSFW", "is_NSFW ", "nsfwLabel", "Safety", "punsafe"])
def test_every_value_is_judged(column: str):
    assert {repr(value): outcome(value, column) for value in SAFE} == {repr(value): "" for value in SAFE}
    assert {repr(v): outcome(v, column) for v in FLAGGED} == {repr(v): "flagged_nsfw" for v in FLAGGED}
    assert {repr(v): outcome(v, column) for v in SCORED} == {repr(v): "unsafe_score" for v in SCORED}
    assert {repr(v): outcome(v, column) for v in UNREADABLE} == {repr(v): "safety_unreadable" for v in UNREADABLE}


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("nsfwLevel", 1, ""),
        ("nsfwLevel", "None", ""),
        ("nsfwLevel", 8, "flagged_nsfw"),
        ("nsfwLevel", "Mature", "flagged_nsfw"),
        ("nsfwLevel", 0, "safety_unreadable"),
        ("rating", "e", "flagged_nsfw"),
        ("rating", "g", ""),
        ("rating", 4.5, ""),  # stars
        ("rating", "good", "safety_unreadable"),
        ("is_safe", True, ""),
        ("is_safe", False, "flagged_nsfw"),
        ("safe", "no", "flagged_nsfw"),
        ("sfw", 0.02, "unsafe_score"),
        ("sfw", "0.98", ""),
        ("safe", "perhaps", "safety_unreadable"),
        ("nsfw_score_opennsfw2", 0.9, "unsafe_score"),
        ("image_nsfw", 2.0, "unsafe_score"),  # DiffusionDB's, of a blurred one
    ],
)
def test_columns_of_other_dialects(column: str, value: object, expected: str):
    assert outcome(value, column) == expected


def test_the_worst_of_several_columns_counts():
    for columns in (
        {"nsfw_score_gantman": 0.01, "nsfw_score_opennsfw2": 0.99},
        {"nsfw_score_gantman": 0.99, "nsfw_score_opennsfw2": 0.01},
        {"NSFW": "UNLIKELY", "nsfw": "NSFW"},
        {"nsfw": "UNLIKELY", "is_nsfw": True, "punsafe": 0.0},
        {"nsfw": 0.1, "unsafe": 0.9, "safety": "safe"},
    ):
        from curation.sources.dialects import find_columns, to_sample

        cells = {"url": "u", "caption": "c", **columns}
        sample = to_sample(cells, find_columns(tuple(cells)), key="k", max_image_bytes=9)
        assert isinstance(sample, Sample)
        with pytest.raises(Rejected):
            check_scores(sample, CONFIG)


def test_a_sample_that_is_made_elsewhere_is_judged_as_well():
    for said in ({"punsafe": math.nan}, {"nsfw": "Mature"}, {"nsfw": "who knows"}, {"punsafe": 0.51}):
        with pytest.raises(Rejected):
            check_scores(Sample("k", "c", **said), CONFIG)
    check_scores(Sample("k", "c", nsfw="unlikely", punsafe=0.5), CONFIG)


MIXED = [
    {"url": "u0", "caption": "a fox"},
    {"url": "u1", "caption": "a fox", "nsfw": "NSFW"},
    {"url": "u2", "caption": "a fox", "punsafe": 0.99},
    {"punsafe": "0,99", "TEXT": "a fox", "URL": "u3"},
    {"url": "u4", "caption": None, "text": "a hare", "nsfw": None},
    {"url": "u5"},
    {"url": "u6", "caption": {"en": "a fox"}},
    {"url": "u7", "caption": "a fox", "nsfw": {"label": 1}},
    {"url": "u8", "caption": ["a fox", "a hare"], "NSFW ": "UNLIKELY"},
]


@pytest.mark.parametrize("order", [1, -1])
def test_each_row_of_a_jsonl_is_read_by_its_own_keys(tmp_path: Path, order: int):
    rows = MIXED[::order]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for size in (1, 4, 100):
        items = read(tmp_path, rows_per_shard=size)[::order]
        assert [getattr(item, "url", None) for item in items] == [*(f"u{i}" for i in range(6)), None, None, "u8"]
        assert [items[i].caption for i in (0, 4, 5, 8)] == ["a fox", "a hare", "", "a fox"]
        assert (items[1].nsfw, items[2].punsafe, items[3].punsafe) == ("NSFW", 0.99, 0.99)
        assert (items[6].reason, items[7].reason) == ("caption_not_text", "safety_unreadable")


@pytest.mark.parametrize("order", [1, -1])
def test_each_row_of_a_metadata_file_is_read_by_its_own_keys(tmp_path: Path, order: int):
    rows = [{"file_name": f"{i}.png", **r} for i, r in enumerate(MIXED)]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows[::order]))
    for i in range(len(rows)):
        (tmp_path / f"{i}.png").write_bytes(b"x")
    items = read(tmp_path, source="folder")[::order]
    assert (items[1].nsfw, items[2].punsafe, items[3].punsafe) == ("NSFW", 0.99, 0.99)
    assert (items[6].reason, items[7].reason) == ("caption_not_text", "safety_unreadable")


def test_a_key_twice_hides_nothing(tmp_path: Path):
    (tmp_path / "x.jsonl").write_text(
        '{"url": "u", "text": "a", "nsfw": "NSFW", "nsfw": "UNLIKELY"}\n{"url": "u", "text": "b"}\n'
    )
    bad, good = read(tmp_path)
    assert bad.reason == "row_bad_json" and good.caption == "b"
    (tmp_path / "x.jsonl").unlink()
    (tmp_path / "x.csv").write_text("URL,TEXT,NSFW,NSFW\nu,a,NSFW,UNLIKELY\nu,b,UNLIKELY,UNLIKELY\n")
    assert [item.nsfw for item in read(tmp_path)] == ["NSFW", "UNLIKELY"]


def test_a_parquet_column_of_any_type_is_not_taken_for_absent(tmp_path: Path):
    columns = {
        "struct": pa.array([{"label": "NSFW"}, None]),
        "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
        "bool": pa.array([True, False]),
        "decimal": pa.array([Decimal("0.99"), Decimal("0.01")]),
        "half": pa.array([0.99, 0.01], pa.float16()),
        "list": pa.array([["UNLIKELY", "NSFW"], ["UNLIKELY"]]),
        "dictionary": pa.array(["NSFW", "UNLIKELY"]).dictionary_encode(),
        "time": pa.array([10**12, None], pa.timestamp("s")),
    }
    for kind, column in columns.items():
        pq.write_table(pa.table({"URL": ["u", "v"], "TEXT": ["a", "b"], "NSFW": column}), tmp_path / "x.parquet")
        first, second = read(tmp_path)
        if isinstance(first, Sample):
            with pytest.raises(Rejected):
                check_scores(first, CONFIG)
        else:
            assert first.reason == "safety_unreadable", kind
        check_scores(second, CONFIG)


def test_tars_are_judged_by_their_json(tmp_path: Path):
    write_tar(
        tmp_path / "a.tar", [row(0, json_NSFW="Mature"), row(1, json_punsafe="high"), row(2, json_punsafe="0,01")]
    )
    first, second, third = read(tmp_path)
    assert (first.nsfw, second.nsfw, third.punsafe) == ("Mature", "high", 0.01)
    for sample, reason in ((first, "flagged_nsfw"), (second, "safety_unreadable")):
        with pytest.raises(Rejected) as rejection:
            check_scores(sample, CONFIG)
        assert rejection.value.reason == reason
    check_scores(third, CONFIG)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be-sig"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "tsv"])
def test_byte_order_marks(tmp_path: Path, kind: str, encoding: str):
    write_table(tmp_path / f"x.{kind}", {"URL": [f"u{i}" for i in range(5)], "TEXT": ["a fox", "é", "狐", "🦊", "b"]})
    text = (tmp_path / f"x.{kind}").read_bytes().decode()
    text = text.replace("URL", '"URL"', 1).replace("TEXT", '"TEXT"', 1) if kind != "jsonl" else text
    data = b"\xfe\xff" + text.encode("utf-16-be") if encoding == "utf-16-be-sig" else text.encode(encoding)
    (tmp_path / f"x.{kind}").write_bytes(data)
    for size in (2, 100):
        items = read(tmp_path, rows_per_shard=size)
        assert [item.url for item in items] == [f"u{i}" for i in range(5)]
        assert [item.caption for item in items] == ["a fox", "é", "狐", "🦊", "b"]


def test_texts_beside_pictures_in_utf_16(tmp_path: Path):
    write_tar(
        tmp_path / "a.tar",
        [row(0, txt="a café".encode("utf-16"), json=None), row(1, json='{"caption": "é"}'.encode("utf-8-sig"))],
    )
    assert [item.caption for item in read(tmp_path)] == ["a café", "é"]
