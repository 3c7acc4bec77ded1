"""Poor references: what the methods see is worsened, what is scored against is not.

A fine-tuned method is said to inherit the quality of its photographs, one that trains nothing per subject not to.
"""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from atomic import whole_file
from umm_bench.images import open_image
from umm_bench.methods import Case, Subject
from umm_bench.seeding import digest, path_digest, seed_for

KINDS = ("blur", "jpeg", "lowres", "noise")
VERSION = 1
"""Raise it when a change alters the pictures: it is in the samples' keys."""

BLUR = 0.02  # radius of the Gaussian, of the shorter side
JPEG_QUALITY = 8
LOWRES = 6  # times smaller, and back
NOISE = 32.0  # standard deviation, of 255


def degrade(image: Image.Image, kind: str, seed: int = 0) -> Image.Image:
    """An RGB image worsened in one of the KINDS, of its own size; `seed` is for the noise. ValueError for another."""
    if kind == "blur":
        return image.filter(ImageFilter.GaussianBlur(BLUR * min(image.size)))
    if kind == "jpeg":
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=JPEG_QUALITY)
        return Image.open(buffer).convert("RGB")
    if kind == "lowres":
        small = image.resize([max(1, side // LOWRES) for side in image.size], Image.Resampling.BOX)
        return small.resize(image.size, Image.Resampling.BICUBIC)
    if kind == "noise":
        noise = np.random.default_rng(seed).normal(0, NOISE, (image.height, image.width, 3))
        return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).round().astype(np.uint8))
    raise ValueError(f"there is no way to degrade named '{kind}'")


def shown_to_methods(case: Case, kind: str | None, folder: Path) -> Case:
    """The case as methods see it: without what is held out, its references worsened, kept in `folder`."""
    return Case(tuple(_shown(subject, kind, folder) for subject in case.subjects))


def version_of(kind: str | None) -> str:
    """What of it belongs into the keys of samples; empty where nothing is worsened."""
    return "" if kind is None else f"{kind}/{VERSION}"


def _shown(subject: Subject, kind: str | None, folder: Path) -> Subject:
    references = subject.references
    if kind is not None:
        references = tuple(_worse(path, kind, folder) for path in references)
    return replace(subject, references=references, held_out=())


def _worse(path: Path, kind: str, folder: Path) -> Path:
    content = path_digest(path)
    target = folder / f"{kind}-{VERSION}-{digest(content)}.png"
    if not target.is_file():
        worse = degrade(open_image(path), kind, seed_for("degrade", content))
        with whole_file(target) as unfinished:
            worse.save(unfinished, format="PNG")
    return target
