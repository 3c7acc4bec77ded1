"""LAION in every form: URL lists (parquet, csv, hub datasets) and img2dataset output (tar, parquet, files)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from curation.config import BuildConfig
from curation.errors import UserError
from curation.sources.base import BrokenShard, Shard
from curation.sources.dialects import IMAGE_SUFFIXES
from curation.sources.files import File, exists, find_files
from curation.sources.image_files import files_shards
from curation.sources.names import is_picture, split_name
from curation.sources.tables import SUFFIXES, is_table
from curation.sources.url_list import list_shards
from curation.sources.webdataset import TarShard

PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class LaionSource:
    """``input`` is a folder, a file, a glob, an fsspec URL of one of these, or a hub dataset's name.

    A folder with tars or images is img2dataset output: its parquet files are then their metadata, not lists.
    """

    def __init__(self, input: str, config: BuildConfig) -> None:
        self._input = input
        self._config = config

    def shards(self) -> Sequence[Shard]:
        if HUB_NAME.fullmatch(self._input) and not exists(self._input):
            from curation.sources.hf import HfSource

            return HfSource(self._input, self._config).shards()
        files = find_files(self._input)
        tars = [file for file in files if file.name.lower().endswith((".tar", *PACKED))]
        if tars or any(split_name(file.name)[1] in IMAGE_SUFFIXES for file in files):
            return [*(self._tar(file) for file in tars), *files_shards(files, self._config)]
        lists = [file for file in files if is_table(file.name)]
        if lists:
            return list_shards(lists, self._config)
        if any(is_picture(file.name) for file in files):  # of kinds that are not read
            return files_shards(files, self._config)
        raise UserError(
            f"--input {self._input}: found no .tar, no images and no list ({', '.join(SUFFIXES)}); "
            "name a folder or glob of img2dataset output, or LAION's URL lists"
        )

    def _tar(self, file: File) -> Shard:
        if file.name.lower().endswith(PACKED):
            return BrokenShard(file.name, file.size, "tar_compressed", "unpack it to a .tar")
        return TarShard(file.url, file.name, file.size, self._config.max_image_bytes)
