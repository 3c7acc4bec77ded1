"""Reference images as people have them, made into the square RGB that the image encoder expects."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from umm_bench.errors import UserError

ImageInput = Image.Image | str | Path | bytes


def as_list(images: ImageInput | Sequence[ImageInput]) -> list[ImageInput]:
    return list(images) if isinstance(images, (list, tuple)) else [images]  # type: ignore[list-item]


def open_image(source: ImageInput) -> Image.Image:
    """An upright RGB image from a path, encoded bytes or a PIL image.

    EXIF orientation is applied, transparency is laid on white, 16-bit grayscale is scaled to 8 bits. Raises
    UserError when there is no such file or it cannot be decoded, and for anything else than these.
    """
    if not isinstance(source, (Image.Image, str, Path, bytes)):
        raise UserError(f"an image must be a path, encoded bytes or a PIL image, not {type(source).__name__}")
    name = source if isinstance(source, (str, Path)) else "the image"
    if isinstance(source, (str, Path)) and not Path(source).is_file():
        raise UserError(f"no image file at {source}")
    try:
        image = source if isinstance(source, Image.Image) else _decode(source)
        image = ImageOps.exif_transpose(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{name} cannot be read as an image: {error}") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} is too large: {error}") from error
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _decode(source: str | Path | bytes) -> Image.Image:
    image = Image.open(BytesIO(source) if isinstance(source, bytes) else source)
    image.load()
    return image


def border_colour(image: Image.Image) -> tuple[int, int, int]:
    """Mean colour of the outermost pixels of an RGB image."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = border.mean(axis=0).round().astype(int).tolist()
    return red, green, blue


def square(image: Image.Image) -> Image.Image:
    """Pads to a square with the border's colour, because CLIP's centre crop would cut a long subject."""
    side = max(image.size)
    if image.size == (side, side):
        return image
    canvas = Image.new("RGB", (side, side), border_colour(image))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas
