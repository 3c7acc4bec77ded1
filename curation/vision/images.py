"""Bytes from strangers to an RGB image, or a reason. Nothing is decoded before its size is known."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageCms, UnidentifiedImageError

from curation.config import BuildConfig
from curation.errors import Rejected

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
# Where cameras say which way up a picture is.
ORIENTATION = 0x0112
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The colour space of a profile -> the mode of the pixels that it is for.
PROFILED = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
# Profiles of printing presses have one or two; nothing honest has more.
MAX_PROFILE_BYTES = 8 << 20
# PIL clips these to white when asked for RGB.
WIDE_MODES = ("I", "F")
# A progressive JPEG has about ten. Each costs a pass over all pixels and few bytes, so that a small file could
# keep a decoder busy for days.
MAX_JPEG_SCANS = 100
START_OF_SCAN = b"\xff\xda"


def decode(data: bytes, config: BuildConfig) -> Image.Image:
    """An upright sRGB image; transparency is laid on white. What is broken in its metadata alone is passed over.

    Raises:
        Rejected: empty, unreadable, truncated or corrupt bytes; too many pixels or scans; animations; more than
            eight bits a channel; sides or shape outside the configured limits.
    """
    if not data:
        raise Rejected("image_empty")
    try:
        with warnings.catch_warnings():
            # The pixel limit below replaces PIL's own warning; of broken metadata there is nothing to say.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise Rejected("image_unreadable") from None
    except Image.DecompressionBombError as error:
        raise Rejected("image_too_many_pixels", str(error)) from None
    except Exception as error:  # decoders raise anything on hostile headers
        raise Rejected("image_corrupt", repr(error)) from None
    check_size(image.width, image.height, config)
    if image.format in ("JPEG", "MPO") and data.count(START_OF_SCAN) > MAX_JPEG_SCANS:
        raise Rejected("image_too_many_scans")
    try:
        # Phones put a preview or a second view into a JPEG (MPO); its first picture is the photo.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise Rejected("image_animated")
        if image.mode in WIDE_MODES or image.mode.startswith("I;16"):
            raise Rejected("image_not_8_bit", image.mode)
        image.load()
        return flatten(to_srgb(upright(image)))
    except Rejected:
        raise
    except Exception as error:  # a broken body shows as OSError, SyntaxError, struct.error, zlib.error, ...
        truncated = "truncated" in str(error).lower()
        raise Rejected("image_truncated" if truncated else "image_corrupt", repr(error)) from None


def check_size(width: int, height: int, config: BuildConfig) -> None:
    if width * height > config.max_image_pixels:
        raise Rejected("image_too_many_pixels", f"{width} x {height}")
    if min(width, height) < config.min_image_side:
        raise Rejected("image_too_small", f"{width} x {height}")
    if max(width, height) > config.max_aspect_ratio * min(width, height):
        raise Rejected("image_too_long", f"{width} x {height}")


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF block says. The orientation is read alone: the block's other entries may be broken."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = image.getexif().get(ORIENTATION)
    except Exception:  # PIL raises anything on a broken block; a picture that does not say is taken as it is
        return image
    if isinstance(value, bytes) and len(value) == 1:
        value = value[0]
    try:
        method = TRANSPOSITIONS.get(value)  # type: ignore[arg-type]
    except TypeError:  # no number, and nothing that could be looked up
        return image
    return image if method is None else image.transpose(method)


def to_srgb(image: Image.Image) -> Image.Image:
    """The colours that an embedded profile means, in sRGB; without one, or with a broken one, the image as it is."""
    data = image.info.get("icc_profile")
    if not isinstance(data, bytes) or not 0 < len(data) <= MAX_PROFILE_BYTES:
        return image
    alpha = None
    if image.mode in ("P", "PA", "RGBA", "LA") or "transparency" in image.info:
        grey = image.mode == "LA" or (image.mode == "L" and "transparency" in image.info)
        image = image.convert("LA" if grey else "RGBA")
        alpha = image.getchannel("A")
        image = image.convert("L" if grey else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        if PROFILED.get(profile.profile.xcolor_space.strip()) != image.mode:
            raise ImageCms.PyCMSError("a profile for other pixels")
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
        assert converted is not None  # it is None for a conversion in place
        image = converted
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        image = image.convert("RGB")
    if alpha is not None:
        image.putalpha(alpha)
    image.info.pop("transparency", None)
    return image


def flatten(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def to_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def thumbnail(image: Image.Image, side: int) -> bytes:
    """A small JPEG of an RGB image, at most ``side`` pixels each way; nothing of the original file but its look."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
