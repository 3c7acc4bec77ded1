"""One's own subjects: folders of pictures, and a suite.toml that says what they are and how to draw them."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from umm_bench.errors import UserError
from umm_bench.methods import Case, Prompt, Subject
from umm_bench.registry import did_you_mean
from umm_bench.suites.base import Check
from umm_bench.suites.reading import not_pictures, pictures, read_text

FILE = "suite.toml"
KINDS = ("object", "live", "style")
_KEYS = {"subjects": ("class_noun", "kind"), "prompts": ("id", "template", "kind"), "pairs": ("subjects",)}


class FolderSuite:
    """`path` has a folder of pictures for each subject, and suite.toml (`python -m umm_bench.suites.new` writes one).

    UserError, naming file and entry, for whatever in it is no subject, prompt or pair. Folders that it does not name
    are `omitted`.
    """

    name = "folder"
    version = 1
    truth: Sequence[Path] = ()

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            raise UserError("suite 'folder' needs --suite-path: a folder with a folder of pictures for each subject")
        self.path, self.file = path, path / FILE
        if not self.file.is_file():
            raise UserError(f"{path} has no {FILE}; write one with: python -m umm_bench.suites.new '{path}'")
        try:
            told = tomllib.loads(read_text(self.file))
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{self.file} cannot be read: {error}") from error
        _check_keys(told, tuple(_KEYS), str(self.file))
        self._subjects = {name: self._subject(name, entry) for name, entry in _table(told, self.file).items()}
        self._prompts = [self._prompt(*entry) for entry in enumerate(_list(told, "prompts", self.file), start=1)]
        names = [prompt.id for prompt in self._prompts]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"{self.file} has prompt '{twice}' more than once")
        self._pairs = [self._pair(*entry) for entry in enumerate(_list(told, "pairs", self.file), start=1)]
        if not self._subjects or not self._prompts:
            raise UserError(f"{self.file} needs at least one [subjects.NAME] and one [[prompts]]")

    def _subject(self, name: str, entry: Any) -> Subject:
        where = f"{self.file}, subject '{name}'"
        _check_keys(entry, _KEYS["subjects"], where)
        noun, kind = _text(entry, "class_noun", where), _text(entry, "kind", where, "object")
        if kind not in KINDS:
            raise UserError(f"{where}: kind is '{kind}'{did_you_mean(kind, list(KINDS))}; one of {', '.join(KINDS)}")
        folder = self.path / name
        if not folder.is_dir() or folder.resolve().parent != self.path.resolve():
            raise UserError(f"{where}: there is no such folder beside {FILE}")
        return Subject(name, noun, pictures(folder), kind)

    def _prompt(self, number: int, entry: Any) -> Prompt:
        where = f"{self.file}, prompt {number}"
        _check_keys(entry, _KEYS["prompts"], where)
        kind = _text(entry, "kind", where, "recontextualise")
        try:
            return Prompt(_text(entry, "id", where), _text(entry, "template", where), kind)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error

    def _pair(self, number: int, entry: Any) -> Case:
        where = f"{self.file}, pair {number}"
        _check_keys(entry, _KEYS["pairs"], where)
        names = entry.get("subjects")
        if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, str) for name in names):
            raise UserError(f'{where}: expected subjects = ["FIRST", "SECOND"]')
        for name in names:
            if name not in self._subjects:
                raise UserError(f"{where}: there is no subject '{name}'{did_you_mean(name, list(self._subjects))}")
        try:
            return Case(tuple(self._subjects[name] for name in names))
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error

    @property
    def omitted(self) -> list[str]:
        beside = sorted(f for f in self.path.iterdir() if f.is_dir() and f.name not in self._subjects and pictures(f))
        unused = [f"{folder}: its pictures are not used, {FILE} does not name it" for folder in beside]
        return [*unused, *(line for name in self._subjects for line in not_pictures(self.path / name))]

    def subjects(self) -> list[Subject]:
        return list(self._subjects.values())

    def pairs(self) -> list[Case]:
        return self._pairs

    def prompts(self, case: Case) -> list[Prompt]:
        return [prompt for prompt in self._prompts if prompt.subjects == len(case.subjects)]

    def check(self, image: Image.Image, case: Case, prompt: Prompt) -> Check | None:
        return None

    def concept_counts(self) -> Mapping[str, int]:
        return {}


def _check_keys(entry: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(entry, dict):
        raise UserError(f"{where}: expected a table with {', '.join(known)}")
    for key in entry:
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'{did_you_mean(key, list(known))}; known: {', '.join(known)}")


def _table(told: dict[str, Any], file: Path) -> dict[str, Any]:
    entries = told.get("subjects", {})
    if not isinstance(entries, dict):
        raise UserError(f"{file}: subjects must be tables, [subjects.NAME]")
    return entries


def _list(told: dict[str, Any], key: str, file: Path) -> list[Any]:
    entries = told.get(key, [])
    if not isinstance(entries, list):
        raise UserError(f"{file}: {key} must be a list, [[{key}]]")
    return entries


def _text(entry: dict[str, Any], key: str, where: str, default: str = "") -> str:
    value = entry.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {key} must be text")
    return value.strip()
