"""What img2dataset leaves: tars, parquet with images, files."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.records import BadRow, Sample
from tests.curation.conftest import encoded, picture, row, write_tar
from tests.curation.rows import read, reasons, write_table


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


def test_captions_come_from_json_first(tmp_path: Path):
    members = row(0)
    members["txt"] = b"from text"
    write_tar(tmp_path / "a.tar", [members, row(1, json=json.dumps({}).encode(), txt=b"only text")])
    first, second = read(tmp_path)
    assert first.caption.startswith("a red fox") and second.caption == "only text"


def test_tars_behind_urls(tmp_path: Path):
    path = write_tar(tmp_path / "00000.tar", [row(0), row(1)])
    fsspec.filesystem("memory").pipe("/tars/00000.tar", path.read_bytes())
    assert read("memory://tars") == read(tmp_path)


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
