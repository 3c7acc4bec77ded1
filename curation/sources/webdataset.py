"""img2dataset's WebDataset tars: members ``000000012.jpg .txt .json`` make one row. Nothing is extracted to disk."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from curation.errors import UserError
from curation.records import BadRow, Sample
from curation.sources.base import count_by_reading
from curation.sources.dialects import IMAGE_SUFFIXES, map_columns, to_sample
from curation.sources.files import open_file

MAX_TEXT_BYTES = 1 << 20

# What came of reading one member.
Content = bytes | BadRow


@dataclass(frozen=True)
class TarShard:
    url: str
    name: str
    size: int
    max_image_bytes: int

    @property
    def rows(self) -> int | None:
        """Known from the headers, where jumping from one to the next is cheap."""
        return sum(1 for _ in self._groups(contents=False)) if self.url.startswith("file:") else None

    def read(self) -> Iterator[Sample | BadRow]:
        for item in self._groups():
            yield item if isinstance(item, BadRow) else make_row(*item, self.max_image_bytes)

    def count(self, at_most: int) -> int:
        return count_by_reading((BadRow("", "") for _ in self._groups(contents=False)), at_most)

    def _groups(self, contents: bool = True) -> Iterator[tuple[str, dict[str, Content]] | BadRow]:
        """(key, members by suffix), one a row."""
        group: dict[str, Content] = {}
        current: str | None = None
        for item in self._members(contents):
            if isinstance(item, BadRow):
                if item.reason == "broken_tar":
                    current = None  # its scores may be in the lost part
                yield item
                continue
            key, suffix, content = item
            if key != current:
                if current is not None:
                    yield current, group
                current, group = key, {}
            group[suffix] = content
        if current is not None:
            yield current, group

    def _members(self, contents: bool) -> Iterator[tuple[str, str, Content] | BadRow]:
        """(key, suffix, content) of each useful member; a broken tar ends with a `BadRow`."""
        try:
            with open_file(self.url) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # tarfile remembers them all
                    item = self._member(tar, member, contents)
                    if item is not None:
                        yield item
                # tarfile takes a damaged header for the end; a whole archive ends with a block of zeros.
                stream.seek(tar.offset)
                if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                    yield BadRow(self.name, "broken_tar", f"damaged after byte {tar.offset}")
        except UserError:
            raise
        except Exception as error:  # tarfile raises anything on hostile headers
            yield BadRow(self.name, "broken_tar", repr(error))

    def _member(
        self, tar: tarfile.TarFile, member: tarfile.TarInfo, contents: bool
    ) -> tuple[str, str, Content] | BadRow | None:
        if member.isdir():
            return None
        key, suffix = split_name(member.name)
        if not member.isfile():
            return BadRow(key, "member_not_a_file", member.name)
        if member.name.startswith("/") or ".." in PurePosixPath(member.name).parts:
            return BadRow(key, "member_unsafe_name", member.name)
        if suffix not in IMAGE_SUFFIXES and suffix not in ("txt", "json"):
            return None
        if self.size and member.offset_data + member.size > self.size:
            raise tarfile.ReadError("unexpected end of data")  # `count` reads no data that would tell
        limit = self.max_image_bytes if suffix in IMAGE_SUFFIXES else MAX_TEXT_BYTES
        if member.size > limit:
            return key, suffix, BadRow(key, "member_too_large", f"{member.size} bytes")
        stream = tar.extractfile(member)
        assert stream is not None  # None is for folders and links, handled above
        return key, suffix, stream.read() if contents else b""


def split_name(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def make_row(key: str, group: Mapping[str, Content], max_image_bytes: int) -> Sample | BadRow:
    """The row that an image and the texts beside it make: ``{"jpg": ..., "txt": ..., "json": ...}``."""
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
        caption = parts["txt"].decode("utf-8-sig") if "txt" in parts else None
    except UnicodeDecodeError as error:
        return BadRow(key, "row_not_utf8", str(error))
    except (ValueError, RecursionError) as error:
        # The text file alone would do, but without its scores the row might be unsafe.
        return BadRow(key, "row_bad_json", str(error))
    if not isinstance(metadata, dict):
        return BadRow(key, "row_bad_json", "no object")
    if metadata.get("status", "success") != "success":
        return BadRow(key, "row_not_downloaded", str(metadata.get("error_message")))
    mapping = map_columns(metadata)
    return to_sample(metadata, mapping, key=key, max_image_bytes=max_image_bytes, image=image, caption=caption)
