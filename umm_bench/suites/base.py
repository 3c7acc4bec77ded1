"""What a suite is: subjects, sets of them, prompts for each, and a ground truth where there is one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from PIL import Image

from umm_bench.errors import UserError
from umm_bench.methods import Case, Prompt, Subject
from umm_bench.registry import Registry

SUITES = Registry("umm_bench.suites", "suite")


@dataclass(frozen=True)
class SubjectCheck:
    """The verdict on one subject of one image: is it there, and is a thing of its class there? None: not asked.

    `parts` says what of its identity is right, by name, where the ground truth can tell.
    """

    identity: bool
    concept: bool | None = None
    parts: Mapping[str, bool] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """The verdict of a suite's ground truth on one image: on each subject, in the case's order, and on the background,
    None where the prompt does not ask for one.
    """

    subjects: tuple[SubjectCheck, ...]
    background: bool | None = None


class Suite(Protocol):
    """Made as `Suite(path)`: a folder, or None for the suite's own default. Importing one loads no model.

    UserError where the folder is not such a suite, in one line that says which file and what is wrong with it.
    `corpus`, optional: what `concept_counts` are of. `strata`, optional: () -> subject id -> what is new of it.
    `omitted`, optional: what the folder has and the suite leaves out, a line each with its reason; complete once all
    prompts were asked for.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    def __init__(self, path: Path | None = None) -> None: ...

    @property
    def truth(self) -> Sequence[Path]:
        """The files that `check` rests on: a verdict belongs to their content. Empty without a ground truth."""

    def subjects(self) -> list[Subject]:
        """In a deliberate order: a run of N subjects takes the first N."""

    def pairs(self) -> list[Case]:
        """Cases of several of the subjects, in a deliberate order. Empty where the suite has none."""

    def prompts(self, case: Case) -> list[Prompt]:
        """Each for as many subjects as the case has; likewise ordered: a run of N takes N in turn over their kinds."""

    def check(self, image: Image.Image, case: Case, prompt: Prompt) -> Check | None:
        """None when the suite has no ground truth."""

    def concept_counts(self) -> Mapping[str, int]:
        """How often each class occurs in the base's training corpus; empty when nobody knows."""


def load_suite(name: str, path: str | None = None) -> Suite:
    """UserError for an unknown name, a folder that is not there, and one that is not such a suite."""
    suite_class = SUITES.load(name)
    if path is not None and not Path(path).is_dir():
        raise UserError(f"--suite-path {path}: there is no such folder")
    return suite_class(Path(path) if path is not None else None)


def omitted(suite: Suite) -> list[str]:
    return list(getattr(suite, "omitted", ()))


def strata(suite: Suite) -> Mapping[str, str]:
    """By subject id, what is new of it; empty where the suite does not say."""
    return getattr(suite, "strata", dict)()
