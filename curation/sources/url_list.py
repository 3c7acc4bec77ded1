"""LAION's URL lists, parquet or csv, in slices of rows; the images are downloaded by the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.errors import UserError
from curation.records import BadRow, Sample
from curation.sources.dialects import map_columns, require_columns, to_sample

if TYPE_CHECKING:
    import pyarrow as pa

LIST_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz")
BATCH_ROWS = 4096


@dataclass(frozen=True)
class ListShard:
    """Rows ``start`` to ``stop`` of a list; keys are img2dataset's: file and row number."""

    path: str
    name: str
    size: int
    start: int
    stop: int

    def read(self) -> Iterator[Sample | BadRow]:
        try:
            for index, row in self._rows():
                yield to_sample(row, map_columns(row), key=f"{self.name}:{index - self.start:06d}")
        except (OSError, ValueError) as error:  # pyarrow's errors are both
            yield BadRow(self.name, "broken_list", str(error))

    def count(self) -> int:
        return self.stop - self.start

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for position, batch in batches(self.path, self.start):
            low, high = max(self.start - position, 0), min(self.stop - position, batch.num_rows)
            if low < high:
                for offset, row in enumerate(batch.slice(low, high - low).to_pylist()):
                    yield position + low + offset, row
            if position + batch.num_rows >= self.stop:
                return


def batches(path: str, start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of the first row, rows); parquet row groups that end before ``start`` are skipped unread."""
    import pyarrow.csv
    import pyarrow.parquet

    position = 0
    if path.endswith(".parquet"):
        file = pyarrow.parquet.ParquetFile(path)
        columns = list(map_columns(file.schema_arrow.names).values())
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if position + rows <= start:
                position += rows
                continue
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns):
                yield position, batch
                position += batch.num_rows
    else:
        delimiter = "\t" if ".tsv" in Path(path).name else ","
        parse = pyarrow.csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=lambda _: "skip"
        )
        for batch in pyarrow.csv.open_csv(path, parse_options=parse):
            yield position, batch
            position += batch.num_rows


def url_list_shards(path: Path, name: str, rows_per_shard: int) -> list[ListShard]:
    """Slices of a file.

    Raises:
        UserError: not a readable list, or one without address and caption columns.
    """
    import pyarrow as pa
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            file = pyarrow.parquet.ParquetFile(path)
            names, rows = file.schema_arrow.names, file.metadata.num_rows
        else:
            names, rows = [], 0
            for _, batch in batches(str(path)):
                names, rows = batch.schema.names, rows + batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is no readable list: {' '.join(str(error).split())}") from None
    require_columns(names, str(path))
    size = path.stat().st_size
    return [
        ListShard(str(path), f"{name}:{start:09d}", size, start, min(start + rows_per_shard, rows))
        for start in range(0, rows, rows_per_shard)
    ]
