from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import tarfile
from collections import Counter
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.config import BuildConfig
from curation.errors import UserError
from curation.records import BadRow, Sample
from curation.sources import open_source
from curation.sources.dialects import map_columns
from tests.curation.conftest import encoded, picture, row, write_tar

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


def read(path: Path | str, **config):
    shards = open_source(BuildConfig(input=str(path), **config)).shards()
    items = [list(shard.read()) for shard in shards]
    assert [shard.count(10**9) for shard in shards] == [len(found) for found in items]
    assert [shard.count(2) for shard in shards] == [min(2, len(found)) for found in items]
    assert all(shard.rows in (None, len(found)) for shard, found in zip(shards, items, strict=True))
    assert len({shard.name for shard in shards}) == len(shards)
    assert str(path) not in "".join(shard.name for shard in shards)
    assert [list(shard.read()) for shard in pickle.loads(pickle.dumps(shards))] == items
    return [item for found in items for item in found]


def write_table(path: Path, columns: dict[str, list]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
        return
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    buffer = io.StringIO(newline="")
    if path.suffix == ".jsonl":
        buffer.write("".join(json.dumps(row) + "\n" for row in rows))
    else:
        writer = csv.DictWriter(buffer, list(columns), delimiter="\t" if ".tsv" in path.name else ",")
        writer.writeheader()
        writer.writerows(rows)
    data = buffer.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def reasons(items) -> list[str]:
    return [item.reason for item in items if isinstance(item, BadRow)]


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
    with pytest.raises(UserError, match="an empty one"):
        read(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"found no \.tar"):
        read(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "missing")
    with pytest.raises(UserError, match="known: folder, hf, laion"):
        read(tmp_path, source="moon")


def test_captions_come_from_json_first(tmp_path: Path):
    members = row(0)
    members["txt"] = b"from text"
    write_tar(tmp_path / "a.tar", [members, row(1, json=json.dumps({}).encode(), txt=b"only text")])
    first, second = read(tmp_path)
    assert first.caption.startswith("a red fox") and second.caption == "only text"


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


def test_tars_behind_urls(tmp_path: Path):
    path = write_tar(tmp_path / "00000.tar", [row(0), row(1)])
    fsspec.filesystem("memory").pipe("/tars/00000.tar", path.read_bytes())
    assert read("memory://tars") == read(tmp_path)


def test_columns_that_the_user_names(tmp_path: Path):
    write_table(tmp_path / "x.csv", {"link": ["u"], "URL": ["u"], "label": ["a fox"]})
    (item,) = read(tmp_path, caption_column="label")
    assert item.caption == "a fox"
    with pytest.raises(UserError, match="no column missing"):
        read(tmp_path, caption_column="missing")


def img2dataset_columns(count: int) -> dict[str, list]:
    return {
        "jpg": [encoded(picture(i)) for i in range(count)],
        "txt": [f"a fox {i}" for i in range(count)],
        "key": [f"{i:09d}" for i in range(count)],
        "url": ["https://example.com/x.jpg"] * count,
        "status": ["success"] * count,
        "punsafe": [0.1] * count,
    }


def test_img2dataset_parquet_holds_its_images(tmp_path: Path):
    columns = img2dataset_columns(3)
    columns["jpg"][1], columns["status"][1] = None, "failed_to_download"
    pq.write_table(pa.table({**columns, "error_message": [None, "HTTP Error 404", None]}), tmp_path / "00000.parquet")
    first, second, third = read(tmp_path)
    assert first.image == encoded(picture(0)) and first.caption == "a fox 0" and first.punsafe == 0.1
    assert (second.reason, second.detail) == ("row_not_downloaded", "HTTP Error 404")
    assert isinstance(third, Sample)
    assert reasons(read(tmp_path, max_image_bytes=10)) == ["member_too_large", "row_not_downloaded", "member_too_large"]


def test_img2dataset_files(tmp_path: Path):
    for index in range(5):
        folder = tmp_path / f"{index // 3:05d}"
        folder.mkdir(exist_ok=True)
        for suffix, content in row(index).items():
            (folder / f"{index:09d}.{suffix}").write_bytes(content)
        write_table(tmp_path / f"{index // 3:05d}.parquet", {"url": ["u"], "caption": ["t"]})
    (tmp_path / "00001" / "000000004.json").write_text("{broken")
    os.mkfifo(tmp_path / "00001" / "000000009.jpg")  # would be waited for forever
    items = read(tmp_path, rows_per_shard=2)
    assert [item.key for item in items] == [f"{i // 3:05d}/{i:09d}" for i in range(5)]
    assert items[0].image == row(0)["jpg"] and items[0].similarity == 0.33
    assert reasons(items) == ["row_bad_json"]


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


@pytest.mark.parametrize(
    ("json_text", "reason"),
    [
        (b'{"caption": "half a pair \\ud800"}', "row_not_utf8"),
        (b'{"caption": "x", "url": "http://a/\\udfff"}', "row_not_utf8"),
        (b"[" * 100_000, "row_bad_json"),
        (b'{"punsafe": 1e999, "similarity": "NaN", "caption": ["a list of", "captions"]}', None),
    ],
)
def test_hostile_json(tmp_path: Path, json_text: bytes, reason: str | None):
    write_tar(tmp_path / "a.tar", [row(0, json=json_text), row(1)])
    first, second = read(tmp_path)
    assert isinstance(second, Sample)
    if reason:
        assert first.reason == reason
    else:
        assert (first.punsafe, first.similarity, first.caption) == (None, None, "a list of")


def test_member_names_that_are_no_utf8(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name in ("caf\xe9.jpg", "../caf\xe9.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    unsafe, sample = read(tmp_path)  # a bad member is told at once, a row when it is whole
    assert unsafe.reason == "member_unsafe_name" and unsafe.detail.encode() and unsafe.key.encode()
    assert sample.key.encode()


def test_devices_and_links_in_tars(tmp_path: Path):
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for kind in kinds:
            info = tarfile.TarInfo("x.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert reasons(read(tmp_path)) == ["member_not_a_file"] * 5


def test_a_tar_of_nothing_but_long_names(tmp_path: Path):
    """tarfile reads them recursively."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for _ in range(3000):
            info = tarfile.TarInfo("././@LongLink")
            info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2
            tar.addfile(info, io.BytesIO(b"y\0"))
    assert reasons(read(tmp_path)) == ["broken_tar"]


def images_in(folder: Path, count: int = 3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        (folder / f"{index}.png").write_bytes(encoded(picture(index), "PNG"))


def test_folder_with_texts_beside_the_images(tmp_path: Path):
    images_in(tmp_path / "deep", 4)
    (tmp_path / "deep" / "0.txt").write_text("\ufeffa red fox")
    (tmp_path / "deep" / "1.json").write_text('{"text": "a blue car", "pwatermark": 0.4}')
    (tmp_path / "deep" / "2.txt").write_bytes(b"caf\xe9")
    (tmp_path / "deep" / "9.txt").write_text("a text without an image")
    first, second, third, fourth = read(tmp_path, source="folder")
    assert (first.key, first.caption, first.image) == ("deep/0", "a red fox", encoded(picture(0), "PNG"))
    assert (second.caption, second.pwatermark) == ("a blue car", 0.4)
    assert (third.reason, fourth.reason) == ("row_not_utf8", "row_without_caption")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_folder_with_a_metadata_file(tmp_path: Path, kind: str):
    images_in(tmp_path / "pictures")
    (tmp_path / "secret.png").write_bytes(b"x")
    names = ["0.png", "pictures/../../secret.png", "/etc/passwd", "missing.png", "", "2.png"]
    write_table(
        tmp_path / "pictures" / f"metadata.{kind}", {"file_name": names, "text": [f"a fox {n}" for n in range(6)]}
    )
    items = read(tmp_path, source="folder", rows_per_shard=4)
    # The picture outside has no text beside it.
    assert Counter(reasons(items)) == {"member_unsafe_name": 2, "row_without_image": 2, "row_without_caption": 1}
    assert [i.caption for i in items if isinstance(i, Sample)] == ["a fox 0", "a fox 5"]


def test_folder_errors_are_one_clear_line(tmp_path: Path):
    write_table(tmp_path / "metadata.csv", {"file": ["a.png"], "text": ["t"]})
    with pytest.raises(UserError, match="no file_name column"):
        read(tmp_path, source="folder")
    write_table(tmp_path / "metadata.csv", {"file_name": ["a.png"], "label": ["t"]})
    with pytest.raises(UserError, match="no caption column"):
        read(tmp_path, source="folder")
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "x.md").write_text("x")
    with pytest.raises(UserError, match="found no images"):
        read(tmp_path, source="folder")


def hf_folder(tmp_path: Path, **columns) -> Path:
    folder = tmp_path / "dataset"
    folder.mkdir(exist_ok=True)
    for part in range(2):
        pq.write_table(
            pa.table({n: v[2 * part : 2 * part + 2] for n, v in columns.items()}), folder / f"{part}.parquet"
        )
    return folder


def image_cells(count: int) -> list[dict]:
    return [{"bytes": encoded(picture(i), "PNG"), "path": None} for i in range(count)]


def test_hf_finds_the_columns_where_they_are_clear(tmp_path: Path):
    cells = image_cells(4)
    cells[1]["bytes"] = b"broken picture"  # for the decoder to refuse, not for the iteration to end at
    folder = hf_folder(tmp_path, photo=cells, words=["a", "b", "c", "d"], number=[1, 2, 3, 4])
    items = read(folder, source="hf")
    assert [item.caption for item in items] == ["a", "b", "c", "d"]
    assert items[1].image == b"broken picture" and items[3].image == encoded(picture(3), "PNG")
    assert len({item.key for item in items}) == 4
    assert len(open_source(BuildConfig(source="hf", input=str(folder))).shards()) == 2


def test_hf_asks_where_they_are_not(tmp_path: Path):
    folder = hf_folder(tmp_path, left=image_cells(4), right=image_cells(4), en=["a"] * 4, fr=["b"] * 4)
    with pytest.raises(UserError, match="--image-column of left, right"):
        read(folder, source="hf")
    with pytest.raises(UserError, match="--caption-column of en, fr"):
        read(folder, source="hf", image_column="right")
    items = read(folder, source="hf", image_column="right", caption_column="en")
    assert [item.caption for item in items] == ["a"] * 4
    with pytest.raises(UserError, match="--split of train"):
        read(folder, source="hf", split="moon")


def test_hf_reads_url_datasets_and_bad_text_costs_a_row(tmp_path: Path):
    raw = pa.array([b"fine", b"caf\xe9", b"x", b"y"], pa.binary())
    text = pa.StringArray.from_buffers(4, raw.buffers()[1], raw.buffers()[2])
    items = read(hf_folder(tmp_path, URL=pa.array(["u0", "u1", "u2", "u3"]), TEXT=text), source="hf")
    assert reasons(items) == ["row_not_utf8"]
    assert [item.url for item in items if isinstance(item, Sample)] == ["u0", "u2", "u3"]


def test_hf_reads_images_beside_a_metadata_file_and_no_others(tmp_path: Path):
    images_in(tmp_path / "set", 2)
    write_table(tmp_path / "set" / "metadata.jsonl", {"file_name": ["0.png", "1.png"], "text": ["a", "b"]})
    assert [item.image for item in read(tmp_path / "set", source="hf")] == [
        encoded(picture(i), "PNG") for i in range(2)
    ]
    (tmp_path / "secret.png").write_bytes(b"x")
    cells = [{"bytes": None, "path": str(tmp_path / "secret.png")}, {"bytes": None, "path": "/etc/passwd"}]
    items = read(hf_folder(tmp_path, image=cells * 2, text=["t"] * 4), source="hf")
    assert reasons(items) == ["member_unsafe_name"] * 4


def test_hub_names_that_lead_nowhere_are_one_clear_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    for source in ("laion", "hf"):
        with pytest.raises(UserError, match="--input nobody/nothing"):
            read("nobody/nothing", source=source)


def test_a_source_by_entry_point(tmp_path: Path, monkeypatch):
    """An installed package is a folder with a .dist-info beside its module."""
    (tmp_path / "diary.py").write_text(
        "from dataclasses import dataclass\n"
        "from curation.records import Sample\n"
        "@dataclass(frozen=True)\n"
        "class Day:\n"
        "    name: str\n    size: int = 1\n    rows: int = 1\n"
        "    def read(self):\n        yield Sample(self.name, 'a red fox', image=b'x')\n"
        "    def count(self, at_most):\n        return min(at_most, 1)\n"
        "class Diary:\n"
        "    def __init__(self, input, config):\n        self.input = input\n"
        "    def shards(self):\n        return [Day('monday'), Day('tuesday')]\n"
    )
    about = tmp_path / "diary-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: diary\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[curation.sources]\ndiary = diary:Diary\nlost = diary:Lost\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [item.key for item in read("anywhere", source="diary")] == ["monday", "tuesday"]
    with pytest.raises(UserError, match="does not load"):
        read("anywhere", source="lost")
    with pytest.raises(UserError, match="diary, folder, hf, laion"):
        read("anywhere", source="moon")
