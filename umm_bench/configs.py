"""Frozen configuration dataclasses filled from `key=value` words of a command line."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from umm_bench.errors import UserError
from umm_bench.registry import did_you_mean


def build_config(config_class: type, settings: Mapping[str, str], owner: str, defaults: Any = None) -> Any:
    """`config_class` with its defaults, or `defaults`, one of it, but for `settings`, each parsed by its field's type.

    Fields may be str, int, float, bool, Literal of these, comma-separated tuples of these, or any of them
    with None ("none"). `UserError` naming `owner.key` for an unknown key or a value that does not parse.
    """
    hints = typing.get_type_hints(config_class)
    names = [field.name for field in dataclasses.fields(config_class) if field.init]
    values = {}
    for key, text in settings.items():
        if key not in names:
            known = ", ".join(names) or "nothing to set"
            raise UserError(f"{owner} has no setting '{key}'{did_you_mean(key, names)}; known: {known}")
        try:
            values[key] = _parse(text, hints[key])
        except (ValueError, KeyError, StopIteration) as error:
            raise UserError(f"{owner}.{key}={text}: expected {_describe(hints[key])}") from error
    try:
        return config_class(**values) if defaults is None else dataclasses.replace(defaults, **values)
    except ValueError as error:
        raise UserError(f"{owner}: {error}") from error


def describe(config: Any) -> str:
    """The fields of a config as they would be set: "steps=200 identifiers=pty,nge"."""
    return " ".join(f"{field.name}={_as_written(getattr(config, field.name))}" for field in dataclasses.fields(config))


def _as_written(value: Any) -> str:
    return (",".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)


def _parse(text: str, kind: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments and text.lower() == "none":
            return None
        return _parse(text, next(part for part in arguments if part is not type(None)))
    if origin is typing.Literal:
        return next(choice for choice in arguments if str(choice) == text)
    if origin is tuple:
        return tuple(_parse(part.strip(), arguments[0]) for part in text.split(",") if part.strip())
    if kind is bool:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
    value = kind(text)
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def _describe(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
