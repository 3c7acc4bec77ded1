"""What all pages share: one frame, one style, one script, and that nothing else runs or loads."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from atomic import whole_file
from design import policy, style
from reports import words

HERE = Path(__file__).parent
PAGES = (
    ("index.html", "Results"),
    ("gallery.html", "Gallery"),
    ("several.html", "Several subjects"),
    ("rare.html", "Rare subjects"),
    ("claims.html", "Claims"),
    ("trial.html", "Metrics on trial"),
    ("replayed.html", "Protocols replayed"),
    ("people.html", "People's votes"),
)


def write_page(
    template: str,
    target: Path,
    assets: Sequence[str] = (),
    files: Sequence[str] = (),
    inline: Sequence[Markup] = (),
    **context: Any,
) -> Path:
    """A template of ours as the file `target`, whole or not at all. The rest as `page_text`."""
    text = page_text(template, target.name, assets, files, inline, **context)
    with whole_file(target) as path:
        path.write_text(text, encoding="utf-8")
    return target


def page_text(
    template: str,
    here: str,
    assets: Sequence[str] = (),
    files: Sequence[str] = (),
    inline: Sequence[Markup] = (),
    served: bool = False,
    **context: Any,
) -> str:
    """A template of ours as HTML; `here` is its own address.

    `assets` are our scripts and styles that the page has beside those of all pages; after them come `files`, scripts
    that lie beside the page, or `inline`, scripts in it. A page that is `served` may ask its own server.
    """
    named = ("report.js", "report.css", *assets)
    scripts = [*(asset(name) for name in named if name.endswith(".js")), *inline]
    styles = [Markup(style()), *(asset(name) for name in named if name.endswith(".css"))]
    allowed = policy(scripts, bool(files)) + "; connect-src 'self'" * served
    shared = {"styles": styles, "scripts": scripts, "files": files, "policy": allowed}
    return environment().get_template(template).render(here=here, **shared, **context)


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
