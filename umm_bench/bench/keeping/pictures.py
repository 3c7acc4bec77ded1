"""Pictures that say themselves how they were made, and are known by what they show."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from atomic import whole_file
from umm_bench.errors import UserError

CHUNK = "umm_bench"
"""The PNG's text chunk with the parameters, as JSON."""


def save(image: Image.Image, path: Path, parameters: Mapping[str, Any]) -> None:
    """A PNG with its parameters, whole or not at all. The same picture and parameters give the same bytes."""
    told = PngInfo()
    told.add_itxt(CHUNK, json.dumps(parameters, sort_keys=True, default=str))
    with whole_file(path) as unfinished:
        image.save(unfinished, format="PNG", pnginfo=told)


def parameters_of(path: Path) -> dict[str, Any]:
    """What a PNG of the bench was made from. UserError where it does not say, or is no picture."""
    try:
        with Image.open(path) as image:
            image.load()  # a text chunk may stand behind the pixels
            text = getattr(image, "text", {}).get(CHUNK)
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if text is None:
        raise UserError(f"{path} carries no parameters: no bench drew it, or another program has saved it since")
    return json.loads(text)


def content_of(image: Image.Image) -> str:
    """Digest of what is seen: size, mode and pixels."""
    whole = hashlib.sha256(f"{image.mode} {image.size}\0".encode())
    whole.update(image.tobytes())
    return whole.hexdigest()[:32]
