"""DreamBench (2208.12242): 30 photographed subjects, 25 prompts each for objects and for live subjects."""

import ast
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from umm_bench.errors import UserError
from umm_bench.methods import Case, Prompt, Subject
from umm_bench.suites.base import Check
from umm_bench.suites.pairs import seeded_pairs
from umm_bench.suites.reading import not_pictures, numbered_lines, pictures

LISTING = "prompts_and_classes.txt"
LIVE_CLASSES = {"cat", "dog"}
"""The paper's nine live subjects are two cats and seven dogs."""

LAION_400M = {
    "dog": 552_000, "boot": 347_000, "cat": 314_000, "clock": 229_000, "sneaker": 223_000, "toy": 208_000,
    "candle": 147_000, "backpack": 145_000, "bowl": 131_000, "vase": 119_000, "teapot": 18_800, "can": 11_200,
    "teddy bear": 7_200,
}  # fmt: skip
"""In how many pairs of LAION-400M a class is both said and seen, rounded as published (2404.04125)."""

_HEADINGS = {"classes": "classes", "prompts": "", "object prompts": "object", "live subject prompts": "live"}
_PROMPT = re.compile(r"""(?P<text>(?P<quote>['"]).*(?P=quote))(?:\.format\([^'"]*\))?\s*,?""")
_ACCESSORIES = re.compile(r" (wearing|in a [\w ]*outfit)\b")
_PROPERTIES = re.compile(r"^an? [\w -]+ \{subject\}$")
_BESIDE = ("a {subject_1} and a {subject_2}", "a {subject_1} next to a {subject_2}")


class DreamBench:
    """`path` is a copy of google/dreambooth's `dataset` folder: one folder a subject and `prompts_and_classes.txt`,
    from which classes and prompts are read. UserError when it is not, and for a line of that list that cannot be read.

    Its pairs are a fixed, seeded list of its subjects, drawn where the prompts put a single one.
    """

    name = "dreambench"
    version = 1
    truth: Sequence[Path] = ()
    corpus = "LAION-400M, in text and image (2404.04125)"

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            raise UserError(
                "suite 'dreambench' needs --suite-path: the `dataset` folder of github.com/google/dreambooth"
            )
        listing = path / LISTING
        if not listing.is_file():
            raise UserError(f"{path} is no DreamBench folder: {listing.name} is missing")
        self.path = path
        self._classes: dict[str, str] = {}
        templates: dict[str, list[str]] = {"object": [], "live": []}
        for section, number, line in _entries(listing):
            try:
                if section == "classes":
                    name, noun = _class(line)
                    if name in self._classes:
                        raise ValueError(f"subject '{name}' was there before")
                    self._classes[name] = noun
                else:
                    templates[section].append(_template(line))
            except ValueError as error:
                raise UserError(f"{listing}, line {number}: {error}: {line}") from error
        if not self._classes or not all(templates.values()):
            raise UserError(f"{listing} holds no classes, no object prompts or no live subject prompts")
        self._prompts = {
            group: [Prompt(f"{group}-{i:02d}", text, _kind(text)) for i, text in enumerate(texts)]
            for group, texts in templates.items()
        }

    @property
    def omitted(self) -> list[str]:
        return [line for name in self._classes for line in not_pictures(self.path / name)]

    def subjects(self) -> list[Subject]:
        return [
            Subject(
                id=name,
                class_noun=noun,
                references=pictures(self.path / name),
                kind="live" if noun.lower() in LIVE_CLASSES else "object",
            )
            for name, noun in self._classes.items()
        ]

    def pairs(self) -> list[Case]:
        return seeded_pairs(self.name, self.subjects())

    def prompts(self, case: Case) -> list[Prompt]:
        """Of a pair: the places where a prompt of each of the two puts its subject, by turns "and" and "next to"."""
        if len(case.subjects) == 1:
            return self._prompts[case.subject.kind]
        groups = [[_place(prompt.template) for prompt in self._prompts[subject.kind]] for subject in case.subjects]
        shared = [place for place in groups[0] if place and all(place in group for group in groups)]
        return [
            Prompt(f"pair-{i:02d}", f"{_BESIDE[i % len(_BESIDE)]} {place}", "two_references")
            for i, place in enumerate(shared)
        ]

    def check(self, image: Image.Image, case: Case, prompt: Prompt) -> Check | None:
        return None

    def concept_counts(self) -> Mapping[str, int]:
        """Of those of its classes that were counted."""
        return {noun: LAION_400M[noun.lower()] for noun in self._classes.values() if noun.lower() in LAION_400M}


def _entries(listing: Path) -> Iterator[tuple[str, int, str]]:
    """(section, number, line) of all that the list says. UserError for what stands in no section."""
    section = ""
    for number, line in numbered_lines(listing):
        heading = line.rstrip(":").lower()
        if heading in _HEADINGS:
            section = _HEADINGS[heading]
        elif line.startswith("#") or line.replace(" ", "") in ("prompt_list=[", "]", "subject_name,class"):
            continue
        elif section:
            yield section, number, line
        else:
            wanted = "under Classes, Object Prompts or Live Subject Prompts"
            raise UserError(f"{listing}, line {number}: not {wanted}: {line}")


def _class(line: str) -> tuple[str, str]:
    (fields,) = csv.reader([line], strict=True, skipinitialspace=True)
    fields = [field.strip() for field in fields]
    if len(fields) != 2 or not all(fields):
        raise ValueError("expected SUBJECT,CLASS")
    if "/" in fields[0] or "\\" in fields[0] or fields[0].startswith("."):
        raise ValueError(f"'{fields[0]}' is no folder's name")
    return fields[0], fields[1]


def _template(line: str) -> str:
    found = _PROMPT.fullmatch(line)
    if found is None:
        raise ValueError("expected '... {0} {1} ...'.format(unique_token, class_token),")
    try:
        text = str(ast.literal_eval(found["text"]))
    except (SyntaxError, ValueError):  # an apostrophe within apostrophes
        text = found["text"][1:-1]
    template = text.replace("{0} {1}", "{subject}")
    Prompt("", template, "")  # ValueError unless it has the subject once
    if re.search(r"\{[01]?\}", template):
        raise ValueError("a {0} or {1} by itself")
    return template


def _kind(template: str) -> str:
    if _ACCESSORIES.search(template):
        return "accessorise"
    return "property" if _PROPERTIES.search(template) else "recontextualise"


def _place(template: str) -> str | None:
    """ "in the jungle" of "a {subject} in the jungle"; None for a prompt that does more than that."""
    found = re.fullmatch(r"an? \{subject\} (?P<place>.+)", template)
    return found["place"] if found and _kind(template) == "recontextualise" else None
