"""Rows whose download failed: kept beside their shard with the reason, and tried again by a later build of the folder.

A shard's state names its file of failures, so that one atomic write moves both on. The new pairs follow the old ones.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from atomic import whole_file
from curation.language.focus import NAME
from curation.output.tally import Tally
from curation.output.writer import COMPRESSION, Layout, write_json, write_tables
from curation.records import Failure, Sample, arrow_schema, to_arrow

if TYPE_CHECKING:
    import pyarrow as pa

    from curation.pipeline import ShardMiner

FAILURES = "failures"


def write_state(layout: Layout, index: int, tally: Tally, failures: Sequence[Failure]) -> None:
    """Marks a shard as done."""
    old = failures_file(layout, index)
    state = tally.to_json()
    if failures:
        number = int(old.stem.rpartition("-")[2]) + 1 if old else 0
        path = layout.state(index).with_name(f"{index:05d}.failures-{number}.parquet")
        write_failures(path, failures)
        state[FAILURES] = path.name
    write_json(layout.state(index), state)
    if old is not None:
        old.unlink(missing_ok=True)


def failures_file(layout: Layout, index: int) -> Path | None:
    state = layout.state(index)
    name = json.loads(state.read_text()).get(FAILURES) if state.is_file() else None
    return state.with_name(name) if name else None


def shards_to_retry(layout: Layout) -> list[int]:
    """The shards with failures that may pass."""
    folder = layout.root / "shards"
    listed = sorted({int(path.name.split(".")[0]) for path in folder.glob("*.failures-*.parquet")})
    return [index for index in listed if any(failure.transient for failure in read_failures(layout, index))]


def is_ahead(layout: Layout, index: int) -> bool:
    """Whether a shard has pairs that its tally does not know of: a retry was killed between its two writes."""
    import pyarrow.parquet as pq

    return pq.read_metadata(layout.shard(index)).num_rows > layout.tally(index).pairs


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{**asdict(f.sample), "reason": f.reason, "detail": f.detail, "transient": f.transient} for f in failures]
    with whole_file(path) as unfinished:
        pq.write_table(pa.Table.from_pylist(rows, failures_schema()), unfinished, compression=COMPRESSION)


def failures_schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"key": pa.string(), "caption": pa.string(), "url": pa.string(), "nsfw": pa.string()}
    sample = [(f.name, kinds.get(f.name, pa.float64())) for f in fields(Sample) if f.name != "image"]
    return pa.schema([*sample, ("reason", pa.string()), ("detail", pa.string()), ("transient", pa.bool_())])


def read_failures(layout: Layout, index: int) -> list[Failure]:
    import pyarrow.parquet as pq

    path = failures_file(layout, index)
    if path is None:
        return []
    own = ("reason", "detail", "transient")
    return [
        Failure(Sample(**{name: value for name, value in row.items() if name not in own}), *(row[n] for n in own))
        for row in pq.read_table(path).to_pylist()
    ]


def retry_shard(layout: Layout, index: int, new_miner: Callable[[], ShardMiner]) -> Iterator[int]:
    """Mines a shard's transient failures and appends what comes of them; yields the pairs of each step.

    Killed in the middle, it leaves the shard as it was, or one to which the same is done again.
    """
    failures = read_failures(layout, index)
    again = [failure for failure in failures if failure.transient]
    samples = [failure.sample for failure in again]
    tally = without(layout.tally(index), new_miner().tally_of_failed(again))
    miner = new_miner()
    yield from append_pairs(layout.shard(index), {sample.key for sample in samples}, miner, samples)
    tally.add(miner.tally)
    write_state(layout, index, tally, [f for f in failures if not f.transient] + miner.failures)


def append_pairs(path: Path, keys: set[str], miner: ShardMiner, samples: Sequence[Sample]) -> Iterator[int]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        schema = arrow_schema(miner.config.counts_crowds)
        schema = schema.with_metadata({**(file.schema_arrow.metadata or {}), **(schema.metadata or {})})

        def tables() -> Iterator[pa.Table]:
            for group in range(file.num_row_groups):
                # Pairs of these rows are there already if an earlier attempt was killed before its last write.
                table = file.read_row_group(group)
                table = table.filter(pc.invert(pc.is_in(table["key"], pa.array(sorted(keys)))))
                miner.remember(*(table[name].to_pylist() for name in ("sha256", "phash", "embedding")))
                if miner.config.focus:
                    columns = (table[name].to_pylist() for name in NAME)
                    miner.remember_pairs(list(zip(*columns, strict=True)))
                yield table.cast(schema)
            for pairs in miner.mine(samples):
                yield to_arrow(pairs, schema)

        yield from write_tables(path, tables(), schema)


def without(tally: Tally, part: Tally) -> Tally:
    """``tally`` before ``part`` was added to it."""

    def difference(whole: Counter[str], less: Counter[str]) -> Counter[str]:
        return Counter({reason: count - less[reason] for reason, count in whole.items() if count > less[reason]})

    reasons = difference(tally.row_reasons, part.row_reasons)
    phrase_reasons = difference(tally.phrase_reasons, part.phrase_reasons)
    return Tally(
        rows_read=tally.rows_read - part.rows_read,
        rows_kept=tally.rows_kept,
        phrases=tally.phrases - part.phrases,
        pairs=tally.pairs,
        row_reasons=reasons,
        phrase_reasons=phrase_reasons,
        examples={
            reason: found for reason, found in tally.examples.items() if reasons[reason] or phrase_reasons[reason]
        },
    )
