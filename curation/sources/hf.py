"""Any dataset that `datasets` loads, from the hub or a folder, streamed: an image (or URL) and a caption column."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curation.config import BuildConfig
from curation.errors import UserError
from curation.records import BadRow, Sample
from curation.sources.base import count_by_reading
from curation.sources.dialects import image_bytes, map_columns, require_columns, to_sample
from curation.sources.files import unreadable
from curation.sources.image_files import read_file
from curation.sources.tables import BATCH_ROWS, batch_rows

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa


class HfSource:
    """``input`` is a hub name or a folder; ``--subset``, ``--split``, ``--image-column`` and ``--caption-column``
    say which part of it, where that is not clear."""

    def __init__(self, input: str, config: BuildConfig) -> None:
        self._input = input
        self._config = config

    def shards(self) -> Sequence[HfShard]:
        builder = open_builder(self._input, self._config.subset)
        split = choose_split(sorted(builder.config.data_files or {}), self._config.split, self._input)
        stream = open_stream(self._input, self._config.subset, split)
        mapping = choose_columns(first_schema(stream, self._input), self._config, self._input)
        size = content_number(builder, split)
        return [
            HfShard(
                input=self._input,
                subset=self._config.subset,
                split=split,
                index=index,
                parts=stream.num_shards,
                size=size,
                mapping=mapping,
                max_image_bytes=self._config.max_image_bytes,
            )
            for index in range(stream.num_shards)
        ]


@dataclass(frozen=True)
class HfShard:
    """One of the dataset's files. ``size`` is a number that stands for the dataset's content."""

    input: str
    subset: str | None
    split: str
    index: int
    parts: int
    size: int
    mapping: Mapping[str, str]
    max_image_bytes: int
    rows: int | None = None

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}-of-{self.parts:05d}"

    def read(self) -> Iterator[Sample | BadRow]:
        index = 0
        try:
            for table in tables(open_stream(self.input, self.subset, self.split).shard(self.parts, self.index)):
                for batch in table.to_batches():
                    for row in batch_rows(batch):
                        yield self._row(row, f"{self.name}:{index:06d}")
                        index += 1
        except UserError:
            raise
        except Exception as error:
            if not is_damage(error):
                raise unreadable(self.input, error) from error
            yield BadRow(f"{self.name}:{index:06d}", "broken_list", " ".join(str(error).split()))

    def count(self, at_most: int) -> int:
        return count_by_reading(self.read(), at_most)

    def _row(self, row: Mapping[str, Any], key: str) -> Sample | BadRow:
        image = None
        if "image" in self.mapping:
            cell = row.get(self.mapping["image"])
            if image_bytes(cell) is None and isinstance(cell, Mapping) and cell.get("path"):
                found = self._file(key, str(cell["path"]))
                if isinstance(found, BadRow):
                    return found
                image = found
        return to_sample(row, self.mapping, key=key, max_image_bytes=self.max_image_bytes, image=image)

    def _file(self, key: str, path: str) -> bytes | BadRow:
        """An image beside the dataset's files; a row that names any other file of this machine is refused."""
        local = os.path.realpath(path)
        inside = os.path.isdir(self.input) and local.startswith(os.path.realpath(self.input) + os.sep)
        if not inside and not path.startswith(f"hf://datasets/{self.input}@"):
            return BadRow(key, "member_unsafe_name", path)
        return read_file(key, path, self.max_image_bytes)


def open_builder(input: str, subset: str | None) -> datasets.DatasetBuilder:
    import datasets

    try:
        return datasets.load_dataset_builder(input, name=subset)
    except Exception as error:  # of the hub, the network, the file system, and `datasets` itself
        raise UserError(f"--input {input}: {' '.join(str(error).split())}") from error


def open_stream(input: str, subset: str | None, split: str) -> datasets.IterableDataset:
    return open_builder(input, subset).as_streaming_dataset(split=split)


def tables(stream: datasets.IterableDataset) -> Iterator[pa.Table]:
    """Arrow tables, in which images are still encoded: one bad image, or one bad letter, is then one bad row."""
    import datasets

    for name, feature in (stream.features or {}).items():
        if isinstance(feature, datasets.Image):
            stream = stream.cast_column(name, datasets.Image(decode=False))
    yield from stream.with_format("arrow").iter(BATCH_ROWS)


def first_schema(stream: datasets.IterableDataset, input: str) -> pa.Schema:
    try:
        first = next(tables(stream.take(1)), None)
    except Exception as error:
        raise UserError(f"--input {input}: {' '.join(str(error).split())}") from error
    if first is None:
        raise UserError(f"--input {input} has no rows")
    return first.schema


def choose_split(splits: Sequence[str], asked: str | None, input: str) -> str:
    names = [str(split) for split in splits]
    if asked is None and ("train" in names or not names):
        return "train"
    if asked is None and len(names) == 1:
        return names[0]
    if asked not in names:
        raise UserError(f"--input {input}: name a --split of {', '.join(names)}")
    return asked


def choose_columns(schema: pa.Schema, config: BuildConfig, input: str) -> dict[str, str]:
    """The columns by their names, or by their types where one alone is possible.

    Raises:
        UserError: no or several columns that could be it.
    """
    mapping = map_columns(schema.names, config.image_column, config.caption_column)
    images = [field.name for field in schema if is_image_type(field.type)]
    if mapping.get("image") not in images and not config.image_column:
        mapping.pop("image", None)
    if "image" not in mapping and len(images) == 1:
        mapping["image"] = images[0]
    texts = [field.name for field in schema if is_text_type(field.type) and field.name != mapping.get("url")]
    if "caption" not in mapping and len(texts) == 1:
        mapping["caption"] = texts[0]
    if len(images) > 1 and "image" not in mapping:
        raise UserError(f"--input {input}: name an --image-column of {', '.join(images)}")
    if len(texts) > 1 and "caption" not in mapping:
        raise UserError(f"--input {input}: name a --caption-column of {', '.join(texts)}")
    require_columns(mapping, schema.names, f"--input {input}")
    return mapping


def is_image_type(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return {"bytes", "path"} == {field.name for field in kind}
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def is_text_type(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def content_number(builder: datasets.DatasetBuilder, split: str) -> int:
    """Another number for another content: the sizes of local files, and the hub's revision."""
    files = (builder.config.data_files or {}).get(split, [])
    local = [str(os.path.getsize(file)) for file in files if os.path.isfile(file)]
    remote = [] if local else [repr(getattr(files, "origin_metadata", ""))]
    digest = hashlib.sha256("\n".join([*local, *remote]).encode()).digest()
    return int.from_bytes(digest[:6])


def is_damage(error: Exception) -> bool:
    """Whether an error tells of the file's content, not of the disk or the network on the way to it."""
    import pyarrow as pa

    corrupt = type(error) is OSError and error.errno is None  # pyarrow's, on a damaged page
    return corrupt or isinstance(error, pa.ArrowException | UnicodeError | ValueError)
