"""Colour profiles written byte by byte from their primaries: what an embedded profile says, known from outside."""

import struct
from collections.abc import Sequence

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
# columns: red, green, blue; adapted to D50, as profiles have them
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
DISPLAY_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
# 1 / 2.4 and the straight piece near black, of both spaces
_CURVE = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + struct.pack(
    ">5i", *(round(v * 65536) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
)  # fmt: skip


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(float(v) * 65536) for v in values))


def _text(words: str) -> bytes:
    return (
        b"mluc"
        + bytes(4)
        + struct.pack(">II2s2sII", 1, 12, b"en", b"US", 2 * len(words), 28)
        + words.encode("utf-16-be")
    )


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _text("test"), b"cprt": _text("none"), b"wtpt": _xyz(D50), **tags}
    place, body, table = 128 + 4 + 12 * len(tags), b"", struct.pack(">I", len(tags))
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += struct.pack(">4sII", name, place + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s12s4s4s", place + len(body), bytes(4), 0x04200000, b"mntr", space, b"XYZ ",
                         struct.pack(">6H", 2020, 1, 1, 0, 0, 0), b"acsp", bytes(4))  # fmt: skip
    header += bytes(24) + _xyz(D50)[8:]
    return header + bytes(128 - len(header)) + table + body


def rgb_profile(matrix: np.ndarray) -> bytes:
    """A display whose primaries are the columns of `matrix`, with sRGB's curve."""
    colours = {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True)}
    return _profile(b"RGB ", colours | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _CURVE))


def gray_profile(gamma: float) -> bytes:
    curve = b"para" + bytes(4) + struct.pack(">HHi", 0, 0, round(gamma * 65536))
    return _profile(b"GRAY", {b"kTRC": curve})


def from_srgb(colour: Sequence[int], matrix: np.ndarray) -> tuple[int, ...]:
    """The numbers that a display with `matrix` has for an sRGB colour inside its gamut."""
    x = np.array(colour) / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    y = np.clip(np.linalg.solve(matrix, SRGB @ linear), 0, 1)
    return tuple(
        np.round(255 * np.where(y <= 0.0031308, 12.92 * y, 1.055 * y ** (1 / 2.4) - 0.055)).astype(int).tolist()
    )
