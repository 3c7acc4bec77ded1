"""How names and values read on a page."""

import re
from typing import Any

from umm_bench.seeding import digest

TITLES = {
    "clip_t": "CLIP-T",
    "clip_i": "CLIP-I",
    "dino": "DINO",
    "identity": "Identity",
    "concept": "Concept",
    "background": "Background",
    "several": "Several subjects",
    "prior_kid": "KID to the prior",
    "prior_fid": "FID to the prior",
}


def file_name(text: str) -> str:
    """`text` where it is a plain name, else what is plain of it and a digest: no two texts share a name."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", text)
    return plain if plain == text else f"{plain}-{digest(text, length=8)}"


def title_of(metric: str) -> str:
    return TITLES.get(metric, metric)


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.{digits}f}"


def percent(value: float | None) -> str:
    """A share as whole percents."""
    return "–" if value is None else f"{100 * value:.0f} %"


def count(amount: int, noun: str) -> str:
    """ "1 image", "2 images"."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


def evidence(value: Any) -> str:
    """One value of a failure's evidence as a reader wants it, nested ones in a line."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{title_of(key).replace('_', ' ')} {evidence(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(evidence, value))
    return str(value)
