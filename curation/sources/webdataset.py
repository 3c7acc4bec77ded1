"""img2dataset's WebDataset tars: members ``000000012.jpg .txt .json`` make one row. Nothing is extracted to disk."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from curation.records import BadRow, Sample
from curation.sources.dialects import map_columns, to_sample

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp"})
MAX_TEXT_BYTES = 1 << 20


@dataclass(frozen=True)
class TarShard:
    path: str
    name: str
    size: int
    max_image_bytes: int

    def read(self) -> Iterator[Sample | BadRow]:
        group: dict[str, bytes | BadRow] = {}
        current: str | None = None
        for item in self._members():
            if isinstance(item, BadRow):
                if item.reason == "broken_tar":
                    current = None  # its scores may be in the lost part
                yield item
                continue
            key, suffix, content = item
            if key != current:
                if current is not None:
                    yield make_row(current, group)
                current, group = key, {}
            group[suffix] = content
        if current is not None:
            yield make_row(current, group)

    def count(self) -> int:
        return sum(1 for _ in self.read_keys())

    def read_keys(self) -> Iterator[str]:
        """Keys from the headers alone: contents are skipped over."""
        current = None
        try:
            with tarfile.open(self.path, "r:") as tar:
                for member in tar:
                    key, _ = split_name(member.name)
                    if member.isfile() and key != current:
                        current = key
                        yield key
        except (tarfile.TarError, OSError, EOFError):
            return  # `read` reports it

    def _members(self) -> Iterator[tuple[str, str, bytes | BadRow] | BadRow]:
        """(key, suffix, content) of each useful member; a broken tar ends with a `BadRow`."""
        try:
            with tarfile.open(self.path, "r:") as tar:
                for member in tar:
                    if member.isdir():
                        continue
                    key, suffix = split_name(member.name)
                    if not member.isfile():
                        yield BadRow(key, "member_not_a_file", member.name)
                    elif member.name.startswith("/") or ".." in PurePosixPath(member.name).parts:
                        yield BadRow(key, "member_unsafe_name", member.name)
                    elif suffix in IMAGE_SUFFIXES or suffix in ("txt", "json"):
                        limit = self.max_image_bytes if suffix in IMAGE_SUFFIXES else MAX_TEXT_BYTES
                        if member.size > limit:
                            yield key, suffix, BadRow(key, "member_too_large", f"{member.size} bytes")
                            continue
                        stream = tar.extractfile(member)
                        assert stream is not None  # None is for folders and links, handled above
                        yield key, suffix, stream.read()
                # tarfile takes a damaged header for the end; a whole archive ends with a block of zeros.
                assert tar.fileobj is not None
                tar.fileobj.seek(tar.offset)
                if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                    yield BadRow(self.name, "broken_tar", f"damaged after byte {tar.offset}")
        except (tarfile.TarError, OSError, EOFError) as error:
            yield BadRow(self.name, "broken_tar", str(error))


def split_name(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def make_row(key: str, group: dict[str, bytes | BadRow]) -> Sample | BadRow:
    for content in group.values():
        if isinstance(content, BadRow):
            return content
    parts = {suffix: content for suffix, content in group.items() if isinstance(content, bytes)}
    image = next((content for suffix, content in parts.items() if suffix in IMAGE_SUFFIXES), None)
    if image is None:
        return BadRow(key, "row_without_image")
    metadata: dict[str, Any] = {}
    try:
        if "json" in parts:
            metadata = json.loads(parts["json"])
        caption = parts["txt"].decode() if "txt" in parts else None
    except UnicodeDecodeError as error:
        return BadRow(key, "row_not_utf8", str(error))
    except (ValueError, RecursionError) as error:
        # The text file alone would do, but without its scores the row might be unsafe.
        return BadRow(key, "row_bad_json", str(error))
    if not isinstance(metadata, dict):
        return BadRow(key, "row_bad_json", "no object")
    if metadata.get("status", "success") != "success":
        return BadRow(key, "row_not_downloaded", str(metadata.get("error_message")))
    return to_sample(metadata, map_columns(metadata), key=key, image=image, caption=caption)
