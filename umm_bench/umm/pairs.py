"""The grounded subject-caption pairs that `curation.build` writes, as the trainer reads them."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from umm_bench.errors import UserError
from umm_bench.images import open_image
from umm_bench.weights import first_line

COLUMNS = ("id", "image", "crop", "caption", "phrase_start", "phrase_end", "head", "box")
NOUN = "noun"  # builds of old have no such column: the head stands for it


@dataclass(frozen=True)
class Pair:
    """One row. `caption[start:end]` names the subject; `noun` is what it is; `box` is xyxy in [0, 1]."""

    id: str
    image: bytes
    crop: bytes
    caption: str
    start: int
    end: int
    noun: str
    box: tuple[float, float, float, float]

    @property
    def digest(self) -> str:
        """Changes with anything that training sees of this row."""
        words = f"{self.caption}\0{self.start}\0{self.end}\0{self.noun}\0{self.box}".encode()
        return hashlib.sha256(b"\0".join([words, self.image, self.crop])).hexdigest()


def read_pairs(folder: Path) -> Iterator[Pair]:
    """All rows of the parquet shards under `folder`, or its `data` where a build is, shard by shard in name order.

    Raises UserError when there is no shard, or one lacks a column.
    """
    for file in _open_shards(folder):
        noun = NOUN if NOUN in file.schema_arrow.names else "head"
        try:
            for batch in file.iter_batches(batch_size=64, columns=list(dict.fromkeys([*COLUMNS, noun]))):
                yield from (_pair(row, noun) for row in batch.to_pylist())
        except (pa.ArrowException, OSError, TypeError, ValueError, KeyError) as error:
            raise UserError(f"a shard in {folder} is damaged, make its pairs again: {first_line(error)}") from error


def _pair(row: dict[str, Any], noun: str) -> Pair:
    x0, y0, x1, y1 = row["box"]
    return Pair(
        id=row["id"],
        image=row["image"]["bytes"] or b"",
        crop=row["crop"]["bytes"] or b"",
        caption=row["caption"],
        start=row["phrase_start"],
        end=row["phrase_end"],
        noun=row[noun],
        box=(x0, y0, x1, y1),
    )


def count_pairs(folder: Path) -> int:
    """Rows that `read_pairs` will give, from the shards' footers; raises as it does."""
    return sum(file.metadata.num_rows for file in _open_shards(folder))


def _open_shards(folder: Path) -> Iterator[pq.ParquetFile]:
    rows = folder / "data"  # a build has its failures, counts and state beside its rows
    if not os.path.isdir(rows):
        rows = folder
    found = sorted(rows.rglob("*.parquet")) if os.path.isdir(rows) else []
    shards = [shard for shard in found if shard.name != "concept_counts.parquet"]
    if not shards:
        raise UserError(f"no parquet pairs in {folder}; make some with `python -m curation.build --output {folder}`")
    for shard in shards:
        try:
            file = pq.ParquetFile(shard)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{shard} is not readable as parquet: {str(error).splitlines()[0]}") from error
        missing = [column for column in COLUMNS if column not in file.schema_arrow.names]
        if missing:
            raise UserError(f"{shard} lacks the column {missing[0]}; is it an output of curation.build?")
        yield file


def subject_caption(pair: Pair, head_only: bool) -> tuple[str, int, int]:
    """The caption to train on, with the character span of the words that the image replaces.

    Captions describe ("a small orange fox"), requests do not ("a fox in the snow"). With `head_only` the
    phrase is cut to its noun, which leaves the appearance to the image: otherwise the words after the
    subject, whose hidden states have read "orange", tell the UNet what the pseudo word should.
    """
    phrase = pair.caption[pair.start : pair.end]
    determiner = re.match(r"(?:(?:an?|the|this|that|one)\s+)?", phrase, flags=re.IGNORECASE)
    assert determiner is not None
    if not head_only:
        return pair.caption, pair.start + determiner.end(), pair.end
    article = determiner.group()
    if article.lower().strip() in ("a", "an"):
        article = article[0] + ("n " if pair.noun[:1].lower() in "aeiou" else " ")
    before = pair.caption[: pair.start] + article
    return before + pair.noun + pair.caption[pair.end :], len(before), len(before) + len(pair.noun)


def target_image(pair: Pair, size: tuple[int, int]) -> Image.Image:
    """The whole picture at (width, height) `size`, cut to that aspect where the subject's box is.

    Raises UserError when the picture cannot be decoded.
    """
    image = open_image(pair.image)
    scale = min(image.width / size[0], image.height / size[1])
    window = np.array([size[0] * scale, size[1] * scale])
    extent = np.array(image.size)
    x0, y0, x1, y1 = pair.box
    centre = np.array([x0 + x1, y0 + y1]) / 2 * extent
    left, top = np.clip(centre - window / 2, 0, extent - window).tolist()
    box = (left, top, left + window[0], top + window[1])
    return image.resize(size, Image.Resampling.LANCZOS, box=box)
