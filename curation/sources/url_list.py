"""LAION's URL lists, and tables that hold the images themselves (img2dataset's parquet output), in slices of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from curation.config import BuildConfig
from curation.errors import Rejected, UserError
from curation.records import BadRow, Sample
from curation.sources.base import BrokenShard, Shard
from curation.sources.dialects import find_columns, map_columns, relevant, require_columns, to_sample
from curation.sources.files import File
from curation.sources.tables import Slice, open_table, read_slice
from curation.sources.text import BrokenTable


@dataclass(frozen=True)
class ListShard:
    """A slice of a table; keys are file and row number, as img2dataset's are."""

    url: str
    name: str
    size: int
    part: Slice
    columns: tuple[str, ...]
    config: BuildConfig

    @property
    def rows(self) -> int:
        return self.part.stop - self.part.start

    def read(self) -> Iterator[Sample | BadRow]:
        named = (self.config.image_column, self.config.caption_column)
        wanted = relevant(self.columns, *named)
        for index, row in enumerate(read_slice(self.url, self.part, self.columns, wanted)):
            key = f"{self.name}:{index:06d}"
            if isinstance(row, Rejected):
                yield BadRow(key, row.reason, row.detail, row.rows)
            else:
                columns = find_columns(tuple(row), *named)
                yield to_sample(row, columns, key=key, max_image_bytes=self.config.max_image_bytes)

    def count(self, at_most: int) -> int:
        return min(at_most, self.rows)


def list_shards(files: Sequence[File], config: BuildConfig) -> list[Shard]:
    """Slices of all files; one that is damaged beyond use is a shard with one bad row.

    Raises:
        UserError: none is readable, or one lacks the columns.
    """
    shards: list[Shard] = []
    broken: list[str] = []
    for file in files:
        try:
            table = open_table(file.url, config.rows_per_shard)
        except BrokenTable as error:
            broken.append(f"{file.name} is no readable list: {error}")
            shards.append(BrokenShard(file.name, file.size, "broken_list", str(error)))
            continue
        mapping = map_columns(table.columns, config.image_column, config.caption_column)
        require_columns(mapping, table.columns, file.name)
        shards += [
            ListShard(file.url, f"{file.name}:{part.start:09d}", file.size, part, table.columns, config)
            for part in table.slices
        ]
    if len(broken) == len(files):
        raise UserError(broken[0])
    return shards
