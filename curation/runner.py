"""A build from end to end: plan, mine what is not done yet, finish. `curation.build` is its command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from curation.config import BY_CONTENT, BuildConfig
from curation.defaults import default
from curation.errors import UserError
from curation.grounding import Grounder, read_operating_point, with_threshold
from curation.language.focus import read_focus
from curation.output.tally import Tally
from curation.output.writer import (
    Layout,
    disk_errors,
    is_complete,
    locked,
    read_manifest,
    remove_unfinished,
    write_json,
)
from curation.retry import is_ahead, shards_to_retry
from curation.sources import Shard, open_source
from curation.vision.checkpoints import checkpoint_id
from curation.vision.models import model_ids
from curation.worker import Progress, ShardTask, Worker

# Counting rows beforehand is for the progress bar; of a large corpus it would take minutes.
COUNTED_SHARDS = 16


@dataclass(frozen=True)
class Plan:
    """A build that could start: its input is there, its output folder is empty or its own."""

    config: BuildConfig
    layout: Layout
    shards: tuple[tuple[Shard, int | None], ...]  # with the most rows to read of each
    detector: str
    head: dict[str, Any]  # the manifest's unchanging part
    complete: bool  # nothing is left to do
    retry: tuple[int, ...] = ()  # shards of a finished build with downloads to try again

    def tasks(self) -> list[ShardTask]:
        """The shards that are not done."""
        if self.retry:
            return [ShardTask(index, *self.shards[index], retry=True) for index in self.retry]
        tasks = []
        for index, (shard, limit) in enumerate(self.shards):
            if not (self.layout.state(index).is_file() and self.layout.shard(index).is_file()):
                tasks.append(ShardTask(index, shard, limit))
            elif is_ahead(self.layout, index):
                tasks.append(ShardTask(index, shard, limit, retry=True))
        return tasks

    def rows(self) -> int | None:
        """How many rows the whole build reads, where counting them beforehand is cheap."""
        if len(self.shards) > COUNTED_SHARDS:
            return None
        counts = [shard.rows if limit is None else limit for shard, limit in self.shards]
        return sum(count for count in counts if count is not None) if None not in counts else None


@dataclass(frozen=True)
class BuildResult:
    """``reused`` says that the folder held the whole build before."""

    output: Path
    tally: Tally
    reused: bool


def make_plan(config: BuildConfig, grounder: Grounder | None = None) -> Plan:
    """Looks at input and output, loads nothing heavy, writes nothing.

    Raises:
        UserError: no such source, input or detector; the output folder is another build's, or no build's.
    """
    if config.focus is not None:
        config = replace(config, focus=read_focus(Path(config.focus)))
    elif config.focus_quota is not None:
        raise UserError("--focus-quota bounds the concepts of --focus; name a file of them")
    found = open_source(config).shards()
    limited: list[tuple[Shard, int | None]] = (
        [(shard, None) for shard in found] if config.limit is None else first_rows(found, config.limit)
    )
    shards = [shard for shard, _ in limited]
    point = None
    if grounder is None:
        detector = config.detector or default("detector")
        if config.box_threshold is None:
            point = read_operating_point(config, detector)
        identity = checkpoint_id(detector)
        config = with_threshold(config, detector)
    else:
        config = with_threshold(config, None)
        detector = identity = f"{type(grounder).__module__}.{type(grounder).__qualname__}"
    identity = ", ".join([identity, *model_ids(config)])
    fingerprint = config.fingerprint(shards=[(s.name, s.size) for s in shards], detector_id=identity)
    head = {
        "fingerprint": fingerprint,
        "config": config.to_json(),
        "detector": identity,
        "shards": [shard.name for shard in shards],
    }
    if point is not None and len(point) > 1:
        head["operating_point"] = point
    root = config.output_path()
    manifest = read_manifest(root)
    if manifest is None:
        if root.exists() and (not root.is_dir() or any(file.name != ".lock" for file in root.iterdir())):
            raise UserError(f"--output {root} is no earlier build and not empty; choose another folder")
    elif manifest.get("fingerprint") != fingerprint:
        raise UserError(f"--output {root} was built from {difference(manifest, head)}; choose another folder")
    complete = manifest is not None and is_complete(root, manifest)
    layout = Layout(root, len(shards))
    retry = tuple(shards_to_retry(layout)) if complete else ()
    return Plan(config, layout, tuple(limited), detector, head, complete and not retry, retry)


def first_rows(shards: Iterable[Shard], limit: int) -> list[tuple[Shard, int | None]]:
    """The shards that hold the first ``limit`` rows, with how many rows of each."""
    chosen: list[tuple[Shard, int | None]] = []
    for shard in shards:
        if limit == 0:
            break
        rows = shard.count(limit)
        chosen.append((shard, rows))
        limit -= rows
    return chosen


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What the two builds differ in, in the command line's words."""
    ignored = BY_CONTENT | {f.name for f in fields(BuildConfig) if not f.metadata["in_fingerprint"]}
    changed = [
        f"--{name.replace('_', '-')} {value} (now {new['config'].get(name)})"
        for name, value in old.get("config", {}).items()
        if name not in ignored and value != new["config"].get(name)
    ]
    if old.get("detector") != new["detector"]:
        changed.append(f"detector {old.get('detector')} (now {new['detector']})")
    return ", ".join(changed) or "another input"


def run(plan: Plan, grounder: Grounder | None = None) -> Iterator[Progress]:
    """Mines what is left and finishes the folder; the caller shows the progress.

    Raises:
        UserError: the folder is not writable or in use, the disk is full.
    """
    from curation.executors import execute
    from curation.output.finish import finish

    with disk_errors(plan.layout.root), locked(plan.layout.root):
        remove_unfinished(plan.layout.root)  # of a killed build
        tasks = plan.tasks()
        if plan.retry or not plan.layout.manifest.exists():
            write_json(plan.layout.manifest, {**plan.head, "complete": False})
        yield from execute(tasks, Worker(plan.config, plan.layout, plan.detector, grounder), plan.config)
        remove_unfinished(plan.layout.root)  # of killed workers
        check_rows(plan)
        finish(plan.layout, plan.config, plan.head)


def check_rows(plan: Plan) -> None:
    """Of every shard, rows kept plus reasons are what there was to read.

    Raises:
        UserError: they are not.
    """
    for index, (shard, limit) in enumerate(plan.shards):
        rows = shard.rows if limit is None else limit
        plan.layout.tally(index).check(shard.name, rows)


def export(plan: Plan) -> Iterator[Path]:
    """Writes a finished build in the layout that ``config.export`` names; yields the files.

    Raises:
        UserError: the folder is not writable or in use, the disk is full.
    """
    from curation.output.export import export_webdataset

    with disk_errors(plan.layout.root), locked(plan.layout.root):
        yield from export_webdataset(plan.layout)


def write_sets(plan: Plan) -> Iterator[Path]:
    """Writes a finished build's rows of several subjects; yields the files.

    Raises:
        UserError: the folder is not writable or in use, the disk is full.
    """
    from curation.output import sets

    with disk_errors(plan.layout.root), locked(plan.layout.root):
        yield from sets.write_sets(plan.layout, plan.config)


def publish(plan: Plan) -> str:
    """Pushes a finished build to the hub; returns the dataset's address.

    Raises:
        UserError: the folder is in use, or the hub refuses or is out of reach.
    """
    from curation.output import publish as hub

    assert plan.config.publish is not None  # the caller has looked
    with locked(plan.layout.root):
        return hub.publish(plan.layout, plan.config.publish)


def build_pairs(config: BuildConfig, grounder: Grounder | None = None) -> BuildResult:
    """Mines a corpus into ``config.output``, or goes on where an earlier call stopped.

    Args:
        grounder: your own detector, in place of the checkpoint that ``config.detector`` names.

    Raises:
        UserError: see `make_plan` and `run`.
    """
    plan = make_plan(config, grounder)
    if not plan.complete:
        for _ in run(plan, grounder):
            pass
    if config.export:
        for _ in export(plan):
            pass
    if config.sets:
        for _ in write_sets(plan):
            pass
    if config.publish:
        publish(plan)
    return read_result(plan)


def read_result(plan: Plan) -> BuildResult:
    manifest = read_manifest(plan.layout.root)
    assert manifest is not None  # the build is complete
    return BuildResult(plan.layout.root, Tally.from_json(manifest["counts"]), reused=plan.complete)
