from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import row, write_tar

from curation.config import BuildConfig
from curation.errors import UserError
from curation.records import BadRow, Sample
from curation.sources import open_source
from curation.sources.dialects import map_columns

DIALECTS = {
    "laion400m": {"URL": "u", "TEXT": "t", "NSFW": "UNSURE", "similarity": 0.3, "LICENSE": "?"},
    "laion2B": {"SAMPLE_ID": 1, "URL": "u", "TEXT": "t", "HEIGHT": 2, "WIDTH": 3, "NSFW": "UNSURE", "similarity": 0.3},
    "joined": {"URL": "u", "TEXT": "t", "WIDTH": 3.0, "similarity": 0.3, "hash": 7, "punsafe": 0.1, "pwatermark": 0.2},
    "relaion": {"url": "u", "caption": "t", "width": 2, "height": 3, "punsafe": 0.1, "pwatermark": 0.2},
    "img2dataset": {"url": "u", "caption": "t", "key": "k", "status": "success", "similarity": 0.3},
}


def read(path: Path, **config):
    settings = BuildConfig(**config)
    return [item for shard in open_source(settings, str(path)).shards() for item in shard.read()]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_mapped(tmp_path: Path, dialect: str, kind: str):
    columns = DIALECTS[dialect]
    table = pa.table({name: [value, value] for name, value in columns.items()})
    path = tmp_path / f"part.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        import pyarrow.csv

        pyarrow.csv.write_csv(table, path)
    first, second = read(path)
    assert isinstance(first, Sample) and first.key != second.key
    assert (first.url, first.caption, first.image) == ("u", "t", None)
    lower = {name.lower(): value for name, value in columns.items()}
    for field in ("nsfw", "punsafe", "pwatermark", "similarity"):
        value = getattr(first, field)
        assert value == (pytest.approx(lower[field]) if field in lower and field != "nsfw" else lower.get(field))


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
    shards = open_source(BuildConfig(rows_per_shard=10), str(tmp_path)).shards()
    assert [shard.count() for shard in shards] == [10, 10, 5]
    assert [item.url for shard in shards for item in shard.read()] == [f"u{i}" for i in range(25)]
    assert len({shard.name for shard in shards}) == 3


def test_tars_win_over_their_own_metadata(tmp_path: Path):
    write_tar(tmp_path / "00000.tar", [row(0), row(1)])
    pq.write_table(pa.table({"url": ["u"], "caption": ["t"]}), tmp_path / "00000.parquet")
    items = read(tmp_path)
    assert [type(item) for item in items] == [Sample, Sample]
    assert items[0].key == "000000000" and items[0].punsafe == 0.01 and items[0].nsfw == "UNLIKELY"
    assert read(tmp_path / "*.tar") == items == read(tmp_path / "00000.tar")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (row(0, json=b"{broken"), "row_bad_json"),
        (row(0, json=b"[1]"), "row_bad_json"),
        (row(0, txt=b"caf\xe9"), "row_not_utf8"),
        (row(0, jpg=None), "row_without_image"),
        (row(0, json_status="failed_to_download"), "row_not_downloaded"),
        (row(0, jpg=b"x" * 3000), "member_too_large"),
    ],
)
def test_bad_rows_are_reasons_and_the_next_row_is_read(tmp_path: Path, members, reason: str):
    small = row(1, jpg=b"y")
    write_tar(tmp_path / "a.tar", [members, small])
    bad, good = read(tmp_path, max_image_bytes=2000)
    assert isinstance(bad, BadRow) and bad.reason == reason
    assert isinstance(good, Sample) and good.image == b"y"


@pytest.mark.parametrize("cut", [0.3, 0.5, 0.77])
def test_a_truncated_tar_gives_its_whole_rows_and_a_reason(tmp_path: Path, cut: float):
    path = write_tar(tmp_path / "a.tar", [row(i) for i in range(10)])
    whole = read(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * cut)])
    items = read(path)
    assert [item.reason for item in items if isinstance(item, BadRow)] == ["broken_tar"]
    samples = [item for item in items if isinstance(item, Sample)]
    assert 0 < len(samples) < 10 and samples == whole[: len(samples)]


def test_a_damaged_header_in_the_middle_is_not_the_end(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", [row(i) for i in range(4)])
    with tarfile.open(path) as tar:
        offset = tar.getmembers()[6].offset
    data = bytearray(path.read_bytes())
    data[offset : offset + 512] = b"\xff" * 512
    path.write_bytes(data)
    items = read(path)
    assert [item.reason for item in items if isinstance(item, BadRow)] == ["broken_tar"]


def test_no_tar_at_all_and_hostile_members(tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(b"no tar")
    assert [item.reason for item in read(tmp_path)] == ["broken_tar"]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("../../evil.jpg", "/etc/evil.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert [i.reason for i in read(tmp_path)] == ["member_unsafe_name"] * 2 + ["member_not_a_file"]


def test_nothing_there_is_one_clear_line(tmp_path: Path):
    with pytest.raises(UserError, match=r"found no \.tar"):
        read(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "missing")
    with pytest.raises(UserError, match="known: laion"):
        read(tmp_path, source="moon")


def test_captions_come_from_json_first(tmp_path: Path):
    members = row(0)
    members["txt"] = b"from text"
    write_tar(tmp_path / "a.tar", [members, row(1, json=json.dumps({}).encode(), txt=b"only text")])
    first, second = read(tmp_path)
    assert first.caption.startswith("a red fox") and second.caption == "only text"
