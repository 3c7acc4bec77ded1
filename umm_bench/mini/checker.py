"""The ground-truth checker: which drawing, which concept and which background are in a picture?

Analysis by synthesis: a candidate drawing is laid over the picture at many places, sizes, turns and mirrorings, and
its score is the share of all that differs from the background which it explains; so a drawing must fit in colour,
detail and outline. The concept is there when one of its drawings explains more than the drawings of other concepts,
and the identity is right when, besides, the subject's own explains more than any other of the concept.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from PIL import Image

from umm_bench.mini import backgrounds, scenes, sprites
from umm_bench.mini.colors import LUMA

SIDE = 32  # pictures are compared at this size; blur of a pixel or two should not decide
PADDED = 64
SCALES = (0.28, 0.36, 0.45, 0.55, 0.65, 0.76, 0.88, 1.0)
ANGLES = (-14.0, 0.0, 14.0)


def _pose(design_id: str, scale: float, angle: float, mirror: bool) -> tuple[np.ndarray, np.ndarray]:
    """A sprite at SIDE resolution, colours [h, w, 3] in [0, 1] and coverage [h, w]."""
    sprite = Image.fromarray(sprites.load().rgba(design_id))
    if mirror:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    side = max(6, round(scale * SIDE))
    sprite = sprite.convert("RGBa").resize((side, side), Image.Resampling.BOX)
    if angle:
        sprite = sprite.rotate(angle, Image.Resampling.BILINEAR)
    pixels = np.asarray(sprite, dtype=np.float32) / 255
    alpha = pixels[..., 3]
    mask = (alpha > 0.6).astype(np.float32)
    return pixels[..., :3] / np.maximum(alpha, 0.2)[..., None] * mask[..., None], mask


@functools.lru_cache(maxsize=64)
def _templates(design_ids: tuple[str, ...], angles: tuple[float, ...], gray: bool) -> tuple[torch.Tensor, ...]:
    """Spectra of colours [N, 3, P, P/2+1] and of masks [N, 1, P, P/2+1], colour energies [N], areas [N], owners [N]."""
    colors, masks, owners = [], [], []
    for owner, design_id in enumerate(design_ids):
        for scale in SCALES:
            for angle in angles:
                for mirror in (False, True):
                    rgb, mask = _pose(design_id, scale, angle, mirror)
                    pad = np.zeros((4, PADDED, PADDED), dtype=np.float32)
                    pad[:3, : mask.shape[0], : mask.shape[1]] = (_gray(rgb) if gray else rgb).transpose(2, 0, 1)
                    pad[3, : mask.shape[0], : mask.shape[1]] = mask
                    colors.append(pad[:3])
                    masks.append(pad[3:])
                    owners.append(owner)
    rgb_N, mask_N = torch.from_numpy(np.stack(colors)), torch.from_numpy(np.stack(masks))
    energy, area = rgb_N.square().sum((1, 2, 3)), mask_N.sum((1, 2, 3))
    return torch.fft.rfft2(rgb_N), torch.fft.rfft2(mask_N), energy, area, torch.tensor(owners)


def _gray(rgb: np.ndarray) -> np.ndarray:
    return np.repeat((rgb @ LUMA)[..., None], 3, 2)


def _backdrop(small: np.ndarray) -> np.ndarray:
    """The background as its sides tell it: each row goes from its left to its right end's colour."""
    left, right = small[:, :2].mean(1), small[:, -2:].mean(1)
    t = np.linspace(0, 1, small.shape[1], dtype=np.float32)[None, :, None]
    return left[:, None] * (1 - t) + right[:, None] * t


def match(
    image: np.ndarray, design_ids: tuple[str, ...], angles: tuple[float, ...] = ANGLES, gray: bool = False
) -> np.ndarray:
    """How much of what is not background each drawing explains at its best pose, float [len(design_ids)], at most 1.

    `image` is uint8 [S, S, 3]; `gray` compares luma only.
    """
    small = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32) / 255
    small = _gray(small) if gray else small
    rgb_f, mask_f, energy, area, owners = _templates(design_ids, angles, gray)
    planes = np.zeros((6, PADDED, PADDED), dtype=np.float32)
    planes[:3, :SIDE, :SIDE] = small.transpose(2, 0, 1)
    difference = ((small - _backdrop(small)) ** 2).sum(2)
    planes[3, :SIDE, :SIDE] = difference
    planes[4, :SIDE, :SIDE] = (small**2).sum(2)
    planes[5, :SIDE, :SIDE] = 1
    spectra = torch.fft.rfft2(torch.from_numpy(planes))

    def correlate(spectrum: torch.Tensor, template: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft2((spectrum * template.conj()).sum(1), s=(PADDED, PADDED))

    cross = correlate(spectra[:3], rgb_f)
    explained, square, inside = (correlate(spectra[k : k + 1], mask_f) for k in (3, 4, 5))
    # The light on a sprite is a gain near one; a free gain would let any dark shape match any other.
    gain = (cross / energy.clamp(min=1e-3)[:, None, None]).clamp(0.7, 1.2)
    residual = square - 2 * gain * cross + gain.square() * energy[:, None, None]
    score = (explained - residual) / max(float(difference.sum()), 1e-3)
    score = torch.where(inside >= 0.9 * area[:, None, None], score, -1.0).flatten(1).amax(1)
    return torch.full((len(design_ids),), -1.0).scatter_reduce(0, owners, score, "amax").numpy()


@functools.cache
def _distractors(concept: str, count: int = 40) -> tuple[str, ...]:
    """One drawing of each of the most frequent other concepts."""
    others = [c for c in sprites.load().concepts if c.name != concept and c.split == "train"][:count]
    return tuple(sprites.load().members(c.name, "train")[0].id for c in others)


def _profile(image: np.ndarray) -> np.ndarray:
    """What tells backgrounds apart, from the picture's border: colour by height, contrast along rows and columns."""
    small = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BOX), dtype=np.float32) / 255
    sides = np.concatenate([small[:, :4], small[:, -4:]], axis=1)
    ends = np.concatenate([small[:3], small[-3:]], axis=0)
    heights = sides.reshape(8, 4, 8, 3).mean((1, 2))
    contrast = [np.abs(np.diff(a, axis=i)).mean((0, 1)) * 2 for a in (sides, ends) for i in (0, 1)]
    return np.concatenate([heights.ravel() * 0.6, ends[:3].mean((0, 1)), ends[-3:].mean((0, 1)), *contrast])


@functools.cache
def _background_profiles() -> tuple[tuple[str, ...], np.ndarray]:
    names = backgrounds.every_name()
    drawn = [
        _profile(backgrounds.draw(name, scenes.rng_for("profile", name, k), 64).astype(np.uint8))
        for name in names
        for k in range(6)
    ]
    return tuple(name for name in names for _ in range(6)), np.stack(drawn)


def background_of(image: np.ndarray) -> str:
    """The background name whose renderings are nearest to the picture's border."""
    names, profiles = _background_profiles()
    distance = np.abs(profiles - _profile(image)).sum(1)
    return names[int(distance.argmin())]


def check(image: Image.Image | np.ndarray, design_id: str, prompt: dict[str, Any]) -> dict[str, Any]:
    """Is the subject, its concept and the prompt's background in the picture?

    Args:
        image: PIL image or uint8 [S, S, 3].
        design_id: the subject's drawing.
        prompt: an entry of `suite.PROMPTS`.

    Returns:
        identity, concept: bool; background: bool, or None where the prompt names none or its style repaints it;
        best_design: the drawing of the concept that explains most; score: how much; margin: by how much the subject
        is ahead of the best other drawing.
    """
    pixels = np.asarray(image.convert("RGB")) if isinstance(image, Image.Image) else image
    world = sprites.load()
    own = world.designs[design_id]
    members = tuple(d.id for d in world.members(own.concept))
    repainted = prompt.get("style") in ("black and white", "sepia", "neon")
    scores = match(pixels, members, gray=repainted)
    same = np.array([world.designs[i].identity == own.identity for i in members])
    best = int(scores.argmax())
    rival = float(scores[~same].max()) if (~same).any() else -1.0
    wanted = prompt.get("background")
    others = match(pixels, _distractors(own.concept), angles=(0.0,), gray=repainted)
    exempt = {prompt.get("other")}
    names = [world.designs[i].concept for i in _distractors(own.concept)]
    rivals = [float(s) for s, name in zip(others, names, strict=True) if name not in exempt]
    concept = bool(scores[best] > max(rivals))
    return {
        # One drawing of the concept always explains most, also of a blank picture: it must be that concept first.
        "identity": concept and bool(same[best]),
        "concept": concept,
        "background": None if wanted is None or repainted else background_of(pixels) == wanted,
        "best_design": members[best],
        "score": float(scores[best]),
        "margin": float(scores[same].max() - rival),
        "found_background": background_of(pixels),
    }
