"""What all pages look like, whoever writes them: colours, type and space in one style, and what a page may load."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

__all__ = ["policy", "style"]


@cache
def style() -> str:
    """The tokens for light, dark and print, and what text, links, tables and headings look like."""
    return (Path(__file__).parent / "base.css").read_text(encoding="utf-8")


def policy(scripts: Sequence[str] = (), files: bool = False) -> str:
    """A content-security-policy: our scripts by their digests (and, with `files`, those beside the page), styles of the
    page, pictures beside it, and nothing else. A script stands between line ends.
    """
    digests = [base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode() for script in scripts]
    allowed = " ".join([f"'sha256-{digest}'" for digest in digests] + ["'self'"] * files) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'"
    )
