"""A folder of images, captioned by ``.txt`` or ``.json`` files beside them, or by a ``metadata.csv`` or ``.jsonl``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from curation.config import BuildConfig
from curation.errors import Rejected, UserError
from curation.records import BadRow, Sample
from curation.sources.base import BrokenShard, Shard
from curation.sources.dialects import map_columns, require_columns, to_sample
from curation.sources.files import File, find_files
from curation.sources.image_files import files_shards, read_file
from curation.sources.tables import BrokenTable, Table, open_table, read_slice

METADATA = ("metadata.csv", "metadata.jsonl")
# The name that `datasets`' imagefolder gives this column.
FILE_COLUMN = "file_name"


class FolderSource:
    """``input`` is a folder, here or behind a URL. A metadata file lists all rows of its folder and those below."""

    def __init__(self, input: str, config: BuildConfig) -> None:
        self._input = input
        self._config = config

    def shards(self) -> Sequence[Shard]:
        files = find_files(self._input)
        listed = [file for file in files if PurePosixPath(file.name).name in METADATA]
        folders = tuple(folder_of(file.name) for file in listed)
        rest = [file for file in files if not file.name.startswith(folders)]
        shards: list[Shard] = [*files_shards(rest, self._config)]
        for file in listed:
            shards += metadata_shards(file, self._config)
        if not shards:
            raise UserError(
                f"--input {self._input}: found no images (.jpg, .png, .webp, ...) and no {' or '.join(METADATA)}"
            )
        return shards


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
        columns = self.table.columns
        for index, row in enumerate(read_slice(self.table.url, self.table.slices[self.part], columns)):
            key = f"{self.name}:{index:06d}"
            if isinstance(row, Rejected):
                yield BadRow(key, row.reason, row.detail)
                continue
            image = self._image(key, row.get(FILE_COLUMN))
            if isinstance(image, BadRow):
                yield image
                continue
            mapping = caption_columns(self.table, self.config)
            yield to_sample(row, mapping, key=key, max_image_bytes=self.config.max_image_bytes, image=image)

    def count(self, at_most: int) -> int:
        return min(at_most, self.rows)

    def _image(self, key: str, name: object) -> bytes | BadRow:
        if not isinstance(name, str) or not name:
            return BadRow(key, "row_without_image")
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in PurePosixPath(name).parts:
            return BadRow(key, "member_unsafe_name", name)
        return read_file(key, f"{self.folder}/{name}", self.config.max_image_bytes)


def folder_of(name: str) -> str:
    """With its slash, and empty for the input itself: what the names of the files in it begin with."""
    head, slash, _ = name.rpartition("/")
    return head + slash


def caption_columns(table: Table, config: BuildConfig) -> dict[str, str]:
    mapping = map_columns(table.columns, caption=config.caption_column)
    return {field: column for field, column in mapping.items() if field != "image"}


def metadata_shards(file: File, config: BuildConfig) -> list[Shard]:
    """
    Raises:
        UserError: no column with file names, or none with captions.
    """
    try:
        table = open_table(file.url, config.rows_per_shard)
    except BrokenTable as error:
        return [BrokenShard(file.name, file.size, "broken_list", str(error))]
    if FILE_COLUMN not in table.columns:
        raise UserError(f"{file.name} has no {FILE_COLUMN} column (columns: {', '.join(table.columns)})")
    require_columns({**caption_columns(table, config), "image": FILE_COLUMN}, table.columns, file.name)
    folder = file.url.rpartition("/")[0]
    return [
        MetadataShard(table, index, f"{file.name}:{part.start:09d}", file.size, folder, config)
        for index, part in enumerate(table.slices)
    ]
