"""The words of --methods: a method by its name, a class in a file of one's own, or a folder of finished pictures."""

import ast
import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from umm_bench.errors import UserError
from umm_bench.methods import METHODS
from umm_bench.seeding import digest, path_digest

_PICTURES = re.compile(r"images:(?P<name>[^=]*)=(?P<folder>.*)")
_FILE = re.compile(r"(?P<file>.+\.py):(?P<attribute>\w+)")
_NEEDED = ("config_class", "setup", "generate")


@dataclass(frozen=True)
class Asked:
    """`name` is what rows say. A method of `file` is its class `attribute`; `pictures` is a folder of finished ones.

    `steps` is set for a point of a curve: the method after so many steps of the training that all points
    are of. Its name is "METHOD@STEPS". `training_seed` is set for one of several trainings, "METHOD~SEED".
    """

    name: str
    file: Path | None = None
    attribute: str = ""
    pictures: Path | None = None
    steps: int | None = None
    training_seed: int | None = None

    @property
    def method(self) -> str:
        """The name that its class and its settings go by."""
        name = untrained(self.name) if self.training_seed is not None else self.name
        return name if self.steps is None else name.rpartition("@")[0]

    def load(self) -> Any:
        """The method's class. UserError for a file that cannot be imported, or whose class is no method."""
        return METHODS.load(self.method) if self.file is None else _load(self.file, self.attribute)

    @property
    def module(self) -> str | None:
        """The installed module that it is in."""
        return METHODS.target(self.method).partition(":")[0] if self.file is None and self.pictures is None else None

    @property
    def own_files(self) -> tuple[Path, ...]:
        """What it is made from beside installed code."""
        return tuple(path for path in (self.file, self.pictures) if path is not None)


def read_methods(words: Sequence[str]) -> tuple[Asked, ...]:
    """One of each word, without importing anything. UserError for what is not there, and for a name that is twice."""
    found = tuple(map(_read, words))
    names = [asked.name for asked in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two methods are named '{name}'; rename one: images:NAME=DIR, or the class's `name`")
    return found


def with_curves(asked: Sequence[Asked], settings: Sequence[tuple[str, str, str]]) -> tuple[Asked, ...]:
    """A method that has a `curve` among its settings, "50,100,200", becomes its points, the fewest steps first.

    UserError where these are no numbers of steps.
    """
    curves = {owner: value for owner, key, value in settings if key == "curve"}
    points: list[Asked] = []
    for one in asked:
        if one.name not in curves or one.pictures is not None:
            points.append(one)
            continue
        text = curves[one.name]
        steps = [part.strip() for part in text.split(",")]
        if not all(re.fullmatch(r"[1-9]\d{0,8}", part) for part in steps) or len(set(steps)) < len(steps):
            raise UserError(f"--set {one.name}.curve={text}: expected different numbers of steps, e.g. 50,100,200")
        at = sorted(int(part) for part in steps)
        points += [replace(one, name=f"{one.name}@{number}", steps=number) for number in at]
    return tuple(points)


def with_trainings(asked: Sequence[Asked], number: int) -> tuple[Asked, ...]:
    """A method whose configuration has a `training_seed` becomes so many, from 0 on. UserError where none has."""
    if number == 1:
        return tuple(asked)
    several: list[Asked] = []
    for one in asked:
        known = [] if one.pictures else [field.name for field in fields(one.load().config_class)]
        seeds = range(number) if "training_seed" in known else [None]
        several += [
            one if seed is None else replace(one, name=f"{one.name}~{seed}", training_seed=seed) for seed in seeds
        ]
    if len(several) == len(asked):
        raise UserError(f"--training-seeds {number}: none of these methods is trained with a seed of its own")
    return tuple(several)


def untrained(name: str) -> str:
    """A method's name without which of its trainings it is."""
    return re.sub(r"~\d+$", "", name)


def _read(word: str) -> Asked:
    if given := _PICTURES.fullmatch(word):
        name, folder = given["name"], Path(given["folder"])
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise UserError(f"--methods {word}: expected images:NAME=DIR, NAME of letters, digits, '.', '_' and '-'")
        if not given["folder"] or not folder.is_dir():
            raise UserError(f"--methods {word}: there is no folder '{given['folder']}'")
        return Asked(name, pictures=folder)
    if given := _FILE.fullmatch(word):
        file, attribute = Path(given["file"]), given["attribute"]
        return Asked(_name_in(file, attribute), file, attribute)
    METHODS.target(word)
    return Asked(word)


def _name_in(file: Path, attribute: str) -> str:
    """What the class calls itself, read without running the file; the class's own name where it does not say."""
    if not file.is_file():
        raise UserError(f"--methods {file}:{attribute}: there is no such file")
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{file} is no Python: {error}") from error
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if attribute not in classes:
        known = f"it has {', '.join(classes)}" if classes else "it has none"
        raise UserError(f"{file} has no class '{attribute}'; {known}")
    for node in classes[attribute].body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        named = any(isinstance(target, ast.Name) and target.id == "name" for target in targets)
        if named and isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
    return attribute


def _load(file: Path, attribute: str) -> Any:
    name = f"umm_bench_own_{digest(str(file.resolve()), path_digest(file))}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[name])
        except Exception as error:  # whatever a stranger's file raises, its author wants to see
            del sys.modules[name]
            raise UserError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    method_class = getattr(sys.modules[name], attribute)
    if missing := [part for part in _NEEDED if not hasattr(method_class, part)]:
        raise UserError(f"{file}: class {attribute} is no method: it has no {', '.join(missing)}")
    return method_class
