"""The coarse search of analysis by synthesis: correlation over places, sizes, turns and mirrorings.

A drawing may be there in any look, so its main and second region each have a colour of their own, whichever explains
most; what a look leaves as drawn is as drawn.

Shapes: N templates, L layers, C channels, P padded side of the correlation, O admissible offsets to a side.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from umm_bench.mini.checking.matching import LIGHT, SIDE, Match, Picture, gray_levels
from umm_bench.mini.world import looks, sprites
from umm_bench.mini.world.colors import LUMA, PALETTE
from umm_bench.mini.world.looks import COLORS, FIXED, MAIN, SECOND

COARSE = 32  # pictures are searched in this size
PADDED = 48
OUTSIDE = 4  # how far a sprite's square may begin outside of the frame
OFFSETS = torch.arange(-OUTSIDE, COARSE)
FARTHEST = PADDED - OUTSIDE  # a square that ended farther out would be seen to begin anew
PLACES = 32  # of each size and turn, the most promising
SCALES = (0.22, 0.28, 0.36, 0.45, 0.55, 0.65, 0.76, 0.88, 1.0)
ANGLES = (-17.0, 0.0, 17.0)  # Gauss-Newton steps reach about as far to both sides


@functools.lru_cache(maxsize=16)
def _planes(design_id: str, gray: bool) -> list[Image.Image]:
    """A drawing's shading of MAIN and SECOND, colours of FIXED, and the coverage of each and of all: premultiplied."""
    rgba, kinds = sprites.load().rgba(design_id), sprites.load().regions(design_id)
    rgb, alpha = rgba[..., :3].astype(np.float32) / 255, rgba[..., 3].astype(np.float32) / 255
    luma = rgb @ LUMA
    shading = [looks.shading(rgba, kinds == kind) * (kinds == kind) for kind in (MAIN, SECOND)]
    fixed = [(luma if gray else channel) * (kinds == FIXED) for channel in np.moveaxis(rgb, -1, 0)]
    shares = [(kinds == kind).astype(np.float32) for kind in (MAIN, SECOND, FIXED)]
    return [Image.fromarray(plane * alpha) for plane in (*shading, *fixed, *shares, np.ones_like(alpha))]


def _drawn(design_id: str, gray: bool) -> np.ndarray:
    """The colours of MAIN and SECOND as drawn, [2, 3] in [0, 1]; black for a region that is not there."""
    rgb, kinds = sprites.load().rgba(design_id)[..., :3].astype(np.float32) / 255, sprites.load().regions(design_id)
    rgb = gray_levels(rgb) if gray else rgb
    regions = [rgb[kinds == kind] for kind in (MAIN, SECOND)]
    return np.stack([np.median(region, 0) if len(region) else np.zeros(3, np.float32) for region in regions])


@functools.lru_cache(maxsize=16)
def _pose(design_id: str, gray: bool, scale: float, angle: float, mirror: bool) -> tuple[np.ndarray, np.ndarray]:
    """A drawing's layers at COARSE resolution [5, h, w], and which pixels it covers [h, w]."""
    if mirror:
        layers, cover = _pose(design_id, gray, scale, -angle, False)
        return layers[..., ::-1].copy(), cover[:, ::-1].copy()
    side = max(6, round(scale * COARSE))
    planes = [plane.resize((side, side), Image.Resampling.BOX) for plane in _planes(design_id, gray)]
    if angle:
        planes = [plane.rotate(angle, Image.Resampling.BILINEAR) for plane in planes]
    main, second, *fixed, of_main, of_second, of_fixed, covers = (np.asarray(plane) for plane in planes)
    # Each pixel is of one layer only, or what layers share would count twice; dark outlines in a region shade it.
    regions = of_main + of_second
    owner = np.where(covers > 0.6, np.stack([of_main, of_second, of_fixed]).argmax(0), -1)
    shaded = [main * regions / np.maximum(of_main, 0.1), second * regions / np.maximum(of_second, 0.1), *fixed]
    mine = [owner == min(n, 2) for n in range(len(shaded))]
    return np.stack(shaded) / np.maximum(covers, 0.2) * mine, covers > 0.6


@dataclass(frozen=True)
class _Templates:
    """Spectra of the layers [N, 5, P, P/2+1] and of the pixels covered [N, P, P/2+1].

    `squares` [N, 3] are the sums of squares of MAIN, SECOND and all that is fixed, `squares_f` their spectra; `inside`
    bool [N, O, O] says where nearly all that is covered lies in the frame; `drawn` [N, 2, 3] are the regions' colours.
    """

    layers_f: Tensor
    cover_f: Tensor
    squares: Tensor
    squares_f: Tensor
    inside: Tensor
    drawn: Tensor
    poses: tuple[tuple[int, float, float, bool], ...]

    def of(self, rows: list[int]) -> _Templates:
        return _Templates(
            self.layers_f[rows],
            self.cover_f[rows],
            self.squares[rows],
            self.squares_f[rows],
            self.inside[rows],
            self.drawn[rows],
            tuple(self.poses[n] for n in rows),
        )


def _correlate(spectrum: Tensor, template: Tensor) -> Tensor:
    """Correlation at the admissible offsets, [..., O, O]."""
    rows = torch.fft.ifft(spectrum * template.conj(), dim=-2)[..., OFFSETS % PADDED, :]
    return torch.fft.irfft(rows, n=PADDED, dim=-1)[..., OFFSETS % PADDED]


@functools.lru_cache(maxsize=8)
def _templates(design_ids: tuple[str, ...], angles: tuple[float, ...], gray: bool) -> _Templates:
    poses = tuple(
        (owner, max(6, round(scale * COARSE)) / COARSE, angle, mirror)
        for owner in range(len(design_ids))
        for scale in SCALES
        for angle in angles
        for mirror in (False, True)
    )
    layers_N, cover_N = torch.zeros(len(poses), 5, PADDED, PADDED), torch.zeros(len(poses), PADDED, PADDED)
    for n, (owner, scale, angle, mirror) in enumerate(poses):
        layers, cover = _pose(design_ids[owner], gray, scale, angle, mirror)
        h, w = cover.shape
        layers_N[n, :, :h, :w] = torch.from_numpy(layers)
        cover_N[n, :h, :w] = torch.from_numpy(cover)
    squares_N = torch.cat([layers_N[:, :2].square(), layers_N[:, 2:].square().sum(1, keepdim=True)], 1)
    layers_f, cover_f, squares_f = (torch.fft.rfft2(plane) for plane in (layers_N, cover_N, squares_N))
    frame = torch.zeros(PADDED, PADDED)
    frame[:COARSE, :COARSE] = 1
    drawn = np.stack([_drawn(design_ids[owner], gray) for owner, *_ in poses])
    inside = _correlate(torch.fft.rfft2(frame), cover_f) >= 0.9 * cover_N.sum((1, 2))[:, None, None]
    for n, (_, scale, *_) in enumerate(poses):
        ends = OFFSETS + round(scale * COARSE) <= FARTHEST
        inside[n] &= ends[:, None] & ends
    return _Templates(layers_f, cover_f, squares_N.sum((2, 3)), squares_f, inside, torch.from_numpy(drawn), poses)


def search(
    picture: Picture,
    design_ids: tuple[str, ...],
    angles: tuple[float, ...] = ANGLES,
    inside: Match | None = None,
    each: int = 1,
) -> list[Match]:
    """The best coarse poses of each drawing in whatever look, `each` of another size or turn, plain and mirrored.

    With `inside`, its centre lies in that match's square, and its size is within a half of the match's. A drawing
    without any admissible pose is left out.
    """
    t = _templates(design_ids, angles, picture.gray)
    if inside is not None:
        t = t.of([n for n, (_, scale, _, _) in enumerate(t.poses) if abs(np.log(scale / inside.scale)) < np.log(1.5)])
    if not t.poses:
        return []
    small, backdrop, weight = picture.cells(SIDE // COARSE)
    planes = torch.zeros(5, PADDED, PADDED)
    planes[:3, :COARSE, :COARSE] = small * weight
    planes[3, :COARSE, :COARSE] = ((small - backdrop).square() - small.square()).sum(0) * weight
    planes[4, :COARSE, :COARSE] = weight
    spectra = torch.fft.rfft2(planes)
    gap = _correlate(spectra[3], t.cover_f)
    squares = t.squares[..., None, None].expand(-1, -1, *gap.shape[1:])
    if weight.min() < 1:  # a correlation with the weights is only worth its time where there are any
        squares = _correlate(spectra[4], t.squares_f)
    fixed = _correlate((spectra[:3] * t.layers_f[:, 2:].conj()).sum(1), torch.ones(1))
    rest = gap + 2 * fixed - squares[:, 2]
    cross = torch.stack(
        [torch.stack([_correlate(c, t.layers_f[:, layer]) for c in spectra[:3]], -1) for layer in (0, 1)], 1
    )
    value = (cross / squares[:, :2, ..., None].clamp(min=1e-3)).clamp(0, 1)
    bound = rest + (value * (2 * cross - value * squares[:, :2, ..., None])).sum((1, 4))
    bound = torch.where(t.inside, bound, -torch.inf)
    if inside is not None:
        half = torch.tensor([pose[1] for pose in t.poses])[:, None, None] / 2
        centre = OFFSETS / COARSE
        near = inside.holds(centre[None, None, :] + half, centre[None, :, None] + half)
        bound = torch.where(near, bound, -torch.inf)
    bound, at = bound.flatten(1).topk(PLACES)
    score = rest.flatten(1).gather(1, at)
    for layer in (0, 1):
        energy = squares[:, layer].flatten(1).gather(1, at)
        layer_cross = cross[:, layer].flatten(1, 2).gather(1, at[..., None].expand(-1, -1, 3))
        score += _in_palette(layer_cross, energy, t.drawn[:, layer], picture.gray, mixed=layer == 0)
    score = torch.where(torch.isfinite(bound), score, -torch.inf)
    best, which = score.max(1)
    at = at.gather(1, which[:, None])[:, 0]
    found: dict[tuple[int, bool], list[Match]] = {}
    for n in torch.argsort(best, descending=True).tolist():
        owner, scale, angle, mirror = t.poses[n]
        y, x = divmod(int(at[n]), len(OFFSETS))
        poses = found.setdefault((owner, mirror), [])
        if torch.isfinite(best[n]) and len(poses) < each:
            explained = float(best[n]) * (SIDE / COARSE) ** 2
            place = (float(OFFSETS[x]) / COARSE + scale / 2, float(OFFSETS[y]) / COARSE + scale / 2)
            poses.append(Match(design_ids[owner], *place, scale, angle, mirror, explained))
    return [match for poses in found.values() for match in poses]


@functools.cache
def _values(gray: bool) -> tuple[Tensor, Tensor]:
    """Colours in [0, 1] that regions can have: one of the palette [11, 3], or two mixed, as marks mix with ground."""
    values = torch.tensor([PALETTE[name] for name in COLORS]) / 255
    if gray:
        values = (values @ torch.from_numpy(LUMA))[:, None].expand(-1, 3)
    one, other = torch.triu_indices(len(values), len(values))
    return values, (values[one] + values[other]) / 2


def _in_palette(cross_NK3: Tensor, energy_NK: Tensor, drawn_N3: Tensor, gray: bool, mixed: bool) -> Tensor:
    """What the best colour explains: of the palette, as drawn, or `mixed` of two, in any light: [N, K]."""
    best = torch.full_like(energy_NK, -torch.inf)
    pure, mixtures = _values(gray)
    marked = (drawn_N3[:, None] + pure) / 2
    for values in (pure[None], drawn_N3[:, None], *((mixtures[None], marked) if mixed else ())):
        along = torch.einsum("nkc,nvc->nkv", cross_NK3, values.expand(len(cross_NK3), -1, -1))
        energy = energy_NK[..., None] * values.square().sum(-1)[:, None]
        gain = (along / energy.clamp(min=1e-3)).clamp(*LIGHT)
        best = torch.maximum(best, (gain * (2 * along - gain * energy)).amax(-1))
    return best
