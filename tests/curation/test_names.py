"""Every picture that is there is a row or has a reason, whatever it is called and wherever its link leads."""

from __future__ import annotations

import io
import os
import tarfile
import unicodedata
from pathlib import Path

import pytest

from curation.errors import UserError
from curation.output.tally import Tally
from curation.records import BadRow, Sample
from curation.sources.names import is_picture, split_name
from tests.curation.conftest import encoded, picture, write_tar
from tests.curation.rows import read, reasons, write_table


def put(folder: Path, members: dict[str, bytes | str]) -> Path:
    for name, content in members.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def pack(folder: Path, members: dict[str, bytes | str]) -> Path:
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return folder


def found(items) -> dict[str, str]:
    """Key -> caption, or the reason in brackets."""
    return {item.key: item.caption if isinstance(item, Sample) else f"[{item.reason}]" for item in items}


SIGNS = ("a[1]", "b*", "c?", "d::e", "f#g", "h%20i", "~j", "k l ")
CASES = {
    "dots in names": (
        {"Screenshot 10.30.22.png": b"x", "Screenshot 10.30.22.txt": "a", "cat.v2.jpg": b"x", "cat.v2.txt": "b"},
        {"Screenshot 10.30.22": "a", "cat.v2": "b"},
    ),
    "many with the same beginning": (
        {f"v1.{i:03d}.{kind}": b"x" if kind == "jpg" else f"c{i}" for i in range(200) for kind in ("jpg", "txt")},
        {f"v1.{i:03d}": f"c{i}" for i in range(200)},
    ),
    "a second picture of a stem": (
        {"1.jpg": b"x", "1.png": b"y", "1.txt": "a", "2.JPG": b"x", "2.jpg": b"y", "2.txt": "b"},
        {"1.jpg": "a", "1.png": "a", "2.JPG": "b", "2.jpg": "b"},
    ),
    "a part of a row": (
        {"0.jpg": b"x", "0.mask.png": b"y", "0.txt": "a"},
        {"0": "a", "0.mask": "[row_without_caption]"},
    ),
    "parts of a row without a picture": (
        {"0.left.jpg": b"x", "0.right.jpg": b"y", "0.txt": "a"},
        {"0.left": "a", "0.right": "a"},
    ),
    "two texts": ({"1.jpg": b"x", "1.txt": "a", "1.TXT": "b"}, {"1": "[row_with_two_texts]"}),
    "suffixes in any case": (
        {"1.Jpeg": b"x", "1.Txt": "a", "2.WEBP": b"x", "2.JSON": '{"text": "b"}'},
        {"1": "a", "2": "b"},
    ),
    "kinds that are not read": (
        {"1.tiff": b"x", "1.txt": "a", "2.heic": b"x"},
        {"1": "a", "2": "[row_without_caption]"},
    ),
    "what a Mac leaves": (
        {
            "1.jpg": b"x",
            "1.txt": "a",
            "._1.jpg": b"z",
            "__MACOSX/._1.jpg": b"z",
            ".DS_Store": b"z",
            "__MACOSX/2.jpg": b"",
        },
        {"1": "a"},
    ),
    "composed and decomposed letters": (
        {unicodedata.normalize("NFC", "café.jpg"): b"x", unicodedata.normalize("NFD", "café.txt"): "a"},
        {unicodedata.normalize("NFC", "café"): "a"},
    ),
    "signs that mean something elsewhere": (
        {f"{name}.{kind}": b"x" if kind == "png" else "a" for name in SIGNS for kind in ("png", "txt")},
        dict.fromkeys(SIGNS, "a"),
    ),
}


@pytest.mark.parametrize("where", ["tar", "folder", "laion folder", "tar with ./"])
@pytest.mark.parametrize("case", CASES)
def test_every_picture_has_a_row_or_a_reason(tmp_path: Path, case: str, where: str):
    members, expected = CASES[case]
    if where.startswith("tar"):
        members = {("./" if where.endswith("./") else "") + name: content for name, content in members.items()}
        items = read(pack(tmp_path / "in", members))
    else:
        items = read(put(tmp_path / "in", members), source="laion" if where == "laion folder" else "folder")
    assert found(items) == expected and len(items) == len(expected)


def test_a_member_twice_in_a_tar_is_told(tmp_path: Path):
    write_tar(tmp_path / "a.tar", [{"jpg": b"x", "txt": b"a"}])
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        name = tar.getnames()[0]
        info = tarfile.TarInfo(name)
        info.size = 1
        tar.addfile(info, io.BytesIO(b"y"))
    first, second = read(tmp_path)
    assert isinstance(first, Sample) and isinstance(second, BadRow) and second.reason == "member_repeated"


def test_a_tar_that_breaks_off_counts_the_pictures_it_was_reading(tmp_path: Path):
    pack(tmp_path / "in", {"1.jpg": b"x" * 600, "1.png": b"y" * 600, "1.txt": "a" * 600})
    path = tmp_path / "in" / "a.tar"
    path.write_bytes(path.read_bytes()[: 512 * 7 + 100])  # in the middle of the text
    (bad,) = read_items(tmp_path / "in")
    assert (bad.reason, bad.rows) == ("broken_tar", 2)


def read_items(path: Path):
    from curation.config import BuildConfig
    from curation.sources import open_source

    return [item for shard in open_source(BuildConfig(input=str(path))).shards() for item in shard.read()]


def test_pictures_beside_tars_and_packed_tars_are_told(tmp_path: Path):
    pack(tmp_path / "in", {"1.jpg": b"x", "1.txt": "a"})
    put(tmp_path / "in", {"loose.jpg": b"x", "b.tar.gz": b"z", "C.TGZ": b"z"})
    (tmp_path / "in" / "a.tar").rename(tmp_path / "in" / "A.TAR")
    assert sorted(reasons(read(tmp_path / "in"))) == ["row_without_caption", "tar_compressed", "tar_compressed"]


def test_pictures_that_a_metadata_file_does_not_name_are_told(tmp_path: Path):
    put(tmp_path, {f"in/{name}": b"x" for name in ("0.png", "sub/1.png", "2.png", "3.PNG", "4.tiff")})
    write_table(
        tmp_path / "in" / "metadata.csv", {"file_name": ["0.png", "./sub/1.png", "2.png"], "text": ["a", "b", "c"]}
    )
    (tmp_path / "in" / "metadata.csv").rename(tmp_path / "in" / "Metadata.CSV")
    items = read(tmp_path / "in", source="folder")
    assert [item.caption for item in items if isinstance(item, Sample)] == ["a", "b", "c"]
    assert [(item.key, item.reason) for item in items if isinstance(item, BadRow)] == [
        ("3.PNG", "row_not_listed"),
        ("4.tiff", "row_not_listed"),
    ]


def test_names_in_a_metadata_file_in_another_unicode_form_and_too_long(tmp_path: Path):
    put(tmp_path / "in", {unicodedata.normalize("NFD", "café.png"): b"x"})
    names = [unicodedata.normalize("NFC", "café.png"), "x" * 300 + ".png", "a\x01.png", "café.png/x.png"]
    write_table(tmp_path / "in" / "metadata.csv", {"File_Name ": names, "text": ["a", "b", "c", "d"]})
    items = read(tmp_path / "in", source="folder")
    assert items[0].caption == "a"
    assert reasons(items) == ["row_unreadable", "row_without_image", "row_without_image"]


def linked(tmp_path: Path) -> Path:
    """What the hub's cache has: names that are links to blobs elsewhere."""
    blobs, folder = tmp_path / "blobs", tmp_path / "set"
    (folder / "deep").mkdir(parents=True)
    put(
        blobs,
        {
            "0": encoded(picture(0), "PNG"),
            "1": encoded(picture(1), "PNG"),
            "2": b"a fox",
            "more/3.png": b"y",
            "more/3.txt": "b",
        },
    )
    for name, blob in (("0.png", "0"), ("deep/1.png", "1"), ("0.txt", "2"), ("deep/1.txt", "2"), ("more", "more")):
        os.symlink(os.path.relpath(blobs / blob, (folder / name).parent), folder / name)
    os.symlink(tmp_path / "nowhere.png", folder / "gone.png")
    os.symlink(folder / "gone2.png", folder / "gone2.png")  # to itself
    os.symlink(folder / "0.txt", folder / "gone.txt")
    os.symlink(folder, folder / "deep" / "round")
    os.symlink(blobs / "more", folder / "again")
    return folder


@pytest.mark.parametrize("source", ["folder", "laion"])
def test_links_are_followed(tmp_path: Path, source: str):
    folder = linked(tmp_path)
    expected = {
        "0": "a fox",
        "again/3": "b",
        "deep/1": "a fox",
        "gone": "[row_without_image]",
        "gone2": "[row_without_caption]",
    }
    assert found(read(folder, source=source)) == expected
    os.symlink(folder, tmp_path / "link")
    assert found(read(tmp_path / "link", source=source)) == expected


def test_links_to_lists_and_by_glob(tmp_path: Path):
    write_table(tmp_path / "real.csv", {"URL": ["u"], "TEXT": ["t"]})
    (tmp_path / "in").mkdir()
    os.symlink(tmp_path / "real.csv", tmp_path / "in" / "x.csv")
    assert read(tmp_path / "in") == read(f"{tmp_path}/in/*.csv") == read(tmp_path / "in" / "x.csv")
    assert len(read(tmp_path / "in")) == 1


def test_hf_reads_links_in_its_folder_and_nothing_beyond(tmp_path: Path):
    folder = tmp_path / "set"
    put(tmp_path / "blobs", {str(i): encoded(picture(i), "PNG") for i in range(2)})
    folder.mkdir()
    for i in range(2):
        os.symlink(f"../blobs/{i}", folder / f"{i}.png")
    write_table(folder / "metadata.jsonl", {"file_name": ["0.png", "1.png"], "text": ["a", "b"]})
    items = read(folder, source="hf")
    assert [item.caption for item in items] == ["a", "b"]
    assert [item.image for item in items] == [encoded(picture(i), "PNG") for i in range(2)]

    import pyarrow as pa
    import pyarrow.parquet as pq

    put(tmp_path, {"secret.png": b"x"})
    paths = [f"{folder}/../secret.png", f"{tmp_path}/secret.png", f"{folder}2/x.png", f"{folder}/\0.png"]
    cells = [{"bytes": None, "path": path} for path in paths]
    (tmp_path / "lists").mkdir()
    pq.write_table(pa.table({"image": cells, "text": ["t"] * 4}), tmp_path / "lists" / "0.parquet")
    assert reasons(read(tmp_path / "lists", source="hf")) == ["member_unsafe_name"] * 4


def test_hf_tells_of_files_that_datasets_leaves_out(tmp_path: Path):
    """It takes a file called "train..." for the whole split."""
    names = ["0.png", "train_station.png", "sub/2.png"]
    put(tmp_path / "set", {name: encoded(picture(i), "PNG") for i, name in enumerate(names)})
    write_table(tmp_path / "set" / "metadata.jsonl", {"file_name": names, "text": ["a", "b", "c"]})
    with pytest.raises(UserError, match=r"3 files such as 0\.png are left out: .*--source folder takes all"):
        read(tmp_path / "set", source="hf")
    assert [item.caption for item in read(tmp_path / "set", source="folder")] == ["a", "b", "c"]

    for name in ("train-0.parquet", "other.parquet", "sub/more.parquet"):
        (tmp_path / "lists" / "sub").mkdir(parents=True, exist_ok=True)
        write_table(tmp_path / "lists" / name, {"url": [name], "text": ["t"]})
    items = read(tmp_path / "lists", source="hf")
    assert [item.url for item in items if isinstance(item, Sample)] == ["train-0.parquet"]
    assert [(i.key, i.reason) for i in items if isinstance(i, BadRow)] == [
        ("other.parquet", "file_in_no_split"),
        ("sub/more.parquet", "file_in_no_split"),
    ]


def test_the_law_is_checked():
    tally = Tally(rows_read=3, rows_kept=1, phrases=2, pairs=1)
    tally.row_reasons["x"], tally.phrase_reasons["y"] = 2, 1
    tally.check("a.tar", 3)
    for rows, lost in ((4, {}), (3, {"rows_kept": 0}), (3, {"phrases": 3})):
        broken = Tally(**{"rows_read": 3, "rows_kept": 1, "phrases": 2, "pairs": 1, **lost})
        broken.row_reasons["x"], broken.phrase_reasons["y"] = 2, 1
        with pytest.raises(UserError, match=r"a\.tar: \d"):
            broken.check("a.tar", rows)


def test_a_name_without_a_dot_has_no_suffix():
    names = {"jpg": ("jpg", ""), "a.b/jpg": ("a.b/jpg", ""), "a/b.JPG": ("a/b", "jpg")}
    assert {name: split_name(name) for name in names} == names
    assert not is_picture("png") and not is_picture("x/txt")
