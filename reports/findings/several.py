"""Several subjects in one picture: what became of each of them, by method, and what those that failed have in common.

Labels are those of the metric `several`. A run without it but with the suite's ground truth is read by that.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from umm_bench.bench.statistics import Interval, mean_interval

LABELS = ("right", "drift", "blending", "dominance", "swap", "missing")
MEANINGS = {
    "right": "is there, and itself",
    "drift": "its class is there, but not itself, and nothing of the other",
    "blending": "has something of the other",
    "dominance": "has become the other, or the other is there twice",
    "swap": "the two have exchanged what makes them themselves",
    "missing": "its class is found nowhere",
}
WORST, MEDIAN = 3, 3  # cases shown of a label
SEVERAL_ROWS = """
select samples.path, samples.sample_key, samples.method, samples.case_id, samples.prompt_id, samples.prompt,
       samples.seed, place, who.subject, class_noun, references_json,
       found.metadata_json as found, truth.metadata_json as truth
from run_samples join samples using (sample_key) join sample_subjects who using (sample_key)
     left join run_results found on found.run_id = run_samples.run_id and found.sample_key = who.sample_key
               and found.subject = who.subject and found.metric = 'several'
     left join run_results truth on truth.run_id = run_samples.run_id and truth.sample_key = who.sample_key
               and truth.subject = who.subject and truth.metric = 'identity'
where run_samples.run_id = ? and samples.subject_count > 1
order by samples.case_id, samples.prompt_id, samples.method, samples.image_index, samples.sample_key, place
"""


@dataclass(frozen=True)
class Outcome:
    """What became of one subject. `box` is xyxy, in shares of the picture's sides where `in_shares`, else in pixels."""

    subject: str
    class_noun: str
    reference: Path | None
    label: str | None
    truth: str | None
    box: tuple[float, ...] | None
    in_shares: bool
    detected: float | None
    row: dict[str, float]
    matrix: dict[str, dict[str, float]]
    margin: float | None

    def frame(self, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
        """x, y, width, height in pixels of a picture of this size."""
        if self.box is None:
            return None
        width, height = size if self.in_shares else (1, 1)
        x0, y0, x1, y1 = (value * scale for value, scale in zip(self.box, (width, height) * 2, strict=True))
        return x0, y0, x1 - x0, y1 - y0


@dataclass(frozen=True)
class Drawn:
    """One picture of several subjects, these in the order of the prompt."""

    path: Path
    key: str
    method: str
    case_id: str
    prompt_id: str
    prompt: str
    seed: int
    outcomes: tuple[Outcome, ...]

    @property
    def relation(self) -> str:
        """The words between the first two subjects; "other" where their nouns are not found in this order."""
        first, second = (re.escape(outcome.class_noun) for outcome in self.outcomes[:2])
        found = re.search(rf"(?<!\w){first}s?(?!\w)(.+?)(?<!\w){second}", self.prompt)
        return re.sub(r"\b(a|an|another|the|one)\s*$", "", found[1]).strip() if found else "other"


Labelled = tuple[Drawn, Outcome]


@dataclass(frozen=True)
class Shown:
    """An outcome as an example of its label; `why` is where it stands among them."""

    drawn: Drawn
    outcome: Outcome
    why: str


@dataclass(frozen=True)
class Trait:
    """How often subjects with something in common fail, by method."""

    name: str
    value: str
    failing: dict[str, Interval]


@dataclass(frozen=True)
class Several:
    """`measured` is whether the labels are the metric's; else they are the ground truth's."""

    pictures: tuple[Drawn, ...]
    measured: bool

    @cached_property
    def labelled(self) -> list[Labelled]:
        return [(shown, each) for shown in self.pictures for each in shown.outcomes if each.label is not None]

    @property
    def unlabelled(self) -> int:
        return sum(len(shown.outcomes) for shown in self.pictures) - len(self.labelled)

    def rates(self) -> dict[str, dict[str, Interval]]:
        """Method -> label -> its share of the subjects asked for, clustered by case."""
        members = grouped((shown.method, (shown, each)) for shown, each in self.labelled)
        return {method: {label: _share(chosen, {label}) for label in LABELS} for method, chosen in members.items()}

    def traits(self) -> list[Trait]:
        """Each trait that not all subjects have alike, with the share that is not right."""
        likeness = [alike for shown in self.pictures if (alike := _likeness(shown)) is not None]
        middle = median(likeness) if likeness else 0.0
        named: dict[str, Callable[[Drawn, Outcome], str | None]] = {
            "Their classes": lambda s, o: "same class" if len({x.class_noun for x in s.outcomes}) == 1 else "different",
            "Place in the prompt": lambda s, o: f"named {_ordinal(s.outcomes.index(o))}",
            "Relation in the prompt": lambda s, o: s.relation,
            "References of the two": lambda s, o: _halves(_likeness(s), middle),
        }
        found = []
        for name, of in named.items():
            having = grouped((value, pair) for pair in self.labelled if (value := of(*pair)) is not None)
            for value, pairs in having.items() if len(having) > 1 else ():
                by_method = grouped((pair[0].method, pair) for pair in pairs)
                failing = {method: _share(chosen, FAILED) for method, chosen in by_method.items()}
                found.append(Trait(name, value, failing))
        return found

    def examples(self, label: str) -> list[Shown]:
        """The worst of a label, by the margin to the rival, and those around its median."""
        ordered = sorted(
            (pair for pair in self.labelled if pair[1].label == label),
            key=lambda pair: (_depth(pair[1]), pair[0].key, pair[1].subject),
        )
        start = max(WORST, len(ordered) // 2 - MEDIAN // 2)
        worst, around = ordered[:WORST], ordered[start : start + MEDIAN]
        return [Shown(*pair, "worst") for pair in worst] + [Shown(*pair, "median") for pair in around]

    def confusion(self) -> Counter[tuple[str, str]]:
        """(truth, label) -> subjects; empty where the labels are the truth, or there is none."""
        if not self.measured:
            return Counter()
        return Counter((each.truth, each.label) for _, each in self.labelled if each.truth and each.label)

    def agreement(self) -> Interval | None:
        told = [(shown, each) for shown, each in self.labelled if each.truth] if self.measured else []
        if not told:
            return None
        return _share_of([each.truth == each.label for _, each in told], told)


FAILED = frozenset(LABELS) - {"right"}


def grouped(pairs: Iterable[tuple[str, Labelled]]) -> dict[str, list[Labelled]]:
    """The second of each pair by the first, in order."""
    groups: dict[str, list[Labelled]] = {}
    for name, member in pairs:
        groups.setdefault(name, []).append(member)
    return groups


def _share(chosen: Sequence[Labelled], labels: Collection[str | None]) -> Interval:
    return _share_of([each.label in labels for _, each in chosen], chosen)


def _share_of(right: Sequence[bool], members: Sequence[Labelled]) -> Interval:
    """The share of the members, clustered by case; its interval is cut where no share can be."""
    found = mean_interval([float(each) for each in right], [shown.case_id for shown, _ in members])
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def read_several(rows: Sequence[tuple[Any, ...]], folder: Path) -> Several:
    """From the answers to SEVERAL_ROWS; `folder` is what their paths are relative to."""
    measured = any(row[-2] for row in rows)
    keyed: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        keyed.setdefault(row[1], []).append(row)
    return Several(tuple(_drawn(parts, folder, measured) for parts in keyed.values()), measured)


def _drawn(parts: Sequence[tuple[Any, ...]], folder: Path, measured: bool) -> Drawn:
    path, key, method, case_id, prompt_id, prompt, seed, *_ = parts[0]
    outcomes = tuple(_outcome(row[8:13], folder, measured) for row in parts)
    return Drawn(folder / path, key, method, case_id, prompt_id, prompt, seed, outcomes)


def _outcome(row: Sequence[Any], folder: Path, measured: bool) -> Outcome:
    subject, noun, references, found, truth = row
    told, true = json.loads(found or "{}"), json.loads(truth or "{}")
    paths = json.loads(references or "[]")
    evidence = told if measured else true
    label = evidence.get("label")
    return Outcome(
        subject=subject,
        class_noun=noun,
        reference=folder / paths[0] if paths else None,
        label=label if label in LABELS else None,
        truth=true.get("label"),
        box=tuple(evidence["box"]) if evidence.get("box") else None,
        in_shares=not measured,
        detected=told.get("detected"),
        row=told.get("row", {}),
        matrix=told.get("references", {}),
        margin=told.get("margin"),
    )


def _depth(outcome: Outcome) -> float:
    """How deep a failure is, the lowest the worst; those without a margin come last."""
    return float("inf") if outcome.margin is None else outcome.margin


def _likeness(shown: Drawn) -> float | None:
    """How alike the references of the first two subjects are."""
    one, two = (outcome.subject for outcome in shown.outcomes[:2])
    return shown.outcomes[0].matrix.get(one, {}).get(two)


def _halves(value: float | None, middle: float) -> str | None:
    return None if value is None else "more alike" if value > middle else "less alike"


def _ordinal(place: int) -> str:
    return ("first", "second", "third")[place] if place < 3 else f"as number {place + 1}"
