"""The protocol of sources, and their registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

from curation.config import BuildConfig
from curation.defaults import default
from curation.errors import UserError
from curation.records import BadRow, Sample


class Shard(Protocol):
    """A part of a corpus that is mined, written and resumed as a whole. Cheap to make and to pickle."""

    @property
    def name(self) -> str:
        """Unique and stable within the corpus; no machine path."""
        ...

    @property
    def size(self) -> int:
        """Of the file, in bytes: a sign that the content is another."""
        ...

    @property
    def rows(self) -> int | None:
        """How many rows `read` gives, where that is known before reading."""
        ...

    def read(self) -> Iterator[Sample | BadRow]:
        """The rows in order, with the same keys every time. Bad rows are yielded, never raised.

        Raises:
            UserError: the disk or the network failed; nothing is lost, as the shard is not done.
        """
        ...

    def count(self, at_most: int) -> int:
        """``min(at_most, rows)``, without decoding any; for ``--limit``."""
        ...


@dataclass(frozen=True)
class BrokenShard:
    """A file of which nothing can be read."""

    name: str
    size: int
    reason: str
    detail: str
    rows: int = 1

    def read(self) -> Iterator[Sample | BadRow]:
        yield BadRow(self.name, self.reason, self.detail)

    def count(self, at_most: int) -> int:
        return min(at_most, 1)


class Source(Protocol):
    def __init__(self, input: str, config: BuildConfig) -> None: ...

    def shards(self) -> Sequence[Shard]:
        """In an order that is the same on every call.

        Raises:
            UserError: nothing to read at the input.
        """
        ...


def count_by_reading(rows: Iterator[Sample | BadRow], at_most: int) -> int:
    """`Shard.count` for those who have no shorter way."""
    total = 0
    for row in rows:
        total += row.rows if isinstance(row, BadRow) else 1
        if total >= at_most:
            return at_most
    return total


def open_source(config: BuildConfig) -> Source:
    """The source that ``config.source`` names, on ``config.input``; `laion` without one reads the default corpus.

    Raises:
        UserError: no such source, no input for it, or the package that offers it does not load.
    """
    known = {entry.name: entry for entry in entry_points(group="curation.sources")}
    if config.source not in known:
        raise UserError(f"no source {config.source!r}; known: {', '.join(sorted(known))}")
    try:
        source = known[config.source].load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"source {config.source!r} ({known[config.source].value}) does not load: {error}") from error
    if config.input is None and config.source != "laion":
        raise UserError(f"--source {config.source} needs --input")
    return source(config.input or default("corpus"), config)
