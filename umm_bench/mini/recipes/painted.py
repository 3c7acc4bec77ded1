"""Single sprites in looks, painted, posed and put on backgrounds a batch at a time.

The composer takes two milliseconds a picture, longer than a small tower takes to learn from it. These are its pictures
but for resampling: the same regions, marks, shading, poses and light, and no look that is held out.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from umm_bench.mini.recipes.common import made_ahead
from umm_bench.mini.recipes.singles import Single, near_words, training_names
from umm_bench.mini.world import backgrounds, looks, scenes, sprites
from umm_bench.mini.world.colors import PALETTE, vector
from umm_bench.mini.world.looks import Look
from umm_bench.mini.world.scenes import Placement

BACKGROUNDS = 4096  # drawn once
SHARPER = 2  # drawn at so many times the size, then averaged

COLORS_N3 = torch.tensor(np.stack([vector(*PALETTE[color]) for color in looks.COLORS]), dtype=torch.float32)


@dataclass(frozen=True)
class Atlas:
    """The training drawings: straight colours [N, 3, 96, 96], opacity and shading [N, 96, 96], regions [N, 96, 96].

    Colours and opacity are uint8; shading is float16 and of the pixel's own region; regions are those of `looks`.
    """

    ids: tuple[str, ...]
    colors: torch.Tensor
    opacity: torch.Tensor
    shading: torch.Tensor
    regions: torch.Tensor

    @functools.cached_property
    def rows(self) -> dict[str, int]:
        return {drawing: row for row, drawing in enumerate(self.ids)}


def _layers(design_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    world = sprites.load()
    rgba, kinds = world.rgba(design_id), world.regions(design_id)
    shade = np.ones(kinds.shape, np.float16)
    for kind in (looks.MAIN, looks.SECOND):
        region = kinds == kind
        shade[region] = looks.shading(rgba, region)[region]
    return rgba, shade, kinds


@functools.cache
def atlas() -> Atlas:
    """Made once a process, by all processors: finding the regions takes ten milliseconds a drawing."""
    ids = tuple(design.id for design in sprites.load().designs.values() if design.split == "train")
    alone = multiprocessing.current_process().daemon  # a worker, which may start none itself
    return make_atlas(ids, 0 if alone else os.cpu_count() or 1)


def make_atlas(ids: Sequence[str], workers: int = 0) -> Atlas:
    layers = list(made_ahead(lambda i: _layers(ids[i]), range(len(ids)), workers))
    rgba, shade, kinds = (np.stack(layer) for layer in zip(*layers, strict=True))
    return Atlas(
        tuple(ids),
        torch.from_numpy(rgba[..., :3]).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(rgba[..., 3].copy()),
        torch.from_numpy(shade),
        torch.from_numpy(kinds),
    )


def paint(of: Atlas, rows_B: Sequence[int], worn: Sequence[Look]) -> torch.Tensor:
    """The drawings in looks, float32 [B, 4, 96, 96] in 0 to 255 and 0 to 1, colours times opacity."""
    rows = torch.tensor(rows_B)
    rgb_B3HW, shade_BHW = of.colors[rows].float(), of.shading[rows].float()
    kinds_BHW = of.regions[rows]
    side = kinds_BHW.shape[-1]
    marked_BHW = torch.stack([_marks(look.pattern, side) for look in worn]) & (kinds_BHW == looks.MAIN)
    for color_names, where_BHW in (
        ([look.main for look in worn], kinds_BHW == looks.MAIN),
        ([look.second for look in worn], kinds_BHW == looks.SECOND),
        ([look.mark for look in worn], marked_BHW),
    ):
        given = torch.tensor([name is not None for name in color_names])
        chosen = torch.tensor([looks.COLORS.index(name) if name else 0 for name in color_names])
        color_B3HW = (COLORS_N3[chosen][..., None, None] * shade_BHW[:, None]).clamp(max=255)
        rgb_B3HW = torch.where((where_BHW & given[:, None, None])[:, None], color_B3HW, rgb_B3HW)
    opacity_B1HW = of.opacity[rows][:, None].float() / 255
    return torch.cat([rgb_B3HW * opacity_B1HW, opacity_B1HW], 1)


@functools.cache
def _marks(pattern: str | None, side: int) -> torch.Tensor:
    return torch.from_numpy(looks.marks(pattern, side)) if pattern else torch.zeros(side, side, dtype=torch.bool)


def put(painted_B4HW: torch.Tensor, on_B3SS: torch.Tensor, at: Sequence[Placement]) -> torch.Tensor:
    """The painted drawings on their backgrounds, [B, 3, S, S], in 0 to 255; as `scenes.paste` but for resampling."""
    size = on_B3SS.shape[-1]
    theta_B23 = torch.tensor([_affine(placement) for placement in at], dtype=torch.float32)
    wide = SHARPER * size
    grid = F.affine_grid(theta_B23, [len(at), 4, wide, wide], align_corners=False)
    layer = F.avg_pool2d(F.grid_sample(painted_B4HW, grid, align_corners=False), SHARPER)
    gain_B311 = torch.tensor([placement.gain for placement in at], dtype=torch.float32)[..., None, None]
    return (on_B3SS * (1 - layer[:, 3:]) + layer[:, :3] * gain_B311).clamp(0, 255)


def _affine(at: Placement) -> list[list[float]]:
    """From places in the picture to places in the drawing, both in -1 to 1."""
    turn, flip = math.radians(at.angle if abs(at.angle) > 0.5 else 0.0), -1.0 if at.mirror else 1.0
    across = [flip * math.cos(turn) / at.scale, -flip * math.sin(turn) / at.scale]
    down = [math.sin(turn) / at.scale, math.cos(turn) / at.scale]
    x, y = 2 * at.x - 1, 2 * at.y - 1
    return [[*row, -(row[0] * x + row[1] * y)] for row in (across, down)]


@functools.cache
def grounds(size: int) -> torch.Tensor:
    """Backgrounds as the composer draws them, uint8 [BACKGROUNDS, 3, S, S]."""
    rngs = [scenes.rng_for("painted", "ground", i) for i in range(BACKGROUNDS)]
    drawn = [backgrounds.draw(backgrounds.choose(rng).name, rng, size) for rng in rngs]
    return torch.from_numpy(np.stack(drawn).clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2).contiguous()


def singles(key: str, count: int, size: int, looked: float, near: int) -> list[Single]:
    """So many training sprites, every concept as likely as another; `looked` of them wear a look.

    `near` near misses of each look come with it, as words.
    """
    world, names, of = sprites.load(), training_names(), atlas()
    rows, worn, places, kept = [], [], [], []
    for i in range(count):
        rng = scenes.rng_for("painted", key, i)
        name = names[int(rng.integers(len(names)))]
        members = world.members(name, "train")
        drawing = members[int(rng.integers(len(members)))].id
        scale = float(rng.uniform(0.45, 0.95))
        x, y = 0.5 + rng.uniform(-0.5, 0.5, 2) * (1.05 - scale)
        places.append(scenes.random_placement(rng, float(x), float(y), scale))
        rows.append(of.rows[drawing])
        second = bool((of.regions[rows[-1]] == looks.SECOND).any())
        look = looks.draw(rng, name, second, held=False) if rng.random() < looked else None
        worn.append(look or Look())
        words = scenes.article(look.describe(name) if look else name)
        kept.append((name, words, look, near_words(name, look, second, rng, near) if look else ()))
    behind = torch.from_numpy(scenes.rng_for("painted", "grounds", key).integers(BACKGROUNDS, size=count))
    images = put(paint(of, rows, worn), grounds(size)[behind].float(), places)
    made = images.permute(0, 2, 3, 1).to(torch.uint8).numpy()
    return [Single(image, *rest) for image, rest in zip(made, kept, strict=True)]
