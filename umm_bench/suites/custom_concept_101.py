"""CustomConcept101 (2212.04488): 101 photographed concepts, 20 prompts each, and 101 compositions of two."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from umm_bench.errors import UserError
from umm_bench.methods import Case, Prompt, Subject
from umm_bench.suites.base import Check
from umm_bench.suites.reading import numbered_lines, pictures, read_text

_STYLE = re.compile(
    r"painting|watercolor|style|art\b|sculpture|engraving|illustration|cartoon|avatar|anime|pointillis|render|photograph",
    re.IGNORECASE,
)
_WORN = re.compile(r"wearing|outfit|dressed|suit\b", re.IGNORECASE)
_PROPERTY = re.compile(r"\bcolou?r|made (of|with)|shaped|transparent|futuristic", re.IGNORECASE)
_LIVE = {"cat", "dog", "person", "bear"}


class CustomConcept101:
    """`path` is a folder with the published dataset.json, dataset_multiconcept.json and prompts/, and the pictures
    under the folders that these name (benchmark_dataset/). A concept is named after its folder.

    UserError when it is not. A prompt that does not name its concepts once each is left out (`omitted`): one of the
    published ones names the first of two twice.
    """

    name = "custom_concept_101"
    version = 1
    truth: Sequence[Path] = ()

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            raise UserError(
                f"suite '{self.name}' needs --suite-path: a folder with dataset.json, prompts/ and pictures"
            )
        self.path = path
        self.omitted: list[str] = []
        listing, pairs = path / "dataset.json", path / "dataset_multiconcept.json"
        if not listing.is_file():
            raise UserError(f"{path} is no CustomConcept101 folder: {listing.name} is missing")
        self._concepts: dict[str, tuple[Subject, str]] = {}
        for number, entry in enumerate(_read(listing), start=1):
            name, subject, prompts = self._concept(entry, f"{listing}, entry {number}")
            if name in self._concepts:
                raise UserError(f"{listing}, entry {number}: '{name}' was there before")
            self._concepts[name] = subject, prompts
        self._pairs: dict[str, tuple[Case, str]] = {}
        for number, entry in enumerate(_read(pairs) if pairs.is_file() else [], start=1):
            case, prompts = self._pair(entry, f"{pairs}, entry {number}")
            self._pairs[case.id] = case, prompts

    def _concept(self, entry: Any, where: str) -> tuple[str, Subject, str]:
        try:
            folder, noun, prompts = (
                str(entry[key]) for key in ("instance_data_dir", "class_prompt", "prompt_filename")
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"{where}: {error} is missing, or it is no concept") from error
        subject = Subject(Path(folder).name, noun, pictures(self.path / folder), "live" if noun in _LIVE else "object")
        return subject.id, subject, prompts

    def _pair(self, entry: Any, where: str) -> tuple[Case, str]:
        """Class nouns are those of the list of single concepts, which one published pair contradicts."""
        try:
            *two, last = entry
            names = [self._concept(one, where)[0] for one in two]
            return Case(tuple(self._concepts[name][0] for name in names)), str(last["prompt_filename_compose"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where}: no pair of concepts of dataset.json with prompts: {error}") from error

    def subjects(self) -> list[Subject]:
        return [subject for subject, _ in self._concepts.values()]

    def pairs(self) -> list[Case]:
        return [case for case, _ in self._pairs.values()]

    def prompts(self, case: Case) -> list[Prompt]:
        chosen = self._concepts if len(case.subjects) == 1 else self._pairs
        if case.id not in chosen:
            raise UserError(f"suite '{self.name}' has no prompts for {case.id}")
        return self._read_prompts(chosen[case.id][1])

    @cached_property
    def _known(self) -> dict[str, list[Prompt]]:
        return {}

    def _read_prompts(self, name: str) -> list[Prompt]:
        if name not in self._known:
            made = []
            file = self.path / name
            for number, line in numbered_lines(file):
                template = line.replace("{}", "{subject}").replace("{0}", "{subject_1}").replace("{1}", "{subject_2}")
                try:
                    made.append(Prompt(f"{file.stem}-{number:02d}", template, _kind(template)))
                except ValueError:
                    self.omitted.append(f"{file}, line {number}: does not name each concept once: {line}")
            self._known[name] = made
        return self._known[name]

    def check(self, image: Image.Image, case: Case, prompt: Prompt) -> Check | None:
        return None

    def concept_counts(self) -> Mapping[str, int]:
        return {}


def _kind(template: str) -> str:
    if "{subject}" not in template:
        return "two_references"
    kinds = {"style": _STYLE, "accessorise": _WORN, "property": _PROPERTY}
    return next((kind for kind, words in kinds.items() if words.search(template)), "recontextualise")


def _read(path: Path) -> list[Any]:
    try:
        entries = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    if not isinstance(entries, list):
        raise UserError(f"{path} is no list")
    return entries
