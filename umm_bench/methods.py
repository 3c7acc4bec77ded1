"""What a benchmarked method is, and where methods are found.

A method is a class with an entry point in the group `umm_bench.methods`:

    [project.entry-points."umm_bench.methods"]
    my_method = "my_package.my_module:MyMethod"
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from PIL import Image

from umm_bench.base import Base
from umm_bench.registry import Registry

METHODS = Registry("umm_bench.methods", "method")


@dataclass(frozen=True)
class Subject:
    """What to draw: an identity known from its reference images (at least one).

    `class_noun` is the word for its class ("dog"), `kind` one of object, live, style.
    """

    id: str
    class_noun: str
    references: tuple[Path, ...]
    kind: str = "object"


@dataclass(frozen=True)
class Prompt:
    """How to draw it. `template` holds "{subject}" exactly once, e.g. "a {subject} on a blue background".

    `kind` is one of recontextualise, accessorise, property, style, two_subjects.
    """

    id: str
    template: str
    kind: str

    def __post_init__(self) -> None:
        if self.template.count("{subject}") != 1:
            raise ValueError(f"prompt '{self.id}' must hold {{subject}} exactly once: {self.template!r}")

    def text(self, subject_words: str) -> str:
        """The prompt with the subject named by `subject_words`: "dog", or "sks dog" for DreamBooth.

        An "a" right before the subject becomes "an" where its first letter is a vowel.
        """
        article = r"\1n {subject}" if subject_words[:1].lower() in tuple("aeiou") else r"\1 {subject}"
        return re.sub(r"\b([Aa]) \{subject\}", article, self.template).replace("{subject}", subject_words)


@dataclass(frozen=True)
class Generation:
    """Sampling settings shared by all methods of a run; the meanings are diffusers' (guidance 1 is off)."""

    num_inference_steps: int = 20
    guidance_scale: float = 5.0


class Method(Protocol):
    """One way to draw a subject. The class carries:

    - `name`, and `config_class`: a frozen dataclass of the method's own arguments, all with defaults;
    - `version`, optional, default 1: raise it when a change alters the images, so that they are made again;
    - `weights(config, base) -> Sequence[Path]`, optional, static: local files or folders beside the base that
      the images depend on. Their content becomes part of each sample's key.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]

    def __init__(self, base: Base, config: Any, generation: Generation) -> None: ...

    def setup(self, subject: Subject, directory: Path) -> Any:
        """Fine-tune for `subject` and save into `directory`, or load from there when it is complete.

        `directory` exists only after an earlier complete setup; a method with nothing to save never creates
        it. What is returned is handed to `generate` as `state`. A setup that goes on after a kill leaves the seconds
        spent before in `directory`/state.json as `seconds_before`.
        """

    def generate(self, state: Any, subject: Subject, prompt: Prompt, seeds: Sequence[int]) -> list[Image.Image]:
        """One RGB image a seed. Each must depend on its own seed only, so that a batch equals its members."""
