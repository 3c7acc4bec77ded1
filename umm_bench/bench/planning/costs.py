"""What images, setups and scores have cost so far on this device, and what a plan will cost by that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

from umm_bench.bench.plan import MethodPlan, Plan, Sample
from umm_bench.bench.store import Answers


@dataclass(frozen=True)
class Costs:
    """Seconds of an image and of a setup by method, seconds of all scores of one image, bytes of an image and, by
    method, of what a setup leaves. What was never measured is not in them, None or 0.
    """

    image: Mapping[str, float] = field(default_factory=dict)
    setup: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None
    image_bytes: float | None = None
    setup_bytes: Mapping[str, float] = field(default_factory=dict)

    def unknown(self, plan: Plan) -> list[str]:
        """Methods that have something to draw and were never measured."""
        return [method.name for method in plan.methods if not method.finished and method.name not in self.image]

    def seconds(self, method: str, images: int, setups: int) -> float:
        """Of drawing and scoring; what is not known counts as nothing."""
        return images * (self.image.get(method, 0.0) + (self.score or 0.0)) + setups * self.setup.get(method, 0.0)


@dataclass(frozen=True)
class Work:
    """What is left to make by one method."""

    method: str
    asked: int
    images: int
    setups: int


def measured(plan: Plan, store: Answers) -> Costs:
    """From all runs of the store on this base and device; an image by its denoising steps, a setup by its own."""
    steps = plan.request.generation.num_inference_steps
    where = "base = ? and device = ? and seconds is not null"
    place = [plan.base.name, plan.base.device]
    images = store.rows(
        "select method, median(seconds / (config_json->'generation'->>'num_inference_steps')::double) as a_step"
        f" from samples where {where} group by method",
        place,
    )
    setups = store.rows(
        "select distinct setups.* from setups join sample_subjects using (setup_key)"
        " join samples using (sample_key) where base = ? and setups.device = ? and setups.seconds is not null",
        place,
    )
    trained: dict[str, list[float]] = {}
    left: dict[str, list[float]] = {}
    asked = {method.name: asdict(method.config).get("steps") for method in plan.methods if not method.finished}
    for row in setups:
        wanted = asked.get(row["method"])
        scale = wanted / row["steps"] if wanted and row["steps"] else 1.0
        trained.setdefault(row["method"], []).append(row["seconds"] * scale)
        left.setdefault(row["method"], []).append(row["bytes"] or 0)
    (size,) = store.rows("select avg(bytes) as bytes from samples where base = ?", [plan.base.name])
    (scored,) = store.rows("select sum(scoring_seconds) / sum(scores) as each from executions where scores > 0")
    return Costs(
        {row["method"]: row["a_step"] * steps for row in images if row["a_step"] is not None},
        {method: median(seconds) for method, seconds in trained.items()},
        None if scored["each"] is None else scored["each"] * len(plan.metrics),
        size["bytes"],
        {method: median(sizes) for method, sizes in left.items()},
    )


def work_of(method: MethodPlan, missing: Sequence[Sample], made: set[str]) -> Work:
    """`made` are the setups that the store has."""
    drawn = [sample for sample in method.samples if sample.refusal is None]
    setups = {key for sample in missing for key in sample.setup_keys if key} - made
    return Work(method.name, len(drawn), len(missing), 0 if method.finished else len(setups))


def works_of(plan: Plan, store: Answers, missing: Mapping[str, Sequence[Sample]]) -> list[Work]:
    made = {row["setup_key"] for row in store.rows("select setup_key from setups")}
    return [work_of(method, missing[method.name], made) for method in plan.methods]


def largest_part(plan: Plan, costs: Costs, seconds: float) -> tuple[int, int, int]:
    """(subjects, pairs, prompts of each) of the largest part of a plan that fits into `seconds`: as many images as can
    be, and of parts of one size that with most subjects, as they are what differences are compared over.

    Balanced: all methods draw all of it, every case has as many prompts, and pairs keep their share. The smallest part
    is one subject and one prompt, whether it fits or not.
    """
    cases = plan.selection.cases
    alone = [case for case in cases if len(case.subjects) == 1]
    together = [case for case in cases if len(case.subjects) > 1]
    most = max(len(prompts) for prompts in plan.selection.prompts.values())
    main = max(len(alone), len(together))
    best, found = (0, 0), (min(1, len(alone)), min(1, len(together)) if not alone else 0, 1)
    for number in range(1, main + 1):
        part = (number * len(alone) // main, number * len(together) // main)
        part = (max(part[0], 1) if alone else 0, part[1])
        for prompts in range(1, most + 1):
            chosen = plan.selection.part(*part, prompts)
            images = sum(map(len, chosen.prompts.values())) * plan.request.images_per_prompt
            if _seconds(plan, costs, {case.id for case in chosen.cases}, prompts) > seconds:
                break
            if (images, number) > best:
                best, found = (images, number), (*part, prompts)
    return found


def _seconds(plan: Plan, costs: Costs, case_ids: set[str], prompts: int) -> float:
    """Of all methods, whether there already or not: the same command asks for the same part."""
    total = 0.0
    for method in plan.methods:
        allowed = {case.id: {p.id for p in plan.selection.prompts[case.id][:prompts]} for case in plan.selection.cases}
        samples = [s for s in method.samples if s.case.id in case_ids and s.prompt.id in allowed[s.case.id]]
        drawn = [sample for sample in samples if sample.refusal is None]
        setups = {key for sample in drawn for key in sample.setup_keys if key}
        total += costs.seconds(method.name, len(drawn), 0 if method.finished else len(setups))
    return total
