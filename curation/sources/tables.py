"""Rows of parquet, csv and jsonl files in slices. What is damaged costs its own rows and has a reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from curation.errors import Rejected, UserError
from curation.sources.files import open_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz")
# Small enough that a batch of images fits in memory.
BATCH_ROWS = 256
BUFFER_BYTES = 1 << 20
# A quote that is never closed would otherwise read the whole file into one cell.
MAX_CELL_CHARS = 4 << 20
MAX_LINE_BYTES = 16 << 20

Row = dict[str, Any]


@dataclass(frozen=True)
class Slice:
    """Rows ``start`` to ``stop`` of a table; in a text file they begin at byte ``offset`` (of the unpacked text)."""

    start: int
    stop: int
    offset: int = 0


@dataclass(frozen=True)
class Table:
    url: str
    columns: tuple[str, ...]
    slices: tuple[Slice, ...]


class BrokenTable(ValueError):
    """Not what its name says, or damaged beyond use."""


def open_table(url: str, rows_per_slice: int) -> Table:
    """What is in a file, with its rows counted: a look at the end of a parquet file, a pass through a text file.

    Raises:
        BrokenTable: nothing can be read of it.
        UserError: the disk or the network failed.
    """
    try:
        if url.endswith(".parquet"):
            with parquet_file(url) as file:
                rows, columns = file.metadata.num_rows, tuple(file.schema_arrow.names)
            starts = range(0, rows, rows_per_slice)
            return Table(url, columns, tuple(Slice(s, min(s + rows_per_slice, rows)) for s in starts))
        return open_text_table(url, rows_per_slice)
    except UserError:
        raise
    except Exception as error:  # pyarrow, gzip, csv: a damaged file can raise anything
        raise BrokenTable(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def read_slice(
    url: str, part: Slice, columns: Sequence[str], wanted: Sequence[str] | None = None
) -> Iterator[Row | Rejected]:
    """Rows as dicts, text cells as bytes or str; a damaged row as a rejection, damage to many as one.

    Args:
        columns: all of the table's, as `open_table` found them.
        wanted: of a parquet file, those to read.
    """
    if url.endswith(".parquet"):
        yield from parquet_rows(url, part, columns if wanted is None else wanted)
        return
    try:
        for _, row in islice(text_records(url, part.offset, columns), part.stop - part.start):
            yield row
    except UserError:
        raise
    except Exception as error:  # of gzip and zlib
        yield Rejected("broken_list", repr(error))


def parquet_file(url: str) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    # Whole row groups of images would not fit in memory, so columns are read through a buffer.
    return pq.ParquetFile(open_file(url), buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)


def parquet_rows(url: str, part: Slice, columns: Sequence[str]) -> Iterator[Row | Rejected]:
    with parquet_file(url) as file:
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if first < part.stop and first + rows > part.start:
                low, high = max(part.start - first, 0), min(part.stop - first, rows)
                yield from group_rows(file, group, low, high, columns)
            first += rows


def group_rows(
    file: pq.ParquetFile, group: int, low: int, high: int, columns: Sequence[str]
) -> Iterator[Row | Rejected]:
    """Rows ``low`` to ``high`` of a row group; damage ends the group, and the next one may be whole."""
    position = 0
    try:
        for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns), use_threads=False):
            start, stop = max(low - position, 0), min(high - position, batch.num_rows)
            if start < stop:
                yield from batch_rows(batch.slice(start, stop - start))
            position += batch.num_rows
            if position >= high:
                return
    except UserError:
        raise
    except Exception as error:
        yield Rejected("broken_list", f"{high - position} rows of row group {group}: {' '.join(str(error).split())}")


def batch_rows(batch: pa.RecordBatch) -> Iterator[Row]:
    """Rows with text as bytes: one cell that is no UTF-8 would fail the conversion of them all."""
    arrays = {name: plain(array) for name, array in zip(batch.schema.names, batch.columns, strict=True)}
    columns = {name: array.to_pylist() for name, array in arrays.items() if array is not None}
    for index in range(batch.num_rows):
        yield {name: values[index] for name, values in columns.items()}


def plain(array: pa.Array) -> pa.Array | None:
    """The column in a type whose cells convert safely; None for types that no field of a row has."""
    import pyarrow as pa

    kinds = pa.types
    if kinds.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind):
        return array.cast(pa.large_binary())
    if kinds.is_list(kind) and kinds.is_string(kind.value_type):
        return array.cast(pa.list_(pa.binary()))
    if kinds.is_struct(kind) and {field.name for field in kind} <= {"bytes", "path"}:
        return array
    simple = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind)
    binary = kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind)
    return array if simple or binary else None


def open_text_table(url: str, rows_per_slice: int) -> Table:
    """A pass over all records, which notes where every ``rows_per_slice``-th begins."""
    columns, begin = text_columns(url)
    offsets, rows = [begin], 0
    for end, _ in text_records(url, begin, columns):
        rows += 1
        if rows % rows_per_slice == 0:
            offsets.append(end)
    starts = range(0, rows, rows_per_slice)
    slices = [Slice(s, min(s + rows_per_slice, rows), offset) for s, offset in zip(starts, offsets, strict=False)]
    return Table(url, columns, tuple(slices))


def text_columns(url: str) -> tuple[tuple[str, ...], int]:
    """The header of a csv file and where the rows begin; of a jsonl file the first object's names."""
    if is_jsonl(url):
        row = next((row for _, row in text_records(url, 0, ()) if isinstance(row, dict)), {})
        return tuple(row), 0
    with TextLines(url, 0) as lines:
        header = next(csv.reader(lines, delimiter=delimiter(url)), [])
        return tuple(name.removeprefix("\ufeff") for name in header), lines.position


def text_records(url: str, offset: int, columns: Sequence[str]) -> Iterator[tuple[int, Row | Rejected]]:
    """(byte after the record, row or rejection) from ``offset`` on; blank lines are none."""
    with TextLines(url, offset) as lines:
        if is_jsonl(url):
            yield from json_records(lines)
        else:
            yield from csv_records(lines, delimiter(url), columns)


def json_records(lines: TextLines) -> Iterator[tuple[int, Row | Rejected]]:
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield lines.position, Rejected("row_bad_json", str(error))
        else:
            yield lines.position, row if isinstance(row, dict) else Rejected("row_bad_json", "no object")


def csv_records(lines: TextLines, delimiter: str, columns: Sequence[str]) -> Iterator[tuple[int, Row | Rejected]]:
    csv.field_size_limit(MAX_CELL_CHARS)
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield lines.position, Rejected("row_bad_csv", str(error))
            continue
        if len(cells) == len(columns):
            yield lines.position, dict(zip(columns, cells, strict=True))
        elif cells:
            yield lines.position, Rejected("row_bad_csv", f"{len(cells)} cells for {len(columns)} columns")


def is_jsonl(url: str) -> bool:
    return url.removesuffix(".gz").endswith(".jsonl")


def delimiter(url: str) -> str:
    return "\t" if url.removesuffix(".gz").endswith(".tsv") else ","


class TextLines:
    """Lines of a text file; bytes that are no UTF-8 become lone surrogates. ``position`` is the byte after the last."""

    def __init__(self, url: str, offset: int) -> None:
        raw = io.BufferedReader(open_file(url), BUFFER_BYTES)
        self._stream: BinaryIO = gzip.GzipFile(fileobj=raw) if url.endswith(".gz") else raw  # type: ignore[assignment]
        self._stream.seek(offset)
        self.position = offset

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        if len(line) == MAX_LINE_BYTES:
            raise BrokenTable(f"a line of more than {MAX_LINE_BYTES} bytes at byte {self.position}")
        self.position += len(line)
        return line.decode("utf-8", "surrogateescape")

    def __enter__(self) -> TextLines:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
