"""The execution of a plan: make what is missing, score what is unscored, sum up.

Each stage is a generator of `Event`s, and leaves the store complete up to its last event: it can be cut off
anywhere and started again.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from atomic import whole_file
from umm_bench.bench.failures import find_failures
from umm_bench.bench.measure import Measured
from umm_bench.bench.plan import MethodPlan, Plan, Sample, Selection
from umm_bench.bench.statistics import PairKey, mean_interval, paired_effect
from umm_bench.bench.store import Store
from umm_bench.methods import Subject
from umm_bench.metrics.base import ScoredSample

SCORING_BATCH = 32

T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """`done` units of the stage are in the store; `label` is what is worked on next."""

    done: int
    label: str


def missing_samples(plan: Plan, store: Store) -> dict[str, list[Sample]]:
    """By method, the samples that lack their row or their image."""
    finished = store.finished_samples(plan.sample_keys)
    return {method.name: [sample for sample in method.samples if sample.key not in finished] for method in plan.methods}


def generate(plan: Plan, store: Store, batch_size: int = 4) -> Iterator[Event]:
    """Make all missing images; a method is set up only for subjects that it has yet to draw."""
    missing = missing_samples(plan, store)
    done = 0
    for method_plan in plan.methods:
        if not missing[method_plan.name]:
            continue
        yield Event(done, f"{method_plan.name}, loading")
        plan.base.pipeline()  # here, so that loading it counts in nobody's seconds
        method = method_plan.method_class(plan.base, method_plan.config, plan.request.generation)
        for _, group in groupby(missing[method_plan.name], key=lambda sample: sample.subject.id):
            samples = list(group)
            subject = samples[0].subject
            yield Event(done, f"{method_plan.name}, setting up {subject.id}")
            state = set_up(method, method_plan, subject, samples[0].setup_key, store)
            yield Event(done, f"{method_plan.name}, {subject.id}")
            for _, same_prompt in groupby(samples, key=lambda sample: sample.prompt.id):
                for batch in _batches(list(same_prompt), batch_size):
                    draw(method, method_plan, state, batch, plan, store)
                    done += len(batch)
                    yield Event(done, f"{method_plan.name}, {subject.id}")


def set_up(method: Any, method_plan: MethodPlan, subject: Subject, setup_key: str, store: Store) -> Any:
    """The method's state for a subject, fine-tuned now and timed, or loaded when that was done before."""
    directory = store.folder / "setups" / setup_key
    rows = store.rows("select path from setups where setup_key = ?", [setup_key])
    if rows and (rows[0]["path"] is None or directory.is_dir()):
        return method.setup(subject, directory)
    # Without its row a setup was cut off before its cost was written down: a reload would be timed instead.
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with Measured() as cost:
        state = method.setup(subject, directory)
    row = {
        "setup_key": setup_key,
        "method": method_plan.name,
        "subject": subject.id,
        "config_json": asdict(method_plan.config),
        "seconds": cost.seconds + _seconds_before(directory),
        "peak_mb": cost.peak_mb,
        "path": f"setups/{setup_key}" if directory.is_dir() else None,
    }
    store.upsert("setups", [row])
    return state


def _seconds_before(directory: Path) -> float:
    """What a setup spent in calls that were cut off, where it says so in a `state.json`."""
    try:
        return float(json.loads((directory / "state.json").read_text())["seconds_before"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def draw(method: Any, method_plan: MethodPlan, state: Any, batch: Sequence[Sample], plan: Plan, store: Store) -> None:
    """Images of one subject and prompt, saved before their rows are: a row always has its image."""
    subject, prompt = batch[0].subject, batch[0].prompt
    with Measured() as cost:
        images = method.generate(state, subject, prompt, [sample.seed for sample in batch])
    # Before the first image is there: a kill in between must not leave it with the scores of one that was lost.
    store.forget_scores([sample.key for sample in batch])
    rows = []
    for sample, image in zip(batch, images, strict=True):
        path = f"samples/{sample.key}.png"
        save_image(image, store.folder / path)
        rows.append(
            {
                "sample_key": sample.key,
                "method": method_plan.name,
                "config_json": {**asdict(method_plan.config), "generation": asdict(plan.request.generation)},
                "base": plan.request.base,
                "suite": plan.selection.suite.name,
                "subject": subject.id,
                "class_noun": subject.class_noun,
                "prompt_id": prompt.id,
                "prompt_kind": prompt.kind,
                "prompt": prompt.text(subject.class_noun),
                "image_index": sample.image_index,
                "seed": sample.seed,
                "path": path,
                "seconds": cost.seconds / len(batch),
                "peak_mb": cost.peak_mb,
                "setup_key": sample.setup_key,
                "references_json": _paths(subject),
                "code_version": method_plan.code_version,
            }
        )
    store.upsert("samples", rows)


def save_image(image: Image.Image, path: Path) -> None:
    """A PNG, whole or not at all."""
    with whole_file(path) as unfinished:
        image.save(unfinished, format="PNG")


def unscored(plan: Plan, store: Store) -> dict[str, list[ScoredSample]]:
    """By metric, the samples without a score under its protocol."""
    samples = [
        ScoredSample(sample.key, store.folder / "samples" / f"{sample.key}.png", sample.subject, sample.prompt)
        for method in plan.methods
        for sample in method.samples
    ]
    missing = {}
    for metric in plan.metrics:
        scored = store.scored_samples(plan.sample_keys, metric.name, metric.protocol)
        missing[metric.name] = [sample for sample in samples if sample.key not in scored]
    return missing


def score(plan: Plan, store: Store) -> Iterator[Event]:
    """Write all missing scores, in batches, metric by metric."""
    missing = unscored(plan, store)
    done = 0
    for metric in plan.metrics:
        for batch in _batches(missing[metric.name], SCORING_BATCH):
            yield Event(done, metric.name)
            store.upsert("scores", [_score_row(asdict(row)) for row in metric.score(batch)])
            done += len(batch)
            yield Event(done, metric.name)


def record(plan: Plan, store: Store) -> None:
    """Which samples the run consists of, made or not, and which protocols its scores so far have."""
    run_id = plan.request.run_id
    store.replace_of_run("run_samples", run_id, [{"sample_key": key} for key in plan.sample_keys])
    record_references(run_id, plan.selection, store)
    protocols = {metric.name: metric.protocol for metric in plan.metrics}
    names = store.rows(
        "select distinct metric, protocol from scores where list_contains(?, protocol)",
        [[*protocols.values()]],
    )
    store.replace_of_run("run_protocols", run_id, names)


def record_references(run_id: str, selection: Selection, store: Store) -> None:
    """Where the references are now: since a sample was drawn they may have moved."""
    for subject in selection.subjects:
        store.set_references(run_id, subject.id, _paths(subject))


def conclude(plan: Plan, store: Store) -> None:
    """Means, paired effects and the worst cases of a run whose scores are complete."""
    run_id = plan.request.run_id
    record(plan, store)
    rows = store.rows("select * from run_results where run_id = ?", [run_id])
    values: dict[tuple[str, str], dict[PairKey, float]] = {}
    for row in rows:
        pair = (row["subject"], row["prompt_id"], row["seed"])
        values.setdefault((row["method"], row["metric"]), {})[pair] = row["value"]
    store.replace_of_run("summaries", run_id, _summaries(values, plan.request.seed))
    store.replace_of_run("comparisons", run_id, _comparisons(values, plan))
    store.replace_of_run("failures", run_id, find_failures(rows))
    counts = plan.selection.suite.concept_counts()
    corpus = f"{plan.selection.suite.name}, training corpus"
    store.upsert("concept_counts", [{"corpus": corpus, "concept": c, "count": n} for c, n in counts.items()])


def _summaries(values: dict[tuple[str, str], dict[PairKey, float]], seed: int) -> Iterable[dict[str, Any]]:
    for (method, metric), scores in values.items():
        interval = mean_interval(list(scores.values()), [subject for subject, _, _ in scores], seed=seed)
        yield {
            "method": method,
            "metric": metric,
            "mean": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "samples": interval.samples,
            "subjects": interval.clusters,
        }


def _comparisons(values: dict[tuple[str, str], dict[PairKey, float]], plan: Plan) -> Iterable[dict[str, Any]]:
    methods = plan.request.methods
    reference = "sd" if "sd" in methods else methods[0]
    for (method, metric), scores in values.items():
        effect = paired_effect(scores, values.get((reference, metric), {}), seed=plan.request.seed)
        if method != reference and effect is not None:
            yield {
                "method": method,
                "reference": reference,
                "metric": metric,
                "effect": effect.mean,
                "low": effect.low,
                "high": effect.high,
                "pairs": effect.samples,
                "subjects": effect.clusters,
            }


def _paths(subject: Subject) -> list[str]:
    return [str(reference.resolve()) for reference in subject.references]


def _score_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"metadata_json" if name == "metadata" else name: value for name, value in row.items()}


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
