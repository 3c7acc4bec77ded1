"""Metadata blocks as strangers' pictures have them: EXIF with any entries, colour profiles with any primaries."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

ORIENTATION = (0x0112, 3, 1, struct.pack(">HH", 6, 0))  # to be turned by 90 degrees clockwise
D65 = (0.3127, 0.3290)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D50 = np.array([0.9642, 1.0, 0.8249])
GAMMA = 563 / 256  # as a profile writes 2.2


def exif(entries: Sequence[tuple[int, int, int, bytes]], tail: bytes = b"\0" * 4) -> bytes:
    """A big-endian block of (tag, type, count, four bytes: the value, or where it is)."""
    body = b"".join(struct.pack(">HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + body + tail


def to_xyz(primaries: Sequence[tuple[float, float]]) -> np.ndarray:
    """Linear RGB to XYZ of D65, as a matrix."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([D65[0] / D65[1], 1.0, (1 - D65[0] - D65[1]) / D65[1]])
    return columns * np.linalg.solve(columns, white)


def profile(primaries: Sequence[tuple[float, float]]) -> bytes:
    """An ICC profile of a display with these primaries, the white of daylight and a gamma of 2.2."""
    white = to_xyz(primaries).sum(axis=1)
    gain = (BRADFORD @ D50) / (BRADFORD @ white)
    matrix = np.linalg.inv(BRADFORD) @ np.diag(gain) @ BRADFORD @ to_xyz(primaries)

    def fixed(values: Sequence[float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 563) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 79
    tags = [(b"desc", text), (b"wtpt", fixed(D50))]
    tags += [(name + b"XYZ", fixed(matrix[:, i])) for i, name in enumerate((b"r", b"g", b"b"))]
    tags += [(name + b"TRC", curve) for name in (b"r", b"g", b"b")]
    start = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags:
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + b"\0" * (-len(content) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(data), b"test", 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"", b"acsp"
    )
    header += b"\0" * 28 + b"".join(struct.pack(">i", round(value * 65536)) for value in D50)
    return header.ljust(128, b"\0") + table + data


def in_srgb(colour: Sequence[int], primaries: Sequence[tuple[float, float]]) -> np.ndarray:
    """The sRGB levels, 0 to 255, of a colour of such a display."""
    linear = np.linalg.solve(to_xyz(SRGB), to_xyz(primaries) @ (np.array(colour) / 255) ** GAMMA).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
