from __future__ import annotations

from collections import Counter
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.config import BuildConfig
from curation.errors import UserError
from curation.records import Sample
from curation.sources import open_source
from curation.sources.dialects import map_columns
from tests.curation.rows import read, reasons, write_table

DIALECTS = {
    "laion400m": {"URL": "u", "TEXT": "t", "NSFW": "UNSURE", "similarity": 0.3, "LICENSE": "?"},
    "laion2B": {"SAMPLE_ID": 1, "URL": "u", "TEXT": "t", "HEIGHT": 2, "WIDTH": 3, "NSFW": "UNSURE", "similarity": 0.3},
    "laion2B-multi": {"SAMPLE_ID": 1, "URL": "u", "TEXT": "t", "LANGUAGE": "de", "NSFW": "NSFW", "similarity": 0.3},
    "joined": {"URL": "u", "TEXT": "t", "WIDTH": 3.0, "similarity": 0.3, "hash": 7, "punsafe": 0.1, "pwatermark": 0.2},
    "aesthetic": {"URL": "u", "TEXT": "t", "similarity": 0.3, "punsafe": 0.1, "pwatermark": 0.2, "aesthetic": 6.5},
    "improved_aesthetics": {"URL": "u", "TEXT": "t", "punsafe": 0.1, "pwatermark": 0.2, "AESTHETIC_SCORE": 6.5},
    "relaion": {"url": "u", "caption": "t", "width": 2, "height": 3, "punsafe": 0.1, "pwatermark": 0.2},
    "datacomp": {"uid": "x", "url": "u", "text": "t", "original_width": 3, "clip_b32_similarity_score": 0.3},
    "coyo": {"id": 1, "url": "u", "text": "t", "clip_similarity_vitb32": 0.3, "watermark_score": 0.2},
    "img2dataset": {"url": "u", "caption": "t", "key": "k", "status": "success", "similarity": 0.3},
}
OTHER_NAMES = {
    "aesthetic_score": "aesthetic",
    "clip_b32_similarity_score": "similarity",
    "clip_similarity_vitb32": "similarity",
    "watermark_score": "pwatermark",
}
REAL = Path(__file__).parents[3] / "shared" / "data" / "laion" / "laion400m-10k.parquet"


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "csv.gz", "jsonl"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_mapped(tmp_path: Path, dialect: str, kind: str):
    columns = DIALECTS[dialect]
    write_table(tmp_path / f"part.{kind}", {name: [value, value] for name, value in columns.items()})
    first, second = read(tmp_path)
    assert isinstance(first, Sample) and first.key != second.key
    assert (first.url, first.caption, first.image) == ("u", "t", None)
    known = {OTHER_NAMES.get(name.lower(), name.lower()): value for name, value in columns.items()}
    assert first.nsfw == known.get("nsfw")
    for field in ("punsafe", "pwatermark", "similarity", "aesthetic"):
        assert getattr(first, field) == (pytest.approx(known[field]) if field in known else None)


def test_missing_columns_are_one_clear_line(tmp_path: Path):
    pq.write_table(pa.table({"URL": ["u"], "label": ["t"]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="no caption column"):
        read(tmp_path)
    assert map_columns(["TEXT", "caption"])["caption"] == "caption"


def test_bad_cells_are_missing_values(tmp_path: Path):
    table = pa.table({"URL": ["u", None], "TEXT": [None, "t"], "punsafe": [float("nan"), 0.5]})
    pq.write_table(table, tmp_path / "x.parquet")
    first, second = read(tmp_path)
    assert (first.caption, first.punsafe) == ("", None)
    assert (second.url, second.punsafe) == (None, 0.5)


def test_url_lists_are_cut_into_shards(tmp_path: Path):
    table = pa.table({"URL": [f"u{i}" for i in range(25)], "TEXT": ["t"] * 25})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=4)
    shards = open_source(BuildConfig(rows_per_shard=10, input=str(tmp_path))).shards()
    assert [shard.rows for shard in shards] == [10, 10, 5]
    assert [item.url for shard in shards for item in shard.read()] == [f"u{i}" for i in range(25)]
    assert len({shard.name for shard in shards}) == 3


@pytest.mark.skipif(not REAL.is_file(), reason=f"no real list at ../shared/data/laion/{REAL.name}")
def test_real_laion_rows_are_all_read():
    items = read(REAL, rows_per_shard=3000)
    assert len(items) == 10_000 and not reasons(items)
    assert len({item.key for item in items}) == 10_000
    assert all(item.caption and item.image is None for item in items)
    (odd,) = [item for item in items if not item.url.startswith("http")]
    assert odd.url == "UNLIKELY"  # a row of LAION's whose columns are shifted; its address is refused later


def test_lists_behind_urls_and_globs(tmp_path: Path):
    columns = {"URL": ["a", "b"], "TEXT": ["t", "t"]}
    for name in ("part-0.parquet", "part-1.csv"):
        write_table(tmp_path / name, columns)
        fsspec.filesystem("memory").pipe(f"/lists/{name}", (tmp_path / name).read_bytes())
    expected = read(tmp_path)
    assert [item.url for item in expected] == ["a", "b", "a", "b"]
    for input in (f"{tmp_path}/part-*", f"file://{tmp_path}", "memory://lists", "memory://lists/part-*"):
        assert read(input) == expected
    assert [item.url for item in read("memory://lists/part-1.csv")] == ["a", "b"]
    with pytest.raises(UserError, match="nosuch"):
        read("nosuch://bucket/x")


def test_columns_that_the_user_names(tmp_path: Path):
    write_table(tmp_path / "x.csv", {"link": ["u"], "URL": ["u"], "label": ["a fox"]})
    (item,) = read(tmp_path, caption_column="label")
    assert item.caption == "a fox"
    with pytest.raises(UserError, match="no column missing"):
        read(tmp_path, caption_column="missing")


def test_damage_to_one_row_group_costs_that_group(tmp_path: Path):
    path = tmp_path / "x.parquet"
    table = pa.table(
        {"URL": [f"https://example.com/{i}" for i in range(400)], "TEXT": [f"text {i}" for i in range(400)]}
    )
    pq.write_table(table, path, row_group_size=100, compression="zstd", use_dictionary=False, write_page_checksum=True)
    column = pq.read_metadata(path).row_group(1).column(1)
    data = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    shards = open_source(BuildConfig(rows_per_shard=1000, input=str(tmp_path))).shards()
    items = [item for shard in shards for item in shard.read()]
    assert reasons(items) == ["broken_list"] and len(items) == 301
    assert items[-1].url == "https://example.com/399"


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_broken_list_among_others_is_a_reason(tmp_path: Path, content: bytes):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet is no readable list"):
        read(tmp_path)
    write_table(tmp_path / "b.parquet", {"URL": ["u"], "TEXT": ["t"]})
    bad, good = read(tmp_path)
    assert bad.reason == "broken_list" and good.url == "u"


def test_csv_rows_with_every_kind_of_damage(tmp_path: Path):
    long = "x" * 1_000_000
    lines = [
        b"URL,TEXT",
        b"u0,plain",
        b'u1,"two\nlines, and a comma"',
        b"u2,too,many,cells",
        b"u3",
        b"u4,caf\xe9",
        b"",
        f"u5,{long}".encode(),
        "u6,ثعلب أحمر \u202e<script>alert(1)</script>\0".encode(),
        b"u7,last",
    ]
    (tmp_path / "x.csv").write_bytes(b"\r\n".join(lines))
    for size in (1, 3, 100):  # slices begin where they should, whatever is before them
        items = read(tmp_path, rows_per_shard=size)
        assert reasons(items) == ["row_bad_csv", "row_bad_csv", "row_not_utf8"]
        samples = [item for item in items if isinstance(item, Sample)]
        assert [item.url for item in samples] == ["u0", "u1", "u5", "u6", "u7"]
        assert samples[1].caption == "two\nlines, and a comma" and samples[2].caption == long


def test_a_quote_that_is_never_closed_is_a_reason(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("curation.sources.tables.MAX_CELL_CHARS", 40_000)
    (tmp_path / "x.csv").write_bytes(b'URL,TEXT\nu0,ok\nu1,"open\n' + b"u,t\n" * 12_000)
    shards = open_source(BuildConfig(rows_per_shard=10**9, input=str(tmp_path))).shards()
    counts = Counter(type(item).__name__ for shard in shards for item in shard.read())
    assert counts["BadRow"] == 1 and counts["Sample"] > 1_000  # reading went on after the limit


def test_a_gz_list_that_breaks_off_is_a_reason(tmp_path: Path):
    write_table(tmp_path / "x.csv.gz", {"URL": ["u"] * 1000, "TEXT": [f"t{i}" for i in range(1000)]})
    data = (tmp_path / "x.csv.gz").read_bytes()
    (tmp_path / "x.csv.gz").write_bytes(data[: len(data) // 2])
    write_table(tmp_path / "y.csv", {"URL": ["u"], "TEXT": ["t"]})
    assert reasons(read(tmp_path)) == ["broken_list"]


def test_parquet_cells_that_are_no_utf8_cost_their_row(tmp_path: Path):
    raw = pa.array([b"fine", b"caf\xe9", b"\xf0\x9f\xa6\x8a fox"], pa.binary())
    text = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"URL": ["a", "b", "c"], "TEXT": text}), tmp_path / "x.parquet")
    first, second, third = read(tmp_path)
    assert (first.caption, second.reason, third.caption) == ("fine", "row_not_utf8", "🦊 fox")


def test_odd_column_types(tmp_path: Path):
    table = pa.table(
        {
            "URL": pa.array(["a", "b"]).dictionary_encode(),
            "TEXT": pa.array(["s", None], pa.large_string()),
            "punsafe": pa.array(["0.5", "none"]),
            "similarity": pa.array([1, None], pa.int8()),
            "NSFW": pa.array([None, None], pa.null()),
            "pwatermark": pa.array([10**12, 0], pa.timestamp("s")),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    first, second = read(tmp_path)
    assert (first.url, first.caption, first.punsafe, first.similarity) == ("a", "s", 0.5, 1.0)
    assert (second.caption, second.punsafe, second.nsfw, second.pwatermark) == ("", None, None, None)
