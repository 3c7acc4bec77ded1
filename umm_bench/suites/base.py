"""What a suite is: subjects, prompts for each, and a ground truth where there is one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from PIL import Image

from umm_bench.methods import Prompt, Subject
from umm_bench.registry import Registry

SUITES = Registry("umm_bench.suites", "suite")


@dataclass(frozen=True)
class Check:
    """The verdict of a suite's ground truth on one image; None where the prompt does not ask for it."""

    identity: bool
    concept: bool | None = None
    background: bool | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


class Suite(Protocol):
    """Made as `Suite(path)`: a folder, or None for the suite's own default. Importing one loads no model."""

    name: ClassVar[str]
    version: ClassVar[int]

    def __init__(self, path: Path | None = None) -> None: ...

    @property
    def truth(self) -> Sequence[Path]:
        """The files that `check` rests on: a verdict belongs to their content. Empty without a ground truth."""

    def subjects(self) -> list[Subject]:
        """In a deliberate order: a run of N subjects takes the first N."""

    def prompts(self, subject: Subject) -> list[Prompt]:
        """Likewise ordered; a run of N prompts takes N in turn over their kinds."""

    def check(self, image: Image.Image, subject: Subject, prompt: Prompt) -> Check | None:
        """None when the suite has no ground truth."""

    def concept_counts(self) -> Mapping[str, int]:
        """How often each class occurs in the base's training corpus; empty when nobody knows."""
