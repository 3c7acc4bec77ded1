"""Where rows come from. A source is found by name in the entry-point group ``curation.sources``."""

from curation.sources.base import Shard, Source, open_source

__all__ = ["Shard", "Source", "open_source"]
