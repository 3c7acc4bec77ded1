"""What all pages share: one frame, one style, one script, and that nothing else runs or loads."""

import base64
import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports import words

HERE = Path(__file__).parent
PAGES = (
    ("index.html", "Results"),
    ("several.html", "Several subjects"),
    ("rare.html", "Rare subjects"),
    ("claims.html", "Claims"),
)


def write_page(template: str, target: Path, **context: Any) -> Path:
    """A template of ours as the file `target`, whole or not at all."""
    script = asset("report.js")
    text = (
        environment()
        .get_template(template)
        .render(style=asset("report.css"), script=script, policy=policy(script), here=target.name, **context)
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, target)
    return target


@cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    named = (words.title_of, words.number, words.percent, words.count, words.evidence)
    made.filters |= {function.__name__: function for function in named}
    made.filters["amount"] = made.filters.pop("count")
    made.filters["count"] = len
    made.globals["pages"] = PAGES
    return made


@cache
def asset(name: str) -> Markup:
    """A file of ours, which goes into the page unescaped."""
    return Markup((HERE / "assets" / name).read_text(encoding="utf-8"))


def policy(script: str) -> str:
    """A content-security-policy: our script by its digest, styles of the page, pictures beside it, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'"
    )
