"""References as people have them."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.umm.conftest import picture, png
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
