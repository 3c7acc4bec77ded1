"""A job, all that one method has yet to draw of one case, and the maker that does it, in whichever process.

A maker writes pictures and setups into the folder, and says in messages what there is to write into the store.
"""

from __future__ import annotations

import gc
import json
import logging
import shutil
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from umm_bench.base import Base
from umm_bench.bench.keeping import pictures
from umm_bench.bench.measure import Measured
from umm_bench.bench.plan import MethodPlan, Sample
from umm_bench.cli.commands import is_out_of_memory
from umm_bench.errors import UserError
from umm_bench.images import open_image
from umm_bench.methods import Case, Generation, Subject
from umm_bench.suites.degrade import shown_to_methods

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workplace:
    """What all jobs of a run have in common. `batch_size` is the most images at a time."""

    base: Base
    generation: Generation
    folder: Path
    suite: str
    degrade: str | None = None
    batch_size: int = 4


@dataclass(frozen=True)
class Job:
    """`samples` of one case by one method, whose own list of them is left out. `known` are the setups that the store
    has, with the path of what they left.
    """

    method: MethodPlan
    case: Case
    samples: tuple[Sample, ...]
    known: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def setup_keys(self) -> frozenset[str]:
        return frozenset(key for sample in self.samples for key in sample.setup_keys if key)


@dataclass(frozen=True)
class Began:
    label: str


@dataclass(frozen=True)
class SetUp:
    """A row of `setups`."""

    row: dict[str, Any]

    @property
    def keys(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True)
class Drawn:
    """Rows of `samples`; their pictures are there."""

    rows: tuple[dict[str, Any], ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(row["sample_key"] for row in self.rows)


@dataclass(frozen=True)
class Failed:
    """Samples that cannot be made, where ("setup", "generate") and why."""

    keys: tuple[str, ...]
    stage: str
    reason: str


Message = Began | SetUp | Drawn | Failed


class Unmakeable(Exception):
    """A setup or an image failed; the message is the reason, `stage` where."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)
        self.stage, self.reason = stage, reason


def reason_of(error: Exception) -> str:
    """In one line; a user's mistake explains itself."""
    line = (str(error).splitlines() or [""])[0]
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line}"


def as_jobs(method: MethodPlan, samples: Sequence[Sample]) -> list[Job]:
    """One for each case, in the order of the samples."""
    bare = replace(method, samples=())
    groups = groupby(samples, key=lambda sample: sample.case.id)
    return [Job(bare, of[0].case, tuple(of)) for of in (list(group) for _, group in groups)]


class Maker:
    """Does jobs one after the other; the models of a method stay until a job of another one comes."""

    def __init__(self, workplace: Workplace) -> None:
        self.workplace, self.batch_size = workplace, workplace.batch_size
        self._name = ""
        self._method: Any = None
        self._setups: Setups | None = None

    def make(self, job: Job) -> Iterator[Message]:
        """What a method raises is the reason of failed samples; what making one raises ends the run."""
        name, case_id = job.method.name, job.case.id
        if job.method.finished:
            yield Began(f"{name}, {case_id}")
            for sample in job.samples:
                yield self._bring_in(job, sample)
            return
        if name != self._name or self._setups is None:
            yield Began(f"{name}, loading")
            self._load(job.method)
        assert self._setups is not None
        case = shown_to_methods(job.case, self.workplace.degrade, self.workplace.folder / "degraded")
        yield Began(f"{name}, setting up {case_id}")
        try:
            states = yield from self._setups.of(case, job.samples[0].setup_keys, job.known)
        except Unmakeable as failure:
            yield Failed(tuple(sample.key for sample in job.samples), failure.stage, failure.reason)
            return
        yield Began(f"{name}, {case_id}")
        for _, same_prompt in groupby(job.samples, key=lambda sample: sample.prompt.id):
            waiting = list(same_prompt)
            while waiting:
                some, waiting = waiting[: self.batch_size], waiting[self.batch_size :]
                message = self._draw(job, states, case, some)
                if message is None:  # out of memory: the same ones again, fewer at a time
                    waiting = [*some, *waiting]
                else:
                    yield message

    def _load(self, method: MethodPlan) -> None:
        self._name, self._method, self._setups = "", None, None  # before another's models are there
        self.workplace.base.pipeline()  # here, so that loading it counts in nobody's seconds
        self._method = method.method_class(self.workplace.base, method.config, self.workplace.generation)
        self._setups = Setups(self._method, method, self.workplace)
        self._name = method.name

    def _draw(self, job: Job, states: Sequence[Any], case: Case, batch: Sequence[Sample]) -> Message | None:
        """Images of one prompt, and of one case as the method is shown it; None to try again, with fewer at a time."""
        prompt = batch[0].prompt
        try:
            with _failing("generate", job.method.name, f"{case.id}, prompt {prompt.id}"):
                with Measured() as cost:
                    images = self._method.generate(states, case, prompt, [sample.seed for sample in batch])
                if len(images) != len(batch):
                    raise ValueError(f"{len(images)} images for {len(batch)} seeds")
        except Unmakeable as failure:
            if len(batch) > 1 and isinstance(failure.__cause__, Exception) and is_out_of_memory(failure.__cause__):
                self.batch_size = len(batch) // 2
                logger.warning("out of memory with %d images at a time; goes on with %d", len(batch), self.batch_size)
                failure.__cause__.__traceback__ = None  # it holds the tensors
                _free_memory()
                return None
            return Failed(tuple(sample.key for sample in batch), failure.stage, failure.reason)
        return self._keep(job, batch, images, cost)

    def _bring_in(self, job: Job, sample: Sample) -> Message:
        """A finished picture is kept as a drawn one is, without costs."""
        assert sample.picture is not None
        try:
            with _failing("generate", job.method.name, f"{sample.case.id}, prompt {sample.prompt.id}"):
                image = open_image(sample.picture)
        except Unmakeable as failure:
            return Failed((sample.key,), failure.stage, failure.reason)
        return self._keep(job, [sample], [image], None)

    def _keep(self, job: Job, batch: Sequence[Sample], images: Sequence[Image.Image], cost: Measured | None) -> Drawn:
        """Images are saved before their rows are: a row always has its image."""
        place, method, rows = self.workplace, job.method, []
        config = asdict(method.config)
        if not method.finished:
            config |= {"generation": asdict(place.generation)}
            config |= {"degrade": place.degrade} if place.degrade else {}
        for sample, image in zip(batch, images, strict=True):
            made = {
                **asked(method, sample),
                "config_json": config,
                "base": None if method.finished else place.base.name,
                "suite": place.suite,
                "method_prompt": sample.prompt.text(method.words(sample.case)),
                "code_version": method.code_version,
            }
            path = f"samples/{sample.key}.png"
            pictures.save(image, place.folder / path, {**made, "dtype": place.base.dtype})
            made |= {
                "path": path,
                "seconds": cost.seconds / len(batch) if cost else None,
                "peak_mb": cost.peak_mb if cost else None,
                "content": pictures.content_of(image),
                "bytes": (place.folder / path).stat().st_size,
                "device": None if method.finished else place.base.device,
            }
            rows.append(made)
        return Drawn(tuple(rows))


def asked(method: MethodPlan, sample: Sample) -> dict[str, Any]:
    """What rows of `samples` and of `undrawn` say of it."""
    return {
        "sample_key": sample.key,
        "method": method.name,
        "case_id": sample.case.id,
        "subject_count": len(sample.case.subjects),
        "prompt_id": sample.prompt.id,
        "prompt_kind": sample.prompt.kind,
        "prompt": sample.prompt.text(sample.case.class_nouns),
        "image_index": sample.image_index,
        "seed": sample.seed,
    }


class Setups:
    """The states of one method: of one case at a time, those that the next case needs again being kept."""

    def __init__(self, method: Any, method_plan: MethodPlan, workplace: Workplace) -> None:
        self.method, self.method_plan, self.workplace = method, method_plan, workplace
        self._states: dict[str, Any] = {}
        self._failed: dict[str, Unmakeable] = {}

    def of(self, case: Case, keys: Sequence[str], known: Mapping[str, str | None]) -> Generator[SetUp, None, list[Any]]:
        """Returns one state a subject, or one for the case. Unmakeable, also for what failed before."""
        alone = self.method_plan.abilities.setup_for == "subject"
        targets = dict(zip(keys, case.subjects, strict=True)) if alone else {keys[0]: case}
        self._states = {key: state for key, state in self._states.items() if key in targets}
        for key, target in targets.items():
            if key in self._failed:
                raise self._failed[key]
            if key not in self._states:
                try:
                    self._states[key] = yield from self._set_up(target, key, known)
                except Unmakeable as failure:
                    self._failed[key] = failure
                    raise
        return [self._states[key] for key in targets]

    def _set_up(self, target: Subject | Case, key: str, known: Mapping[str, str | None]) -> Generator[SetUp, None, Any]:
        """The method's state, fine-tuned now and timed, or loaded when that was done before."""
        name, directory = self.method_plan.name, self.workplace.folder / "setups" / key
        if key in known and (known[key] is None or directory.is_dir()):
            with _failing("setup", name, target.id):
                return self.method.setup(target, directory)
        # Without its row a setup was cut off before its cost was written down: a reload would be timed instead.
        shutil.rmtree(directory, ignore_errors=True)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _failing("setup", name, target.id), Measured() as cost:
            state = self.method.setup(target, directory)
        took = _told(directory)
        yield SetUp(
            {
                "setup_key": key,
                "method": name,
                "case_id": target.id,
                "config_json": asdict(self.method_plan.config),
                "seconds": cost.seconds + float(took.get("seconds_before", 0)),
                "peak_mb": cost.peak_mb,
                "steps": took.get("steps"),
                "trained_parameters": took.get("trained_parameters"),
                "bytes": sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()),
                "path": f"setups/{key}" if directory.is_dir() else None,
                "device": self.workplace.base.device,
            }
        )
        return state


def _told(directory: Path) -> dict[str, float]:
    """The numbers of a setup's `state.json`, where it has one."""
    try:
        state = json.loads((directory / "state.json").read_text())
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in state.items() if isinstance(value, (int, float))}


@contextmanager
def _failing(stage: str, method: str, what: str) -> Iterator[None]:
    """What a method raises becomes Unmakeable, and is logged."""
    try:
        yield
    except Exception as error:
        reason = reason_of(error)
        # A user's mistake explains itself; anything else may be a bug, which somebody will want to find.
        logger.warning("%s, %s: %s", method, what, reason, exc_info=None if isinstance(error, UserError) else error)
        raise Unmakeable(stage, reason) from error


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
