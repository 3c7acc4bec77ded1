"""``report.html``: the funnel, the reasons, the scores, and some pairs with their boxes drawn. One file.

Every string in it comes from strangers' captions; Jinja escapes them all.
"""

from __future__ import annotations

import base64
import io
import random
from collections import Counter
from typing import Any

from PIL import Image, ImageOps

from curation.tally import Tally
from curation.writer import Layout

SHOWN_PAIRS = 36
SHOWN_CONCEPTS = 20
SCORE_BINS = 20
THUMBNAIL = 256


def render_report(layout: Layout, tally: Tally, head: dict[str, Any], *, seed: int) -> str:
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("curation"), autoescape=True)
    rejections = [
        ("Rejected rows", tally.rows_read, tally.row_reasons.most_common()),
        ("Rejected phrases", tally.phrases, tally.phrase_reasons.most_common()),
    ]
    return environment.get_template("report.html").render(
        tally=tally,
        head=head,
        funnel=funnel(tally),
        rejections=[item for item in rejections if item[2]],
        scores=histogram(layout),
        concepts=frequent_concepts(layout),
        pairs=[shown(row) for row in sample_rows(layout, seed)],
    )


def funnel(tally: Tally) -> list[tuple[str, int, float]]:
    """What is left after each stage: rows by stage of their rejection, in the pipeline's order."""
    stages = {
        "readable": ("row_", "member_", "broken_"),
        "safe by the corpus' scores": ("flagged_", "unsafe_", "watermark_", "low_"),
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
    result.append(("rows with a box", tally.rows_kept))
    return [(name, count, count / max(1, tally.rows_read)) for name, count in result]


def histogram(layout: Layout) -> list[tuple[float, int, float]]:
    import pyarrow.parquet as pq

    bins: Counter[int] = Counter()
    for path in layout.shards:
        scores = pq.read_table(path, columns=["score"])["score"].to_pylist()
        bins.update(min(int(score * SCORE_BINS), SCORE_BINS - 1) for score in scores)
    if not bins:
        return []
    top = max(bins.values())
    return [(b / SCORE_BINS, bins[b], bins[b] / top) for b in range(min(bins), SCORE_BINS)]


def frequent_concepts(layout: Layout) -> list[tuple[str, int, float]]:
    import pyarrow.parquet as pq

    rows = [row for row in pq.read_table(layout.concept_counts).to_pylist() if row["words"] == 1]
    return [(row["concept"], row["count"], row["count"] / rows[0]["count"]) for row in rows[:SHOWN_CONCEPTS]]


def sample_rows(layout: Layout, seed: int) -> list[dict[str, Any]]:
    """Pairs drawn evenly from all shards; only the row groups that hold them are read."""
    import pyarrow.parquet as pq

    groups = [
        (path, group, metadata.row_group(group).num_rows)
        for path in layout.shards
        for metadata in [pq.read_metadata(path)]
        for group in range(metadata.num_row_groups)
    ]
    total = sum(rows for *_, rows in groups)
    chosen = sorted(random.Random(seed).sample(range(total), min(SHOWN_PAIRS, total)))
    found = []
    start = 0
    for path, group, rows in groups:
        inside = [index - start for index in chosen if start <= index < start + rows]
        if inside:
            with pq.ParquetFile(path) as file:
                found += file.read_row_group(group).take(inside).to_pylist()
        start += rows
    return found


def shown(row: dict[str, Any]) -> dict[str, Any]:
    x0, y0, x1, y1 = row["box"]
    caption, start, end = row["caption"], row["phrase_start"], row["phrase_end"]
    return {
        "thumbnail": thumbnail(row["image"]["bytes"]),
        "left": round(100 * x0, 2),
        "top": round(100 * y0, 2),
        "width": round(100 * (x1 - x0), 2),
        "height": round(100 * (y1 - y0), 2),
        "before": caption[:start],
        "phrase": caption[start:end],
        "after": caption[end:],
        "concept": row["concept"],
        "score": row["score"],
        "key": row["key"],
    }


def thumbnail(data: bytes) -> str:
    """A small JPEG, base64: the report stays small, and shows nothing but pixels of the original file."""
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()
