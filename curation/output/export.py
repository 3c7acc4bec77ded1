"""The pairs in other layouts. WebDataset: the trainers that stream tars read these."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atomic import whole_file
from curation.output.writer import Layout

BATCH_ROWS = 64


def export_webdataset(layout: Layout) -> Iterator[Path]:
    """Writes one tar for each shard, with members ``<id>.jpg .crop.png .txt .json``; yields each when it is whole.

    The image has the suffix that img2dataset gives to any format, since readers want the same members in every
    row; its bytes are as found. The same pairs give the same tar.
    """
    for shard in layout.shards:
        path = layout.root / "webdataset" / shard.with_suffix(".tar").name
        with whole_file(path) as unfinished, tarfile.open(unfinished, "w") as tar:
            for row in rows(shard):
                for suffix, content in members(row):
                    info = tarfile.TarInfo(f"{row['id']}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        yield path


def rows(shard: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            yield from batch.to_pylist()


def members(row: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    binary = {
        name for name, value in row.items() if isinstance(value, dict)
    }  # image, crop, and mask where there is one
    rest = {name: value for name, value in row.items() if name not in binary and value is not None}
    yield "jpg", row["image"]["bytes"]
    for name in sorted(binary - {"image"}):
        if row[name]["bytes"]:
            yield f"{name}.png", row[name]["bytes"]
    yield "txt", row["caption"].encode()
    yield "json", json.dumps(rest, sort_keys=True).encode()
