"""What a build leaves on disk. Every file appears whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atomic import whole_file
from curation.errors import UserError
from curation.output.tally import Tally
from curation.records import Pair, arrow_schema, to_arrow

if TYPE_CHECKING:
    import pyarrow as pa

COMPRESSION = "zstd"


@dataclass(frozen=True)
class Layout:
    """Where things are in an output folder of ``count`` shards."""

    root: Path
    count: int

    def shard(self, index: int) -> Path:
        return self.root / "data" / f"train-{index:05d}-of-{self.count:05d}.parquet"

    def state(self, index: int) -> Path:
        """A shard's tally; that it exists says that the shard is done."""
        return self.root / "shards" / f"{index:05d}.json"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def concept_counts(self) -> Path:
        return self.root / "concept_counts.parquet"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def browser(self) -> Path:
        return self.root / "pairs.html"

    @property
    def card(self) -> Path:
        return self.root / "README.md"

    @property
    def shards(self) -> list[Path]:
        return [self.shard(index) for index in range(self.count)]

    def tally(self, index: int) -> Tally:
        state = json.loads(self.state(index).read_text())
        state.pop("failures", None)  # see `curation.retry`
        return Tally.from_json(state)


def remove_unfinished(root: Path) -> None:
    """Deletes what `whole_file` could not, as its process was killed."""
    for leftover in root.rglob("*.tmp"):
        leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_shard(path: Path, chunks: Iterator[list[Pair]], crowds: bool = False) -> Iterator[int]:
    """Writes pairs chunk by chunk, one row group each; yields how many each chunk had.

    Args:
        crowds: with the columns of `curation.records.Crowd`.

    The file is in place when the iterator ends, also where there was no pair at all.
    """
    schema = arrow_schema(crowds)

    def tables() -> Iterator[pa.Table]:
        for pairs in chunks:
            yield to_arrow(pairs, schema)

    yield from write_tables(path, tables(), schema)


def write_tables(path: Path, tables: Iterator[pa.Table], schema: pa.Schema) -> Iterator[int]:
    import pyarrow.parquet as pq

    with whole_file(path) as unfinished, pq.ParquetWriter(unfinished, schema, compression=COMPRESSION) as writer:
        for table in tables:
            if table.num_rows:
                writer.write_table(table)
            yield table.num_rows


def file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_manifest(root: Path) -> dict[str, Any] | None:
    path = root / "manifest.json"
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"--output {root}: cannot read there ({error.strerror}); choose another folder") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); choose another --output") from None


def is_complete(root: Path, manifest: dict[str, Any]) -> bool:
    """Whether the build ended and its shards are still there."""
    files: Sequence[dict[str, Any]] = manifest.get("files", [])
    return bool(manifest.get("complete")) and all((root / file["file"]).is_file() for file in files)


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """A full or read-only disk is the user's to mend; atomic writes have left nothing half-done on it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(f"--output {root}: {os.strerror(error.errno)}; finished shards are kept") from error
        raise


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keeps a second build out of the same folder; the lock goes with the process, however that ends."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        stream = (root / ".lock").open("w")
    except OSError as error:
        raise UserError(f"--output {root}: cannot write there ({error.strerror})") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"--output {root}: another build is running there") from None
        yield
