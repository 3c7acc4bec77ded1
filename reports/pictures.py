"""Copies of pictures beside the pages that show them."""

import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from reports.words import file_name

THUMBNAIL_SIZE = 384
PIXEL_ART_SIZE = 128  # up to here, smooth enlargement would invent detail


@dataclass(frozen=True)
class Picture:
    """`href` is relative to the page, None for a picture that is missing or cannot be read; `size` is the source's."""

    href: str | None
    pixelated: bool
    source: str
    size: tuple[int, int] = (1, 1)


class Pictures:
    """Copies into the report's folder, at most `THUMBNAIL_SIZE` pixels; copies with their source's time are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: set[Path] = set()
        (folder / "images").mkdir(parents=True, exist_ok=True)

    def of(self, source: Path, name: str) -> Picture:
        href = f"images/{file_name(name)}.png"
        target = self.folder / href
        try:
            made = source.stat().st_mtime_ns
            with Image.open(source) as image:
                size = image.size
                if not target.exists() or target.stat().st_mtime_ns != made:
                    partial = target.with_suffix(".partial")
                    image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.LANCZOS)
                    image.convert("RGB").save(partial, "PNG")
                    os.utime(partial, ns=(made, made))
                    os.replace(partial, target)
        except OSError:
            return Picture(None, False, str(source))
        self.used.add(target)
        return Picture(href, max(size) <= PIXEL_ART_SIZE, str(source), size)

    def prune(self) -> None:
        """Removes what an earlier rendering of the same run showed and this one does not."""
        for path in (self.folder / "images").iterdir():
            if path not in self.used:
                path.unlink()
