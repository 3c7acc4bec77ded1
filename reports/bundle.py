"""A rendered run to give away: one zip of its folder, or one HTML file with everything in it."""

from __future__ import annotations

import base64
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from atomic import whole_file
from reports.gallery import script_json
from reports.page import write_page
from umm_bench.errors import UserError

MOST_MB = 60  # a browser stalls for long on a larger file
STAMP = (1980, 1, 1, 0, 0, 0)  # the same pages are the same file
BEYOND = '<a href="../index.html">All runs</a>\n'  # the index of all runs is not in what is given away
OWN_IDS = ("index.html", "gallery.html")  # their scripts and styles know them; those of other pages get a prefix
KINDS = {".png": "image/png", ".jpg": "image/jpeg"}


def write_zip(folder: Path) -> Path:
    """The pages of `folder` and all beside them as `folder`.zip, which unpacks into a folder of the same name."""
    target = folder.with_name(f"{folder.name}.zip")
    with whole_file(target) as path, zipfile.ZipFile(path, "w") as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            content = file.read_bytes()
            if file.suffix == ".html":
                content = content.replace(BEYOND.encode(), b"")
            about = zipfile.ZipInfo(file.relative_to(folder.parent).as_posix(), STAMP)
            about.compress_type = zipfile.ZIP_STORED if file.suffix in KINDS else zipfile.ZIP_DEFLATED
            archive.writestr(about, content)
    return target


def write_single(folder: Path, run: Any, pages: Sequence[tuple[str, str]]) -> Path:
    """`pages` of `folder`, a file and a title each, with their pictures and the gallery, as `folder`.html.

    UserError where that would be more than a browser opens well.
    """
    pictures = sorted((folder / "images").iterdir())
    size = sum(path.stat().st_size for path in pictures) * 4 / 3e6
    if size > MOST_MB:
        raise UserError(
            f"one file would hold {size:,.0f} MB of pictures, and browsers stall beyond {MOST_MB}; --zip has no limit"
        )
    encoded = {f"images/{path.name}": _data(path) for path in pictures}
    parts = [(_slug(name), title, _part(folder / name, encoded)) for name, title in pages]
    scripts = [f"gallery.pictures({script_json(encoded)});"]
    scripts += [path.read_text(encoding="utf-8") for path in _scripts(folder / "gallery")]
    return write_page(
        "single.html.j2",
        folder.with_name(f"{folder.name}.html"),
        ("gallery.css", "gallery.js"),
        inline=[Markup(script) for script in scripts],
        parts=parts,
        run=run,
    )


def _scripts(folder: Path) -> list[Path]:
    """What the rest needs first: what all rows share, the details, then the rows, whose last one shows the page."""
    order = ("head", "detail", "rows")
    return sorted(folder.glob("*.js"), key=lambda path: (order.index(path.stem.split("-")[0]), _number(path)))


def _number(path: Path) -> int:
    _, _, number = path.stem.partition("-")
    return int(number or 0)


def _slug(page: str) -> str:
    return "results" if page == "index.html" else page.removesuffix(".html")


def _data(path: Path) -> str:
    return f"data:{KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _part(page: Path, pictures: dict[str, str]) -> Markup:
    """What is of one page only, its links leading into the same file. Texts hold no quotes but escaped ones."""
    text = page.read_text(encoding="utf-8")
    inside = text[text.index("</nav>", text.index('<nav class="pages"')) + len("</nav>") : text.rindex("<footer>")]
    own = "" if page.name in OWN_IDS else f"{_slug(page.name)}-"
    inside = re.sub(r' id="([^"]+)"', rf' id="{own}\1"', inside)
    inside = re.sub(r' href="#([^"]*)"', rf' href="#{own}\1"', inside)
    inside = re.sub(r' href="(\w+\.html)(#[^"]*)?"', _link, inside)
    inside = re.sub(r' src="(images/[^"]+)"', lambda found: f' src="{pictures[found[1]]}"', inside)
    return Markup(inside)


def _link(found: re.Match[str]) -> str:
    page, part = found[1], (found[2] or "").removeprefix("#")
    if not part:
        return f' href="#{_slug(page)}"'
    return f' href="#{part}"' if page in OWN_IDS else f' href="#{_slug(page)}-{part}"'
