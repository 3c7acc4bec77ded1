"""The suite's own ground truth: is this the subject, is its class there, is the background as asked?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umm_bench.images import open_image
from umm_bench.metrics.base import Score, ScoredSample
from umm_bench.seeding import digest, path_digest
from umm_bench.suites.base import Check, Suite


@dataclass(frozen=True)
class IdentityConfig:
    """Nothing to set: the truth is the suite's."""


class Identity:
    """1 or 0 for each verdict of the suite's check: `identity`, and `concept` and `background` where it gives
    them. A suite without a ground truth gets no rows.
    """

    name = "identity"
    config_class = IdentityConfig

    def __init__(self, config: IdentityConfig, suite: Suite) -> None:
        self.suite = suite
        self.weights: Sequence[Path] = suite.truth
        files = f"@{digest([path_digest(path) for path in suite.truth], length=8)}" if suite.truth else ""
        self.protocol = f"identity/3: ground truth of suite {suite.name}/{suite.version}{files}"

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        scores = []
        for sample in batch:
            check = self.suite.check(open_image(sample.path), sample.subject, sample.prompt)
            if check is not None:
                scores += self._rows(sample, check)
        return scores

    def _rows(self, sample: ScoredSample, check: Check) -> list[Score]:
        best = check.evidence.get("best_design")
        absent = f"no {sample.subject.class_noun} is there"
        other = f"the checker prefers {best} over the subject" if best else "the checker rejects the subject"
        verdicts = {
            "identity": (
                check.identity,
                "the checker takes it for the subject",
                absent if check.concept is False else other,
            ),
            "concept": (
                check.concept,
                f"a {sample.subject.class_noun} is there",
                absent,
            ),
            "background": (
                check.background,
                "the background is as asked",
                f"the background is not that of '{sample.prompt.text(sample.subject.class_noun)}'",
            ),
        }
        return [
            Score(sample.key, metric, self.protocol, float(verdict), yes if verdict else no, check.evidence)
            for metric, (verdict, yes, no) in verdicts.items()
            if verdict is not None
        ]
