"""Images as files with ``.txt`` and ``.json`` files beside them: img2dataset's output_format=files, or one's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from curation.config import BuildConfig
from curation.errors import UserError
from curation.records import BadRow, Sample
from curation.sources.dialects import IMAGE_SUFFIXES
from curation.sources.files import File, open_file
from curation.sources.webdataset import MAX_TEXT_BYTES, Content, make_row, split_name


@dataclass(frozen=True)
class FilesShard:
    """Rows of one folder. ``groups`` are the files of each row, an image among them."""

    name: str
    groups: tuple[tuple[File, ...], ...]
    max_image_bytes: int

    @property
    def size(self) -> int:
        return sum(file.size for group in self.groups for file in group)

    @property
    def rows(self) -> int:
        return len(self.groups)

    def read(self) -> Iterator[Sample | BadRow]:
        for group in self.groups:
            key = split_name(group[0].name)[0]
            parts = {split_name(file.name)[1]: self._content(key, file) for file in group}
            row = make_row(key, parts, self.max_image_bytes)
            if isinstance(row, Sample) and len(parts) == 1:
                row = BadRow(key, "row_without_caption")
            yield row

    def count(self, at_most: int) -> int:
        return min(at_most, self.rows)

    def _content(self, key: str, file: File) -> Content:
        image = split_name(file.name)[1] in IMAGE_SUFFIXES
        return read_file(key, file.url, self.max_image_bytes if image else MAX_TEXT_BYTES)


def read_file(key: str, url: str, max_bytes: int) -> Content:
    """
    Raises:
        UserError: the disk or the network failed. A file that is not there or not ours to read is a bad row.
    """
    try:
        with open_file(url) as stream:
            data = stream.read(max_bytes + 1) or b""
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return BadRow(key, "row_without_image", str(error.__cause__))
        if isinstance(error.__cause__, PermissionError | IsADirectoryError):
            return BadRow(key, "row_unreadable", str(error.__cause__))
        raise
    return data if len(data) <= max_bytes else BadRow(key, "member_too_large", f"over {max_bytes} bytes")


def is_image(file: File) -> bool:
    return split_name(file.name)[1] in IMAGE_SUFFIXES


def files_shards(files: Sequence[File], config: BuildConfig) -> list[FilesShard]:
    """The images among ``files`` with what lies beside them; each folder is cut into shards of its own."""
    rows: defaultdict[str, list[File]] = defaultdict(list)
    for file in files:
        key, suffix = split_name(file.name)
        if suffix in IMAGE_SUFFIXES or suffix in ("txt", "json"):
            rows[key].append(file)
    folders: defaultdict[str, list[tuple[File, ...]]] = defaultdict(list)
    for key, group in sorted(rows.items()):
        if any(is_image(file) for file in group):
            folders[key.rpartition("/")[0]].append(tuple(group))
    step = config.rows_per_shard
    return [
        FilesShard(f"{folder or '.'}:{start:09d}", tuple(groups[start : start + step]), config.max_image_bytes)
        for folder, groups in folders.items()
        for start in range(0, len(groups), step)
    ]
