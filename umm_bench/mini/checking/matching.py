"""Analysis by synthesis: how well does a drawing, laid over a picture at its best pose, explain what is seen?

A coarse search (`matching_search`) gives each drawing a start; Gauss-Newton steps on the rendered drawing settle its
pose. What counts is the squared error that the drawing takes away from the background alone, so a drawing must fit in
colour, detail and outline.

Shapes: N drawings with a pose each, C colours, H height, W width.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from umm_bench.mini.world import sprites
from umm_bench.mini.world.colors import LUMA

SIDE = 64  # pictures are looked at in this size
NEAR = 0.03  # squared distance of colours in [0, 1] that still counts as explained
LIGHT = (0.75, 1.15)  # gain of the light on a sprite; a free gain would let any dark shape match any other
ITERATIONS = 5  # of Gauss-Newton
STEPS = (0.01, 0.01, 0.02, 0.03)  # of x, y, log scale and angle, for the derivatives
LIMITS = (0.04, 0.04, 0.12, 0.2)  # the most that one Gauss-Newton step may change
LOWEST = torch.tensor([-0.1, -0.1, float(np.log(0.15)), -0.8])
HIGHEST = torch.tensor([1.1, 1.1, float(np.log(1.3)), 0.8])


@dataclass(frozen=True)
class Match:
    """A drawing at its best pose: centre and scale in shares of the frame, angle in degrees.

    `explained` is the squared error it takes away, in colours of [0, 1] summed over the picture; `differs` is all that
    differs from the background where the drawing lies.
    """

    design: str
    x: float
    y: float
    scale: float
    angle: float
    mirror: bool
    explained: float
    differs: float = 0.0

    @property
    def share(self) -> float:
        """How much of what differs is explained; a little over 1 where the drawing's edge explains more still."""
        return self.explained / max(self.differs, 1.0)

    def holds(self, x: Tensor, y: Tensor) -> Tensor:
        """Whether points lie in the match's square."""
        return ((x - self.x).abs() < self.scale / 2) & ((y - self.y).abs() < self.scale / 2)


class Picture:
    """A picture prepared for matching; `gray` compares luma only, `pool` is the side of the cells that are compared."""

    def __init__(self, image: np.ndarray, gray: bool = False, pool: int = 2) -> None:
        if image.shape[:2] != (SIDE, SIDE):
            image = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX))
        pixels = image.astype(np.float32) / 255
        self.gray, self.pool = gray, pool
        self.pixels_HWC = gray_levels(pixels) if gray else pixels
        self.backdrop_HWC = _backdrop(self.pixels_HWC)
        self.weight_HW = np.ones((SIDE, SIDE), np.float32)

    def with_layer(self, match: Match) -> Picture:
        """The picture with `match` taken for a part of what is behind; what that explains is not to be seen."""
        layer, gain = _layer(self, match)
        behind_HWC = layer[:3].permute(1, 2, 0).numpy() * gain + self.backdrop_HWC * (1 - layer[3].numpy()[..., None])
        near = ((self.pixels_HWC - behind_HWC) ** 2).sum(2) < NEAR
        rest = Picture.__new__(Picture)
        rest.gray, rest.pool, rest.pixels_HWC, rest.backdrop_HWC = self.gray, self.pool, self.pixels_HWC, behind_HWC
        rest.weight_HW = np.where((layer[3].numpy() > 0.1) & near, np.float32(0), self.weight_HW)
        return rest

    @property
    def differs(self) -> float:
        """All that differs from what is behind, as `Match.explained`: no drawing explains more."""
        return float((self.weight_HW * ((self.pixels_HWC - self.backdrop_HWC) ** 2).sum(2)).sum())

    def cells(self, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """Picture and backdrop [3, H, W] and weight [H, W] in cells of `side` pixels."""
        planes = np.concatenate([self.pixels_HWC, self.backdrop_HWC, self.weight_HW[..., None]], -1)
        pooled = F.avg_pool2d(torch.from_numpy(planes).permute(2, 0, 1)[None], side)[0]
        return pooled[:3], pooled[3:6], pooled[6]


def gray_levels(rgb: np.ndarray) -> np.ndarray:
    return np.repeat((rgb @ LUMA)[..., None], 3, -1)


def _backdrop(pixels_HWC: np.ndarray) -> np.ndarray:
    """The background as its sides tell it: each row goes from its left to its right end's colour."""
    left, right = np.median(pixels_HWC[:, :4], 1), np.median(pixels_HWC[:, -4:], 1)
    t = np.linspace(0, 1, pixels_HWC.shape[1], dtype=np.float32)[None, :, None]
    return left[:, None] * (1 - t) + right[:, None] * t


@functools.lru_cache(maxsize=4096)
def texture(design_id: str, side: int, kind: str = "drawing") -> Tensor:
    """A sprite's premultiplied colours and coverage, [4, 96, 96] in [0, 1], without what `side` pixels cannot show.

    `kind` "flat" is its outline in white, "ellipse" an ellipse of its extent in white, "blurred" what is left of it
    when a quarter of its side is one blur.
    """
    rgba = sprites.load().rgba(design_id)
    if kind == "ellipse":
        rgba = _ellipse(rgba)
    elif kind == "flat":
        rgba = np.concatenate([np.full_like(rgba[..., :3], 255), rgba[..., 3:]], -1)
    sprite = Image.fromarray(rgba).convert("RGBa")
    full = sprite.size
    sprite = sprite.resize((side, side), Image.Resampling.BOX).resize(full, Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(sprite, dtype=np.float32) / 255).permute(2, 0, 1)
    if kind == "blurred":
        width = full[0] // 4 + 1
        pixels = F.avg_pool2d(pixels[None], width, 1, width // 2, count_include_pad=True)[0]
    return pixels


def _ellipse(rgba: np.ndarray) -> np.ndarray:
    solid = rgba[..., 3] > 128
    rows, cols = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    centre = (rows[0] + rows[-1]) / 2, (cols[0] + cols[-1]) / 2
    half = (rows[-1] - rows[0] + 1) / 2, (cols[-1] - cols[0] + 1) / 2
    y, x = np.mgrid[: rgba.shape[0], : rgba.shape[1]]
    inside = ((y - centre[0]) / half[0]) ** 2 + ((x - centre[1]) / half[1]) ** 2 <= 1
    return np.repeat((inside * 255).astype(np.uint8)[..., None], 4, -1)


def poses(matches: list[Match]) -> Tensor:
    """x, y, log scale, angle in radians: [N, 4]."""
    return torch.tensor([[m.x, m.y, np.log(m.scale), np.deg2rad(m.angle)] for m in matches], dtype=torch.float32)


def flips(matches: list[Match]) -> Tensor:
    """-1 for what is mirrored, else 1: [N]."""
    return torch.tensor([-1.0 if m.mirror else 1.0 for m in matches])


def render(textures_N4HW: Tensor, pose_N4: Tensor, flip_N: Tensor) -> Tensor:
    """The drawings in an empty frame, premultiplied colours and coverage [N, 4, SIDE, SIDE]."""
    x, y, log_scale, angle = pose_N4.unbind(1)
    half = log_scale.exp() / 2
    cos, sin = angle.cos() / half, angle.sin() / half
    # affine_grid's frame is [-1, 1]; a point of the frame is turned back into the sprite's own [-1, 1].
    u, v = 2 * x - 1, 2 * y - 1
    rows = torch.stack(
        [
            torch.stack([flip_N * cos / 2, -flip_N * sin / 2, flip_N * (-cos * u + sin * v) / 2], 1),
            torch.stack([sin / 2, cos / 2, (-sin * u - cos * v) / 2], 1),
        ],
        1,
    )
    grid = F.affine_grid(rows, [len(rows), 4, SIDE, SIDE], align_corners=False)
    return F.grid_sample(textures_N4HW, grid, align_corners=False)


def _textures(matches: list[Match], kinds: list[str], gray: bool) -> Tensor:
    stack = torch.stack(
        [texture(m.design, max(4, round(m.scale * SIDE)), kind) for m, kind in zip(matches, kinds, strict=True)]
    )
    if gray:
        luma = (stack[:, :3] * torch.from_numpy(LUMA)[None, :, None, None]).sum(1, keepdim=True)
        stack = torch.cat([luma.expand(-1, 3, -1, -1), stack[:, 3:]], 1)
    return stack


def _layer(picture: Picture, match: Match) -> tuple[Tensor, np.ndarray]:
    """The match as it lies in the picture: premultiplied colours and coverage [4, SIDE, SIDE], the light's gain [3]."""
    layer = render(_textures([match], ["drawing"], picture.gray), poses([match]), flips([match]))[0]
    color, cover = layer[:3].permute(1, 2, 0).numpy(), layer[3].numpy()[..., None]
    weighted = picture.weight_HW[..., None] * color
    wanted = picture.pixels_HWC - picture.backdrop_HWC * (1 - cover)
    gain = (weighted * wanted).sum((0, 1)) / np.maximum((weighted * color).sum((0, 1)), 1e-6)
    return layer, gain.clip(*LIGHT).astype(np.float32)


def covered(matches: list[Match]) -> np.ndarray:
    """What drawings cover, with a pixel around them, bool [SIDE, SIDE]."""
    if not matches:
        return np.zeros((SIDE, SIDE), bool)
    layers = render(_textures(matches, ["drawing"] * len(matches), False), poses(matches), flips(matches))
    return (F.max_pool2d(layers[:, 3].amax(0)[None], 3, 1, 1)[0] > 0.1).numpy()


def box(match: Match) -> tuple[float, float, float, float]:
    """What a drawing covers of the frame, xyxy in [0, 1]; its centre where nothing of it is seen."""
    solid = render(_textures([match], ["drawing"], False), poses([match]), flips([match]))[0, 3].numpy() > 0.3
    rows, cols = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    if not len(rows):
        return match.x, match.y, match.x, match.y
    left, top, right, bottom = cols[0], rows[0], cols[-1] + 1, rows[-1] + 1
    return float(left) / SIDE, float(top) / SIDE, float(right) / SIDE, float(bottom) / SIDE


def settle(picture: Picture, matches: list[Match], kinds: list[str] | None = None) -> list[Match]:
    """The matches with their poses settled by Gauss-Newton steps. `kinds` are textures; flat ones have any colour."""
    kinds = kinds or ["drawing"] * len(matches)
    textures = _textures(matches, kinds, picture.gray)
    flip_N = flips(matches)
    free = torch.tensor([kind in ("flat", "ellipse") for kind in kinds])[:, None]
    low, high = torch.where(free, 0.0, LIGHT[0]), torch.where(free, 1.0, LIGHT[1])
    image, backdrop, weight = picture.cells(picture.pool)
    cell = picture.pool**2

    def residual(pose_N4: Tensor) -> tuple[Tensor, Tensor]:
        layer = F.avg_pool2d(render(textures, pose_N4, flip_N), picture.pool)
        color, cover = layer[:, :3], layer[:, 3:]
        wanted = image - backdrop * (1 - cover)
        gain = (weight * color * wanted).sum((2, 3)) / (weight * color.square()).sum((2, 3)).clamp(min=1e-6)
        gain = torch.minimum(torch.maximum(gain, low), high)
        return (weight.sqrt() * (wanted - gain[..., None, None] * color)).flatten(1), cover

    pose = poses(matches)
    limits, damping = torch.tensor(LIMITS), torch.full((len(matches), 1), 0.01)
    r, cover = residual(pose)
    for _ in range(ITERATIONS):
        columns = []
        for k, size in enumerate(STEPS):
            moved = pose.clone()
            moved[:, k] += size
            columns.append((residual(moved)[0] - r) / size)
        jacobian = torch.stack(columns, -1)
        normal = jacobian.mT @ jacobian
        diagonal = normal.diagonal(dim1=1, dim2=2)
        damped = normal + torch.diag_embed(damping * diagonal + 1e-4)
        step = torch.linalg.solve(damped, -(jacobian.mT @ r[..., None])[..., 0])
        trial = pose + torch.maximum(torch.minimum(step, limits), -limits)
        trial = torch.maximum(torch.minimum(trial, HIGHEST), LOWEST)
        r_trial, cover_trial = residual(trial)
        better = r_trial.square().sum(1) < r.square().sum(1)
        pose = torch.where(better[:, None], trial, pose)
        r = torch.where(better[:, None], r_trial, r)
        cover = torch.where(better[:, None, None, None], cover_trial, cover)
        damping = torch.where(better[:, None], damping / 4, damping * 8)
    difference = weight * (image - backdrop).square().sum(0)
    explained = cell * (difference.sum() - r.square().sum(1))
    local = cell * (difference * cover[:, 0]).sum((1, 2))
    return [
        replace(
            m,
            x=float(p[0]),
            y=float(p[1]),
            scale=float(p[2].exp()),
            angle=float(p[3].rad2deg()),
            explained=float(e),
            differs=float(d),
        )
        for m, p, e, d in zip(matches, pose, explained, local, strict=True)
    ]
