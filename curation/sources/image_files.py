"""Images as files with ``.txt`` and ``.json`` files beside them: img2dataset's output_format=files, or one's own."""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from curation.config import BuildConfig
from curation.errors import UserError
from curation.records import BadRow, Sample
from curation.sources.files import File, open_file
from curation.sources.names import PICTURES, Group, group_rows, is_member, is_picture
from curation.sources.webdataset import MAX_TEXT_BYTES, Content, make_row

# Of one file; a disk that fails has other numbers.
UNREADABLE = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class FilesShard:
    """Rows of one folder."""

    name: str
    groups: tuple[Group[File], ...]
    max_image_bytes: int

    @property
    def size(self) -> int:
        return sum(file.size for group in self.groups for file in group.parts.values())

    @property
    def rows(self) -> int:
        return len(self.groups)

    def read(self) -> Iterator[Sample | BadRow]:
        for group in self.groups:
            if group.reason:
                yield BadRow(group.key, group.reason)
            else:
                parts = {suffix: self._content(group.key, suffix, file) for suffix, file in group.parts.items()}
                yield make_row(Group(group.key, parts), self.max_image_bytes)

    def count(self, at_most: int) -> int:
        return min(at_most, self.rows)

    def _content(self, key: str, suffix: str, file: File) -> Content:
        return read_file(key, file.url, self.max_image_bytes if suffix in PICTURES else MAX_TEXT_BYTES)


def read_file(key: str, url: str, max_bytes: int) -> Content:
    """
    Raises:
        UserError: the disk or the network failed. A file that is not there or not ours to read is a bad row.
    """
    try:
        with open_file(url) as stream:
            data = stream.read(max_bytes + 1) or b""
    except UserError as error:
        cause = error.__cause__
        if isinstance(cause, FileNotFoundError | NotADirectoryError):
            return BadRow(key, "row_without_image", str(cause))
        if isinstance(cause, OSError) and cause.errno in UNREADABLE:
            return BadRow(key, "row_unreadable", str(cause))
        raise
    return data if len(data) <= max_bytes else BadRow(key, "member_too_large", f"over {max_bytes} bytes")


def files_shards(files: Sequence[File], config: BuildConfig) -> list[FilesShard]:
    """The images among ``files`` with what lies beside them; each folder is cut into shards of its own."""
    folders: defaultdict[str, list[tuple[str, File]]] = defaultdict(list)
    for file in files:
        if is_member(file.name):
            folders[file.name.rpartition("/")[0]].append((file.name, file))
    step = config.rows_per_shard
    shards = []
    for folder, members in folders.items():
        groups = [group for group in group_rows(members) if any(suffix in PICTURES for suffix in group.parts)]
        assert len(groups) == sum(is_picture(name) for name, _ in members), f"pictures of {folder} are in no row"
        shards += [
            FilesShard(f"{folder or '.'}:{start:09d}", tuple(groups[start : start + step]), config.max_image_bytes)
            for start in range(0, len(groups), step)
        ]
    return shards
