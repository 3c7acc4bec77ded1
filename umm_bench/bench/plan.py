"""From the words of a command to the exact samples that it asks for, without loading a model."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from umm_bench.base import Base, load_base
from umm_bench.configs import build_config
from umm_bench.errors import UserError
from umm_bench.images import open_image
from umm_bench.methods import METHODS, Generation, Prompt, Subject
from umm_bench.metrics.base import METRICS, Metric
from umm_bench.registry import did_you_mean
from umm_bench.seeding import digest, path_digest, sample_seed
from umm_bench.suites.base import SUITES, Suite

T = TypeVar("T", Subject, Prompt)


@dataclass(frozen=True)
class Request:
    """What a command line asks for. `subjects` and `prompts` are a number or names separated by commas;
    `settings` are (method or metric, key, value as written).
    """

    methods: tuple[str, ...]
    metrics: tuple[str, ...] = ("clip_t", "clip_i", "dino", "identity")
    suite: str = "mini"
    suite_path: str | None = None
    subjects: str = "4"
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
    """The part of a suite that a request draws."""

    suite: Suite
    subjects: tuple[Subject, ...]
    prompts: dict[str, tuple[Prompt, ...]]
    """By subject id."""
    content: dict[str, str]
    """Subject id to a digest of its class noun and its reference images."""

    @property
    def fingerprint(self) -> str:
        asked = {subject.id: [asdict(p) for p in self.prompts[subject.id]] for subject in self.subjects}
        return digest(self.suite.name, self.suite.version, asked, self.content)


@dataclass(frozen=True)
class Sample:
    """One image to be made. `key` is a digest of everything that makes it."""

    key: str
    setup_key: str
    subject: Subject
    prompt: Prompt
    image_index: int
    seed: int


@dataclass(frozen=True)
class MethodPlan:
    """One method of a run, with all its samples, whether they exist or not."""

    name: str
    method_class: Any
    config: Any
    code_version: str
    weights: tuple[Path, ...]
    samples: tuple[Sample, ...]


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
    path = Path(request.suite_path) if request.suite_path else None
    if path is not None and not path.is_dir():
        raise UserError(f"--suite-path {path}: there is no such folder")
    suite: Suite = SUITES.load(request.suite)(path)
    subjects = _choose(suite.subjects(), request.subjects, "subject")
    prompts, content = {}, {}
    for subject in subjects:
        if not subject.references:
            raise UserError(f"subject '{subject.id}' has no reference images")
        for reference in subject.references:
            open_image(reference)
        prompts[subject.id] = tuple(_choose(_in_turn(suite.prompts(subject)), request.prompts, "prompt"))
        content[subject.id] = digest(subject.class_noun, [path_digest(p) for p in subject.references])
    return Selection(suite, tuple(subjects), prompts, content)


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
    code_version = f"{version('umm-bench')}/{getattr(method_class, 'version', 1)}"
    made_from = [
        name,
        code_version,
        asdict(config),
        base.fingerprint,
        [path_digest(path) for path in weights],
    ]
    samples = []
    for subject in selection.subjects:
        content = selection.content[subject.id]
        # The subject's name is a part too: it goes into the seeds of fine-tunes.
        setup_key = digest("setup", made_from, subject.id, content)
        for prompt in selection.prompts[subject.id]:
            for index in range(request.images_per_prompt):
                seed = sample_seed(request.seed, subject.id, prompt.id, index)
                key = digest(
                    "sample",
                    setup_key,
                    selection.suite.name,
                    prompt.template,
                    asdict(request.generation),
                    seed,
                )
                samples.append(Sample(key, setup_key, subject, prompt, index, seed))
    return MethodPlan(name, method_class, config, code_version, weights, tuple(samples))


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
    if wanted.isdigit():
        return list(items[: int(wanted)])
    known = {item.id: item for item in items}
    chosen = []
    for name in dict.fromkeys(wanted.split(",")):
        if name not in known:
            hint = did_you_mean(name, list(known))
            raise UserError(f"the suite has no {noun} '{name}'{hint}; it has {len(known)}: {_some(list(known))}")
        chosen.append(known[name])
    return chosen


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
