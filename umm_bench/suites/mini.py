"""The embedded suite: held-out sprite designs alone and in pairs, prompts in six kinds, and a ground-truth checker."""

import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from umm_bench.errors import UserError
from umm_bench.methods import Case, Prompt, Subject
from umm_bench.suites.base import Check, SubjectCheck


class MiniSuite:
    """`path` is a folder as `umm_bench.mini.world.suite.build` makes it; by default that very folder.

    It holds subjects.json, prompts.json and pairs.json, and a folder of pictures for each subject.
    """

    name = "mini"
    version = 3

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            from umm_bench.mini.world import suite

            path = suite.build()
        self.path = path
        self.truth = (path / "subjects.json", path / "prompts.json", path / "pairs.json")
        self._subjects, self._prompts, self._pairs = map(_read, self.truth)

    def subjects(self) -> list[Subject]:
        """All but those that are there for pairs only."""
        return [self._made[name] for name, entry in self._subjects.items() if entry.get("stratum") != "pair"]

    @cached_property
    def _made(self) -> dict[str, Subject]:
        return {
            name: Subject(
                id=name,
                class_noun=entry["class_noun"],
                references=tuple(sorted((self.path / name).glob("*.png"))),
                kind=entry.get("kind", "object"),
            )
            for name, entry in self._subjects.items()
        }

    def pairs(self) -> list[Case]:
        made = self._made
        try:
            return [Case(tuple(made[name] for name in entry["subjects"])) for entry in self._pairs.values()]
        except (KeyError, ValueError) as error:
            raise UserError(f"{self.truth[2]} has a pair that cannot be: {error}") from error

    def prompts(self, case: Case) -> list[Prompt]:
        nouns = "|".join(re.escape(noun) for noun in case.class_nouns)
        prompts = [Prompt(entry["id"], entry["template"], entry["kind"]) for entry in self._prompts.values()]
        return [
            prompt
            for prompt in prompts
            # "a dog to the left of a dog" has no one place for the subject.
            if prompt.subjects == len(case.subjects) and not re.search(rf"\b({nouns})\b", prompt.template)
        ]

    def check(self, image: Image.Image, case: Case, prompt: Prompt) -> Check | None:
        """Of each subject its drawing and its look, part by part; of one of two what became of it, as `label`."""
        from umm_bench.mini.checking import checker, pairs

        asked, sprites = self._prompts[prompt.id], [self._subjects[subject.id]["design"] for subject in case.subjects]
        if len(sprites) == 2:
            verdict = pairs.check_pair(image, sprites, asked)
            common = {name: verdict[name] for name in ("order", "found_background")}
            told = [{**subject, **common} for subject in verdict["subjects"]]
        else:
            verdict = checker.check(image, sprites[0], asked)
            told = [{name: value for name, value in verdict.items() if name != "background"}]
        return Check(tuple(map(_subject_check, told)), verdict["background"])

    def strata(self) -> Mapping[str, str]:
        """What of a subject its generator never saw (look, drawing, or nothing), and how often it saw the class."""
        made = self._subjects.values()
        return {entry["id"]: f"{entry['stratum']}, {entry['frequency']}" for entry in made if "stratum" in entry}

    def concept_counts(self) -> Mapping[str, int]:
        """Of the subjects' concepts, in how many of 16,384 scenes that the family's generator learnt from."""
        from umm_bench.mini import family

        drawn = json.loads((family.path("sd") / "concept_counts.json").read_text())
        return {entry["class_noun"]: round(drawn.get(entry["class_noun"], 0)) for entry in self._subjects.values()}


def _subject_check(told: dict[str, Any]) -> SubjectCheck:
    """What the checker says of a subject. A part that its look lacks, or that the prompt changes, has no say."""
    parts = {name: bool(told[name]) for name in ("drawing", "look")}
    for name, part in told["parts"].items():
        if part is not None and part["wanted"] is not None and "said" not in part:
            parts[f"look_{name}"] = bool(part["right"])
    evidence = {name: value for name, value in told.items() if name not in ("identity", "concept")}
    return SubjectCheck(bool(told["identity"]), told["concept"], parts, evidence)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return {entry["id"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    except FileNotFoundError as error:
        earlier = path.name == "pairs.json" and (path.parent / "subjects.json").is_file()
        what = (
            "is a suite of an earlier world, without pairs" if earlier else f"is no mini suite: {path.name} is missing"
        )
        raise UserError(f"{path.parent} {what}; leave the folder out, and this version makes its own") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not read as a list of entries with ids: {error}") from error
