"""The protocol of sources, and their registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from typing import Protocol

from curation.config import BuildConfig
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

    def read(self) -> Iterator[Sample | BadRow]:
        """The rows in order. Bad rows are yielded, never raised."""
        ...

    def count(self) -> int:
        """How many rows `read` gives, without decoding any."""
        ...


class Source(Protocol):
    def __init__(self, input: str, config: BuildConfig) -> None: ...

    def shards(self) -> Sequence[Shard]:
        """In an order that is the same on every call.

        Raises:
            UserError: nothing to read at the input.
        """
        ...


def open_source(config: BuildConfig, input: str) -> Source:
    """The source that ``config.source`` names, on ``input``."""
    known = {entry.name: entry for entry in entry_points(group="curation.sources")}
    if config.source not in known:
        raise UserError(f"no source {config.source!r}; known: {', '.join(sorted(known))}")
    return known[config.source].load()(input, config)
