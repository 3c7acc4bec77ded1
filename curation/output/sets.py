"""Rows of several subjects: the pairs of one picture and caption, with what the caption says between them.

Made from a finished build's shards, so that a build is the same with and without them; the same pairs give the same
rows. A dataset of its own in ``sets/``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.config import BuildConfig
from curation.language.relations import relations
from curation.output.export import rows
from curation.output.writer import Layout, write_tables, write_text

if TYPE_CHECKING:
    import pyarrow as pa

    from curation.language.phrases import PhraseExtractor

LEAST, MOST = 2, 4
BATCH_ROWS = 64
OF_SUBJECT = (
    *("id", "phrase", "phrase_start", "phrase_end", "head", "concept", "noun"),
    *("box", "score", "crop", "mask", "clip_score"),
)
OF_PICTURE = ("key", "url", "image", "caption", "width", "height", "phash", "sha256")

CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
task_categories:
- text-to-image
language:
- en
---
# Several grounded subjects of one caption

{sets} rows of {least} to {most} subjects each, from the pairs of the build in the folder above. The columns of a
picture and of a subject are those of that build.

| column | meaning |
|---|---|
| `subjects` | in the caption's order; of more than {most}, those with the best scores |
| `relations` | `first` and `second` are numbers in `subjects`; `caption[start:end]` is what is said between them |

A relation is there where spaCy's parse joins two subjects by a verb or a preposition, and not through a third one.
"""


def write_sets(layout: Layout, config: BuildConfig) -> Iterator[Path]:
    """One file for each shard, and the card; yields each when it is whole."""
    from curation.language.phrases import PhraseExtractor

    extractor, schema, total = PhraseExtractor(config), sets_schema(), 0
    for shard in layout.shards:
        path = layout.root / "sets" / "data" / shard.name

        def tables(shard: Path = shard) -> Iterator[pa.Table]:
            import pyarrow as pa

            batch: list[list[dict[str, Any]]] = []
            for group in pictures(shard):
                batch.append(group)
                if len(batch) == BATCH_ROWS:
                    yield pa.Table.from_pylist(related(batch, extractor), schema)
                    batch = []
            if batch:
                yield pa.Table.from_pylist(related(batch, extractor), schema)

        total += sum(write_tables(path, tables(), schema))
        yield path
    card = layout.root / "sets" / "README.md"
    write_text(card, CARD.format(sets=total, least=LEAST, most=MOST))
    yield card


def pictures(shard: Path) -> Iterator[list[dict[str, Any]]]:
    """The pairs of each picture and caption that has several, in the caption's order."""
    for _, group in groupby(rows(shard), key=lambda row: (row["sha256"], row["caption"])):
        pairs = list(group)
        if len(pairs) >= LEAST:
            best = sorted(pairs, key=lambda row: (-row["score"], row["phrase_start"]))[:MOST]
            yield sorted(best, key=lambda row: row["phrase_start"])


def related(groups: Sequence[list[dict[str, Any]]], extractor: PhraseExtractor) -> list[dict[str, Any]]:
    """The rows that are written, each with its relations."""
    made = []
    for group, doc in zip(groups, extractor.parse([group[0]["caption"] for group in groups]), strict=True):
        caption = group[0]["caption"]
        spans = [(row["phrase_start"], row["phrase_end"]) for row in group]
        found = [
            {"first": r.first, "second": r.second, "phrase": caption[r.start : r.end], "start": r.start, "end": r.end}
            for r in relations(doc, spans)
        ]
        subjects = [{name: row[name] for name in OF_SUBJECT} for row in group]
        made.append({**{name: group[0][name] for name in OF_PICTURE}, "subjects": subjects, "relations": found})
    return made


def sets_schema() -> pa.Schema:
    """With the metadata by which `datasets` decodes pictures and crops."""
    from datasets import Features, Image, List, Value

    string, number, whole = Value("string"), Value("float32"), Value("int32")
    kinds = {
        "image": Image(),
        "crop": Image(),
        "mask": Image(),
        "box": List(number, length=4),
        **dict.fromkeys(("score", "clip_score"), number),
        **dict.fromkeys(("phrase_start", "phrase_end", "width", "height"), whole),
    }
    relation = {"first": whole, "second": whole, "phrase": string, "start": whole, "end": whole}
    return Features(
        {
            **{name: kinds.get(name, string) for name in OF_PICTURE},
            "subjects": List({name: kinds.get(name, string) for name in OF_SUBJECT}),
            "relations": List(relation),
        }
    ).arrow_schema
