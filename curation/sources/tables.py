"""Rows of parquet, csv and jsonl files in slices. What is damaged costs its own rows and has a reason."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from curation.errors import Rejected, UserError
from curation.sources.files import open_file
from curation.sources.text import BUFFER_BYTES, BrokenTable, TextLines, read_json

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz")
# Small enough that a batch of images fits in memory.
BATCH_ROWS = 256
# A quote that is never closed would otherwise read the whole file into one cell.
MAX_CELL_CHARS = 4 << 20

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


@dataclass(frozen=True)
class Unread:
    """A cell of a type that no field of a row has. Its value is not looked at, but it is there."""

    kind: str


def open_table(url: str, rows_per_slice: int) -> Table:
    """What is in a file, with its rows counted: a look at the end of a parquet file, a pass through a text file.

    Raises:
        BrokenTable: nothing can be read of it.
        UserError: the disk or the network failed.
    """
    try:
        if is_parquet(url):
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
    """Rows as dicts, text cells as bytes or str; a damaged row as a rejection, damage to many as one that counts them.

    Args:
        columns: all of the table's, as `open_table` found them.
        wanted: of a parquet file, those to read.
    """
    if is_parquet(url):
        yield from parquet_rows(url, part, columns if wanted is None else wanted)
        return
    left = part.stop - part.start
    try:
        for _, row in islice(text_records(url, part.offset, columns), left):
            yield row
            left -= 1
    except UserError:
        raise
    except Exception as error:  # of gzip and zlib
        yield Rejected("broken_list", repr(error), rows=left)


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
    position, left = 0, high - low
    try:
        for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns), use_threads=False):
            start, stop = max(low - position, 0), min(high - position, batch.num_rows)
            if start < stop:
                yield from batch_rows(batch.slice(start, stop - start))
                left -= stop - start
            position += batch.num_rows
            if position >= high:
                return
    except UserError:
        raise
    except Exception as error:
        detail = f"{left} rows of row group {group}: {' '.join(str(error).split())}"
        yield Rejected("broken_list", detail, rows=left)


def batch_rows(batch: pa.RecordBatch) -> Iterator[Row]:
    """Rows with text as bytes: one cell that is no UTF-8 would fail the conversion of them all."""
    columns = [cells(array) for array in batch.columns]
    for values in zip(*columns, strict=True):
        yield as_row(batch.schema.names, values)


def as_row(names: Sequence[str], values: Sequence[Any]) -> Row:
    """Of columns with the same name, a list: none hides what another says."""
    row = dict(zip(names, values, strict=True))
    if len(row) < len(names):
        for name in row:
            same = [value for other, value in zip(names, values, strict=True) if other == name]
            row[name] = same if len(same) > 1 else same[0]
    return row


def cells(array: pa.Array) -> list[Any]:
    """A column's cells, of types that convert safely; `Unread` in place of all others."""
    import pyarrow as pa

    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    try:
        if is_text(kind):
            return array.cast(pa.large_binary()).to_pylist()
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            if is_text(kind.value_type):
                return array.cast(pa.large_list(pa.large_binary())).to_pylist()
            if is_plain(kind.value_type):
                return array.to_pylist()
        if pa.types.is_decimal(kind):
            return array.cast(pa.float64()).to_pylist()
        if is_plain(kind) or (pa.types.is_struct(kind) and {field.name for field in kind} <= {"bytes", "path"}):
            return array.to_pylist()
    except (pa.ArrowNotImplementedError, UnicodeError):
        pass  # a rare combination of types
    return [Unread(str(kind)) if valid else None for valid in array.is_valid().to_pylist()]


def is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_plain(kind: pa.DataType) -> bool:
    import pyarrow as pa

    kinds = pa.types
    number = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind) or kinds.is_null(kind)
    return number or kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind)


def open_text_table(url: str, rows_per_slice: int) -> Table:
    """A pass over all records, which notes where every ``rows_per_slice``-th begins. The columns are the header's, and
    of a jsonl file, where each object has its own, those that any of them has."""
    header, begin = text_header(url)
    columns = dict.fromkeys(header)
    offsets, rows = [begin], 0
    for end, row in text_records(url, begin, header):
        rows += 1
        if isinstance(row, dict):
            columns.update(dict.fromkeys(row))
        if rows % rows_per_slice == 0:
            offsets.append(end)
    starts = range(0, rows, rows_per_slice)
    slices = [Slice(s, min(s + rows_per_slice, rows), offset) for s, offset in zip(starts, offsets, strict=False)]
    return Table(url, header or tuple(columns), tuple(slices))


def text_header(url: str) -> tuple[tuple[str, ...], int]:
    """The header of a csv file and where the rows begin."""
    if is_jsonl(url):
        return (), 0
    with TextLines(url, 0) as lines:
        return tuple(next(csv.reader(lines, delimiter=delimiter(url)), [])), lines.position


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
            row = read_json(line)
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
            yield lines.position, as_row(columns, cells)
        elif cells:
            yield lines.position, Rejected("row_bad_csv", f"{len(cells)} cells for {len(columns)} columns")


def is_table(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def is_parquet(url: str) -> bool:
    return url.lower().endswith(".parquet")


def is_jsonl(url: str) -> bool:
    return url.lower().removesuffix(".gz").endswith(".jsonl")


def delimiter(url: str) -> str:
    return "\t" if url.lower().removesuffix(".gz").endswith(".tsv") else ","
