"""LAION in either form: image shards that img2dataset downloaded (tar), or the URL lists (parquet, csv)."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from curation.config import BuildConfig
from curation.errors import UserError
from curation.sources.base import Shard
from curation.sources.url_list import LIST_SUFFIXES, url_list_shards
from curation.sources.webdataset import TarShard


class LaionSource:
    """``input`` is a folder, a file, or a glob. A folder with tars is img2dataset output: its parquet files
    are then the tars' own metadata, not URL lists."""

    def __init__(self, input: str, config: BuildConfig) -> None:
        self._input = input
        self._config = config

    def shards(self) -> Sequence[Shard]:
        root, files = find_files(self._input)
        tars = [file for file in files if file.suffix == ".tar"]
        lists = [file for file in files if file.name.endswith(LIST_SUFFIXES)]
        if tars:
            return [
                TarShard(
                    path=str(file),
                    name=str(file.relative_to(root)),
                    size=file.stat().st_size,
                    max_image_bytes=self._config.max_image_bytes,
                )
                for file in tars
            ]
        if lists:
            return [
                shard
                for file in lists
                for shard in url_list_shards(file, str(file.relative_to(root)), self._config.rows_per_shard)
            ]
        raise UserError(
            f"--input {self._input}: found no .tar, .parquet or .csv; "
            "name a folder or glob of img2dataset shards, or LAION's URL lists"
        )


def find_files(input: str) -> tuple[Path, list[Path]]:
    """The root that shard names are relative to, and the files in a fixed order."""
    path = Path(input)
    if path.is_dir():
        return path, sorted(file for file in path.iterdir() if file.is_file())
    if path.is_file():
        return path.parent, [path]
    files = sorted(Path(name) for name in glob.glob(input, recursive=True) if Path(name).is_file())
    if not files:
        raise UserError(f"--input {input}: no such file or folder")
    fixed = [part for part in Path(input).parts]
    while fixed and any(glob.has_magic(part) for part in fixed):
        fixed.pop()
    return Path(*fixed) if fixed else Path(), files
