"""What a metric is: scores for a batch of samples, each row naming its versioned protocol."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from umm_bench.errors import UserError
from umm_bench.methods import Case, Prompt, Subject
from umm_bench.registry import Registry
from umm_bench.suites.base import Suite

METRICS = Registry("umm_bench.metrics", "metric")


class Unusable(UserError):
    """A metric's model or setting cannot be used, whatever the sample: it ends the run.

    Anything else that scoring a sample raises is the reason why this one sample has no score.
    """


@dataclass(frozen=True)
class ScoredSample:
    """A generated image and what it was asked to show.

    `case.subjects` have the pictures to score against, as the suite has them: `references`, which the method saw
    (perhaps worse ones of them), and `held_out`, which it did not. `method_prompt` is the prompt with the method's
    own words in it. `earlier` are the method's images of the same case and prompt with a lower index, and `floor` is
    plain SD's image of the same case, prompt and seed, None where it was not drawn. `shown` are, for each subject, the
    pictures that the method saw where they are worse than the references (`--degrade`), else nothing.
    """

    key: str
    path: Path
    case: Case
    prompt: Prompt
    seed: int
    method: str = ""
    method_prompt: str = ""
    earlier: tuple[Path, ...] = ()
    floor: Path | None = None
    shown: tuple[tuple[Path, ...], ...] = ()

    @property
    def text(self) -> str:
        """The prompt with the class noun in each subject's place."""
        return self.prompt.text(self.case.class_nouns)


@dataclass(frozen=True)
class Score:
    """One row. `explanation` is a sentence for a reader, `metadata` the evidence behind it.

    `subject` is the id of the subject that it is about, empty where it is about the whole image.
    """

    sample_key: str
    metric: str
    protocol: str
    value: float
    explanation: str
    metadata: dict[str, Any] = field(default_factory=dict)
    subject: str = ""


@dataclass(frozen=True)
class Ceiling:
    """What a subject's own pictures score against each other, over `pairs` of two different ones."""

    value: float
    pairs: int


class Metric(Protocol):
    """Made as `Metric(config, suite)`; making one loads no model, so that `protocol` is cheap to ask for.

    `config_class` is a frozen dataclass with defaults. `protocol` starts with "<name>/<version>: " and names
    everything that the value depends on beside the sample: scores of another protocol are never reused.
    `weights` are the local files or folders among it. `subjects`, optional, default (1, None): the least and the
    largest number of subjects of a case that it is for, None for any number. Optional too:

    - `why_not(sample) -> str | None`: in one line, what a sample lacks to be scored, or None. It then has no score,
      and the reason is kept;
    - `ceiling(subject) -> Ceiling | None`: the score of real pictures, kept once for each subject. None where there
      is but one picture;
    - `like`: the name of a metric whose settings it has where its own are not given: `--set dino.model=X` is then the
      encoder of all that are like `dino`;
    - `lower_is_better`: names of rows whose best value is the least.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    protocol: str

    def __init__(self, config: Any, suite: Suite) -> None: ...

    @property
    def weights(self) -> Sequence[Path]: ...

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        """At least one row named `name` for each sample it applies to; further rows may have other names.

        A metric of one name has either one row a sample or one row for each of its subjects.
        """


class SetMetric(Protocol):
    """A metric whose value belongs to all pictures of a method together. Made as a `Metric` is, and told apart by
    having `score_set`. It is asked once for each method of a run, and for cases of as many subjects.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    protocol: str

    def __init__(self, config: Any, suite: Suite) -> None: ...

    @property
    def weights(self) -> Sequence[Path]: ...

    def usable(self, samples: Sequence[ScoredSample]) -> list[ScoredSample]:
        """Those of them that can be part of the set."""

    def score_set(self, samples: Sequence[ScoredSample]) -> float | None:
        """Of usable samples; None where there are too few. It is asked too for all but those of one case, for the
        interval.
        """


def all_pictures(subject: Subject) -> tuple[Path, ...]:
    """All that a subject is scored against: what methods saw of it and what they did not."""
    return (*subject.references, *subject.held_out)


def is_for(metric: Any, case: Case) -> bool:
    """Whether a metric is for cases of as many subjects."""
    least, most = getattr(metric, "subjects", (1, None))
    return least <= len(case.subjects) and (most is None or len(case.subjects) <= most)
