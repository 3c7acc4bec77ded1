"""The coarse search of analysis by synthesis: correlation over places, sizes, turns and mirrorings.

Shapes: N templates, H height, W width, P padded side of the correlation.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from umm_bench.mini.world import sprites
from umm_bench.mini.world.matching import LIGHT, SIDE, Match, Picture, gray_levels

COARSE = 32  # pictures are searched in this size
PADDED = 64
SCALES = (0.22, 0.28, 0.36, 0.45, 0.55, 0.65, 0.76, 0.88, 1.0)
ANGLES = (-17.0, 0.0, 17.0)  # Gauss-Newton steps reach about as far to both sides


def _pose(design_id: str, scale: float, angle: float, mirror: bool) -> tuple[np.ndarray, np.ndarray]:
    """A sprite at COARSE resolution, colours [h, w, 3] in [0, 1] and coverage [h, w]."""
    sprite = Image.fromarray(sprites.load().rgba(design_id))
    if mirror:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    side = max(6, round(scale * COARSE))
    sprite = sprite.convert("RGBa").resize((side, side), Image.Resampling.BOX)
    if angle:
        sprite = sprite.rotate(angle, Image.Resampling.BILINEAR)
    pixels = np.asarray(sprite, dtype=np.float32) / 255
    coverage = pixels[..., 3]
    mask = (coverage > 0.6).astype(np.float32)
    return pixels[..., :3] / np.maximum(coverage, 0.2)[..., None] * mask[..., None], mask


@dataclass(frozen=True)
class _Templates:
    """Spectra of colours [N, 3, P, P/2+1], their squares and masks [N, 1, P, P/2+1], energies and areas [N]; poses."""

    rgb_f: Tensor
    square_f: Tensor
    mask_f: Tensor
    energy: Tensor
    area: Tensor
    poses: tuple[tuple[int, float, float, bool], ...]

    def of(self, rows: list[int]) -> _Templates:
        return _Templates(
            self.rgb_f[rows],
            self.square_f[rows],
            self.mask_f[rows],
            self.energy[rows],
            self.area[rows],
            tuple(self.poses[n] for n in rows),
        )


@functools.lru_cache(maxsize=16)
def _templates(design_ids: tuple[str, ...], angles: tuple[float, ...], gray: bool) -> _Templates:
    poses = tuple(
        (owner, max(6, round(scale * COARSE)) / COARSE, angle, mirror)
        for owner in range(len(design_ids))
        for scale in SCALES
        for angle in angles
        for mirror in (False, True)
    )
    rgb_N, mask_N = torch.zeros(len(poses), 3, PADDED, PADDED), torch.zeros(len(poses), 1, PADDED, PADDED)
    for n, (owner, scale, angle, mirror) in enumerate(poses):
        rgb, mask = _pose(design_ids[owner], scale, angle, mirror)
        h, w = mask.shape
        rgb_N[n, :, :h, :w] = torch.from_numpy(gray_levels(rgb) if gray else rgb).permute(2, 0, 1)
        mask_N[n, 0, :h, :w] = torch.from_numpy(mask)
    square_N = rgb_N.square().sum(1, keepdim=True)
    rgb_f, square_f, mask_f = (torch.fft.rfft2(plane) for plane in (rgb_N, square_N, mask_N))
    return _Templates(rgb_f, square_f, mask_f, square_N.sum((1, 2, 3)), mask_N.sum((1, 2, 3)), poses)


def search(
    picture: Picture, design_ids: tuple[str, ...], angles: tuple[float, ...] = ANGLES, inside: Match | None = None
) -> list[Match]:
    """The best coarse pose of each drawing, plain and mirrored.

    With `inside`, its centre lies in that match's square, and its size is within a half of the match's. A drawing
    without any admissible pose is left out.
    """
    t = _templates(design_ids, angles, picture.gray)
    if inside is not None:
        t = t.of([n for n, (_, scale, _, _) in enumerate(t.poses) if abs(np.log(scale / inside.scale)) < np.log(1.5)])
    if not t.poses:
        return []
    small, backdrop, weight = picture.cells(SIDE // COARSE)
    planes = torch.zeros(6, PADDED, PADDED)
    planes[:3, :COARSE, :COARSE] = small * weight
    planes[3, :COARSE, :COARSE] = ((small - backdrop).square() - small.square()).sum(0) * weight
    planes[4, :COARSE, :COARSE] = weight
    planes[5, :COARSE, :COARSE] = 1
    spectra = torch.fft.rfft2(planes)

    def correlate(spectrum: Tensor, template: Tensor) -> Tensor:
        return torch.fft.irfft2((spectrum * template.conj()).sum(1), s=(PADDED, PADDED))

    cross = correlate(spectra[:3], t.rgb_f)
    gap, within = correlate(spectra[3][None], t.mask_f), correlate(spectra[5][None], t.mask_f)
    # A correlation with the weights is only worth its time where there are any.
    energy = t.energy[:, None, None] if weight.min() == 1 else correlate(spectra[4][None], t.square_f)
    gain = (cross / energy.clamp(min=1e-3)).clamp(*LIGHT)
    score = gap + 2 * gain * cross - gain.square() * energy
    score = torch.where(within >= 0.9 * t.area[:, None, None], score, -torch.inf)
    offset = torch.arange(PADDED)
    offset = torch.where(offset > PADDED // 2, offset - PADDED, offset)
    if inside is not None:
        half = torch.tensor([pose[1] for pose in t.poses])[:, None, None] / 2
        centre = offset / COARSE
        score = torch.where(inside.holds(centre[None, None, :] + half, centre[None, :, None] + half), score, -torch.inf)
    best, at = score.flatten(1).max(1)
    found: dict[tuple[int, bool], Match] = {}
    for n in torch.argsort(best).tolist():
        owner, scale, angle, mirror = t.poses[n]
        y, x = divmod(int(at[n]), PADDED)
        if torch.isfinite(best[n]):
            explained = float(best[n]) * (SIDE / COARSE) ** 2
            place = (float(offset[x]) / COARSE + scale / 2, float(offset[y]) / COARSE + scale / 2)
            found[owner, mirror] = Match(design_ids[owner], *place, scale, angle, mirror, explained)
    return list(found.values())
