"""A folder of images, captioned by ``.txt`` or ``.json`` files beside them, or by a ``metadata.csv`` or ``.jsonl``."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from curation.config import BuildConfig
from curation.errors import Rejected, UserError
from curation.records import BadRow, Sample
from curation.safety import squash
from curation.sources.base import BrokenShard, Shard
from curation.sources.dialects import find_columns, map_columns, require_columns, to_sample
from curation.sources.files import File, find_files
from curation.sources.image_files import files_shards, read_file
from curation.sources.names import is_picture
from curation.sources.tables import Row, Table, open_table, read_slice
from curation.sources.text import BrokenTable

METADATA = ("metadata.csv", "metadata.jsonl")
# The name that `datasets`' imagefolder gives this column, as `squash` leaves it.
FILE_COLUMN = "filename"


class FolderSource:
    """``input`` is a folder, here or behind a URL. A metadata file lists all rows of its folder and those below; of
    the images there that no metadata file names, each is a bad row."""

    def __init__(self, input: str, config: BuildConfig) -> None:
        self._input = input
        self._config = config

    def shards(self) -> Sequence[Shard]:
        files = find_files(self._input)
        listed = [file for file in files if PurePosixPath(file.name).name.lower() in METADATA]
        folders = tuple(folder_of(file.name) for file in listed)
        inside = [file for file in files if file.name.startswith(folders)]
        shards: list[Shard] = [*files_shards([file for file in files if file not in set(inside)], self._config)]
        named: set[str] = set()
        for file in listed:
            found = metadata_shards(file, self._config)
            shards += found
            for shard in found:
                named |= shard.image_names() if isinstance(shard, MetadataShard) else set()
        unlisted = [file.name for file in inside if is_picture(file.name) and composed(file.name) not in named]
        if unlisted:
            shards.append(UnlistedShard(tuple(unlisted)))
        if not shards:
            raise UserError(
                f"--input {self._input}: found no images (.jpg, .png, .webp, ...) and no {' or '.join(METADATA)}"
            )
        return shards


@dataclass(frozen=True)
class UnlistedShard:
    """Images in the folder of a metadata file that does not name them."""

    names: tuple[str, ...]
    name: str = "unlisted"

    @property
    def size(self) -> int:
        return len(self.names)

    @property
    def rows(self) -> int:
        return len(self.names)

    def read(self) -> Iterator[Sample | BadRow]:
        for name in self.names:
            yield BadRow(name, "row_not_listed")

    def count(self, at_most: int) -> int:
        return min(at_most, self.rows)


@dataclass(frozen=True)
class MetadataShard:
    """Rows of a metadata file; image names are relative to its folder."""

    table: Table
    part: int
    name: str
    size: int
    folder: str
    config: BuildConfig

    @property
    def rows(self) -> int:
        part = self.table.slices[self.part]
        return part.stop - part.start

    def read(self) -> Iterator[Sample | BadRow]:
        for index, row in enumerate(self._rows()):
            key = f"{self.name}:{index:06d}"
            if isinstance(row, Rejected):
                yield BadRow(key, row.reason, row.detail, row.rows)
                continue
            image = self._image(key, row)
            if isinstance(image, BadRow):
                yield image
                continue
            columns = find_columns(tuple(row), caption=self.config.caption_column)
            yield to_sample(row, columns, key=key, max_image_bytes=self.config.max_image_bytes, image=image)

    def count(self, at_most: int) -> int:
        return min(at_most, self.rows)

    def image_names(self) -> set[str]:
        """Of the images that the rows name, relative to the source's input."""
        names = (image_name(row) for row in self._rows() if not isinstance(row, Rejected))
        folder = folder_of(self.name.rpartition(":")[0])
        return {composed(f"{folder}{PurePosixPath(name)}") for name in names if name}

    def _rows(self) -> Iterator[Row | Rejected]:
        return read_slice(self.table.url, self.table.slices[self.part], self.table.columns)

    def _image(self, key: str, row: Row) -> bytes | BadRow:
        name = image_name(row)
        if not name:
            return BadRow(key, "row_without_image")
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in PurePosixPath(name).parts:
            return BadRow(key, "member_unsafe_name", name)
        # The list may have been written where letters are composed otherwise than in the files' names.
        forms = dict.fromkeys([name, composed(name), unicodedata.normalize("NFD", name)])
        found = (read_file(key, f"{self.folder}/{form}", self.config.max_image_bytes) for form in forms)
        return next((image for image in found if not is_nowhere(image)), BadRow(key, "row_without_image", name))


def image_name(row: Row) -> str:
    name = next((value for column, value in row.items() if squash(column) == FILE_COLUMN), None)
    return name if isinstance(name, str) else ""


def composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def is_nowhere(image: bytes | BadRow) -> bool:
    return isinstance(image, BadRow) and image.reason == "row_without_image"


def folder_of(name: str) -> str:
    """With its slash, and empty for the input itself: what the names of the files in it begin with."""
    head, slash, _ = name.rpartition("/")
    return head + slash


def metadata_shards(file: File, config: BuildConfig) -> list[Shard]:
    """
    Raises:
        UserError: no column with file names, or none with captions.
    """
    try:
        table = open_table(file.url, config.rows_per_shard)
    except BrokenTable as error:
        return [BrokenShard(file.name, file.size, "broken_list", str(error))]
    if FILE_COLUMN not in map(squash, table.columns):
        raise UserError(f"{file.name} has no file_name column (columns: {', '.join(table.columns)})")
    mapping = map_columns(table.columns, caption=config.caption_column)
    require_columns({**mapping, "image": "file_name"}, table.columns, file.name)
    folder = file.url.rpartition("/")[0]
    return [
        MetadataShard(table, index, f"{file.name}:{part.start:09d}", file.size, folder, config)
        for index, part in enumerate(table.slices)
    ]
