"""The embedded suite: held-out sprite designs, prompts in five kinds, and a ground-truth checker."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from umm_bench.errors import UserError
from umm_bench.methods import Prompt, Subject
from umm_bench.suites.base import Check


class MiniSuite:
    """`path` is a folder as `umm_bench.mini.world.suite.build` makes it; by default that very folder."""

    name = "mini"
    version = 1

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            from umm_bench.mini.world import suite

            path = suite.build()
        self.path = path
        self.truth = (path / "subjects.json", path / "prompts.json")
        self._subjects, self._prompts = map(_read, self.truth)

    def subjects(self) -> list[Subject]:
        return [
            Subject(
                id=entry["id"],
                class_noun=entry["class_noun"],
                references=tuple(sorted((self.path / entry["id"]).glob("*.png"))),
                kind=entry.get("kind", "object"),
            )
            for entry in self._subjects.values()
        ]

    def prompts(self, subject: Subject) -> list[Prompt]:
        return [
            Prompt(id=entry["id"], template=entry["template"], kind=entry["kind"])
            for entry in self._prompts.values()
            # "a dog to the left of a dog" has no one place for the subject.
            if not re.search(rf"\b{re.escape(subject.class_noun)}\b", entry["template"])
        ]

    def check(self, image: Image.Image, subject: Subject, prompt: Prompt) -> Check | None:
        from umm_bench.mini.world import checker

        verdict = checker.check(image, self._subjects[subject.id]["design"], self._prompts[prompt.id])
        evidence = {name: value for name, value in verdict.items() if name not in _VERDICTS}
        return Check(
            identity=verdict["identity"],
            concept=verdict.get("concept"),
            background=verdict.get("background"),
            evidence=evidence,
        )

    def concept_counts(self) -> Mapping[str, int]:
        """Of the subjects' concepts, in how many of 16,384 scenes that the family's generator learnt from."""
        from umm_bench.mini import family

        drawn = json.loads((family.path("sd") / "concept_counts.json").read_text())
        return {entry["class_noun"]: round(drawn.get(entry["class_noun"], 0)) for entry in self._subjects.values()}


_VERDICTS = ("identity", "concept", "background")


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return {entry["id"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    except FileNotFoundError as error:
        raise UserError(f"{path.parent} is no mini suite: {path.name} is missing") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not read as a list of entries with ids: {error}") from error
