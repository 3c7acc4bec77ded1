"""From what a command asks for to the exact samples, without loading a model."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from umm_bench.base import Base, load_base
from umm_bench.bench.asked import Asked
from umm_bench.bench.selection import FLOOR, Request, Selection
from umm_bench.configs import build_config
from umm_bench.errors import UserError
from umm_bench.methods import METHODS, Abilities, Case, Prompt
from umm_bench.metrics.base import METRICS, Metric, SetMetric
from umm_bench.seeding import digest, path_digest, sample_seed
from umm_bench.suites.base import SUITES
from umm_bench.suites.degrade import version_of
from umm_bench.suites.finished import PicturesConfig, find_pictures

SINGLE_ONLY = "single subject only"


@dataclass(frozen=True)
class Refusal:
    """Why a sample is not drawn. "skipped": a method that does not do as many subjects, which is no failure of it."""

    status: Literal["skipped", "failed"]
    reason: str


@dataclass(frozen=True)
class Sample:
    """One image to be made. `key` is a digest of everything that makes it.

    `setup_keys` are one for each subject of the case, all the same where the method sets up for the case.
    """

    key: str
    setup_keys: tuple[str, ...]
    case: Case
    prompt: Prompt
    image_index: int
    seed: int
    refusal: Refusal | None = None
    picture: Path | None = None
    """The finished picture that it is, where nothing is to be drawn."""


@dataclass(frozen=True)
class MethodPlan:
    """One method of a run, with all its samples, whether they exist or not."""

    name: str
    method_class: Any
    config: Any
    code_version: str
    weights: tuple[Path, ...]
    abilities: Abilities
    samples: tuple[Sample, ...]
    """With those that are refused."""
    finished: bool = False
    """Whether its pictures are there already, in files."""
    floor: bool = False
    """Whether it was not asked for, and is there as the floor of the scale."""
    left_out: tuple[str, ...] = ()
    """Files of its folder that are no samples, a line for each reason."""
    asked: Asked | None = None
    """As it was asked for: where another process finds its class."""

    def words(self, case: Case) -> tuple[str, ...]:
        """What the method writes in each subject's place."""
        own = getattr(self.method_class, "words", None)
        return tuple(own(self.config, case)) if own else case.class_nouns


@dataclass(frozen=True)
class Plan:
    """A run, ready to be executed."""

    request: Request
    base: Base
    selection: Selection
    methods: tuple[MethodPlan, ...]
    metrics: tuple[Metric | SetMetric, ...]

    @cached_property
    def sample_keys(self) -> list[str]:
        return [sample.key for method in self.methods for sample in method.samples]

    @property
    def watched(self) -> list[Path]:
        """Local files and weights that methods and metrics read beside the base."""
        paths = {path for method in self.methods for path in method.weights}
        return sorted(paths.union(*(metric.weights for metric in self.metrics)))


def metric_config(request: Request, name: str) -> Any:
    """A metric's configuration with the request's settings. `UserError` for one that it does not have.

    What is not set of a metric that is `like` another is as it is set there.
    """
    metric = METRICS.load(name)
    known = {field.name for field in fields(metric.config_class)}
    others = settings_of(request, metric.like) if hasattr(metric, "like") else {}
    theirs = {key: value for key, value in others.items() if key in known}
    return build_config(metric.config_class, theirs | settings_of(request, name), name)


def make_plan(request: Request, selection: Selection, device: str = "auto", offload: bool = False) -> Plan:
    """Every sample of the run with its key. Imports the methods, loads no weights. UserError where `offload` is asked
    for and a method cannot do with it.
    """
    base = load_base(request.base, request.dtype, device, offload)
    metrics = tuple(METRICS.load(name)(metric_config(request, name), selection.suite) for name in request.metrics)
    asked = [(one, False) for one in request.asked]
    if request.draws_floor:
        asked.insert(0, (Asked(FLOOR), True))
    methods = tuple(
        _plan_pictures(one, request, selection) if one.pictures else _plan_method(one, request, selection, base, floor)
        for one, floor in asked
    )
    whole = [m.name for m in methods if not m.finished and not getattr(m.method_class, "can_offload", False)]
    if offload and whole:
        raise UserError(f"--offload: {', '.join(whole)} cannot; all of the base is needed at once")
    return Plan(request, base, selection, methods, metrics)


def _plan_method(asked: Asked, request: Request, selection: Selection, base: Base, floor: bool) -> MethodPlan:
    name, method_class = asked.name, asked.load()
    defaults = method_class.defaults(base) if hasattr(method_class, "defaults") else None
    settings = settings_of(request, asked.method) | ({"steps": str(asked.steps)} if asked.steps else {})
    settings |= {"training_seed": str(asked.training_seed)} if asked.training_seed else {}
    config = build_config(method_class.config_class, settings, asked.method, defaults)
    weights = tuple(method_class.weights(config, base)) if hasattr(method_class, "weights") else ()
    weights += asked.own_files
    abilities = Abilities.of(method_class)
    code_version = f"{version('umm-bench')}/{abilities.version}"
    # the first training is the one that there was before there could be more
    told = {key: value for key, value in asdict(config).items() if (key, value) != ("training_seed", 0)}
    made_from = [
        name,
        code_version,
        told,
        base.fingerprint,
        [path_digest(path) for path in weights],
    ]
    samples = []
    for case in selection.cases:
        # The subject's name is a part too: it goes into the seeds of fine-tunes.
        worse = version_of(request.degrade)
        parts = [(subject.id, selection.content[subject.id] + worse) for subject in case.subjects]
        targets = parts if abilities.setup_for == "subject" else [parts] * len(parts)
        setup_keys = tuple(digest("setup", made_from, target) for target in targets)
        for prompt in selection.prompts[case.id]:
            refusal = _refusal(method_class, abilities, config, base, case, prompt)
            for index in range(request.images_per_prompt):
                seed = sample_seed(request.seed, case.id, prompt.id, index)
                key = digest(
                    "sample",
                    made_from,
                    selection.suite.name,
                    selection.suite.version,
                    parts,
                    prompt.template,
                    asdict(request.generation),
                    seed,
                )
                samples.append(Sample(key, setup_keys, case, prompt, index, seed, refusal))
    return MethodPlan(
        name, method_class, config, code_version, weights, abilities, tuple(samples), floor=floor, asked=asked
    )


def _plan_pictures(asked: Asked, request: Request, selection: Selection) -> MethodPlan:
    """Samples whose pictures are in a folder, or are not, which is a failed one."""
    assert asked.pictures is not None
    suite, folder = selection.suite, asked.pictures
    config = build_config(PicturesConfig, settings_of(request, asked.name), asked.name)
    found = find_pictures(folder, suite, selection.prompts, request.images_per_prompt)
    drawn = {case for case, _, _ in found.files}
    single_only = not any(len(case.subjects) > 1 and case.id in drawn for case in selection.cases)
    samples = []
    for case in selection.cases:
        parts = [(subject.id, selection.content[subject.id]) for subject in case.subjects]
        for prompt in selection.prompts[case.id]:
            for index in range(request.images_per_prompt):
                picture = found.files.get((case.id, prompt.id, index))
                made_from = ["pictures", asked.name, path_digest(picture) if picture else "missing"]
                key = digest("sample", made_from, suite.name, suite.version, parts, prompt.template, index)
                refusal = None
                if picture is None and single_only and len(case.subjects) > 1:
                    refusal = Refusal("skipped", SINGLE_ONLY)
                elif picture is None:
                    refusal = Refusal("failed", f"no such picture in {folder}")
                seed = sample_seed(request.seed, case.id, prompt.id, index)
                nothing = ("",) * len(case.subjects)
                samples.append(Sample(key, nothing, case, prompt, index, seed, refusal, picture))
    abilities = Abilities("subject", None, 1)
    return MethodPlan(
        asked.name, PicturesConfig, config, f"pictures/{abilities.version}", (folder,), abilities, tuple(samples),
        finished=True, left_out=tuple(f"{asked.name}: {line}" for line in found.told()),
    )  # fmt: skip


def _refusal(
    method_class: Any, abilities: Abilities, config: Any, base: Base, case: Case, prompt: Prompt
) -> Refusal | None:
    if not abilities.can_draw(case):
        most = abilities.max_subjects
        return Refusal("skipped", SINGLE_ONLY if most == 1 else f"at most {most} subjects")
    reason = method_class.check(config, base, case, prompt) if hasattr(method_class, "check") else None
    return Refusal("failed", reason) if reason else None


def inputs_digest(request: Request, selection: Selection, base: Base, watched: Sequence[Path]) -> str:
    """Digest of all that the rows and the pictures of a run depend on, without importing a method.

    A run whose last complete execution had this digest has nothing left to do.
    """
    modules = [asked.module for asked in request.asked if asked.module]
    modules += [METRICS.target(name) for name in request.metrics] + [SUITES.target(request.suite)]
    modules += [METHODS.target(FLOOR)] if request.draws_floor else []
    packages = sorted({"umm_bench", *(target.partition(":")[0].partition(".")[0] for target in modules)})
    own = [path for asked in request.asked for path in asked.own_files]
    weights = [path_digest(path) if path.exists() else "missing" for path in dict.fromkeys([*watched, *own])]
    code = [_code_digest(package) for package in packages]
    return digest(request.run_id, selection.fingerprint, base.fingerprint, weights, code)


def _code_digest(package: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return package
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]
    return digest([path_digest(file) for file in files])


def settings_of(request: Request, owner: str) -> dict[str, str]:
    return {key: value for name, key, value in request.settings if name == owner}
