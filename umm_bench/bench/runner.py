"""The execution of a plan: make what is missing. What is there is scored by `scoring.py`.

Each stage is a generator of `Event`s, and leaves the store complete up to its last event: it can be cut off
anywhere and started again. What cannot be made is in the store with its reason, and does not end a run.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from atomic import whole_file
from umm_bench.bench.measure import Measured
from umm_bench.bench.plan import MethodPlan, Plan, Sample
from umm_bench.bench.selection import Selection
from umm_bench.bench.store import Store
from umm_bench.errors import UserError
from umm_bench.images import open_image
from umm_bench.methods import Case, Subject
from umm_bench.suites.degrade import shown_to_methods

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """`done` units of the stage are in the store; `label` is what is worked on next."""

    done: int
    label: str


class Unmakeable(Exception):
    """A setup or an image failed; the message is the reason, `stage` where."""

    def __init__(self, stage: str, error: Exception) -> None:
        super().__init__(reason_of(error))
        self.stage = stage


def reason_of(error: Exception) -> str:
    """In one line; a user's mistake explains itself."""
    line = (str(error).splitlines() or [""])[0]
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line}"


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


def missing_samples(plan: Plan, store: Store) -> dict[str, list[Sample]]:
    """By method, the samples that lack their row or their image and have not failed before."""
    finished = store.finished_samples(plan.sample_keys) | store.undrawn(plan.sample_keys).keys()
    return {
        method.name: [s for s in method.samples if s.refusal is None and s.key not in finished]
        for method in plan.methods
    }


def generate(plan: Plan, store: Store, batch_size: int = 4) -> Iterator[Event]:
    """Make all missing images; a method is set up only for what it has yet to draw.

    A case whose setup fails, and a prompt whose drawing fails, are written down as failed.
    """
    missing = missing_samples(plan, store)
    done = 0
    for method_plan in plan.methods:
        if not missing[method_plan.name]:
            continue
        if method_plan.finished:
            for sample in missing[method_plan.name]:
                yield Event(done, f"{method_plan.name}, {sample.case.id}")
                try:
                    bring_in(method_plan, sample, plan, store)
                except Unmakeable as failure:
                    _fail(method_plan, [sample], failure, store)
                done += 1
            continue
        yield Event(done, f"{method_plan.name}, loading")
        plan.base.pipeline()  # here, so that loading it counts in nobody's seconds
        method = method_plan.method_class(plan.base, method_plan.config, plan.request.generation)
        setups = Setups(method, method_plan, store)
        for _, group in groupby(missing[method_plan.name], key=lambda sample: sample.case.id):
            samples = list(group)
            case = shown_to_methods(samples[0].case, plan.request.degrade, store.folder / "degraded")
            yield Event(done, f"{method_plan.name}, setting up {case.id}")
            try:
                states = setups.of(case, samples[0].setup_keys)
            except Unmakeable as failure:
                _fail(method_plan, samples, failure, store)
                done += len(samples)
                continue
            yield Event(done, f"{method_plan.name}, {case.id}")
            for _, same_prompt in groupby(samples, key=lambda sample: sample.prompt.id):
                for batch in batches(list(same_prompt), batch_size):
                    try:
                        draw(method, method_plan, states, case, batch, plan, store)
                    except Unmakeable as failure:
                        _fail(method_plan, batch, failure, store)
                    done += len(batch)
                    yield Event(done, f"{method_plan.name}, {case.id}")


class Setups:
    """The states of one method: of one case at a time, those that the next case needs again being kept."""

    def __init__(self, method: Any, method_plan: MethodPlan, store: Store) -> None:
        self.method, self.method_plan, self.store = method, method_plan, store
        self._states: dict[str, Any] = {}
        self._failed: dict[str, Unmakeable] = {}

    def of(self, case: Case, keys: Sequence[str]) -> list[Any]:
        """One state a subject, or one for the case. Unmakeable, also for what failed before."""
        alone = self.method_plan.abilities.setup_for == "subject"
        targets = dict(zip(keys, case.subjects, strict=True)) if alone else {keys[0]: case}
        self._states = {key: state for key, state in self._states.items() if key in targets}
        for key, target in targets.items():
            if key in self._failed:
                raise self._failed[key]
            if key not in self._states:
                try:
                    self._states[key] = set_up(self.method, self.method_plan, target, key, self.store)
                except Unmakeable as failure:
                    self._failed[key] = failure
                    raise
        return [self._states[key] for key in targets]


def set_up(method: Any, method_plan: MethodPlan, target: Subject | Case, setup_key: str, store: Store) -> Any:
    """The method's state for a subject or a case, fine-tuned now and timed, or loaded when that was done before."""
    directory = store.folder / "setups" / setup_key
    rows = store.rows("select path from setups where setup_key = ?", [setup_key])
    if rows and (rows[0]["path"] is None or directory.is_dir()):
        with _failing("setup", method_plan.name, target.id):
            return method.setup(target, directory)
    # Without its row a setup was cut off before its cost was written down: a reload would be timed instead.
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _failing("setup", method_plan.name, target.id), Measured() as cost:
        state = method.setup(target, directory)
    took = _told(directory)
    row = {
        "setup_key": setup_key,
        "method": method_plan.name,
        "case_id": target.id,
        "config_json": asdict(method_plan.config),
        "seconds": cost.seconds + float(took.get("seconds_before", 0)),
        "peak_mb": cost.peak_mb,
        "steps": took.get("steps"),
        "trained_parameters": took.get("trained_parameters"),
        "bytes": sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()),
        "path": f"setups/{setup_key}" if directory.is_dir() else None,
    }
    store.upsert("setups", [row])
    return state


def _told(directory: Path) -> dict[str, float]:
    """The numbers of a setup's `state.json`, where it has one."""
    try:
        state = json.loads((directory / "state.json").read_text())
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in state.items() if isinstance(value, (int, float))}


def draw(
    method: Any,
    method_plan: MethodPlan,
    states: Sequence[Any],
    case: Case,
    batch: Sequence[Sample],
    plan: Plan,
    store: Store,
) -> None:
    """Images of one prompt, and of one case as the method is shown it, kept with their rows."""
    prompt = batch[0].prompt
    with _failing("generate", method_plan.name, f"{case.id}, prompt {prompt.id}"):
        with Measured() as cost:
            images = method.generate(states, case, prompt, [sample.seed for sample in batch])
        if len(images) != len(batch):
            raise ValueError(f"{len(images)} images for {len(batch)} seeds")
    _keep(method_plan, batch, images, plan, store, cost)


def bring_in(method_plan: MethodPlan, sample: Sample, plan: Plan, store: Store) -> None:
    """A finished picture is kept as a drawn one is, without costs."""
    assert sample.picture is not None
    with _failing("generate", method_plan.name, f"{sample.case.id}, prompt {sample.prompt.id}"):
        image = open_image(sample.picture)
    _keep(method_plan, [sample], [image], plan, store, None)


def _keep(
    method_plan: MethodPlan,
    batch: Sequence[Sample],
    images: Sequence[Image.Image],
    plan: Plan,
    store: Store,
    cost: Measured | None,
) -> None:
    """Images are saved before their rows are: a row always has its image."""
    # Before the first image is there: a kill in between must not leave it with the scores of one that was lost.
    store.forget_scores([sample.key for sample in batch])
    config = {**asdict(method_plan.config)}
    if not method_plan.finished:
        config |= {"generation": asdict(plan.request.generation)}
        config |= {"degrade": plan.request.degrade} if plan.request.degrade else {}
    rows = []
    for sample, image in zip(batch, images, strict=True):
        path = f"samples/{sample.key}.png"
        save_image(image, store.folder / path)
        rows.append(
            {
                **_asked(method_plan, sample),
                "config_json": config,
                "base": None if method_plan.finished else plan.request.base,
                "suite": plan.selection.suite.name,
                "method_prompt": sample.prompt.text(method_plan.words(sample.case)),
                "path": path,
                "seconds": cost.seconds / len(batch) if cost else None,
                "peak_mb": cost.peak_mb if cost else None,
                "code_version": method_plan.code_version,
            }
        )
    # The subjects first: a sample is there when its own row is.
    store.upsert("sample_subjects", [row for sample in batch for row in _subject_rows(sample)])
    store.upsert("samples", rows)


def _asked(method_plan: MethodPlan, sample: Sample) -> dict[str, Any]:
    return {
        "sample_key": sample.key,
        "method": method_plan.name,
        "case_id": sample.case.id,
        "subject_count": len(sample.case.subjects),
        "prompt_id": sample.prompt.id,
        "prompt_kind": sample.prompt.kind,
        "prompt": sample.prompt.text(sample.case.class_nouns),
        "image_index": sample.image_index,
        "seed": sample.seed,
    }


def _undrawn(method_plan: MethodPlan, sample: Sample, status: str, stage: str, reason: str) -> dict[str, Any]:
    return {**_asked(method_plan, sample), "status": status, "stage": stage, "reason": reason}


def _subject_rows(sample: Sample) -> Iterator[dict[str, Any]]:
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


@contextmanager
def _failing(stage: str, method: str, what: str) -> Iterator[None]:
    """What a method raises becomes Unmakeable, and is logged."""
    try:
        yield
    except Exception as error:
        failure = Unmakeable(stage, error)
        # A user's mistake explains itself; anything else may be a bug, which somebody will want to find.
        logger.warning("%s, %s: %s", method, what, failure, exc_info=None if isinstance(error, UserError) else error)
        raise failure from error


def _fail(method_plan: MethodPlan, samples: Sequence[Sample], failure: Unmakeable, store: Store) -> None:
    rows = [_undrawn(method_plan, sample, "failed", failure.stage, str(failure)) for sample in samples]
    store.replace_undrawn([sample.key for sample in samples], rows)


def save_image(image: Image.Image, path: Path) -> None:
    """A PNG, whole or not at all."""
    with whole_file(path) as unfinished:
        image.save(unfinished, format="PNG")


def _paths(pictures: Sequence[Path]) -> list[str]:
    return [str(picture.resolve()) for picture in pictures]


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
