"""Who runs the shards. An executor takes tasks and gives their progress; no stage knows which one it is."""

from curation.executors.local import run_local

__all__ = ["run_local"]
