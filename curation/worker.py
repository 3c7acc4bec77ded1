"""What an executor runs: a worker holds the models and turns one task into one shard on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from curation.config import BuildConfig
from curation.grounding import Grounder, load_grounder
from curation.output.writer import Layout, write_shard
from curation.sources import Shard
from curation.vision.models import PairModels

if TYPE_CHECKING:
    from curation.pipeline import ShardMiner


@dataclass(frozen=True)
class ShardTask:
    """Mine ``shard``, at most ``limit`` rows of it, into output shard number ``index``.

    ``retry``: the output is there already, and only the rows whose download failed are mined.
    """

    index: int
    shard: Shard
    limit: int | None
    retry: bool = False


@dataclass(frozen=True)
class Progress:
    """What has happened since the last one: rows read and pairs found in shard ``index``."""

    index: int
    rows: int
    pairs: int
    done: bool = False


class ShardWorker(Protocol):
    """What an executor calls, in this process or pickled in another."""

    def __call__(self, task: ShardTask) -> Iterator[Progress]: ...


class Worker:
    """Loads its models at the first task. Running a task twice leaves the same files."""

    def __init__(self, config: BuildConfig, layout: Layout, detector: str, grounder: Grounder | None = None) -> None:
        self._config = config
        self._layout = layout
        self._detector = detector
        self._grounder = grounder

    def load(self) -> None:
        from curation.language.phrases import PhraseExtractor

        self._extractor = PhraseExtractor(self._config)
        self._grounder = self._grounder or load_grounder(self._config, self._detector)
        self._models = PairModels.load(self._config)

    def __call__(self, task: ShardTask) -> Iterator[Progress]:
        from curation.retry import retry_shard, write_state

        if not hasattr(self, "_extractor"):
            self.load()
        rows = 0
        if task.retry:
            for pairs in retry_shard(self._layout, task.index, self._miner):
                yield Progress(task.index, 0, pairs)
        else:
            miner = self._miner()
            mined = miner.mine(task.shard.read(), task.limit)
            for pairs in write_shard(self._layout.shard(task.index), mined, self._config.counts_crowds):
                yield Progress(task.index, miner.tally.rows_read - rows, pairs)
                rows = miner.tally.rows_read
            write_state(self._layout, task.index, miner.tally, miner.failures)
        yield Progress(task.index, 0, 0, done=True)

    def _miner(self) -> ShardMiner:
        from curation.pipeline import ShardMiner

        assert self._grounder is not None  # `load` has set it
        return ShardMiner(self._config, self._extractor, self._grounder, self._models)
