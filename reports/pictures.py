"""Copies of pictures beside the pages that show them."""

import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from reports.words import file_name

THUMBNAIL_SIZE = 384
PIXEL_ART_SIZE = 128  # up to here, smooth enlargement would invent detail, and a JPEG lose it
JPEG = {"quality": 88, "subsampling": 0}


@dataclass(frozen=True)
class Picture:
    """`href` is relative to the page, None for a picture that is missing or cannot be read; `size` is the source's."""

    href: str | None
    pixelated: bool
    source: str
    size: tuple[int, int] = (1, 1)


class Pictures:
    """Copies into the report's folder, at most `THUMBNAIL_SIZE` pixels: PNG of pixel art, JPEG of the rest. Copies with
    their source's time are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[tuple[Path, str], Picture] = {}
        (folder / "images").mkdir(parents=True, exist_ok=True)

    def prepare(self, wanted: Iterable[tuple[Path, str]]) -> None:
        """Makes many at once, which `of` then knows; Pillow lets threads work side by side."""
        pairs = [pair for pair in wanted if pair not in self.known]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            self.known |= zip(pairs, threads.map(lambda pair: self._make(*pair), pairs), strict=True)

    def of(self, source: Path, name: str) -> Picture:
        """The copy of `source` that goes by `name`."""
        if (source, name) not in self.known:
            self.known[source, name] = self._make(source, name)
        return self.known[source, name]

    def _make(self, source: Path, name: str) -> Picture:
        try:
            made = source.stat().st_mtime_ns
            with Image.open(source) as image:
                size = image.size
                small = max(size) <= PIXEL_ART_SIZE
                href = f"images/{file_name(name)}.{'png' if small else 'jpg'}"
                target = self.folder / href
                if not target.exists() or target.stat().st_mtime_ns != made:
                    partial = target.with_suffix(".partial")
                    if small and image.format == "PNG":
                        image.load()  # a damaged one is missing
                        shutil.copyfile(source, partial)
                    elif small:
                        image.convert("RGB").save(partial, "PNG")
                    else:
                        image.thumbnail(
                            (THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.HAMMING
                        )  # a third quicker than Lanczos
                        image.convert("RGB").save(partial, "JPEG", **JPEG)
                    os.utime(partial, ns=(made, made))
                    os.replace(partial, target)
        except OSError:
            return Picture(None, False, str(source))
        return Picture(href, small, str(source), size)

    def prune(self) -> None:
        """Removes what an earlier rendering of the same run showed and this one does not."""
        used = {self.folder / picture.href for picture in self.known.values() if picture.href}
        for path in (self.folder / "images").iterdir():
            if path not in used:
                path.unlink()


def copy_of(folder: Path, name: str) -> Path | None:
    """A copy that an earlier rendering left in this report's folder."""
    made = (folder / "images" / f"{file_name(name)}.{ending}" for ending in ("png", "jpg"))
    return next((path for path in made if path.is_file()), None)
