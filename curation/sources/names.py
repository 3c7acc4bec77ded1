"""Which files make a row: a picture and the texts that go by its name. One rule for tars and folders.

A name's suffix is what follows its last dot, so that "Screenshot 10.30.22.png" is a picture. WebDataset ends a key at
the first dot, and "000.mask.png" is a part of its row "000": such a picture has a row of its own where it has texts of
its own, or where "000" has texts and no picture.

Law: every picture is in exactly one row.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from curation.sources.dialects import IMAGE_SUFFIXES

# What is a picture by its name. The others are refused when they are opened: they were there, and are counted.
PICTURES = frozenset(IMAGE_SUFFIXES).union(
    ["apng", "avif", "heic", "heif", "ico", "jfif", "jp2", "jpe", "jxl", "pbm", "pgm", "pjpeg", "pnm", "ppm", "psd"],
    ["svg", "tga", "tif", "tiff"],
)
TEXTS = ("txt", "json")

Content = TypeVar("Content")


@dataclass(frozen=True)
class Group(Generic[Content]):
    """The members of one row by their suffixes, or why they make none."""

    key: str
    parts: dict[str, Content]
    reason: str = ""


@dataclass
class Stem(Generic[Content]):
    """What has the same name up to the last dot."""

    name: str
    pictures: list[tuple[str, str, Content]] = field(default_factory=list)  # name, suffix, content
    texts: dict[str, list[Content]] = field(default_factory=dict)


def split_name(name: str) -> tuple[str, str]:
    """(what is before the last dot of the last part, the suffix in lower case); a name without a dot has none."""
    folder, slash, last = name.rpartition("/")
    stem, dot, suffix = last.rpartition(".")
    if not dot:
        return name, ""
    return f"{folder}{slash}{stem}", suffix.strip().lower()


def is_picture(name: str) -> bool:
    return split_name(name)[1] in PICTURES


def is_member(name: str) -> bool:
    return is_picture(name) or split_name(name)[1] in TEXTS


def is_hidden(name: str) -> bool:
    """Of Unix, or what a Mac leaves beside each file ("._000.jpg", "__MACOSX")."""
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in name.split("/"))


def stem_of(name: str) -> str:
    """By which members find each other, however the letters are composed: a Mac writes "é" as two."""
    return unicodedata.normalize("NFC", split_name(name)[0])


def webdataset_key(name: str) -> str:
    """Up to the first dot of the last part."""
    folder, slash, last = stem_of(name).rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def group_rows(members: Iterable[tuple[str, Content]]) -> Iterator[Group[Content]]:
    """A row for each picture, in order of name; then, without a picture, texts that belong to none."""
    stems: dict[str, Stem[Content]] = {}
    for name, content in members:
        stem = stems.setdefault(stem_of(name), Stem(split_name(name)[0]))
        suffix = split_name(name)[1]
        if suffix in PICTURES:
            stem.pictures.append((name, suffix, content))
        else:
            stem.texts.setdefault(suffix, []).append(content)
    lent = set()
    for key, stem in sorted(stems.items()):
        if not stem.pictures:
            continue
        texts = {}
        for kind in TEXTS:
            owner = text_owner(stems, key, kind)
            if owner is not None:
                texts[kind] = stems[owner].texts[kind]
                lent.add(owner)
        yield from picture_rows(stem, texts)
    for key, stem in sorted(stems.items()):
        if not stem.pictures and key not in lent and not any(parent in stems for parent in parents(key)):
            yield Group(stem.name, {kind: contents[0] for kind, contents in stem.texts.items()})


def picture_rows(stem: Stem[Content], texts: dict[str, list[Content]]) -> Iterator[Group[Content]]:
    """Of several pictures with one name each is a row, whose key is its whole name."""
    seen: set[str] = set()
    for name, suffix, content in stem.pictures:
        reason = ""
        if name in seen:
            reason = "member_repeated"
        elif not texts:
            reason = "row_without_caption"
        elif any(len(contents) > 1 for contents in texts.values()):
            reason = "row_with_two_texts"
        seen.add(name)
        parts = {suffix: content} | {kind: contents[0] for kind, contents in texts.items()}
        yield Group(split_name(name)[0] if len(stem.pictures) == 1 else name, parts, reason)


def text_owner(stems: dict[str, Stem[Content]], key: str, kind: str) -> str | None:
    """Whose text of this kind a picture has: its own, or that of a shorter key which has no picture itself."""
    if kind in stems[key].texts:
        return key
    lenders = (parent for parent in parents(key) if parent in stems and not stems[parent].pictures)
    return next((parent for parent in lenders if kind in stems[parent].texts), None)


def parents(key: str) -> Iterator[str]:
    """ "a/0.left.eye" gives "a/0.left" and "a/0"."""
    folder, slash, last = key.rpartition("/")
    while "." in last:
        last = last.rpartition(".")[0]
        yield f"{folder}{slash}{last}"
