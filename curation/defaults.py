"""What an installed package offers as default corpus, detector or CLIP (entry points ``curation.defaults``)."""

from __future__ import annotations

from importlib.metadata import entry_points

from curation.errors import UserError

ARGUMENTS = {"corpus": "--input", "scoring_clip": "--clip"}  # of the others, their own names


def default(name: str) -> str:
    """A path. Raises `UserError` where nothing installed offers one."""
    found = [entry for entry in entry_points(group="curation.defaults") if entry.name == name]
    if not found:
        raise UserError(f"no default {name} is installed; name one with {ARGUMENTS.get(name, f'--{name}')}")
    try:
        return str(found[0].load()())
    except (ImportError, ValueError) as error:  # user errors of other packages are ValueErrors, too
        raise UserError(f"the default {name} is not available: {error}") from error
