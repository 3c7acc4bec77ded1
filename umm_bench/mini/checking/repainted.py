"""Which look does a drawing have in a picture, once its pose is known?

A drawing in a look is a sum of layers: what stays as drawn, the ground and the marks of its main region, its second
region, each in one of the palette's colours or as drawn. Seen in the sprite's own frame, the squared error that a look
takes away from the background alone is a sum over pairs of layers, so that all thousands of looks are weighed at once.

Shapes: A layers, M main colours, S second colours, X patterns with their colours, C channels, P pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from umm_bench.mini.checking import matching, matching_search
from umm_bench.mini.checking.matching import LIGHT, SIDE, Match, Picture, flips, gray_levels, poses
from umm_bench.mini.world import looks, sprites
from umm_bench.mini.world.colors import PALETTE, vector
from umm_bench.mini.world.looks import COLORS, FIXED, MAIN, PARTS, PATTERNS, SECOND, Look

VALUES: tuple[str | None, ...] = (None, *COLORS)  # of a region; None is as drawn
MARKS: tuple[tuple[str | None, str | None], ...] = ((None, None), *((p, c) for p in PATTERNS for c in COLORS))
POSES = 6  # coarse ones of a drawing whose look is asked for, plain and mirrored each
STARTS = 4  # of these, so many are settled
GRIDS = (12, 16, 24, 32)  # sides of the frame in which looks are weighed: none finer than the picture shows the sprite
ALIKE = 1.5  # looks whose pictures differ by less (as `explained`) cannot be told apart
TOLERANCE = 0.2  # of a look's lead over another that counts as none, where 1 is the picture of the one
MAIN_0, SECOND_0 = 1, 1 + len(VALUES)  # rows of the layers: what is fixed, main regions without a pattern, second ones,
PATTERN_0 = SECOND_0 + len(VALUES)  # and for each pattern the grounds and the marks
A_PATTERN = len(VALUES) + len(COLORS)


@functools.lru_cache(maxsize=128)
def _layers(design_id: str, side: int, gray: bool, soft: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Premultiplied colours of the layers [C, A, P], their products [C, A, A], and the coverage [P], all in [0, 1].

    `soft` ones are blurred as generators and their decoders do, by three of the cells.
    """
    planes_ACHW = _planes(design_id, side, gray)
    planes = (F.avg_pool2d(planes_ACHW, 3, 1, 1) if soft else planes_ACHW).flatten(2).transpose(0, 1)
    layers_CAP = planes[:, :-1].contiguous()
    return layers_CAP, layers_CAP @ layers_CAP.mT, planes[0, -1].clone()


@functools.lru_cache(maxsize=128)
def _planes(design_id: str, side: int, gray: bool) -> Tensor:
    """The layers and, last, the coverage, in cells: [A + 1, C, side, side]."""
    world = sprites.load()
    rgba, kinds = world.rgba(design_id), world.regions(design_id)
    alpha = rgba[..., 3:].astype(np.float32) / 255
    drawn = _premultiplied(rgba[..., :3].astype(np.float32), alpha, gray)
    cell = len(rgba) // side

    def pooled(planes: np.ndarray) -> np.ndarray:
        rows = planes.reshape(len(planes), side, cell, -1).mean(2)
        return rows.reshape(len(planes), side, side, cell, 3).mean(3)

    regions = {}
    for kind in (MAIN, SECOND):
        region = kinds == kind
        shade = looks.shading(rgba, region)[..., None]
        colors = np.stack([np.clip(vector(*PALETTE[color]) * shade, 0, 255) for color in COLORS])
        painted = _premultiplied(colors, alpha, gray)
        regions[kind] = np.concatenate([drawn[None], painted]) * region[..., None]
    main = pooled(regions[MAIN])
    layers = [pooled(drawn[None] * (kinds == FIXED)[..., None]), main, pooled(regions[SECOND])]
    for pattern in PATTERNS:
        on = pooled(regions[MAIN] * looks.marks(pattern, len(rgba))[..., None])
        layers += [main - on, on[1:]]
    cover = pooled(np.repeat(alpha, 3, -1)[None])
    return torch.from_numpy(np.concatenate([*layers, cover])).permute(0, 3, 1, 2).contiguous()


def _premultiplied(rgb: np.ndarray, alpha: np.ndarray, gray: bool) -> np.ndarray:
    return (gray_levels(rgb / 255) if gray else rgb / 255) * alpha


def _seen(picture: Picture, match: Match, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Picture and backdrop [C, P] and weight [P] in the sprite's frame, each cell the mean of four points."""
    weight_HW1 = picture.weight_HW[..., None]
    planes = np.concatenate([picture.pixels_HWC, picture.backdrop_HWC, np.ones_like(weight_HW1), weight_HW1], -1)
    x, y, log_scale, angle = poses([match])[0]
    flip, scale, cos, sin = flips([match])[0], log_scale.exp(), angle.cos(), angle.sin()
    rows = torch.stack(
        [
            torch.stack([scale * cos * flip, scale * sin, 2 * x - 1]),
            torch.stack([-scale * sin * flip, scale * cos, 2 * y - 1]),
        ]
    )
    grid = F.affine_grid(rows[None], [1, 8, 2 * side, 2 * side], align_corners=False)
    seen = F.grid_sample(torch.from_numpy(planes).permute(2, 0, 1)[None], grid, align_corners=False)
    flat = F.avg_pool2d(seen, 2)[0].flatten(1)
    inside = flat[6].clamp(min=1e-3)  # outside of the frame all is 0, the weight as well
    return flat[:3] / inside, flat[3:6] / inside, flat[7]


@dataclass(frozen=True)
class Reading:
    """What each look of a drawing explains at a pose, [M, S, X] by VALUES, VALUES and MARKS, as `Match.explained`."""

    explained_MSX: Tensor
    products_CAA: Tensor
    gain_CMSX: Tensor
    has_second: bool

    @property
    def look(self) -> Look:
        """The look that explains most."""
        return _look(int(self.explained_MSX.argmax()))

    def of(self, look: Look) -> float:
        if not self.has_second:
            look = replace(look, second=None)
        return float(self.explained_MSX[_index(look)])

    def apart(self, one: Look, other: Look) -> float:
        """How far two looks of the drawing are from each other, each in its best light, as `Match.explained`."""
        rows_CA = [self.gain_CMSX[:, *_index(look)][:, None] * _rows(look) for look in (one, other)]
        difference_CA = rows_CA[0] - rows_CA[1]
        return float(torch.einsum("ca,cab,cb->", difference_CA, self.products_CAA, difference_CA))

    def best(self, **parts: str | None) -> Look | None:
        """The look that explains most of those with the given parts; None if no look has them."""
        keep = torch.ones_like(self.explained_MSX, dtype=torch.bool)
        if "main" in parts:
            keep &= _one_hot(VALUES.index(parts["main"]), len(VALUES))[:, None, None]
        if "second" in parts:
            keep &= _one_hot(VALUES.index(parts["second"]), len(VALUES))[None, :, None]
        for at, part in enumerate(("pattern", "mark")):
            if part in parts:
                keep &= torch.tensor([marks[at] == parts[part] for marks in MARKS])[None, None, :]
        explained = torch.where(keep, self.explained_MSX, -torch.inf)
        return _look(int(explained.argmax())) if torch.isfinite(explained).any() else None


def _one_hot(at: int, length: int) -> Tensor:
    return torch.arange(length) == at


def _index(look: Look) -> tuple[int, int, int]:
    return VALUES.index(look.main), VALUES.index(look.second), MARKS.index((look.pattern, look.mark))


def _look(flat: int) -> Look:
    main, second, marks = np.unravel_index(flat, (len(VALUES), len(VALUES), len(MARKS)))
    return Look(VALUES[main], VALUES[second], *MARKS[marks])


def _rows(look: Look) -> Tensor:
    """Which layers a look is made of, 0 or 1 [A]."""
    main, second, _ = _index(look)
    rows = torch.zeros(PATTERN_0 + len(PATTERNS) * A_PATTERN)
    rows[[0, SECOND_0 + second]] = 1
    if look.pattern is None:
        rows[MAIN_0 + main] = 1
    else:
        at = PATTERN_0 + PATTERNS.index(look.pattern) * A_PATTERN
        rows[[at + main, at + len(VALUES) + COLORS.index(str(look.mark))]] = 1
    return rows


def read(picture: Picture, match: Match, soft: bool = False) -> Reading:
    """Weigh all looks of a match's drawing at its pose, sharp or `soft`."""
    design_id, _ = looks.split_id(match.design)
    shown = match.scale * SIDE
    side = max((g for g in GRIDS if g <= shown * 2 / picture.pool), default=GRIDS[0])
    layers_CAP, products_CAA, cover_P = _layers(design_id, side, picture.gray, soft)
    image_CP, backdrop_CP, weight_P = _seen(picture, match, side)
    if float((weight_P * cover_P).sum()) < 0.98 * float(cover_P.sum()):
        products_CAA = (layers_CAP * weight_P) @ layers_CAP.mT
    wanted_CP = image_CP - backdrop_CP * (1 - cover_P)
    number_CA = torch.einsum("cap,cp->ca", layers_CAP, wanted_CP * weight_P)
    has_second = sprites.load().has_second(design_id)
    cross, energy = _cross(number_CA), _energy(products_CAA)
    gain = (cross / energy.clamp(min=1e-6)).clamp(*LIGHT)
    gap = (weight_P * ((image_CP - backdrop_CP).square() - wanted_CP.square())).sum()
    cell = (shown / side) ** 2
    explained = cell * (gap + (2 * gain * cross - gain.square() * energy).sum(0))
    if not has_second:
        explained[:, 1:] = -torch.inf
    explained[~_possible()] = -torch.inf
    return Reading(explained, cell * products_CAA, gain, has_second)


@functools.cache
def _possible() -> Tensor:
    """Which looks are looks: marks have another colour than their ground, [M, 1, X]; as drawn may be any."""
    same = torch.tensor([[main is not None and main == mark for _, mark in MARKS] for main in VALUES])
    return ~same[:, None, :].expand(-1, len(VALUES), -1)


def _cross(number_CA: Tensor) -> Tensor:
    """The looks' products with what is wanted, [C, M, S, X], from the layers'."""
    main, second = number_CA[:, MAIN_0:SECOND_0], number_CA[:, SECOND_0:PATTERN_0]
    marked = [main[..., None]]
    for p in range(len(PATTERNS)):
        part = number_CA[:, PATTERN_0 + p * A_PATTERN :][:, :A_PATTERN]
        marked.append(part[:, : len(VALUES), None] + part[:, None, len(VALUES) :])
    return number_CA[:, :1, None, None] + torch.cat(marked, -1)[:, :, None, :] + second[:, None, :, None]


def _energy(products_CAA: Tensor) -> Tensor:
    """The looks' squares, [C, M, S, X], from the layers' products."""
    own = products_CAA.diagonal(dim1=1, dim2=2)
    with_fixed = products_CAA[:, 0]
    second_at = slice(SECOND_0, PATTERN_0)
    main_at = slice(MAIN_0, SECOND_0)
    alone = own + 2 * with_fixed  # of a layer, and of it with what is fixed
    main_MX = [alone[:, main_at, None]]
    with_second_MSX = [2 * products_CAA[:, main_at, second_at, None]]
    for p in range(len(PATTERNS)):
        ground = slice(PATTERN_0 + p * A_PATTERN, PATTERN_0 + p * A_PATTERN + len(VALUES))
        mark = slice(ground.stop, ground.stop + len(COLORS))
        main_MX.append(alone[:, ground, None] + alone[:, None, mark] + 2 * products_CAA[:, ground, mark])
        ground_MS1 = products_CAA[:, ground, second_at, None]
        with_second_MSX.append(2 * (ground_MS1 + products_CAA[:, second_at, mark][:, None]))
    energy = own[:, :1, None, None] + torch.cat(main_MX, -1)[:, :, None, :] + torch.cat(with_second_MSX, -1)
    return energy + alone[:, None, second_at, None]


def repaint(match: Match, look: Look) -> Match:
    """The match's drawing in another look, at the same pose."""
    design_id, _ = looks.split_id(match.design)
    return replace(match, design=design_id if look == Look() else looks.looked(design_id, look))


def settle(
    picture: Picture, starts: Sequence[Match], among: Sequence[Look] | None = None, keep: int | None = None
) -> list[tuple[Match, Reading]]:
    """Matches with their poses settled, each in the look that explains most (of `among`, where that is given).

    Looks are read at the coarse pose, which is settled in them, and read again. Of the starts, those `keep` are
    settled whose looks explain most.
    """
    if not starts:
        return []

    def choose(reading: Reading) -> Look:
        return max(among, key=reading.of) if among else reading.look

    coarse = [read(picture, match) for match in starts]
    promise = np.argsort([-reading.of(choose(reading)) for reading in coarse], kind="stable")[:keep]
    settled = matching.settle(picture, [repaint(starts[n], choose(coarse[n])) for n in promise])
    readings = [_clearest(picture, match) for match in settled]
    again = [n for n, m in enumerate(settled) if repaint(m, choose(readings[n])).design != m.design]
    moved = matching.settle(picture, [repaint(settled[n], choose(readings[n])) for n in again]) if again else []
    for n, match in zip(again, moved, strict=True):
        if match.explained > settled[n].explained:
            settled[n], readings[n] = match, _clearest(picture, match)
    return list(zip(settled, readings, strict=True))


def _clearest(picture: Picture, match: Match) -> Reading:
    """Looks weighed as sharp or as soft as explains more."""
    return max((read(picture, match, soft) for soft in (False, True)), key=lambda r: r.of(r.look))


def read_look(image: np.ndarray, design_id: str) -> tuple[Look, dict[str, float]]:
    """The look in which a picture (uint8 [S, S, 3]) has a drawing, and how clear each of its parts is (`margins`)."""
    picture = Picture(image)
    _, reading = _best(settle(picture, _starts(picture, design_id), keep=STARTS))
    return reading.look, margins(reading, reading.look)


def nearest_look(image: np.ndarray, design_id: str, among: Sequence[Look]) -> int:
    """Which of these looks of a drawing explains most of a picture (uint8 [S, S, 3]), however little that is."""
    picture = Picture(image)
    _, reading = _best(settle(picture, _starts(picture, design_id), among, STARTS))
    return int(np.argmax([reading.of(look) for look in among]))


def _starts(picture: Picture, design_id: str) -> list[Match]:
    """Promising coarse poses of a drawing, whatever its look."""
    return matching_search.search(picture, (design_id,), each=POSES)


def _best(settled: list[tuple[Match, Reading]]) -> tuple[Match, Reading]:
    return max(settled, key=lambda pair: pair[0].explained)


def margins(reading: Reading, look: Look) -> dict[str, float]:
    """How far each part of a look is ahead of the best look that differs in it, in -1..1, as far as it can be told.

    1: the picture is that of the look; 0: it is as near to the other's; -1: it is the other's. What changes nothing
    that can be seen is no other look.
    """
    found = {}
    for part in PARTS:
        others = [reading.best(**{part: value}) for value in _values(part, reading) if value != getattr(look, part)]
        found[part] = min((_margin(reading, look, other) for other in others if other), default=1.0)
    return found


def has(reading: Reading, part: str, value: str | None) -> bool:
    """Whether the look that explains most has this value of a part (of PARTS), as far as that can be told."""
    if getattr(reading.look, part) == value:
        return True
    other = reading.best(**{part: value})
    if other is None or reading.apart(reading.look, other) <= ALIKE:
        return True
    return _margin(reading, reading.look, other) < TOLERANCE


def _values(part: str, reading: Reading) -> tuple[str | None, ...]:
    return (None, *PATTERNS) if part == "pattern" else VALUES if part != "second" or reading.has_second else (None,)


def _margin(reading: Reading, look: Look, other: Look) -> float:
    apart = reading.apart(look, other)
    return (reading.of(look) - reading.of(other)) / apart if apart > ALIKE else 1.0
