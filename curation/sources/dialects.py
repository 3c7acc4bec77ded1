"""LAION's column names drift between releases: one mapping to `Sample`, with casts, for every dialect.

laion400m ``URL TEXT NSFW similarity``; laion2B ``SAMPLE_ID URL TEXT HEIGHT WIDTH ... NSFW similarity``;
laion2B-en-joined ``URL TEXT ... similarity hash punsafe pwatermark``; relaion ``url caption ... punsafe
pwatermark``; img2dataset's own output ``url caption key status ...`` plus whatever it was told to keep.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from curation.errors import UserError
from curation.records import Sample

# Lower-cased names, in order of preference.
NAMES: dict[str, tuple[str, ...]] = {
    "url": ("url", "image_url"),
    "caption": ("caption", "text", "alt_text"),
    "nsfw": ("nsfw",),
    "punsafe": ("punsafe",),
    "pwatermark": ("pwatermark",),
    "similarity": ("similarity",),
}


def map_columns(columns: Iterable[str]) -> dict[str, str]:
    """Field of `Sample` -> column that holds it, for the fields that the columns have."""
    present = {column.lower(): column for column in columns}
    return {
        field: present[name]
        for field, names in NAMES.items()
        for name in [next((name for name in names if name in present), None)]
        if name is not None
    }


def require_columns(columns: Iterable[str], where: str) -> dict[str, str]:
    """`map_columns`, for a list that is useless without addresses and captions."""
    columns = list(columns)
    mapping = map_columns(columns)
    missing = [field for field in ("url", "caption") if field not in mapping]
    if missing:
        raise UserError(
            f"{where} has no {' and no '.join(missing)} column (columns: {', '.join(columns)}); "
            "expected LAION's URL and TEXT, or url and caption"
        )
    return mapping


def to_sample(
    row: Mapping[str, Any],
    mapping: Mapping[str, str],
    *,
    key: str,
    image: bytes | None = None,
    caption: str | None = None,
) -> Sample:
    """One row in any dialect; a cell that is no number where one is due counts as missing."""

    def text(field: str) -> str | None:
        value = row.get(mapping[field]) if field in mapping else None
        return value if isinstance(value, str) else None

    def number(field: str) -> float | None:
        value = row.get(mapping[field]) if field in mapping else None
        try:
            result = float(value) if value is not None else math.nan
        except (TypeError, ValueError):
            return None
        return result if math.isfinite(result) else None

    return Sample(
        key=key,
        caption=text("caption") or caption or "",
        image=image,
        url=text("url"),
        nsfw=text("nsfw"),
        punsafe=number("punsafe"),
        pwatermark=number("pwatermark"),
        similarity=number("similarity"),
    )
