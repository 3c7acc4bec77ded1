"""Which pairs people are shown, and on which side what is: drawn by a seed, known to the store alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

from umm_bench.bench.store import Answers
from umm_bench.errors import UserError
from umm_bench.seeding import digest, seed_for

SAMPLES = """
select samples.case_id, samples.prompt_id, image_index, samples.method, sample_key, samples.path, prompt,
       list(class_noun order by place) as nouns, list(references_json order by place) as pictures
from run_samples join samples using (sample_key) join sample_subjects using (sample_key)
where run_id = ? and not floor group by all order by all
"""
CHECK_WORDS = "a picture of the {}"


@dataclass(frozen=True)
class Question:
    """What a voter sees. Keys are those of the samples, None in an attention check, which `expects` an answer."""

    prompt: str
    references: tuple[Path, ...]
    left: Path | None  # None: nothing, in a check of a run without a second class
    right: Path | None
    left_key: str | None = None
    right_key: str | None = None
    expects: str | None = None


@dataclass(frozen=True)
class Ballot:
    """`questions` in their order; `id` says nothing of what is in them."""

    id: str
    run_id: str
    questions: tuple[Question, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table `ballots`."""
        return [
            {"ballot": self.id, "pair": n, "run_id": self.run_id, "left_key": each.left_key}
            | {"right_key": each.right_key, "expected": each.expects}
            for n, each in enumerate(self.questions, start=1)
        ]


def draw_ballot(
    answers: Answers, run_id: str, pairs: int, checks: int, seed: int, methods: Sequence[str] = ()
) -> Ballot:
    """As many pairs of each two of the `methods` (all of the run by default) as of any other two, as far as there are,
    each of one case, prompt and noise, with so many attention checks among them. UserError where no two methods have
    drawn the same, or one has drawn nothing.
    """
    drawn: dict[tuple[str, str, int], dict[str, dict[str, Any]]] = {}
    for row in answers.rows(SAMPLES, [run_id]):
        if not (answers.folder / row["path"]).is_file():  # lost; the rest can be asked of
            continue
        drawn.setdefault((row["case_id"], row["prompt_id"], row["image_index"]), {})[row["method"]] = row
    known = sorted({method for cell in drawn.values() for method in cell})
    for method in methods:
        if method not in known:
            raise UserError(f"run '{run_id}' has no picture by '{method}'; there are {', '.join(known) or 'none'}")
    random = Random(seed_for("ballot", run_id, pairs, checks, seed, sorted(methods)))
    chosen = _spread(drawn, sorted(set(methods)) or known, pairs, random)
    if not chosen:
        raise UserError(f"run '{run_id}' has no two methods with a picture of the same case and prompt")
    questions = [_pair(one, other, answers.folder, random) for one, other in chosen]
    for check in _checks([one for one, _ in chosen], checks, answers.folder, random):
        questions.insert(random.randrange(len(questions) + 1), check)
    said = [(each.left_key, each.right_key, each.expects) for each in questions]
    return Ballot(digest("ballot", run_id, seed, said, length=12), run_id, tuple(questions))


def _spread(
    drawn: dict[tuple[str, str, int], dict[str, dict[str, Any]]], methods: Sequence[str], pairs: int, random: Random
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each two methods in turn, and of theirs the cells that have been shown the least."""
    shown = dict.fromkeys(drawn, 0)
    left = {
        two: random.sample(cells, len(cells))
        for two in combinations(methods, 2)
        if (cells := [key for key, cell in drawn.items() if set(two) <= cell.keys()])
    }
    chosen: list[tuple[dict[str, Any], dict[str, Any]]] = []
    while left and len(chosen) < pairs:
        for two in random.sample(list(left), len(left)):
            if len(chosen) < pairs:
                cell = min(left[two], key=lambda key: shown[key])
                left[two].remove(cell)
                shown[cell] += 1
                chosen.append((drawn[cell][two[0]], drawn[cell][two[1]]))
        left = {two: cells for two, cells in left.items() if cells}
    return random.sample(chosen, len(chosen))


def _pair(one: dict[str, Any], other: dict[str, Any], folder: Path, random: Random) -> Question:
    left, right = (one, other) if random.random() < 0.5 else (other, one)
    paths = (folder / left["path"], folder / right["path"])
    return Question(one["prompt"], _references(one, folder), *paths, left["sample_key"], right["sample_key"])


def _references(row: dict[str, Any], folder: Path) -> tuple[Path, ...]:
    """The first picture of each subject."""
    return tuple(folder / paths[0] for paths in map(json.loads, row["pictures"]) if paths)


def _checks(rows: Sequence[dict[str, Any]], number: int, folder: Path, random: Random) -> list[Question]:
    """A subject's own picture against that of a subject of another class, or against nothing where there is none."""
    subjects = {
        (noun, path) for row in rows for noun, path in zip(row["nouns"], _references(row, folder), strict=False)
    }
    order = random.sample(sorted(subjects), len(subjects))
    if not order:
        return []
    found = []
    for n in range(number):
        noun, path = order[n % len(order)]
        others = [other for its, other in order if its != noun]
        wrong = random.choice(others) if others else None
        expects = random.choice(("left", "right"))
        left, right = (path, wrong) if expects == "left" else (wrong, path)
        found.append(Question(CHECK_WORDS.format(noun), (path,), left, right, expects=expects))
    return found
