"""Named plug-ins over entry points, loaded only when somebody asks for them."""

import difflib
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from umm_bench.errors import UserError


def did_you_mean(word: str, candidates: list[str]) -> str:
    """`" (did you mean 'dino'?)"`, or nothing when no candidate is close."""
    close = difflib.get_close_matches(word, candidates, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


class Registry:
    """Names to objects. Outsiders add to it with an entry point in the same group, tests with `register`."""

    def __init__(self, group: str, noun: str) -> None:
        self.group, self.noun = group, noun
        self._registered: dict[str, Any] = {}

    @cached_property
    def _entry_points(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for point in entry_points(group=self.group):
            if found.setdefault(point.name, point.value) != point.value:
                raise UserError(
                    f"two packages declare the {self.noun} '{point.name}': {found[point.name]} and {point.value}"
                )
        return found

    def names(self) -> list[str]:
        return sorted({*self._entry_points, *self._registered})

    def target(self, name: str) -> str:
        """`"module:attribute"` of a name, without importing the module. `UserError` for an unknown name."""
        if name in self._registered:
            thing = self._registered[name]
            return thing if isinstance(thing, str) else f"{thing.__module__}:{thing.__qualname__}"
        if name not in self._entry_points:
            known = self.names()
            hint = did_you_mean(name, known)
            raise UserError(f"there is no {self.noun} '{name}'{hint}; known: {', '.join(known)}")
        return self._entry_points[name]

    def load(self, name: str) -> Any:
        """Import and return what `name` stands for. `UserError` for an unknown name."""
        target = self.target(name)
        if name in self._registered and not isinstance(self._registered[name], str):
            return self._registered[name]
        module, _, attribute = target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    @contextmanager
    def register(self, name: str, thing: Any) -> Iterator[None]:
        """For the length of a `with` block, `name` stands for `thing` (an object or `"module:attribute"`)."""
        before = self._registered.copy()
        self._registered[name] = thing
        try:
            yield
        finally:
            self._registered = before
