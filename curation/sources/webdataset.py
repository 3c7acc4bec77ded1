"""img2dataset's WebDataset tars: members ``000000012.jpg .txt .json`` make one row. Nothing is extracted to disk.

Members of a row follow one another, so that no more than a row is kept in memory.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from curation.errors import UserError
from curation.records import BadRow, Sample
from curation.sources.base import count_by_reading
from curation.sources.dialects import find_columns, to_sample
from curation.sources.files import open_file
from curation.sources.names import (
    PICTURES,
    Group,
    group_rows,
    is_hidden,
    is_member,
    is_picture,
    stem_of,
    webdataset_key,
)
from curation.sources.text import decode_text, read_json

MAX_TEXT_BYTES = 1 << 20
# Of one WebDataset key. Names that all begin alike ("v1.0001.jpg", "v1.0002.jpg") are rows of their own.
MAX_MEMBERS = 32

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
        if not self.url.startswith("file:"):
            return None
        return sum(item.rows if isinstance(item, BadRow) else 1 for item in self._groups(contents=False))

    def read(self) -> Iterator[Sample | BadRow]:
        for item in self._groups():
            yield item if isinstance(item, BadRow) else make_row(item, self.max_image_bytes)

    def count(self, at_most: int) -> int:
        bare = (item if isinstance(item, BadRow) else BadRow("", "") for item in self._groups(contents=False))
        return count_by_reading(bare, at_most)

    def _groups(self, contents: bool = True) -> Iterator[Group[Content] | BadRow]:
        """One a row."""
        members: list[tuple[str, Content]] = []
        for item in self._members(contents):
            if isinstance(item, BadRow):
                if item.reason == "broken_tar":
                    # The scores of the row that was being read may be in the lost part.
                    unsure = sum(is_picture(name) for name, _ in members)
                    members, item = [], replace(item, rows=max(1, unsure))
                yield item
                continue
            if members and self._ends(members, item[0]):
                yield from group_rows(members)
                members = []
            members.append(item)
        yield from group_rows(members)

    def _ends(self, members: list[tuple[str, Content]], name: str) -> bool:
        """Whether a row ends before the member of this name."""
        last = members[-1][0]
        is_full = len(members) >= MAX_MEMBERS and stem_of(name) != stem_of(last)
        return is_full or webdataset_key(name) != webdataset_key(last)

    def _members(self, contents: bool) -> Iterator[tuple[str, Content] | BadRow]:
        """(name, content) of each useful member; a broken tar ends with a `BadRow`."""
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
    ) -> tuple[str, Content] | BadRow | None:
        name = member.name.removeprefix("./").rstrip("/")
        if member.isdir() or is_hidden(name):
            return None
        if not member.isfile():
            return BadRow(name, "member_not_a_file", member.name)
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            return BadRow(name, "member_unsafe_name", member.name)
        if not is_member(name):
            return None
        if self.size and member.offset_data + member.size > self.size:
            raise tarfile.ReadError("unexpected end of data")  # `count` reads no data that would tell
        if member.size > (self.max_image_bytes if is_picture(name) else MAX_TEXT_BYTES):
            return name, BadRow(name, "member_too_large", f"{member.size} bytes")
        stream = tar.extractfile(member)
        assert stream is not None  # None is for folders and links, handled above
        return name, stream.read() if contents else b""


def make_row(group: Group[Content], max_image_bytes: int) -> Sample | BadRow:
    """The row that an image and the texts beside it make: ``{"jpg": ..., "txt": ..., "json": ...}``."""
    key = group.key
    if group.reason:
        return BadRow(key, group.reason)
    for content in group.parts.values():
        if isinstance(content, BadRow):
            return replace(content, key=key)
    parts = {suffix: content for suffix, content in group.parts.items() if isinstance(content, bytes)}
    image = next((content for suffix, content in parts.items() if suffix in PICTURES), None)
    if image is None:
        return BadRow(key, "row_without_image")
    metadata: Any = {}
    try:
        if "json" in parts:
            metadata = read_json(decode_text(parts["json"]))
        caption = decode_text(parts["txt"]) if "txt" in parts else None
    except UnicodeDecodeError as error:
        return BadRow(key, "row_not_utf8", str(error))
    except (ValueError, RecursionError) as error:
        # The text file alone would do, but without its scores the row might be unsafe.
        return BadRow(key, "row_bad_json", str(error))
    if not isinstance(metadata, dict):
        return BadRow(key, "row_bad_json", "no object")
    if metadata.get("status", "success") != "success":
        return BadRow(key, "row_not_downloaded", str(metadata.get("error_message")))
    columns = find_columns(tuple(metadata))
    return to_sample(metadata, columns, key=key, max_image_bytes=max_image_bytes, image=image, caption=caption)
