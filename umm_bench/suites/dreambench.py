"""DreamBench (2208.12242): 30 photographed subjects, 25 prompts each for objects and for live subjects."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from umm_bench.errors import UserError
from umm_bench.methods import Case, Prompt, Subject
from umm_bench.suites.base import Check

LIVE_CLASSES = {"cat", "dog"}
"""The paper's nine live subjects are two cats and seven dogs."""

_TEMPLATE = re.compile(r"^'(?P<template>[^']*\{0\} \{1\}[^']*)'\.format\(", re.MULTILINE)
_ACCESSORIES = re.compile(r" (wearing|in a [\w ]*outfit)\b")
_PROPERTIES = re.compile(r"^a [\w ]+ \{subject\}$")


class DreamBench:
    """`path` is a copy of google/dreambooth's `dataset` folder: one folder a subject and
    `prompts_and_classes.txt`, from which classes and prompts are read. `UserError` when it is not.
    """

    name = "dreambench"
    version = 1
    truth: Sequence[Path] = ()

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            raise UserError(
                "suite 'dreambench' needs --suite-path: the `dataset` folder of github.com/google/dreambooth"
            )
        listing = path / "prompts_and_classes.txt"
        if not listing.is_file():
            raise UserError(f"{path} is no DreamBench folder: {listing.name} is missing")
        self.path = path
        classes, _, prompts = listing.read_text(encoding="utf-8").partition("Prompts")
        objects, _, live = prompts.partition("Live Subject Prompts")
        rows = re.findall(r"^(\w+),([\w ]+?)\s*$", classes, re.MULTILINE)
        self._classes = {name: noun for name, noun in rows if name != "subject_name"}
        self._prompts = {"object": _prompts(objects, "object"), "live": _prompts(live, "live")}
        if not self._classes or not all(self._prompts.values()):
            raise UserError(f"{listing} holds no classes or no prompts that can be read")

    def subjects(self) -> list[Subject]:
        return [
            Subject(
                id=name,
                class_noun=noun,
                references=tuple(
                    sorted(p for p in (self.path / name).glob("*") if p.suffix.lower() in _IMAGE_SUFFIXES)
                ),
                kind="live" if noun in LIVE_CLASSES else "object",
            )
            for name, noun in self._classes.items()
        ]

    def pairs(self) -> list[Case]:
        return []

    def prompts(self, case: Case) -> list[Prompt]:
        return self._prompts[case.subject.kind]

    def check(self, image: Image.Image, case: Case, prompt: Prompt) -> Check | None:
        return None

    def concept_counts(self) -> Mapping[str, int]:
        return {}


_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def _prompts(text: str, group: str) -> list[Prompt]:
    templates = [found["template"].replace("{0} {1}", "{subject}") for found in _TEMPLATE.finditer(text)]
    return [
        Prompt(id=f"{group}-{number:02d}", template=template, kind=_kind(template))
        for number, template in enumerate(templates)
    ]


def _kind(template: str) -> str:
    if _ACCESSORIES.search(template):
        return "accessorise"
    return "property" if _PROPERTIES.search(template) else "recontextualise"
