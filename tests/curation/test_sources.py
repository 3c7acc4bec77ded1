"""Folders, datasets of the hub's kind, sources of other packages, and inputs that lead nowhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.config import BuildConfig
from curation.errors import UserError
from curation.records import Sample
from curation.sources import open_source
from tests.curation.conftest import encoded, picture
from tests.curation.rows import read, reasons, write_table


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
    # The picture outside has no text beside it, and 1.png is in no row.
    assert Counter(reasons(items)) == {
        "member_unsafe_name": 2,
        "row_without_image": 2,
        "row_without_caption": 1,
        "row_not_listed": 1,
    }
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
