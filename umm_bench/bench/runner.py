"""The execution of a plan: have what is missing made, and write it down. What is there is scored by `scoring.py`.

Each stage is a generator of `Event`s, and leaves the store complete up to its last event: it can be cut off
anywhere and started again. What cannot be made is in the store with its reason, and does not end a run.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from umm_bench.bench.making.executors import Execute, here
from umm_bench.bench.making.jobs import Began, Drawn, Job, SetUp, Workplace, as_jobs, asked, reason_of
from umm_bench.bench.plan import MethodPlan, Plan, Sample
from umm_bench.bench.selection import Selection
from umm_bench.bench.store import Answers, Store

__all__ = ["Event", "Execute", "generate", "missing_samples", "reason_of", "record"]

T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """`done` units of the stage are in the store; `label` is what is worked on next."""

    done: int
    label: str


def record(plan: Plan, store: Store) -> None:
    """Which samples the run consists of, made or not, which are refused, and the protocols of its scores so far."""
    run_id = plan.request.run_id
    rows = [{"sample_key": sample.key, "floor": method.floor} for method in plan.methods for sample in method.samples]
    store.replace_of_run("run_samples", run_id, rows)
    refused = [
        _undrawn(method, sample, sample.refusal.status, "plan", sample.refusal.reason)
        for method in plan.methods
        for sample in method.samples
        if sample.refusal
    ]
    store.replace_undrawn(plan.sample_keys, refused, "plan")
    record_references(run_id, plan.selection, store)
    protocols = [metric.protocol for metric in plan.metrics]
    names = store.rows(
        "select distinct metric, protocol from scores where list_contains(?, protocol)",
        [protocols],
    )
    lower = {name for metric in plan.metrics for name in getattr(metric, "lower_is_better", ())}
    store.replace_of_run("run_protocols", run_id, [{**row, "lower_is_better": row["metric"] in lower} for row in names])


def record_references(run_id: str, selection: Selection, store: Store) -> None:
    """Where the subjects' pictures are now: since a sample was drawn they may have moved."""
    for subject in selection.subjects:
        store.set_references(run_id, subject.id, _paths(subject.references), _paths(subject.held_out))


def forget_failed(plan: Plan, store: Store) -> None:
    """What failed while it was set up or drawn is missing again."""
    for stage in ("setup", "generate"):
        store.replace_undrawn(plan.sample_keys, [], stage)


def missing_samples(plan: Plan, store: Answers) -> dict[str, list[Sample]]:
    """By method, the samples that lack their row or their image and have not failed before."""
    finished = store.finished_samples(plan.sample_keys) | store.undrawn(plan.sample_keys).keys()
    return {
        method.name: [s for s in method.samples if s.refusal is None and s.key not in finished]
        for method in plan.methods
    }


def generate(plan: Plan, store: Store, batch_size: int = 4, execute: Execute = here) -> Iterator[Event]:
    """Make all missing images; a method is set up only for what it has yet to draw.

    A case whose setup fails, and a prompt whose drawing fails, are written down as failed.
    """
    missing = missing_samples(plan, store)
    jobs = [job for method in plan.methods for job in as_jobs(method, missing[method.name])]
    places = {sample.key: (method, sample) for method in plan.methods for sample in missing[method.name]}
    workplace = Workplace(
        plan.base, plan.request.generation, store.folder, plan.selection.suite.name, plan.request.degrade, batch_size
    )
    done = 0
    for message in execute(jobs, workplace, lambda job: _begin(job, store)) if jobs else ():
        if isinstance(message, Began):
            yield Event(done, message.label)
            continue
        if isinstance(message, SetUp):
            store.upsert("setups", [message.row])
            continue
        if isinstance(message, Drawn):
            # The subjects first: a sample is there when its own row is.
            store.upsert("sample_subjects", [row for key in message.keys for row in _subject_rows(places[key][1])])
            store.upsert("samples", message.rows)
        else:
            failed = [
                _undrawn(*places[key], status="failed", stage=message.stage, reason=message.reason)
                for key in message.keys
            ]
            store.replace_undrawn(message.keys, failed)
        done += len(message.keys)
        method, sample = places[message.keys[0]]
        yield Event(done, f"{method.name}, {sample.case.id}")


def _begin(job: Job, store: Store) -> Job:
    """With the setups that there are by now."""
    # Before the first image is there: a kill in between must not leave it with the scores of one that was lost.
    store.forget_scores([sample.key for sample in job.samples])
    keys = sorted(job.setup_keys)
    rows = store.rows("select setup_key, path from setups where list_contains(?, setup_key)", [keys])
    return replace(job, known={row["setup_key"]: row["path"] for row in rows})


def _undrawn(method_plan: MethodPlan, sample: Sample, status: str, stage: str, reason: str) -> dict[str, Any]:
    return {**asked(method_plan, sample), "status": status, "stage": stage, "reason": reason}


def _subject_rows(sample: Sample) -> Iterable[dict[str, Any]]:
    for place, (subject, setup_key) in enumerate(zip(sample.case.subjects, sample.setup_keys, strict=True), start=1):
        yield {
            "sample_key": sample.key,
            "place": place,
            "subject": subject.id,
            "class_noun": subject.class_noun,
            "kind": subject.kind,
            "references_json": _paths(subject.references),
            "held_out_json": _paths(subject.held_out),
            "setup_key": setup_key,
        }


def _paths(pictures: Sequence[Path]) -> list[str]:
    return [str(picture.resolve()) for picture in pictures]


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
