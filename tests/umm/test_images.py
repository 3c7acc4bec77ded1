"""References as people have them."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from tests.umm.conftest import picture, png
from tests.umm.profiles import DISPLAY_P3, SRGB, from_srgb, gray_profile, rgb_profile
from umm_bench.errors import UserError
from umm_bench.images import open_image, square
from umm_bench.umm.augment import Augmentation


def test_exif_orientation_is_applied():
    image = picture(0, (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    expected = image.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(np.asarray(open_image(buffer.getvalue())), np.asarray(expected))


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 255, 255))
    opened = open_image(image)
    assert opened.mode == "RGB" and opened.getpixel((0, 0)) == (0, 0, 255)
    assert opened.getpixel((1, 1)) == (255, 255, 255)
    palette = image.quantize(4)
    assert open_image(palette).getpixel((1, 1)) == (255, 255, 255)


def test_grayscale_of_8_and_16_bits():
    deep = Image.fromarray(np.full((4, 4), 0x8000, dtype=np.uint16))
    assert open_image(png(deep)).getpixel((0, 0)) == (128, 128, 128)
    assert open_image(Image.new("L", (4, 4), 7)).getpixel((0, 0)) == (7, 7, 7)


def test_unreadable_files(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "cut.png").write_bytes(png(picture(0, (256, 256)))[:200])
    with pytest.raises(UserError, match=r"text\.png cannot be read"):
        open_image(tmp_path / "text.png")
    with pytest.raises(UserError, match=r"cut\.png cannot be read"):
        open_image(tmp_path / "cut.png")
    with pytest.raises(UserError, match="no image file"):
        open_image(tmp_path / "missing.png")
    with pytest.raises(UserError, match="no image file"):
        open_image(tmp_path)
    with pytest.raises(UserError, match="not ndarray"):
        open_image(np.zeros((4, 4, 3)))


def test_huge_images_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="too large"):
        open_image(png(picture(0, (32, 32))))


def test_square_keeps_all_of_a_long_picture():
    long = Image.new("RGB", (8, 2), (10, 20, 30))
    assert np.array_equal(np.asarray(square(long)), np.full((8, 8, 3), (10, 20, 30), dtype=np.uint8))


def test_augmentation_is_seeded_and_can_be_off():
    crop = picture(3, (20, 30))
    views = [np.asarray(Augmentation().view(crop, np.random.default_rng(seed))) for seed in (1, 1, 2)]
    assert views[0].shape == (30, 30, 3)
    assert np.array_equal(views[0], views[1]) and not np.array_equal(views[0], views[2])
    off = Augmentation(jitter=0, flip=0, colour=0, rotation=0, margin=0)
    plain = off.view(picture(3), np.random.default_rng(0))
    assert np.array_equal(np.asarray(plain), np.asarray(picture(3)))


def exif_block(*entries):
    """Tags as (number, type, count, four bytes), whatever they say."""
    tags = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + tags + bytes(4)


def encoded(image, kind, **settings):
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


TURNED = (0x0112, 3, 1, struct.pack("<HH", 6, 0))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "other",
    [
        (0x011A, 2, 4, b"abc\0"),  # a resolution in letters
        (0x0131, 3, 1, bytes(4)),  # software as a number
        (0x8769, 4, 1, b"\xff\xff\xff\0"),  # a block that lies beyond the file
        (0x8825, 2, 4, b"abc\0"),  # a place in letters
        (0x9003, 99, 1, bytes(4)),  # a type that there is not
    ],
)
def test_the_orientation_counts_whatever_the_other_tags_are(kind, other):
    data = encoded(picture(0, (40, 20)), kind, exif=exif_block(TURNED, other))
    assert open_image(data).size == (20, 40)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "block",
    [
        exif_block((0x0112, 2, 2, b"6\0\0\0")),
        exif_block((0x0112, 5, 1, struct.pack("<I", 26))),
        exif_block((0x0112, 11, 1, struct.pack("<f", 6))),
        exif_block((0x0112, 3, 1, struct.pack("<HH", 9, 0))),
        exif_block((0x0112, 3, 1000, struct.pack("<I", 99999))),
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(50),
        b"no block",
    ],
)
def test_an_orientation_that_is_none_leaves_the_picture_as_it_is(kind, block):
    data = encoded(picture(0, (40, 20)), kind, exif=block)
    plain = encoded(picture(0, (40, 20)), kind)
    assert np.array_equal(np.asarray(open_image(data)), np.asarray(open_image(plain)))


def tiff(size, bits, kind, data, *more, white=1):
    """A TIFF of one row; `more` are further tags."""
    tags = [(256, 3, size), (257, 3, 1), (258, 3, bits), (259, 3, 1), (262, 3, white), (273, 4, 8), (277, 3, 1),
            (278, 3, 1), (279, 4, len(data)), (339, 3, kind)]  # fmt: skip
    entries = [struct.pack("<HHII", number, form, 1, value) for number, form, value in tags]
    entries = sorted(
        [*entries, *(struct.pack("<HHI4s", *tag) for tag in more)], key=lambda e: struct.unpack("<H", e[:2])
    )
    data += bytes(len(data) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags) + len(more)) + b"".join(
        entries
    ) + bytes(4)  # fmt: skip


def test_a_tiff_is_turned_once_and_its_broken_tags_do_not_count():
    data = bytes(range(6))
    assert open_image(tiff(6, 8, 1, data, TURNED)).size == (1, 6)
    broken = tiff(6, 8, 1, data, TURNED, (0x8769, 4, 1, b"\xff\xff\xff\0"), (0x011A, 2, 4, b"abc\0"))
    opened = open_image(broken)
    assert opened.size == (1, 6) and [opened.getpixel((0, y))[0] for y in range(6)] == list(range(6))


GRAYS = {
    "PGM of 16 bits": b"P5 3 1 65535\n" + struct.pack(">3H", 0, 0x8000, 0xFFFF),
    "PGM of 12 bits": b"P5 3 1 4095\n" + struct.pack(">3H", 0, 0x800, 0xFFF),
    "PGM in letters": b"P2 3 1 65535\n0 32768 65535\n",
    "TIFF of 16 bits": tiff(3, 16, 1, struct.pack("<3H", 0, 0x8000, 0xFFFF)),
    "TIFF of 12 bits": tiff(3, 12, 1, b"\x00\x08\x00\xff\xf0"),
    "TIFF, zero is white": tiff(3, 16, 1, struct.pack("<3H", 0xFFFF, 0x7FFF, 0), white=0),
}


@pytest.mark.parametrize("data", GRAYS.values(), ids=GRAYS.keys())
def test_deep_grays_are_scaled(data):
    assert np.asarray(open_image(data))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("bits", "kind", "data"),
    [
        (32, 1, struct.pack("<3I", 0, 2**31, 2**32 - 1)),
        (32, 2, struct.pack("<3i", 0, 300, 2**31 - 1)),
        (16, 2, struct.pack("<3h", -100, 0, 32767)),
        (32, 3, struct.pack("<3f", 0.0, 0.5, 1.0)),
    ],
)
def test_pixels_without_a_known_white_are_refused(bits, kind, data):
    with pytest.raises(UserError, match="range is not known; save it with 8 or 16 bits"):
        open_image(tiff(3, bits, kind, data))


ORANGE = (220, 120, 40)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_an_embedded_profile_is_converted_to_srgb(kind, caplog):
    stored = Image.new("RGB", (16, 16), from_srgb(ORANGE, DISPLAY_P3))
    assert np.abs(np.subtract(stored.getpixel((0, 0)), ORANGE)).max() > 8
    data = encoded(stored, kind, icc_profile=rgb_profile(DISPLAY_P3))
    assert np.abs(np.subtract(open_image(data).getpixel((8, 8)), ORANGE)).max() <= (
        2 if kind in ("JPEG", "WEBP") else 1
    )
    assert not caplog.records


def test_profiles_of_palettes_grays_and_transparent_pictures():
    stored, profile = from_srgb(ORANGE, DISPLAY_P3), rgb_profile(DISPLAY_P3)
    palette = Image.new("RGB", (4, 4), stored).quantize(4)
    assert (
        np.abs(np.subtract(open_image(encoded(palette, "PNG", icc_profile=profile)).getpixel((0, 0)), ORANGE)).max()
        <= 1
    )
    clear = Image.new("RGBA", (2, 1), (*stored, 255))
    clear.putpixel((1, 0), (*stored, 0))
    opened = open_image(encoded(clear, "PNG", icc_profile=profile))
    assert np.abs(np.subtract(opened.getpixel((0, 0)), ORANGE)).max() <= 1 and opened.getpixel((1, 0)) == (255,) * 3
    # linear light 0.5 is 188 in sRGB, with 8 bits and with 16
    half, deep = Image.new("L", (4, 4), 128), Image.fromarray(np.full((4, 4), 0x8000, dtype=np.uint16))
    for gray in (half, deep):
        data = encoded(gray, "PNG", icc_profile=gray_profile(1.0))
        assert np.abs(np.subtract(open_image(data).getpixel((0, 0)), 188)).max() <= 1
    # grays in a file that says sRGB
    assert open_image(encoded(half, "PNG", icc_profile=rgb_profile(SRGB))).getpixel((0, 0)) == (128, 128, 128)


def test_srgb_itself_changes_nothing():
    image = picture(5)
    assert np.array_equal(
        np.asarray(open_image(encoded(image, "PNG", icc_profile=rgb_profile(SRGB)))), np.asarray(image)
    )


@pytest.mark.parametrize("profile", [b"no profile", rgb_profile(SRGB)[:200], gray_profile(2.2)])
def test_a_broken_profile_is_ignored_with_a_warning(profile, caplog, tmp_path):
    path = tmp_path / "odd.png"
    picture(5).save(path, icc_profile=profile)
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(picture(5)))
    assert [r.levelname for r in caplog.records] == ["WARNING"] and "odd.png: its colour profile" in caplog.text


def test_pictures_without_pixels_and_strips():
    with pytest.raises(UserError, match="no pixels"):
        open_image(Image.new("RGB", (0, 5)))
    assert square(Image.new("RGB", (60_000, 1), (1, 2, 3))).size == (4096, 4096)
    with pytest.raises(UserError, match="no image file"):
        open_image("x" * 5000)
