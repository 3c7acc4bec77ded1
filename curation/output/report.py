"""``report.html``: funnel, reasons, distributions, some pairs; ``pairs.html``: more of them, to browse.

Both hold everything they show, and stay small for any build, as pairs are drawn. Every string in them comes from
strangers' captions; Jinja escapes them all.
"""

from __future__ import annotations

import base64
import io
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from PIL import Image, ImageOps

from curation.output.tally import Tally
from curation.output.writer import Layout
from curation.vision.images import thumbnail
from design import policy, style

SHOWN_PAIRS = 24
BROWSED_PAIRS = 480
SHOWN_NAMES = 20
SHOWN_NAME_CHARS = 60
LONGEST_COUNTED = 8
BINS = 24
PIXELS = 224


@dataclass(frozen=True)
class Bar:
    """``share`` in 0..1 is of what the longest bar stands for."""

    label: str
    count: int
    share: float


class Report:
    """The two pages of a mined folder. ``head`` is the manifest's unchanging part; ``seed`` draws the pairs."""

    def __init__(self, layout: Layout, tally: Tally, head: dict[str, Any], *, seed: int) -> None:
        from jinja2 import Environment, PackageLoader

        self._layout = layout
        self._tally = tally
        self._head = head
        self._seed = seed
        self._templates = Environment(loader=PackageLoader("curation"), autoescape=True)

    def _page(self, template: str, script: str = "", **context: Any) -> str:
        """A template with the design of all pages; `script`, one of ours, is all that may run in it."""
        from markupsafe import Markup

        ours = [self._source(script)] if script else []
        shared = {"style": Markup(style()), "own_style": Markup(self._source("pages.css")), "policy": policy(ours)}
        return self._templates.get_template(template).render(script=Markup("".join(ours)), **shared, **context)

    def _source(self, name: str) -> str:
        assert self._templates.loader
        return self._templates.loader.get_source(self._templates, name)[0]

    @cached_property
    def _pairs(self) -> list[dict[str, Any]]:
        return [shown(row) for row in sample_rows(self._layout, self._seed)]

    def report(self) -> str:
        tally = self._tally
        rejections = [
            ("Rejected rows", tally.rows_read, tally.row_reasons.most_common()),
            ("Rejected phrases", tally.phrases, tally.phrase_reasons.most_common()),
        ]
        return self._page(
            "report.html",
            tally=tally,
            head=self._head,
            funnel=funnel(tally),
            rejections=[item for item in rejections if item[2]],
            histograms=histograms(self._layout),
            pairs=self._pairs[:SHOWN_PAIRS],
            shown_pairs=len(self._pairs),
            **distributions(self._layout),
        )

    def pairs(self) -> str:
        return self._page("pairs.html", "pairs.js", pairs=self._pairs, total=self._tally.pairs)


def bars(counts: Iterable[tuple[str, int]], top: int | None = None) -> list[Bar]:
    counts = list(counts)
    top = top or max((count for _, count in counts), default=1)
    return [Bar(label, count, count / max(1, top)) for label, count in counts]


def funnel(tally: Tally) -> list[Bar]:
    """What is left after each stage: rows by stage of their rejection, in the pipeline's order."""
    stages = {
        "readable": ("row_", "member_", "broken_", "tar_", "file_"),
        "safe by the corpus' scores": ("flagged_", "unsafe_", "safety_", "watermark_", "low_"),
        "captions with phrases": ("caption_",),
        "images": ("fetch_", "image_"),
        "no duplicates": ("duplicate_",),
    }
    left = tally.rows_read
    result = [("rows", left)]
    for name, prefixes in stages.items():
        left -= sum(
            count
            for reason, count in tally.row_reasons.items()
            if reason.startswith(prefixes) and reason != "row_without_box"
        )
        result.append((name, left))
    result.append(("rows with a pair", tally.rows_kept))
    return bars(result, top=tally.rows_read)


def histograms(layout: Layout) -> list[tuple[str, list[Bar]]]:
    """Of every score column that has values: the detector's, the filters' and the corpus' own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [field.name for field in pq.read_schema(layout.shards[0]) if pa.types.is_floating(field.type)]
    found = [(name, histogram(layout, name)) for name in names]
    return [(name, bins) for name, bins in found if bins]


def histogram(layout: Layout, name: str) -> list[Bar]:
    """Over 0..1, or as far as the values go; empty where there are none. One shard is in memory at a time."""
    import numpy as np
    import pyarrow.parquet as pq

    def shards() -> Iterator[np.ndarray]:
        for path in layout.shards:
            values = pq.read_table(path, columns=[name])[name].drop_null().to_numpy()
            if len(values):
                yield values

    ends = [(float(values.min()), float(values.max())) for values in shards()]
    if not ends:
        return []
    edges = np.linspace(min(0.0, *(low for low, _ in ends)), max(1.0, *(high for _, high in ends)), BINS + 1)
    counts = sum(np.histogram(values, bins=edges)[0] for values in shards())
    labels = (f"{low:.2f} - {high:.2f}" for low, high in pairwise(edges))
    return bars(zip(labels, np.asarray(counts).tolist(), strict=True))


def distributions(layout: Layout) -> dict[str, Any]:
    """Concepts, phrases, words in a phrase and pairs from one image, and how many there are of the first two."""
    import pyarrow.parquet as pq

    phrases, concepts, words, images = Counter[str](), Counter[str](), Counter[int](), Counter[int]()
    for path in layout.shards:
        table = pq.read_table(path, columns=["phrase", "concept", "sha256"])
        texts = [text.lower() for text in table["phrase"].to_pylist()]
        phrases.update(texts)
        concepts.update(table["concept"].to_pylist())
        words.update(len(text.split()) for text in texts)
        images.update(Counter(table["sha256"].to_pylist()).values())
    return {
        "concepts": bars(frequent(concepts)),
        "distinct_concepts": len(concepts),
        "phrases": bars(frequent(phrases)),
        "distinct_phrases": len(phrases),
        "phrase_words": bars(by_number(words)),
        "pairs_per_image": bars(by_number(images)),
    }


def frequent(counts: Counter[str]) -> list[tuple[str, int]]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(name[:SHOWN_NAME_CHARS], count) for name, count in ordered[:SHOWN_NAMES]]


def by_number(counts: Counter[int]) -> list[tuple[str, int]]:
    """In the numbers' order; the longest tail is one bar."""
    capped = Counter[int]()
    for number, count in counts.items():
        capped[min(number, LONGEST_COUNTED)] += count
    return [(f"{number}{' or more' if number == LONGEST_COUNTED else ''}", capped[number]) for number in sorted(capped)]


def sample_rows(layout: Layout, seed: int) -> list[dict[str, Any]]:
    """Pairs drawn evenly from all shards, in a random order; only the row groups that hold them are read."""
    import pyarrow.parquet as pq

    groups = [
        (path, group, metadata.row_group(group).num_rows)
        for path in layout.shards
        for metadata in [pq.read_metadata(path)]
        for group in range(metadata.num_row_groups)
    ]
    total = sum(rows for *_, rows in groups)
    rng = random.Random(seed)
    chosen = sorted(rng.sample(range(total), min(BROWSED_PAIRS, total)))
    found: list[dict[str, Any]] = []
    start = 0
    for path, group, rows in groups:
        inside = [index - start for index in chosen if start <= index < start + rows]
        if inside:
            with pq.ParquetFile(path) as file:
                found += read_rows(file, group, inside)
        start += rows
    rng.shuffle(found)
    return found


def read_rows(file: Any, group: int, indices: Sequence[int]) -> list[dict[str, Any]]:
    columns = ["image", "caption", "phrase_start", "phrase_end", "box", "concept", "score", "key"]
    return file.read_row_group(group, columns=columns).take(indices).to_pylist()


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """What a page needs of a pair; ``box`` is left, top, width, height in percent."""
    x0, y0, x1, y1 = row["box"]
    caption, start, end = row["caption"], row["phrase_start"], row["phrase_end"]
    with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    return {
        "picture": base64.b64encode(thumbnail(upright, PIXELS)).decode(),
        "box": [round(100 * v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
        "before": caption[:start],
        "phrase": caption[start:end],
        "after": caption[end:],
        "concept": row["concept"],
        "score": round(row["score"], 4),
        "key": row["key"],
    }
