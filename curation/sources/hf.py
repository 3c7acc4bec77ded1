"""Any dataset that `datasets` loads, from the hub or a folder, streamed: an image (or URL) and a caption column."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from curation.config import BuildConfig
from curation.errors import UserError
from curation.records import BadRow, Sample
from curation.safety import COLUMNS, squash
from curation.sources.base import Shard, count_by_reading
from curation.sources.dialects import image_bytes, map_columns, require_columns, to_sample
from curation.sources.files import find_files, unreadable
from curation.sources.image_files import read_file
from curation.sources.names import is_picture
from curation.sources.tables import BATCH_ROWS, batch_rows, is_table

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

WHY_LEFT_OUT = "`datasets` takes only files named after a split, as another here is; --source folder takes all"


class HfSource:
    """``input`` is a hub name or a folder; ``--subset``, ``--split``, ``--image-column`` and ``--caption-column``
    say which part of it, where that is not clear."""

    def __init__(self, input: str, config: BuildConfig) -> None:
        self._input = input
        self._config = config

    def shards(self) -> Sequence[Shard]:
        builder = open_builder(self._input, self._config.subset)
        split = choose_split(sorted(builder.config.data_files or {}), self._config.split, self._input)
        stream = open_stream(self._input, self._config.subset, split)
        left_out = files_in_no_split(self._input, builder) if self._config.subset is None else ()
        try:
            mapping = choose_columns(first_schema(stream, self._input), self._config, self._input)
        except UserError as error:
            if not left_out:
                raise
            raise UserError(
                f"{error}; {len(left_out)} files such as {left_out[0]} are left out: {WHY_LEFT_OUT}"
            ) from None
        size = content_number(builder, split)
        shards: list[Shard] = [
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
        pictures = tuple(name for name in left_out if not is_metadata(name))
        return [*shards, *([LeftOutShard(pictures)] if pictures else [])]


@dataclass(frozen=True)
class LeftOutShard:
    """Files of a folder that `datasets` puts in no split."""

    names: tuple[str, ...]
    name: str = "left-out"

    @property
    def size(self) -> int:
        return len(self.names)

    @property
    def rows(self) -> int:
        return len(self.names)

    def read(self) -> Iterator[Sample | BadRow]:
        for name in self.names:
            yield BadRow(name, "file_in_no_split", WHY_LEFT_OUT)

    def count(self, at_most: int) -> int:
        return min(at_most, self.rows)


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
            stream = open_stream(self.input, self.subset, self.split).shard(self.parts, self.index)
            labels = safety_labels(stream)
            for table in tables(stream):
                for batch in table.to_batches():
                    for row in batch_rows(batch):
                        yield self._row(named_labels(row, labels), f"{self.name}:{index:06d}")
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
        columns = {field: (column,) for field, column in self.mapping.items()}
        return to_sample(row, columns, key=key, max_image_bytes=self.max_image_bytes, image=image)

    def _file(self, key: str, path: str) -> bytes | BadRow:
        """An image beside the dataset's files, maybe a link that lies there; a row that names any other file of this
        machine is refused."""
        if is_inside(self.input, path):
            return read_file(key, f"file://{os.path.abspath(path)}", self.max_image_bytes)
        if not path.startswith(f"hf://datasets/{self.input}@"):
            return BadRow(key, "member_unsafe_name", path)
        return read_file(key, path, self.max_image_bytes)


def is_inside(folder: str, path: str) -> bool:
    """Whether a file lies in a folder. What a link there leads to does not matter, but ".." must not leave it."""
    if not os.path.isdir(folder) or "\0" in path:
        return False
    roots = {os.path.abspath(folder), os.path.realpath(folder)}
    place = os.path.realpath(path) if ".." in PurePath(path).parts else os.path.abspath(path)
    return any(place.startswith(root + os.sep) for root in roots)


def files_in_no_split(input: str, builder: datasets.DatasetBuilder) -> tuple[str, ...]:
    """The pictures and tables of a local folder that are in none of its splits, where no card says which files are.

    One file that is called after a split ("train_station.png") makes `datasets` leave out all that are not.
    """
    if not os.path.isdir(input) or says_files(f"{input}/README.md"):
        return ()
    taken = {os.path.realpath(file) for files in (builder.config.data_files or {}).values() for file in files}
    return tuple(
        file.name
        for file in find_files(input)
        if is_picture(file.name) or is_table(file.name)
        if os.path.realpath(file.url.removeprefix("file://")) not in taken
    )


def is_metadata(name: str) -> bool:
    """Whether a file has no rows of its own, but tells of the pictures beside it."""
    return PurePath(name).name.startswith("metadata.")


def says_files(card: str) -> bool:
    if not os.path.isfile(card):
        return False
    with open(card, encoding="utf-8", errors="replace") as stream:
        return "data_files" in stream.read()


def safety_labels(stream: datasets.IterableDataset) -> dict[str, list[str]]:
    """The words that the numbers of these columns stand for."""
    import datasets

    features = (stream.features or {}).items()
    return {name: f.names for name, f in features if isinstance(f, datasets.ClassLabel) and squash(name) in COLUMNS}


def named_labels(row: Mapping[str, Any], labels: Mapping[str, list[str]]) -> Mapping[str, Any]:
    words = {
        name: names[row[name]] if 0 <= row[name] < len(names) else f"label {row[name]}"
        for name, names in labels.items()
        if row[name] is not None
    }
    return {**row, **words} if words else row


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
