"""Column names drift between releases: one mapping to `Sample`, with casts, for every dialect.

laion400m ``URL TEXT NSFW similarity``; laion2B ``SAMPLE_ID URL TEXT HEIGHT WIDTH ... NSFW similarity``;
laion2B-en-joined ``URL TEXT ... similarity hash punsafe pwatermark``; improved aesthetics the same with
``AESTHETIC_SCORE`` or ``aesthetic``; relaion ``url caption ... punsafe pwatermark``; DataComp and DFN ``uid url text
clip_b32_similarity_score``; COYO ``url text clip_similarity_vitb32 watermark_score aesthetic_score_laion_v2``;
img2dataset's output ``jpg txt key status ...`` and what it was told to keep.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from curation.errors import UserError
from curation.records import BadRow, Sample

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
# Lower-cased names, in order of preference. COYO's NSFW scores come from other models, but are probabilities alike.
NAMES: dict[str, tuple[str, ...]] = {
    "image": (*IMAGE_SUFFIXES, "image"),
    "url": ("url", "image_url", "imageurl", "img_url"),
    "caption": ("caption", "text", "txt", "alt_text", "top_caption"),
    "nsfw": ("nsfw",),
    "punsafe": ("punsafe", "nsfw_score_gantman", "nsfw_score_opennsfw2"),
    "pwatermark": ("pwatermark", "watermark_score"),
    "similarity": ("similarity", "clip_similarity_vitb32", "clip_b32_similarity_score", "clip_similarity_vitl14"),
    "aesthetic": ("aesthetic", "aesthetic_score", "aesthetic_score_laion_v2"),
    "status": ("status",),
    "error": ("error_message",),
}


def map_columns(columns: Iterable[str], image: str | None = None, caption: str | None = None) -> dict[str, str]:
    """Field of `Sample` -> column that holds it, for the fields that the columns have.

    Args:
        image, caption: columns that the user named.
    """
    present = {column.lower(): column for column in columns}
    mapping = {
        field: present[name]
        for field, names in NAMES.items()
        for name in [next((name for name in names if name in present), None)]
        if name is not None
    }
    mapping |= {field: column for field, column in (("image", image), ("caption", caption)) if column}
    unknown = set(mapping.values()) - set(present.values())
    if unknown:
        raise UserError(f"no column {', '.join(sorted(unknown))} (columns: {', '.join(present.values())})")
    return mapping


def require_columns(mapping: Mapping[str, str], columns: Iterable[str], where: str) -> None:
    """
    Raises:
        UserError: a list that is useless, as it has no captions, or neither images nor their addresses.
    """
    missing = [] if {"image", "url"} & set(mapping) else ["url"]
    missing += [] if "caption" in mapping else ["caption"]
    if missing:
        raise UserError(
            f"{where} has no {' and no '.join(missing)} column (columns: {', '.join(columns)}); expected LAION's URL "
            "and TEXT, or url and caption; --caption-column and --image-column name others"
        )


def to_sample(
    row: Mapping[str, Any],
    mapping: Mapping[str, str],
    *,
    key: str,
    max_image_bytes: int,
    image: bytes | None = None,
    caption: str | None = None,
) -> Sample | BadRow:
    """One row in any dialect; a cell that is no number where one is due counts as missing.

    Args:
        row: text as str or as bytes in UTF-8; images as bytes, or as a struct with ``bytes``.
        image, caption: for a row that does not hold them itself.
    """
    cells = {field: row.get(column) for field, column in mapping.items()}
    key = key.encode("utf-8", "backslashreplace").decode()
    if image is None and "image" in cells:
        image = image_bytes(cells["image"])
        if image is None:
            status = cells.get("status")
            if status in (None, "success", b"success"):
                return BadRow(key, "row_without_image")
            return BadRow(key, "row_not_downloaded", as_detail(cells.get("error")))
        if len(image) > max_image_bytes:
            return BadRow(key, "member_too_large", f"{len(image)} bytes")
    try:
        url, words, nsfw = (as_text(cells.get(field)) for field in ("url", "caption", "nsfw"))
    except UnicodeError as error:
        return BadRow(key, "row_not_utf8", str(error))
    return Sample(
        key=key,
        caption=words or caption or "",
        image=image,
        url=url,
        nsfw=nsfw,
        punsafe=as_number(cells.get("punsafe")),
        pwatermark=as_number(cells.get("pwatermark")),
        similarity=as_number(cells.get("similarity")),
        aesthetic=as_number(cells.get("aesthetic")),
    )


def as_text(value: Any) -> str | None:
    """The text, or the first of several.

    Raises:
        UnicodeError: it cannot be written as UTF-8.
    """
    if isinstance(value, list):
        value = next(iter(value), None)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        value.encode()  # JSON and csv can hold half of a surrogate pair
        return value
    return None


def as_number(value: Any) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_detail(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def image_bytes(cell: Any) -> bytes | None:
    if isinstance(cell, Mapping):
        cell = cell.get("bytes")
    return cell if isinstance(cell, bytes) else None
