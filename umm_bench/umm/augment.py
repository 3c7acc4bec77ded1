"""What differs between a reference and the target it was cut from, so that the word carries the subject only.

A pair has one picture: the crop is the reference, the whole is the target. Left as it is, the shortest way to
a low loss is to remember the crop's pose, place, light and background.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from umm_bench.errors import UserError
from umm_bench.images import border_colour


@dataclass(frozen=True)
class Augmentation:
    """How much a reference varies; all zeros leaves the crop alone. UserError for a value out of its range."""

    jitter: float = 0.08
    """Each side of the crop moves inwards by up to this part of its length."""
    flip: float = 0.5
    """Probability of a mirror image."""
    colour: float = 0.15
    """Brightness, contrast and saturation change by up to this part; hue never, it is identity."""
    rotation: float = 15.0
    """Degrees either way."""
    margin: float = 0.4
    """The crop takes at least `1 - margin` of the square's side; the rest is one plain colour."""

    def __post_init__(self) -> None:
        for name, most in (("jitter", 0.4), ("flip", 1.0), ("colour", 1.0), ("rotation", 180.0), ("margin", 0.9)):
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"the augmentation's {name} must lie between 0 and {most}, not {getattr(self, name)}")

    def view(self, crop: Image.Image, rng: np.random.Generator) -> Image.Image:
        """A square view of an RGB crop, of the size of its longer side."""
        width, height = crop.size
        inset = rng.uniform(0.0, self.jitter, size=4) * [width, height, width, height]
        left, top, right, bottom = np.floor(inset).astype(int).tolist()
        view = crop.crop((left, top, max(width - right, left + 1), max(height - bottom, top + 1)))
        if rng.random() < self.flip:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            view = enhance(view).enhance(1.0 + rng.uniform(-self.colour, self.colour))
        # half of the margins continue the picture, half stand off from it, so that neither is a hint
        r, g, b = border_colour(view) if rng.random() < 0.5 else rng.integers(0, 256, size=3).tolist()
        angle = rng.uniform(-self.rotation, self.rotation)
        view = view.rotate(angle, resample=Image.Resampling.BICUBIC, fillcolor=(r, g, b))
        side = max(crop.size)
        scale = side * rng.uniform(1.0 - self.margin, 1.0) / max(view.size)
        view = view.resize((max(1, round(view.width * scale)), max(1, round(view.height * scale))))
        canvas = Image.new("RGB", (side, side), (r, g, b))
        x, y = (rng.integers(0, side - extent + 1) for extent in view.size)
        canvas.paste(view, (int(x), int(y)))
        return canvas
