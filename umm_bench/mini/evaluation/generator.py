"""Plain Stable Diffusion: concept, background, two concepts, speed, and what rarity costs."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from figures import Figure
from umm_bench.base import load_base, usual
from umm_bench.mini import family
from umm_bench.mini.checking import checker
from umm_bench.mini.evaluation import detector
from umm_bench.mini.evaluation.embedders import judge
from umm_bench.mini.evaluation.intervals import bootstrap, share
from umm_bench.mini.recipes import encoder as encoder_recipe
from umm_bench.mini.recipes.sd_data import COUNTED
from umm_bench.mini.world import backgrounds, scenes, sprites
from umm_bench.mini.world.sprites import Design

USUAL = usual("mini")
SUBJECT_SCALE = USUAL.subject_guidance * USUAL.guidance_scale
STEPS, BATCH = 20, 10
FREQUENT = 100
PAIRS = 64
RARITY = 150


@functools.cache
def pipeline() -> StableDiffusionPipeline:
    """The family's generator in float32, loaded once a process."""
    return load_base("mini").pipeline()


def draw(prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """One image a prompt and seed, uint8 [N, S, S, 3]; guided, 20 steps, whatever the batch."""
    images = []
    for start in range(0, len(prompts), BATCH):
        part = slice(start, start + BATCH)
        images.append(
            pipeline()(
                list(prompts[part]),
                num_inference_steps=STEPS,
                guidance_scale=USUAL.guidance_scale,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
                output_type="np",
            ).images
        )
    return (np.concatenate(images) * 255).round().astype(np.uint8)


def plain_prompts(names: Sequence[str], *key: object) -> tuple[list[str], list[str]]:
    """ "a NAME on a COLOUR background" for each name, and the colours, which depend on `key`."""
    rng = scenes.rng_for("evaluate", *key)
    grounds = [backgrounds.PLAIN_COLORS[int(rng.integers(len(backgrounds.PLAIN_COLORS)))] for _ in names]
    return [f"{scenes.article(n)} on a {g} background" for n, g in zip(names, grounds, strict=True)], grounds


def frequent() -> list[str]:
    """The 100 concepts that training saw most: what the judge chooses among."""
    return [concept.name for concept in sprites.load().concepts if concept.weight > 0][:FREQUENT]


def right_backgrounds(images: np.ndarray, grounds: Sequence[str]) -> np.ndarray:
    """Whether each picture's background is the one asked for, by its border."""
    return np.array([checker.background_of(image) == g for image, g in zip(images, grounds, strict=True)])


def knows(drawings: Sequence[Design], names: Sequence[str]) -> np.ndarray:
    """Whether the judge itself ranks each drawing's concept first among `names` on a composed picture, bool [N]."""
    real = np.stack([encoder_recipe.view(d.id, scenes.rng_for("evaluate", "rarity", d.id)) for d in drawings])
    return judge().ranks(real, [d.concept for d in drawings], names) < 1


def learnt_drawings(names: Sequence[str]) -> list[Design]:
    """A training design of each concept."""
    return [sprites.load().members(name, "train")[0] for name in names]


def figures() -> Iterator[Figure]:
    """All figures of the generator alone."""
    names = frequent()
    prompts, grounds = plain_prompts(names, "sd")
    pipeline()
    began = time.perf_counter()
    images = draw(prompts, range(len(prompts)))
    seconds = (time.perf_counter() - began) / len(prompts)
    known = knows(learnt_drawings(names), names).mean()
    note = f"among {FREQUENT} concepts; the judge alone, on real drawings: {known:.2f}"
    yield share("sd.concept_accuracy", judge().ranks(images, names, names) < 1, 0.80, note)
    yield share("sd.background_accuracy", right_backgrounds(images, grounds), 0.95)
    yield Figure("sd.seconds_per_image", round(seconds, 4), "s", False, 1.0, f"{STEPS} steps, batch of {BATCH}")
    yield two_concepts()
    yield rarity()


def two_concepts() -> Figure:
    """Prompts that name two frequent concepts: a box for each, and not the same box."""
    pairs = list(combinations(frequent()[:40], 2))
    rng = scenes.rng_for("evaluate", "two concepts")
    chosen = [pairs[i] for i in rng.choice(len(pairs), PAIRS, replace=False)]
    grounds = [str(rng.choice(backgrounds.PLAIN_COLORS)) for _ in chosen]
    phrases = [[scenes.article(name) for name in pair] for pair in chosen]
    prompts = [f"{a} and {b} on a {g} background" for (a, b), g in zip(phrases, grounds, strict=True)]
    found = detector.boxes(list(draw(prompts, range(1000, 1000 + PAIRS))), phrases)
    either = np.mean([bool(of) for image in found for of in image])
    note = f"one phrase {either:.3f}; boxes apart, {detector.rule()}"
    return share("sd.two_concepts", [_apart(image) for image in found], 0.50, note)


def _apart(found: list[list[detector.Box]]) -> bool:
    """Whether two phrases have a box each that overlap by less than half (IoU)."""
    return any(_iou(a, b) < 0.5 for a in found[0] for b in found[1])


def _iou(a: detector.Box, b: detector.Box) -> float:
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    shared = max(0.0, width) * max(0.0, height)
    return shared / max(1e-9, (a.x1 - a.x0) * (a.y1 - a.y0) + (b.x1 - b.x0) * (b.y1 - b.y0) - shared)


@dataclass(frozen=True)
class Rarity(Figure):
    """`points` are (count, share right, pictures) of concepts grouped by how often the generator saw them."""

    points: tuple[tuple[float, float, int], ...] = ()

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "ok": self.ok}


def spread_over_counts(counts: dict[str, float], number: int) -> list[str]:
    """`number` concepts, evenly over the logarithm of their counts as far as there are any, most frequent first."""
    left = sorted((n for n in counts if counts[n] > 0), key=lambda name: -counts[name])
    targets = np.linspace(np.log10(counts[left[0]]), np.log10(counts[left[-1]]), min(number, len(left)))
    chosen = []
    for target in targets:
        nearest = min(left, key=lambda name: abs(np.log10(counts[name]) - target))
        left.remove(nearest)
        chosen.append(nearest)
    return chosen


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Least-squares slope of y on x; NaN where x does not vary."""
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum()) if x.any() else float("nan")


def rarity() -> Rarity:
    """Concept accuracy against log10 of how often the concept was there to be learnt, one picture a concept.

    The judge chooses among the sampled concepts. It learnt rare names less well too, so the note has its own slope
    on composed pictures of the same concepts.
    """
    counts = json.loads((family.path("sd") / "concept_counts.json").read_text())
    known = sprites.load().by_name
    names = spread_over_counts({n: c for n, c in counts.items() if n in known}, RARITY)
    prompts, _ = plain_prompts(names, "rarity")
    right = judge().ranks(draw(prompts, range(2000, 2000 + len(names))), names, names) < 1
    x = np.log10([counts[name] for name in names])
    low, high = bootstrap(lambda rows: slope(x[rows], right[rows]), len(names))
    groups = np.array_split(np.argsort(-x), 8)
    points = tuple((round(float(10 ** x[g].mean()), 2), round(float(right[g].mean()), 4), len(g)) for g in groups)
    note = (
        f"95% {low:.3f} to {high:.3f}, {len(names)} concepts, in {counts[names[-1]]:g} to {counts[names[0]]:g} "
        f"of {COUNTED:,} drawn scenes; "
        f"the judge alone, on real drawings: {slope(x, knows(learnt_drawings(names), names)):.3f}"
    )
    return Rarity("sd.rarity_slope", round(slope(x, right), 4), "share a decade", True, None, note, points)
