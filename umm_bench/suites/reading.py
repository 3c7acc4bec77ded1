"""What suites of pictures in folders have in common: which files are pictures, and lists read line by line."""

from pathlib import Path

from umm_bench.errors import UserError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def is_picture(path: Path) -> bool:
    """By its name, in any letter case. Hidden files, such as macOS' `._00.jpg`, are none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def pictures(folder: Path) -> tuple[Path, ...]:
    """Those right in `folder`, by name; none where there is no such folder."""
    return tuple(sorted(filter(is_picture, folder.iterdir()))) if folder.is_dir() else ()


def not_pictures(folder: Path) -> list[str]:
    """A line for the files of `folder` that nobody will look at, or none: a HEIC is easily taken for a picture."""
    found = (
        sorted(p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
        if folder.is_dir()
        else []
    )
    names = [name for name in found if Path(name).suffix.lower() not in IMAGE_SUFFIXES]
    if not names:
        return []
    files = "1 file is no picture" if len(names) == 1 else f"{len(names)} files are no pictures"
    return [f"{folder}: {files} that can be read: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"]


def read_text(path: Path) -> str:
    """UserError where it is not there or no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not in UTF-8"
        raise UserError(f"cannot read {path}: {reason}") from error


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, stripped, each with its number from 1."""
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]
