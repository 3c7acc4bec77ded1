"""The image grid of a run as one picture: reference, prompt, one column a method. For READMEs and papers."""

import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from reports.data import Report, Sample

CELL, GAP, MARGIN, CAPTION, HEADER = 128, 10, 24, 20, 34
PROMPT_WIDTH = 190
PAPER, INK, SOFT, RIGHT, WRONG = "#ffffff", "#1d2024", "#646b75", "#1a7f4b", "#b3372f"


def write_grid(report: Report, path: Path, rows: int = 8) -> Path:
    """Draws each method's first image for up to `rows` (subject, prompt) pairs, spread over the subjects.

    A missing file becomes an empty frame. A run without samples gives the header only.
    """
    table = report.grid()
    chosen = spread(list(table), rows)
    left = MARGIN + CELL + GAP + PROMPT_WIDTH + GAP
    size = (
        left + len(report.methods) * (CELL + GAP) - GAP + MARGIN,
        MARGIN + HEADER + len(chosen) * (CELL + CAPTION + GAP) + MARGIN // 2,
    )
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    text, small = ImageFont.load_default(15), ImageFont.load_default(12)
    for x, name in ((MARGIN, "reference"), *((column(left, i), m) for i, m in enumerate(report.methods))):
        draw.text((x, MARGIN), name, INK, text)
    for index, key in enumerate(chosen):
        y = MARGIN + HEADER + index * (CELL + CAPTION + GAP)
        samples = [sample for row in table[key].values() for sample in row[:1]]
        reference = samples[0].references[0] if samples[0].references else None
        place(picture, reference, (MARGIN, y))
        lines = textwrap.fill(samples[0].prompt, 25)
        draw.multiline_text((MARGIN + CELL + GAP, y + 2), lines, INK, text, spacing=5)
        for i, method in enumerate(report.methods):
            for sample in table[key][method][:1]:
                place(picture, sample.path, (column(left, i), y))
                caption(draw, sample, (column(left, i), y + CELL + 3), small)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def column(left: int, index: int) -> int:
    return left + index * (CELL + GAP)


def spread(keys: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """Up to `count` keys, as many of each subject as of any other where possible."""
    by_subject: dict[str, list[tuple[str, str]]] = {}
    for key in keys:
        by_subject.setdefault(key[0], []).append(key)
    # Subjects start at different prompts, so that a few rows show many prompts.
    turned = [group[i % len(group) :] + group[: i % len(group)] for i, group in enumerate(by_subject.values())]
    in_turn = [group[turn] for turn in range(len(keys)) for group in turned if turn < len(group)]
    return sorted(in_turn[:count], key=keys.index)


def place(picture: Image.Image, source: Path | None, corner: tuple[int, int]) -> None:
    """Enlarges small pictures by whole pixels, so that 64 px images are seen as they are."""
    try:
        if source is None:
            raise FileNotFoundError
        with Image.open(source) as opened:
            image = opened.convert("RGB")
    except OSError:
        box = (*corner, corner[0] + CELL - 1, corner[1] + CELL - 1)
        ImageDraw.Draw(picture).rectangle(box, outline=SOFT)
        return
    how = Image.Resampling.NEAREST if max(image.size) <= CELL else Image.Resampling.LANCZOS
    scale = CELL / max(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), how)
    picture.paste(image, (corner[0] + (CELL - image.width) // 2, corner[1] + (CELL - image.height) // 2))


def caption(
    draw: ImageDraw.ImageDraw,
    sample: Sample,
    corner: tuple[int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    """The verdict on identity where there is one, and the fidelity."""
    x, y = corner
    if "identity" in sample.scores:
        right = sample.scores["identity"] >= 0.5
        draw.ellipse((x, y + 3, x + 8, y + 11), RIGHT if right else WRONG)
        draw.text((x + 13, y), "identity" if right else "other identity", RIGHT if right else WRONG, font)
    if "dino" in sample.scores:
        draw.text((x + CELL, y), f"{sample.scores['dino']:.2f}", SOFT, font, anchor="ra")
