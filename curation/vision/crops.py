"""Boxes to pixels."""

from __future__ import annotations

import math

from PIL import Image

from curation.records import Box


def pixel_edges(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in pixels of an image of ``width`` x ``height``, rounded outwards."""
    return (
        math.floor(box.x0 * width),
        math.floor(box.y0 * height),
        math.ceil(box.x1 * width),
        math.ceil(box.y1 * height),
    )


def crop(image: Image.Image, box: Box) -> Image.Image:
    return image.crop(pixel_edges(box, image.width, image.height))
