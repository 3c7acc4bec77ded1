"""Column names drift between releases: one mapping to `Sample`, with casts, for every dialect.

laion400m ``URL TEXT NSFW similarity``; laion2B ``SAMPLE_ID URL TEXT HEIGHT WIDTH ... NSFW similarity``;
laion2B-en-joined ``URL TEXT ... similarity hash punsafe pwatermark``; improved aesthetics the same with
``AESTHETIC_SCORE`` or ``aesthetic``; relaion ``url caption ... punsafe pwatermark``; DataComp and DFN ``uid url text
clip_b32_similarity_score``; COYO ``url text clip_similarity_vitb32 watermark_score aesthetic_score_laion_v2``;
img2dataset's output ``jpg txt key status ...`` and what it was told to keep.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from curation.errors import Rejected, UserError
from curation.records import BadRow, Sample
from curation.safety import COLUMNS, as_number, read_safety, squash

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
# Names as `squash` gives them, in order of preference. What says how safe a picture is has its names in
# `curation.safety`, and is read of every column that has one.
NAMES: dict[str, tuple[str, ...]] = {
    "image": (*IMAGE_SUFFIXES, "image"),
    "url": ("url", "imageurl", "imgurl"),
    "caption": ("caption", "text", "txt", "alttext", "topcaption"),
    "pwatermark": ("pwatermark", "watermarkscore"),
    "similarity": ("similarity", "clipsimilarityvitb32", "clipb32similarityscore", "clipsimilarityvitl14"),
    "aesthetic": ("aesthetic", "aestheticscore", "aestheticscorelaionv2"),
    "status": ("status",),
    "error": ("errormessage",),
}
KNOWN = COLUMNS.union(*NAMES.values())

# Field of `Sample` -> columns that may hold it, the preferred ones first.
Columns = Mapping[str, Sequence[str]]


@lru_cache(maxsize=1024)
def find_columns(columns: tuple[str, ...], image: str | None = None, caption: str | None = None) -> Columns:
    """
    Args:
        columns: of a table, or of one row where each has its own.
        image, caption: columns that the user named.
    """
    found = {
        field: tuple(column for name in names for column in columns if squash(column) == name)
        for field, names in NAMES.items()
    }
    named = {field: (column,) for field, column in (("image", image), ("caption", caption)) if column}
    return {**found, **named}


def map_columns(columns: Iterable[str], image: str | None = None, caption: str | None = None) -> dict[str, str]:
    """Field of `Sample` -> column that holds it, for the fields that the columns have.

    Raises:
        UserError: a column that the user named is not among them.
    """
    present = tuple(columns)
    unknown = sorted({column for column in (image, caption) if column} - set(present))
    if unknown:
        raise UserError(f"no column {', '.join(unknown)} (columns: {', '.join(present)})")
    return {field: names[0] for field, names in find_columns(present, image, caption).items() if names}


def relevant(columns: Iterable[str], image: str | None = None, caption: str | None = None) -> list[str]:
    """Those that a row is made from."""
    return sorted({column for column in columns if squash(column) in KNOWN or column in (image, caption)})


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
    columns: Columns,
    *,
    key: str,
    max_image_bytes: int,
    image: bytes | None = None,
    caption: str | None = None,
) -> Sample | BadRow:
    """One row in any dialect. Of a watermark score, similarity or aesthetic score, what is no number counts as missing.

    Args:
        row: text as str or as bytes in UTF-8; images as bytes, or as a struct with ``bytes``.
        columns: see `find_columns`.
        image, caption: for a row that does not hold them itself.
    """

    def cell(field: str) -> Any:
        values = (row.get(column) for column in columns.get(field, ()))
        return next((value for value in values if not is_missing(value)), None)

    key = key.encode("utf-8", "backslashreplace").decode()
    if image is None and columns.get("image"):
        found = (image_bytes(row.get(column)) for column in columns["image"])
        image = next((data for data in found if data is not None), None)
        if image is None:
            if cell("status") in (None, "success", b"success"):
                return BadRow(key, "row_without_image")
            return BadRow(key, "row_not_downloaded", as_detail(cell("error")))
        if len(image) > max_image_bytes:
            return BadRow(key, "member_too_large", f"{len(image)} bytes")
    try:
        nsfw, punsafe = read_safety(row)
        url, words = as_text(cell("url")), as_text(cell("caption"))
    except UnicodeError as error:
        return BadRow(key, "row_not_utf8", str(error))
    except Rejected as rejection:
        return BadRow(key, rejection.reason, rejection.detail)
    if words is None and caption is None and cell("caption") is not None:
        return BadRow(key, "caption_not_text", f"{cell('caption')!r:.100}")
    return Sample(
        key=key,
        caption=words or caption or "",
        image=image,
        url=url,
        nsfw=nsfw,
        punsafe=punsafe,
        pwatermark=as_score(cell("pwatermark")),
        similarity=as_score(cell("similarity")),
        aesthetic=as_score(cell("aesthetic")),
    )


def is_missing(value: Any) -> bool:
    return value is None or value in ("", b"", []) or (isinstance(value, float) and math.isnan(value))


def as_text(value: Any) -> str | None:
    """The text, or the first of several; None for anything else.

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


def as_score(value: Any) -> float | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return as_number(value)
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
