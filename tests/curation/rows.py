"""Corpora that the tests of sources write, and reading them with what holds for every source."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.config import BuildConfig
from curation.records import BadRow
from curation.sources import open_source


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
