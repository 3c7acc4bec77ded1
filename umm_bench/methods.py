"""What a benchmarked method is, and where methods are found.

A method is a class with an entry point in the group `umm_bench.methods`:

    [project.entry-points."umm_bench.methods"]
    my_method = "my_package.my_module:MyMethod"
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from PIL import Image

from umm_bench.base import Base
from umm_bench.registry import Registry

METHODS = Registry("umm_bench.methods", "method")


@dataclass(frozen=True)
class Subject:
    """What to draw: an identity known from its reference images (at least one).

    `class_noun` is the word for its class ("dog"), `kind` one of object, live, style. `references` are what a method
    may look at; `held_out` are further pictures of it, which are only scored against.
    """

    id: str
    class_noun: str
    references: tuple[Path, ...]
    kind: str = "object"
    held_out: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Case:
    """One subject or several, to be drawn in one picture. A prompt for it names each of them once.

    ValueError where there is none, or one twice.
    """

    subjects: tuple[Subject, ...]

    def __post_init__(self) -> None:
        names = [subject.id for subject in self.subjects]
        if not names:
            raise ValueError("a case without subjects")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"a case has subject '{name}' more than once: {', '.join(names)}")

    @property
    def id(self) -> str:
        """The subject's id, or the ids joined with "+"."""
        return "+".join(subject.id for subject in self.subjects)

    @property
    def subject(self) -> Subject:
        """The only subject. ValueError where there are several."""
        (subject,) = self.subjects
        return subject

    @property
    def class_nouns(self) -> tuple[str, ...]:
        return tuple(subject.class_noun for subject in self.subjects)


def with_article(words: str, article: str = "a") -> str:
    """ "a dog"; "an automobile", as the first letter is a vowel."""
    return f"{article}n {words}" if words[:1].lower() in tuple("aeiou") else f"{article} {words}"


_PLACE = re.compile(r"(?:\b(?P<article>[Aa]) )?\{subject(?:_(?P<number>[1-9]\d*))?\}")
_MEANT = re.compile(r"\{\s*subj\w*[^}]*\}")


@dataclass(frozen=True)
class Prompt:
    """How to draw a case. `template` names each subject once: "a {subject} on a blue background" for a case of one,
    "a {subject_1} next to a {subject_2}" for a case of two. ValueError where it does not.

    `kind` is one of recontextualise, accessorise, property, style, two_subjects (a subject beside a plain thing),
    two_references (two subjects).
    """

    id: str
    template: str
    kind: str

    def __post_init__(self) -> None:
        places = sorted(self._places)
        wanted = [0] if places[:1] == [0] else list(range(1, len(places) + 1))
        if not places or places != wanted or len(_MEANT.findall(self.template)) != len(places):
            raise ValueError(
                f"prompt '{self.id}' must hold {{subject}} exactly once, or each of {{subject_1}}, {{subject_2}}, ... "
                f"exactly once: {self.template!r}"
            )

    @cached_property
    def _places(self) -> list[int]:
        """Which subject each place of the template is for, from 1; 0 for the only one."""
        return [int(place["number"] or 0) for place in _PLACE.finditer(self.template)]

    @property
    def subjects(self) -> int:
        """How many subjects it names."""
        return len(self._places)

    def text(self, words: Sequence[str]) -> str:
        """The prompt with each subject named by its words, in the order of the case: `["dog"]`, or `["sks dog"]`.

        An "a" right before a subject becomes "an" where its first letter is a vowel. ValueError for as many words
        as the prompt does not name subjects.
        """
        return self._written(words)[0]

    def spans(self, words: Sequence[str]) -> tuple[tuple[int, int], ...]:
        """Where `text(words)` has each subject's words: (start, end) in characters, in the order of the case."""
        return self._written(words)[1]

    def _written(self, words: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
        if isinstance(words, str) or len(words) != self.subjects:
            raise ValueError(f"prompt '{self.id}' names {self.subjects} subjects, not {words!r}")
        text, end, spans = "", 0, {}
        for place in _PLACE.finditer(self.template):
            subject = max(int(place["number"] or 0) - 1, 0)
            article, word = place["article"], words[subject]
            text += self.template[end : place.start()]
            if article is not None:
                text += with_article(word, article).removesuffix(word)
            spans[subject] = (len(text), len(text) + len(word))
            text, end = text + word, place.end()
        return text + self.template[end:], tuple(spans[subject] for subject in sorted(spans))


@dataclass(frozen=True)
class Generation:
    """Sampling settings shared by all methods of a run; the meanings are diffusers' (guidance 1 is off)."""

    num_inference_steps: int = 20
    guidance_scale: float = 5.0


class Method(Protocol):
    """One way to draw subjects. The class carries:

    - `name`, and `config_class`: a frozen dataclass of the method's own arguments, all with defaults;
    - `setup_for`, optional, default "subject": what a setup is made for. "subject": for each subject alone, and
      what the subjects of a case left is combined when drawing. "case": for all subjects of a case together;
    - `max_subjects`, optional, default 1: of how many subjects it can draw a case, None for any number. What it
      cannot draw is skipped and said to be, and is neither a failure nor a score;
    - `version`, optional, default 1: raise it when a change alters the images, so that they are made again;
    - `defaults(base) -> config`, optional, static: what its settings are on this base where nobody sets them; without
      it, what `config_class()` is. Asked while planning: it loads no weights. A `source` of that config, where these
      numbers are from, has a run print them;
    - `weights(config, base) -> Sequence[Path]`, optional, static: local files or folders beside the base that
      the images depend on. Their content becomes part of each sample's key;
    - `check(config, base, case, prompt) -> str | None`, optional, static: in one line, why this prompt cannot be
      drawn (it is too long, it says the class noun twice), or None. Asked while planning: it loads no weights, a
      tokenizer at most (`base.tokenizer`). The sample is then a failed one with this reason;
    - `words(config, case) -> Sequence[str]`, optional, static: what it writes into the prompt in each subject's
      place, where that is not the class noun.

    A method is made when it has something to draw and not before, so it may load its models in `__init__`; what that
    raises ends the run. A `UserError` of `setup` or `generate` is the reason of failed samples, and the run goes on.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]

    def __init__(self, base: Base, config: Any, generation: Generation) -> None: ...

    def setup(self, target: Any, directory: Path) -> Any:
        """Fine-tune for `target`, a Subject or a Case as `setup_for` says, and save into `directory`, or load from
        there when it is complete.

        `directory` exists only after an earlier complete setup; a method with nothing to save never creates
        it. What is returned is handed to `generate`. A `state.json` in `directory` may tell what the setup took:
        `steps`, `trained_parameters`, and `seconds_before`, spent in calls that were cut off by a kill.
        """

    def generate(self, states: Sequence[Any], case: Case, prompt: Prompt, seeds: Sequence[int]) -> list[Image.Image]:
        """One RGB image a seed. Each must depend on its own seed only, so that a batch equals its members.

        `states` are what `setup` returned for each subject, in the case's order; for a method that sets up for the
        case it is one.
        """


SetupFor = Literal["subject", "case"]


@dataclass(frozen=True)
class Abilities:
    """What a method class says of itself, with the defaults where it says nothing."""

    setup_for: SetupFor
    max_subjects: int | None
    version: int

    @classmethod
    def of(cls, method_class: Any) -> "Abilities":
        """ValueError for a `setup_for` that there is not."""
        setup_for: Any = getattr(method_class, "setup_for", "subject")
        if setup_for not in ("subject", "case"):
            raise ValueError(f"{method_class.__name__}.setup_for must be 'subject' or 'case', not {setup_for!r}")
        return cls(setup_for, getattr(method_class, "max_subjects", 1), getattr(method_class, "version", 1))

    def can_draw(self, case: Case) -> bool:
        return self.max_subjects is None or len(case.subjects) <= self.max_subjects
