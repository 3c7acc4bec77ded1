"""Every kind of picture that crawlers bring home: an RGB image, or a reason."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from curation.config import BuildConfig
from curation.errors import Rejected
from curation.vision.images import decode
from tests.curation.blocks import DISPLAY_P3, ORIENTATION, SRGB, exif, in_srgb, profile
from tests.curation.conftest import encoded, picture

CONFIG = BuildConfig()


def saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def reason(data: bytes, **config) -> str:
    with pytest.raises(Rejected) as rejection:
        decode(data, BuildConfig(**config))
    return rejection.value.reason


def png(width: int, height: int, *, chunks: bytes = b"") -> bytes:
    """A PNG that only says how large it is."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunks
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


JPEG = encoded(picture(1))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "image_empty"),
        (b"no image at all", "image_unreadable"),
        (b"<html><body>404</body></html>", "image_unreadable"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_unreadable"),
        (JPEG[:2], "image_unreadable"),
        (JPEG[: len(JPEG) // 2], "image_truncated"),
        (encoded(picture(1), "PNG")[:-300], "image_truncated"),
        (JPEG[:200] + bytes(len(JPEG) - 200), "image_corrupt"),
        (png(40_000, 40_000), "image_too_many_pixels"),
        (png(9_000, 9_000), "image_too_many_pixels"),
        (png(2**31 - 1, 2**31 - 1), "image_too_many_pixels"),
        (png(64, 64), "image_truncated"),
        (saved(picture(1, 20, 20), "PNG"), "image_too_small"),
        (saved(picture(1, 640, 64), "PNG"), "image_too_long"),
        (saved(Image.fromarray(np.full((64, 64), 40_000, np.uint16)), "PNG"), "image_not_8_bit"),
        (
            saved(picture(1), "GIF", save_all=True, append_images=[picture(2), picture(3)], duration=50),
            "image_animated",
        ),
        (saved(picture(1), "WEBP", save_all=True, append_images=[picture(2)], duration=50), "image_animated"),
        (saved(picture(1), "PNG", save_all=True, append_images=[picture(2)], duration=50), "image_animated"),
        (saved(picture(1), "TIFF"), "image_unreadable"),
        (JPEG + 200 * b"\xff\xda", "image_too_many_scans"),
    ],
)
def test_pictures_that_are_refused(data: bytes, expected: str):
    assert reason(data) in {expected, "image_corrupt" if expected == "image_truncated" else expected}


@pytest.mark.parametrize("cut", range(0, len(JPEG), 97))
def test_a_jpeg_cut_anywhere_is_a_reason(cut: int):
    assert reason(JPEG[:cut]).startswith("image_")


def test_flipped_bytes_are_an_image_or_a_reason():
    rng = np.random.default_rng(0)
    for format in ("JPEG", "PNG", "GIF", "WEBP", "BMP"):
        data = np.frombuffer(saved(picture(1), format), np.uint8)
        for _ in range(20):
            damaged = data.copy()
            damaged[rng.integers(0, len(data), 8)] = rng.integers(0, 256, 8)
            try:
                assert decode(damaged.tobytes(), CONFIG).mode == "RGB"
            except Rejected as rejection:
                assert rejection.reason.startswith("image_")


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
    """81 megapixels in a file of 70 bytes: refused by its header."""
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert reason(png(9_000, 9_000)) == "image_too_many_pixels"


def test_a_text_chunk_that_unpacks_to_much_is_refused():
    packed = zlib.compress(bytes(20_000_000), 1)
    body = b"zTXt" + b"comment\0\0" + packed
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    assert reason(png(64, 64, chunks=chunk)).startswith("image_")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_every_format_becomes_rgb(format: str):
    image = decode(saved(picture(1), format), CONFIG)
    assert (image.mode, image.size) == ("RGB", (96, 64))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA"])
def test_every_mode_becomes_rgb(mode: str):
    colour = Image.new("RGB", (64, 64), (200, 40, 40))
    image = colour.quantize(4) if mode == "P" else colour.convert(mode)
    data = saved(image, "JPEG" if mode == "CMYK" else "PNG")
    image = decode(data, CONFIG)
    assert image.mode == "RGB"
    if mode in ("CMYK", "RGBA", "P"):
        assert np.abs(np.asarray(image, int) - (200, 40, 40)).max() <= 12


def test_a_palette_with_transparency_is_laid_on_white():
    image = Image.new("P", (64, 64), 0)
    image.putpalette([200, 40, 40, 0, 0, 255])
    image.paste(1, (0, 0, 32, 64))
    pixels = np.asarray(decode(saved(image, "PNG", transparency=bytes([0, 255])), CONFIG))
    assert tuple(pixels[10, 10]) == (0, 0, 255) and tuple(pixels[10, 50]) == (255, 255, 255)


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image = picture(1, 96, 64)
    turned = decode(saved(image, "PNG", exif=exif), CONFIG)
    assert turned.size == (64, 96)
    assert np.array_equal(np.asarray(turned), np.rot90(np.asarray(image), -1))


def test_a_phone_s_jpeg_with_a_second_view_is_its_first_picture():
    data = saved(picture(1), "MPO", save_all=True, append_images=[picture(2)])
    first = decode(data, CONFIG)
    assert np.abs(np.asarray(first, int) - np.asarray(picture(1), int)).mean() < 6


BROKEN = {
    "a text where numbers are due": (0x011A, 2, 4, b"abc\0"),
    "a number where text is due": (0x010F, 3, 1, b"\0\1\0\0"),
    "a fraction of a type that is none": (0x829A, 99, 1, b"\0\0\0\1"),
    "a value beyond the block": (0x8298, 2, 9000, b"\0\0\xff\xff"),
    "more values than memory": (0x0100, 4, 2**32 - 1, b"\0\0\0\x08"),
    "a block within that is not there": (0x8769, 4, 1, b"\xff\xff\xff\xff"),
    "a signed byte for text": (0x0131, 6, 4, b"abcd"),
    "doubles out of place": (0x9201, 12, 1, b"\0\0\0\x02"),
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("entry", BROKEN.values(), ids=BROKEN)
def test_what_else_an_exif_block_holds_does_not_matter(entry, format: str):
    image = picture(1, 96, 64)
    for entries in ([ORIENTATION, entry], [entry, ORIENTATION]):
        turned = decode(saved(image, format, exif=exif(entries)), CONFIG)
        assert turned.size == (64, 96)
        assert np.abs(np.asarray(turned, int) - np.rot90(np.asarray(image, int), -1)).mean() < 6
    assert decode(saved(image, format, exif=exif([entry])), CONFIG).size == (96, 64)


@pytest.mark.parametrize(
    ("kind", "count", "value", "turned"),
    [
        (3, 1, b"\0\6\0\0", True),
        (4, 1, b"\0\0\0\6", True),
        (1, 1, b"\6\0\0\0", True),
        (7, 1, b"\6\0\0\0", True),
        (3, 1, b"\0\x63\0\0", False),
        (2, 2, b"6\0\0\0", False),
        (3, 2, b"\0\6\0\6", True),
        (5, 1, b"\xff\xff\xff\xff", False),
        (3, 0, b"\0\0\0\0", False),
    ],
)
def test_an_orientation_is_a_number_or_is_passed_over(kind: int, count: int, value: bytes, turned: bool):
    data = saved(picture(1, 96, 64), "PNG", exif=exif([(0x0112, kind, count, value)]))
    assert decode(data, CONFIG).size == ((64, 96) if turned else (96, 64))


@pytest.mark.parametrize(
    "block", [b"", b"Exif\0\0", b"Exif\0\0MM\0*", b"no block at all", b"Exif\0\0II*\0" + b"\xff" * 60]
)
def test_a_block_that_is_none_is_passed_over(block: bytes):
    assert decode(saved(picture(1), "JPEG", exif=block), CONFIG).size == (96, 64)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation: int):
    pixels = np.asarray(picture(1, 96, 64))
    block = exif([(0x0112, 3, 1, struct.pack(">HH", orientation, 0))])
    expected = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels),
    }[orientation]
    assert np.array_equal(np.asarray(decode(saved(picture(1), "PNG", exif=block), CONFIG)), expected)


def flat(colour, mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (64, 64), colour).convert(mode)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("colour", [(255, 128, 0), (0, 160, 60), (200, 40, 40), (128, 128, 128), (255, 255, 255)])
def test_an_embedded_profile_is_converted_to_srgb(colour, format: str):
    options = {} if format == "PNG" else {"quality": 100}
    data = saved(flat(colour), format, icc_profile=profile(DISPLAY_P3), **options)
    pixel = np.array(decode(data, CONFIG).getpixel((32, 32)))
    assert np.abs(pixel - in_srgb(colour, DISPLAY_P3)).max() <= (2 if format == "PNG" else 5)
    if colour == (0, 160, 60):
        assert np.abs(pixel - colour).max() > 10  # the profile made a difference


def test_a_profile_reaches_the_colours_of_every_mode():
    expected = in_srgb((255, 128, 0), DISPLAY_P3)
    for mode in ("RGBA", "P"):
        data = saved(flat((255, 128, 0), mode), "PNG", icc_profile=profile(DISPLAY_P3))
        assert np.abs(np.array(decode(data, CONFIG).getpixel((32, 32))) - expected).max() <= (
            2 if mode == "RGBA" else 30
        )
    clear = flat((255, 128, 0), "RGBA")
    clear.putalpha(128)
    pixel = np.array(decode(saved(clear, "PNG", icc_profile=profile(DISPLAY_P3)), CONFIG).getpixel((32, 32)))
    assert np.abs(pixel - (expected * 128 + 255 * 127) / 255).max() <= 3


def test_a_turned_picture_keeps_its_profile():
    data = saved(flat((255, 128, 0)), "PNG", icc_profile=profile(DISPLAY_P3), exif=exif([ORIENTATION]))
    assert np.abs(np.array(decode(data, CONFIG).getpixel((9, 9))) - in_srgb((255, 128, 0), DISPLAY_P3)).max() <= 2


@pytest.mark.parametrize(
    ("mode", "data"),
    [
        ("RGB", b"no profile"),
        ("RGB", profile(DISPLAY_P3)[:200]),
        ("RGB", profile(DISPLAY_P3)[:131]),
        ("RGB", profile(DISPLAY_P3).replace(b"RGB ", b"CMYK")),
        ("L", profile(DISPLAY_P3)),
        ("1", profile(DISPLAY_P3)),
    ],
)
def test_a_profile_that_cannot_be_used_is_no_reason_to_refuse(mode: str, data: bytes):
    image = picture(1).convert(mode)
    assert np.array_equal(decode(saved(image, "PNG", icc_profile=data), CONFIG), np.asarray(image.convert("RGB")))


def test_a_profile_of_srgb_s_own_primaries_changes_little():
    image = picture(1)
    converted = decode(saved(image, "PNG", icc_profile=profile(SRGB)), CONFIG)
    assert np.abs(np.asarray(converted, int) - np.asarray(image, int)).max() < 12  # the gamma's difference in the dark


@pytest.mark.parametrize(
    ("array", "format", "expected"),
    [
        (np.full((64, 64), 40_000, np.uint16), "PNG", "image_not_8_bit"),
        (np.full((64, 64), 40_000, np.uint16), "PPM", "image_unreadable"),
        (np.full((64, 64), 40_000, np.int32), "TIFF", "image_unreadable"),
        (np.full((64, 64), 0.5, np.float32), "TIFF", "image_unreadable"),
    ],
)
def test_more_than_eight_bits_are_a_reason_and_never_white(array, format: str, expected: str):
    assert reason(saved(Image.fromarray(array), format)) == expected
