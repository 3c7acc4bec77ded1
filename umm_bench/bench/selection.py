"""What a command asks for, and the part of a suite that it selects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from umm_bench.bench.asked import Asked, read_methods, with_curves, with_trainings
from umm_bench.errors import UserError
from umm_bench.images import open_image
from umm_bench.methods import Case, Generation, Prompt, Subject
from umm_bench.metrics.base import METRICS
from umm_bench.registry import did_you_mean
from umm_bench.seeding import digest, path_digest
from umm_bench.suites.base import Suite, load_suite

T = TypeVar("T", Subject, Case, Prompt)

FLOOR = "sd"
"""The method that sees no picture of a subject: what it scores is where the scale begins."""

LATER = ("dtype", "training_seeds", "budget")
"""Fields of `Request` that count in a run's id only where they are not their defaults."""

DEFAULT_METRICS = ("clip_t", "clip_i", "dino", "identity", "gallery_rank", "prior_cosine", "prior_kid", "several")
"""What is asked of every run: each is of use without an option, and looks at features that another has computed."""
DEGRADED_METRICS = ("sharpness", "blockiness")
"""And of one with --degrade."""


@dataclass(frozen=True)
class Request:
    """What a command line asks for. `subjects`, `pairs` and `prompts` are a number or names separated by commas (a
    pair's name is those of its subjects joined with "+"); `settings` are (method or metric, key, value as written).

    `methods` are names, files of one's own and folders of pictures (see `asked.py`). They see `references` of each
    subject's pictures, the others are held out; None is all. `degrade` is one of `degrade.KINDS`. With `floor`, plain
    SD draws the cases too where it is not among the methods. Methods that have a `training_seed` are trained
    `training_seeds` times. `budget` are seconds: of what is asked for, the largest balanced part that fits is drawn.
    """

    methods: tuple[str, ...]
    metrics: tuple[str, ...] = DEFAULT_METRICS
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
    references: int | None = None
    degrade: str | None = None
    floor: bool = True
    dtype: str = "float32"
    training_seeds: int = 1
    budget: float | None = None

    @cached_property
    def asked(self) -> tuple[Asked, ...]:
        """The methods, the floor not among them. UserError for one that is not there."""
        return with_trainings(with_curves(read_methods(self.methods), self.settings), self.training_seeds)

    @property
    def method_names(self) -> tuple[str, ...]:
        """What rows call the methods, in the order of tables: the floor, if there is one, is the first."""
        names = tuple(asked.name for asked in self.asked)
        return (FLOOR, *names) if self.draws_floor else names

    @property
    def draws_floor(self) -> bool:
        return self.floor and FLOOR not in [asked.name for asked in self.asked]

    @property
    def run_id(self) -> str:
        """The same request is the same run, in whatever order its settings were given."""
        asked = {**asdict(self), "settings": sorted(self.settings)}
        for name in LATER:  # what an earlier version could not be asked for leaves its ids as they were
            if asked[name] == getattr(Request, name):
                del asked[name]
        return "run-" + digest(asked, length=10)


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

    def part(self, subjects: int, pairs: int, prompts: int) -> Selection:
        """The first cases of one subject, the first of several, and of each the first prompts."""
        alone = [case for case in self.cases if len(case.subjects) == 1][:subjects]
        together = [case for case in self.cases if len(case.subjects) > 1][:pairs]
        cases = (*alone, *together)
        return replace(self, cases=cases, prompts={case.id: self.prompts[case.id][:prompts] for case in cases})

    @property
    def fingerprint(self) -> str:
        asked = {case.id: [asdict(prompt) for prompt in self.prompts[case.id]] for case in self.cases}
        return digest(self.suite.name, self.suite.version, asked, self.content)


def select(request: Request) -> Selection:
    """Subjects and prompts of a request. `UserError` for an unknown name anywhere in it, a missing suite, or
    a reference image that cannot be read.
    """
    for name in request.metrics:
        METRICS.target(name)
    owners = [*(asked.method for asked in request.asked), *request.metrics]
    for owner, key, _ in request.settings:
        if owner not in owners:
            hint = did_you_mean(owner, owners)
            raise UserError(f"--set {owner}.{key}: '{owner}' is no method or metric of this run{hint}")
    suite = load_suite(request.suite, request.suite_path)
    cases = [Case((subject,)) for subject in choose(suite.subjects(), request.subjects, "subject")]
    pairs = suite.pairs()
    if not pairs and request.pairs != "0":
        raise UserError(f"suite '{suite.name}' has no pairs")
    cases += choose(pairs, request.pairs, "pair")
    if not cases:
        raise UserError("there is nothing to draw: --subjects and --pairs ask for none")
    cases = [_holding_out(case, request.references) for case in cases]
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
        names = [prompt.id for prompt in choose(list(every.values()), wanted, "prompt")]
        chosen = {name: tuple(p for n in names for p in prompts if p.id == n) for name, prompts in had.items()}
    for name, prompts in chosen.items():
        if not prompts:
            raise UserError(f"suite '{suite.name}' has no prompt for {name}, or --prompts names none of them")
    return chosen


def _holding_out(case: Case, references: int | None) -> Case:
    """With the first `references` of each subject's pictures to be seen, and the others only to be scored against."""
    if references is None:
        return case
    return Case(
        tuple(
            replace(s, references=s.references[:references], held_out=s.references[references:] + s.held_out)
            for s in case.subjects
        )
    )


def _content(subject: Subject) -> str:
    """UserError without a picture, or with one that cannot be read."""
    if not subject.references:
        raise UserError(f"subject '{subject.id}' has no reference images")
    pictures = [*subject.references, *subject.held_out]
    for picture in pictures:
        open_image(picture)
    return digest(subject.class_noun, len(subject.references), [path_digest(picture) for picture in pictures])


def _in_turn(prompts: Sequence[Prompt]) -> list[Prompt]:
    """One prompt of each kind, then a second of each, and so on: any first N cover the kinds evenly."""
    queues: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        queues.setdefault(prompt.kind, []).append(prompt)
    turns = [(turn, prompt) for queue in queues.values() for turn, prompt in enumerate(queue)]
    return [prompt for _, prompt in sorted(turns, key=lambda pair: pair[0])]


def choose(items: Sequence[T], wanted: str, noun: str) -> list[T]:
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
