"""What a metric is: scores for a batch of samples, each row naming its versioned protocol."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from umm_bench.methods import Prompt, Subject
from umm_bench.registry import Registry
from umm_bench.suites.base import Suite

METRICS = Registry("umm_bench.metrics", "metric")


@dataclass(frozen=True)
class ScoredSample:
    """A generated image and what it was asked to show."""

    key: str
    path: Path
    subject: Subject
    prompt: Prompt


@dataclass(frozen=True)
class Score:
    """One row. `explanation` is a sentence for a reader, `metadata` the evidence behind it."""

    sample_key: str
    metric: str
    protocol: str
    value: float
    explanation: str
    metadata: dict[str, Any] = field(default_factory=dict)


class Metric(Protocol):
    """Made as `Metric(config, suite)`; making one loads no model, so that `protocol` is cheap to ask for.

    `config_class` is a frozen dataclass with defaults. `protocol` starts with "<name>/<version>: " and names
    everything that the value depends on beside the sample: scores of another protocol are never reused.
    `weights` are the local files or folders among it.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    protocol: str

    def __init__(self, config: Any, suite: Suite) -> None: ...

    @property
    def weights(self) -> Sequence[Path]: ...

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        """At least one row named `name` for each sample it applies to; further rows may have other names."""
