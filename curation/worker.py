"""What an executor runs: a worker holds the models and turns one task into one shard on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from curation.config import BuildConfig
from curation.grounding import Grounder, load_grounder
from curation.sources import Shard
from curation.writer import Layout, write_json, write_shard


@dataclass(frozen=True)
class ShardTask:
    """Mine ``shard``, at most ``limit`` rows of it, into output shard number ``index``."""

    index: int
    shard: Shard
    limit: int | None


@dataclass(frozen=True)
class Progress:
    """What has happened since the last one: rows read and pairs found in shard ``index``."""

    index: int
    rows: int
    pairs: int
    done: bool = False


class Worker:
    """Loads its models at the first task. Running a task twice leaves the same files."""

    def __init__(self, config: BuildConfig, layout: Layout, detector: str, grounder: Grounder | None = None) -> None:
        self._config = config
        self._layout = layout
        self._detector = detector
        self._grounder = grounder

    def load(self) -> None:
        from curation.phrases import PhraseExtractor

        self._extractor = PhraseExtractor(self._config)
        self._grounder = self._grounder or load_grounder(self._config, self._detector)

    def __call__(self, task: ShardTask) -> Iterator[Progress]:
        from curation.pipeline import ShardMiner

        if not hasattr(self, "_extractor"):
            self.load()
        assert self._grounder is not None  # `load` has set it
        miner = ShardMiner(self._config, self._extractor, self._grounder)
        rows = 0
        for pairs in write_shard(self._layout.shard(task.index), miner.mine(task.shard.read(), task.limit)):
            yield Progress(task.index, miner.tally.rows_read - rows, pairs)
            rows = miner.tally.rows_read
        write_json(self._layout.state(task.index), miner.tally.to_json())
        yield Progress(task.index, 0, 0, done=True)
