"""Reference images as people have them, made into the square RGB that the image encoder expects."""

import logging
import os
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from umm_bench.errors import UserError

logger = logging.getLogger(__name__)

ImageInput = Image.Image | str | Path | bytes

_ORIENTATION = 0x0112
_TIFF_BITS, _TIFF_WHITE = 258, 262  # 12 bits stay 12 in PIL's 16; 0 means that zero is white
# EXIF 2.32, table 4: where the first row and column of the stored picture are; how to put them to the top left
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A padded square has the square of the longer side's pixels, and no encoder looks at more than these.
_LONGEST_PADDED = 4096


def as_list(images: ImageInput | Sequence[ImageInput]) -> list[ImageInput]:
    return list(images) if isinstance(images, (list, tuple)) else [images]  # type: ignore[list-item]


def open_image(source: ImageInput) -> Image.Image:
    """An upright RGB image from a path, encoded bytes or a PIL image.

    EXIF orientation is applied, and nothing else of that block is read; an embedded colour profile is converted to
    sRGB, or ignored with a warning where it is broken; transparency is laid on white; 16-bit grayscale is scaled to 8
    bits. Raises UserError when there is no such file or it cannot be decoded, for pixels of 32 bits or floating point,
    whose white nobody knows, for a picture without pixels, and for anything else than these.
    """
    if not isinstance(source, (Image.Image, str, Path, bytes)):
        raise UserError(f"an image must be a path, encoded bytes or a PIL image, not {type(source).__name__}")
    name = source if isinstance(source, (str, Path)) else "the image"
    if isinstance(source, (str, Path)) and not os.path.isfile(source):
        raise UserError(f"no image file at {source}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tags that are not read, and of sizes that are refused below
            image = source if isinstance(source, Image.Image) else _decode(source)
            if 0 in image.size:
                raise UserError(f"{name} has no pixels: {image.width} x {image.height}")
            profile, turn = image.info.get("icc_profile"), _turn(image)
            image = _eight_bits(image, name)
            image = image if turn is None else image.transpose(turn)
            image = _to_srgb(image, profile, name) if profile else image
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} is too large: {error}") from error
    except Exception as error:  # decoders raise anything on a broken file: SyntaxError, struct.error, zlib.error, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name} cannot be read as an image: {reason}") from error


def _decode(source: str | Path | bytes) -> Image.Image:
    image = Image.open(BytesIO(source) if isinstance(source, bytes) else source)
    try:
        image.load()
    except Exception:
        # PIL reads all of a TIFF's EXIF block once the pixels are there
        if image.format != "TIFF" or image.tile:
            raise
    return image


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What puts the picture upright, None where it is or nothing readable says that it is not."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception as error:  # a broken block is no reason to refuse the picture: it stays as it is stored
        logger.debug("an EXIF block that cannot be read: %r", error)
        return None
    return _UPRIGHT.get(orientation) if type(orientation) is int else None


def _eight_bits(image: Image.Image, name: object) -> Image.Image:
    # PIL keeps a PGM of 16 bits in 32, stretched to 0..65535 whatever its own maximum
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(_TIFF_BITS, (16,))[0]
        pixels = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        return Image.fromarray(255 - pixels if tags.get(_TIFF_WHITE) == 0 else pixels)
    if image.mode in ("I", "F"):
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
        raise UserError(f"{name} has {kind} pixels, whose range is not known; save it with 8 or 16 bits")
    return image


def _to_srgb(image: Image.Image, profile: bytes, name: object) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        # a profile is for the colours of the file, and a palette or grays may be given in RGB
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}[space]
        if mode != image.mode and {mode, image.mode} & {"CMYK", "LAB"}:
            raise ValueError(f"it is for {space}, the pixels are {image.mode}")
        if mode == "L" and image.mode not in ("1", "L", "LA", "La"):
            raise ValueError(f"it is for grays, the pixels are {image.mode}")
        converted = ImageCms.profileToProfile(
            image if image.mode == mode else image.convert(mode),
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        assert converted is not None
    except Exception as error:  # whatever is wrong with it, the picture is there
        logger.warning("%s: its colour profile is ignored (%s)", name, str(error) or repr(error))
        return image
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def border_colour(image: Image.Image) -> tuple[int, int, int]:
    """Mean colour of the outermost pixels of an RGB image."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = border.mean(axis=0).round().astype(int).tolist()
    return red, green, blue


def square(image: Image.Image) -> Image.Image:
    """Pads to a square with the border's colour, because CLIP's centre crop would cut a long subject.

    A padded side of more than 4096 pixels is brought down to that: a strip of 1 x 65535 would be 12 GB as a square.
    """
    side = max(image.size)
    if image.size == (side, side):
        return image
    if side > _LONGEST_PADDED:
        width, height = (max(1, round(extent * _LONGEST_PADDED / side)) for extent in image.size)
        image, side = image.resize((width, height), Image.Resampling.LANCZOS), _LONGEST_PADDED
    canvas = Image.new("RGB", (side, side), border_colour(image))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas
