"""From the words of a command to the exact samples that it asks for, without loading a model."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

from umm_bench.base import Base, load_base
from umm_bench.configs import build_config
from umm_bench.errors import UserError
from umm_bench.images import open_image
from umm_bench.methods import METHODS, Abilities, Case, Generation, Prompt, Subject
from umm_bench.metrics.base import METRICS, Metric
from umm_bench.registry import did_you_mean
from umm_bench.seeding import digest, path_digest, sample_seed
from umm_bench.suites.base import SUITES, Suite, load_suite

T = TypeVar("T", Subject, Case, Prompt)

SINGLE_ONLY = "single subject only"


@dataclass(frozen=True)
class Request:
    """What a command line asks for. `subjects`, `pairs` and `prompts` are a number or names separated by commas (a
    pair's name is those of its subjects joined with "+"); `settings` are (method or metric, key, value as written).
    """

    methods: tuple[str, ...]
    metrics: tuple[str, ...] = ("clip_t", "clip_i", "dino", "identity")
    suite: str = "mini"
    suite_path: str | None = None
    subjects: str = "4"
    pairs: str = "0"
    prompts: str = "6"
    images_per_prompt: int = 1
    seed: int = 0
    base: str = "mini"
    generation: Generation = field(default_factory=Generation)
    settings: tuple[tuple[str, str, str], ...] = ()

    @property
    def run_id(self) -> str:
        """The same request is the same run, in whatever order its settings were given."""
        return "run-" + digest({**asdict(self), "settings": sorted(self.settings)}, length=10)


@dataclass(frozen=True)
class Selection:
    """The part of a suite that a request draws: cases of one subject, then those of several."""

    suite: Suite
    cases: tuple[Case, ...]
    prompts: dict[str, tuple[Prompt, ...]]
    """By case id."""
    content: dict[str, str]
    """Subject id to a digest of its class noun and of its pictures."""

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Each subject of the cases once."""
        return tuple({subject.id: subject for case in self.cases for subject in case.subjects}.values())

    @property
    def fingerprint(self) -> str:
        asked = {case.id: [asdict(prompt) for prompt in self.prompts[case.id]] for case in self.cases}
        return digest(self.suite.name, self.suite.version, asked, self.content)


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
    metrics: tuple[Metric, ...]

    @cached_property
    def sample_keys(self) -> list[str]:
        return [sample.key for method in self.methods for sample in method.samples]

    @property
    def watched(self) -> list[Path]:
        """Local files and weights that methods and metrics read beside the base."""
        paths = {path for method in self.methods for path in method.weights}
        return sorted(paths.union(*(metric.weights for metric in self.metrics)))


def select(request: Request) -> Selection:
    """Subjects and prompts of a request. `UserError` for an unknown name anywhere in it, a missing suite, or
    a reference image that cannot be read.
    """
    for name in request.methods:
        METHODS.target(name)
    for name in request.metrics:
        METRICS.target(name)
    owners = [*request.methods, *request.metrics]
    for owner, key, _ in request.settings:
        if owner not in owners:
            hint = did_you_mean(owner, owners)
            raise UserError(f"--set {owner}.{key}: '{owner}' is no method or metric of this run{hint}")
    suite = load_suite(request.suite, request.suite_path)
    cases = [Case((subject,)) for subject in _choose(suite.subjects(), request.subjects, "subject")]
    pairs = suite.pairs()
    if not pairs and request.pairs != "0":
        raise UserError(f"suite '{suite.name}' has no pairs")
    cases += _choose(pairs, request.pairs, "pair")
    if not cases:
        raise UserError("there is nothing to draw: --subjects and --pairs ask for none")
    prompts = _prompts(suite, cases, request.prompts)
    content = {subject.id: _content(subject) for case in cases for subject in case.subjects}
    return Selection(suite, tuple(cases), prompts, content)


def _prompts(suite: Suite, cases: Sequence[Case], wanted: str) -> dict[str, tuple[Prompt, ...]]:
    """The first N of each case, or of those named the ones that each case has."""
    had = {case.id: _in_turn(suite.prompts(case)) for case in cases}
    for case in cases:
        for prompt in had[case.id]:
            if prompt.subjects != len(case.subjects):
                wrong = f"names {prompt.subjects} subjects, {case.id} has {len(case.subjects)}"
                raise UserError(f"suite '{suite.name}': prompt '{prompt.id}' {wrong}")
    if wanted.isdecimal():
        chosen = {name: tuple(prompts[: int(wanted)]) for name, prompts in had.items()}
    else:
        every = {prompt.id: prompt for prompts in had.values() for prompt in prompts}
        names = [prompt.id for prompt in _choose(list(every.values()), wanted, "prompt")]
        chosen = {name: tuple(p for n in names for p in prompts if p.id == n) for name, prompts in had.items()}
    for name, prompts in chosen.items():
        if not prompts:
            raise UserError(f"suite '{suite.name}' has no prompt for {name}, or --prompts names none of them")
    return chosen


def _content(subject: Subject) -> str:
    """UserError without a picture, or with one that cannot be read."""
    if not subject.references:
        raise UserError(f"subject '{subject.id}' has no reference images")
    pictures = [*subject.references, *subject.held_out]
    for picture in pictures:
        open_image(picture)
    return digest(subject.class_noun, len(subject.references), [path_digest(picture) for picture in pictures])


def metric_config(request: Request, name: str) -> Any:
    """A metric's configuration with the request's settings. `UserError` for one that it does not have."""
    return build_config(METRICS.load(name).config_class, _settings(request, name), name)


def make_plan(request: Request, selection: Selection) -> Plan:
    """Every sample of the run with its key. Imports the methods, loads no weights."""
    base = load_base(request.base)
    metrics = tuple(METRICS.load(name)(metric_config(request, name), selection.suite) for name in request.metrics)
    methods = tuple(_plan_method(name, request, selection, base) for name in request.methods)
    return Plan(request, base, selection, methods, metrics)


def _plan_method(name: str, request: Request, selection: Selection, base: Base) -> MethodPlan:
    method_class = METHODS.load(name)
    config = build_config(method_class.config_class, _settings(request, name), name)
    weights = tuple(method_class.weights(config, base)) if hasattr(method_class, "weights") else ()
    abilities = Abilities.of(method_class)
    code_version = f"{version('umm-bench')}/{abilities.version}"
    made_from = [
        name,
        code_version,
        asdict(config),
        base.fingerprint,
        [path_digest(path) for path in weights],
    ]
    samples = []
    for case in selection.cases:
        # The subject's name is a part too: it goes into the seeds of fine-tunes.
        parts = [(subject.id, selection.content[subject.id]) for subject in case.subjects]
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
    return MethodPlan(name, method_class, config, code_version, weights, abilities, tuple(samples))


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
    modules = [METHODS.target(name) for name in request.methods]
    modules += [METRICS.target(name) for name in request.metrics] + [SUITES.target(request.suite)]
    packages = sorted({"umm_bench", *(target.partition(":")[0].partition(".")[0] for target in modules)})
    weights = [path_digest(path) if path.exists() else "missing" for path in watched]
    code = [_code_digest(package) for package in packages]
    return digest(request.run_id, selection.fingerprint, base.fingerprint, weights, code)


def _code_digest(package: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return package
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]
    return digest([path_digest(file) for file in files])


def _settings(request: Request, owner: str) -> dict[str, str]:
    return {key: value for name, key, value in request.settings if name == owner}


def _in_turn(prompts: Sequence[Prompt]) -> list[Prompt]:
    """One prompt of each kind, then a second of each, and so on: any first N cover the kinds evenly."""
    queues: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        queues.setdefault(prompt.kind, []).append(prompt)
    turns = [(turn, prompt) for queue in queues.values() for turn, prompt in enumerate(queue)]
    return [prompt for _, prompt in sorted(turns, key=lambda pair: pair[0])]


def _choose(items: Sequence[T], wanted: str, noun: str) -> list[T]:
    """The first N items or the named ones."""
    if wanted.isdecimal():
        return list(items[: int(wanted)])
    known = {item.id: item for item in items}
    chosen = []
    for name in dict.fromkeys(name.strip() for name in wanted.split(",") if name.strip()):
        if name not in known:
            hint = did_you_mean(name, list(known))
            raise UserError(f"the suite has no {noun} '{name}'{hint}; it has {len(known)}: {_some(list(known))}")
        chosen.append(known[name])
    return chosen


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
