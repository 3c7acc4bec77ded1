"""The suite's own ground truth: is each subject there, is its class there, is the background as asked?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umm_bench.images import open_image
from umm_bench.methods import Subject
from umm_bench.metrics.base import Score, ScoredSample
from umm_bench.seeding import digest, path_digest
from umm_bench.suites.base import SubjectCheck, Suite


@dataclass(frozen=True)
class IdentityConfig:
    """Nothing to set: the truth is the suite's."""


class Identity:
    """1 or 0 for each verdict of the suite's check: `identity` of each subject, and its `concept`, the parts of its
    identity and the image's `background` where it gives them. A suite without a ground truth gets no rows.
    """

    name = "identity"
    config_class = IdentityConfig

    def __init__(self, config: IdentityConfig, suite: Suite) -> None:
        self.suite = suite
        self.weights: Sequence[Path] = suite.truth
        files = f"@{digest([path_digest(path) for path in suite.truth], length=8)}" if suite.truth else ""
        self.protocol = f"identity/4: ground truth of suite {suite.name}/{suite.version}{files}"

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        scores = []
        for sample in batch:
            check = self.suite.check(open_image(sample.path), sample.case, sample.prompt)
            if check is None:
                continue
            for subject, verdict in zip(sample.case.subjects, check.subjects, strict=True):
                scores += self._rows(sample, subject, verdict)
            if check.background is not None:
                asked = "as asked" if check.background else f"not that of '{sample.text}'"
                value, evidence = float(check.background), check.subjects[0].evidence
                says = f"the background is {asked}"
                scores.append(Score(sample.key, "background", self.protocol, value, says, evidence))
        return scores

    def _rows(self, sample: ScoredSample, subject: Subject, check: SubjectCheck) -> list[Score]:
        best = check.evidence.get("best_design")
        absent = f"no {subject.class_noun} is there"
        other = f"the checker prefers {best} over the subject" if best else "the checker rejects the subject"
        no = absent if check.concept is False else other
        verdicts: dict[str, tuple[bool | None, str, str]] = {
            "identity": (check.identity, "the checker takes it for the subject", no),
            "concept": (check.concept, f"a {subject.class_noun} is there", absent),
        }
        for name, right in check.parts.items():
            what = name.removeprefix("look_")
            verdicts[name] = (right, f"the {what} is the subject's", f"the {what} is not the subject's")
        return [
            Score(sample.key, metric, self.protocol, float(value), yes if value else no, check.evidence, subject.id)
            for metric, (value, yes, no) in verdicts.items()
            if value is not None
        ]
