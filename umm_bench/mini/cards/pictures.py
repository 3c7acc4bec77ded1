"""The pictures of the mini family's card: uncurated samples, accuracy against rarity, and what alpha trades."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image


def contact_sheet(path: Path, side: int = 8) -> Path:
    """side * side samples of the generator, a frequent concept and a seed each, as they come."""
    from umm_bench.mini.evaluation import generator

    names = generator.frequent()[: side * side]
    prompts, _ = generator.plain_prompts(names, "contact sheet")
    images = generator.draw(prompts, range(3000, 3000 + len(prompts)))
    size = images.shape[1]
    sheet = Image.new("RGB", (side * size, side * size))
    for i, image in enumerate(images):
        sheet.paste(Image.fromarray(image), (i % side * size, i // side * size))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=90)
    return path


def rarity_plot(points: Sequence[Sequence[float]], slope: float) -> str:
    """An SVG: share right against the count on a logarithmic axis, with the fitted slope; points (count, share, n)."""
    width, height, left, bottom, top, right = 460, 260, 52, 42, 14, 14
    decades = [math.floor(min(math.log10(p[0]) for p in points)), math.ceil(max(math.log10(p[0]) for p in points))]

    def at(log_count: float, share: float) -> tuple[float, float]:
        x = left + (log_count - decades[0]) / max(1, decades[1] - decades[0]) * (width - left - right)
        return x, height - bottom - min(1.0, max(0.0, share)) * (height - bottom - top)

    marks = [f'<rect width="{width}" height="{height}" fill="#fff"/>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        x0, y = at(decades[0], share)
        marks.append(f'<line x1="{x0:.1f}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        marks.append(f'<text x="{x0 - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{share:g}</text>')
    for decade in range(decades[0], decades[1] + 1):
        x, y = at(decade, 0)
        marks.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{10.0**decade:g}</text>')
    n = sum(p[2] for p in points)
    mean_x = sum(math.log10(p[0]) * p[2] for p in points) / n
    mean_y = sum(p[1] * p[2] for p in points) / n
    ends = [at(x, mean_y + slope * (x - mean_x)) for x in (math.log10(points[0][0]), math.log10(points[-1][0]))]
    marks.append(
        '<polyline fill="none" stroke="#b3372f" points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in ends) + '"/>'
    )
    marks += [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1a5f9e"/>'
        for x, y in (at(math.log10(p[0]), p[1]) for p in points)
    ]
    marks.append(
        f'<text x="{(left + width) / 2:.0f}" y="{height - 8}" text-anchor="middle">'
        "in so many of 16,384 drawn scenes</text>"
    )
    marks.append(
        f'<text transform="translate(13 {height / 2:.0f}) rotate(-90)" text-anchor="middle">concept right</text>'
    )
    body = "\n".join(marks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11" fill="#333">\n{body}\n</svg>\n'
    )


def alpha_plot(points: Sequence[Sequence[float]]) -> str:
    """An SVG: what is kept of the subject and of the prompt against alpha; points (alpha, look, prompt)."""
    width, height, left, bottom, top, right = 460, 260, 52, 42, 14, 14

    def at(alpha: float, share: float) -> str:
        x = left + alpha * (width - left - right)
        return f"{x:.1f},{height - bottom - share * (height - bottom - top):.1f}"

    marks = [f'<rect width="{width}" height="{height}" fill="#fff"/>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = at(0, share).split(",")
        marks.append(f'<line x1="{x}" x2="{width - right}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        marks.append(f'<text x="{float(x) - 6:.1f}" y="{float(y) + 4:.1f}" text-anchor="end">{share:g}</text>')
    for alpha in (0, 0.2, 0.4, 0.6, 0.8, 1):
        x, y = at(alpha, 0).split(",")
        marks.append(f'<text x="{x}" y="{float(y) + 16:.1f}" text-anchor="middle">{alpha:g}</text>')
    for column, colour, dash, name in ((1, "#1a5f9e", "none", "look"), (2, "#b3372f", "5 3", "concept and background")):
        line = " ".join(at(point[0], point[column]) for point in points)
        marks.append(f'<polyline fill="none" stroke="{colour}" stroke-dasharray="{dash}" points="{line}"/>')
        x, y = at(points[-1][0], points[-1][column]).split(",")
        marks.append(f'<text x="{x}" y="{float(y) - 6:.1f}" text-anchor="end" fill="{colour}">{name}</text>')
    marks.append(f'<text x="{(left + width) / 2:.0f}" y="{height - 8}" text-anchor="middle">alpha</text>')
    body = "\n".join(marks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11" fill="#333">\n{body}\n</svg>\n'
    )
