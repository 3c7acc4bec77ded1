"""Colour names of the mini world, and which of them dominate a sprite."""

from __future__ import annotations

import numpy as np

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "orange": (240, 140, 40),
    "yellow": (250, 206, 60),
    "green": (76, 160, 70),
    "teal": (40, 160, 160),
    "blue": (52, 110, 210),
    "light blue": (140, 200, 245),
    "purple": (130, 80, 190),
    "pink": (245, 140, 180),
    "brown": (130, 84, 52),
    "tan": (222, 184, 140),
    "white": (245, 245, 245),
    "gray": (140, 145, 150),
    "dark gray": (72, 76, 82),
    "black": (22, 22, 26),
}


def vector(*values: float) -> np.ndarray:
    """Numbers as float32; a colour is three in 0..255."""
    return np.array(values, dtype=np.float32)


LUMA = vector(0.299, 0.587, 0.114)  # Rec. 601
_NAMES = list(PALETTE)
_RGB = np.array([PALETTE[name] for name in _NAMES], dtype=np.float32)


def opponent(rgb: np.ndarray) -> np.ndarray:
    """Luma and two chroma axes, chroma weighted up: hue matters more than shade for a colour's name."""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.stack([0.299 * r + 0.587 * g + 0.114 * b, 1.4 * (r - g), 0.9 * (0.5 * (r + g) - b)], axis=-1)


def dominant_colors(rgba: np.ndarray, limit: int = 2, share: float = 0.22) -> list[str]:
    """Names of up to `limit` colours that each cover at least `share` of the opaque pixels (the first always).

    `rgba` is uint8 [H, W, 4].
    """
    pixels = rgba[rgba[..., 3] > 128][:, :3].astype(np.float32)
    if not len(pixels):
        return []
    distance = ((opponent(pixels)[:, None] - opponent(_RGB)[None]) ** 2).sum(-1)
    counts = np.bincount(distance.argmin(1), minlength=len(_NAMES)) / len(pixels)
    order = np.argsort(-counts, kind="stable")[:limit]
    return [_NAMES[i] for rank, i in enumerate(order) if rank == 0 or counts[i] >= share]
