"""Looks that no training saw: can the generator draw them from words, and does a TIUE bring them from one picture?

A picture is judged by the checker's forced choice: which of 21 looks of that very drawing explains most of it? Half
of the others differ from the right one in one part. Chance is 1 in 21.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from figures import Figure
from umm_bench.base import load_base
from umm_bench.mini.checking import repainted
from umm_bench.mini.evaluation import generator
from umm_bench.mini.evaluation.embedders import judge
from umm_bench.mini.evaluation.intervals import bootstrap, share
from umm_bench.mini.world import backgrounds, looks, scenes, sprites, suite
from umm_bench.mini.world.looks import Look
from umm_bench.mini.world.sprites import Design
from umm_bench.umm import Subject, UMMPipeline
from umm_bench.umm_method import load_umm

OTHERS = 20
CHANCE = 1 / (1 + OTHERS)
ALPHA = generator.USUAL.alpha
SEEDS = (200, 201)


@dataclass(frozen=True)
class Dressed:
    """The usual drawing of a concept in a held-out look, and a background of none of its colours."""

    design: Design
    look: Look
    ground: str

    @property
    def sprite(self) -> str:
        return looks.looked(self.design.id, self.look)

    @property
    def words(self) -> str:
        return scenes.article(self.look.describe(self.design.concept))

    @property
    def choices(self) -> list[Look]:
        """The look and OTHERS others of the drawing, half of them near misses."""
        rng = scenes.rng_for("evaluate", "choices", self.sprite)
        second = sprites.load().has_second(self.design.id)
        misses = [miss for _, miss in looks.near_misses(self.look, second)]
        near = [misses[i] for i in rng.permutation(len(misses))[: OTHERS // 2]]
        chosen = [self.look, *near]
        while len(chosen) < 1 + OTHERS:
            other = looks.draw(rng, self.design.concept, second)
            if other not in chosen:
                chosen.append(other)
        return chosen


def dressed(names: Sequence[str], *key: object) -> list[Dressed]:
    """One held-out look for each concept whose usual drawing shows looks, in their order."""
    made = []
    for name in names:
        design = scenes.usual(name)
        if suite.shows_looks(design):
            rng = scenes.rng_for("evaluate", "look", name, *key)
            look = looks.draw(rng, name, has_second=True, held=True)
            free = [c for c in backgrounds.PLAIN_COLORS if c not in (look.main, look.second, look.mark)]
            made.append(Dressed(design, look, str(rng.choice(free))))
    return made


def right_looks(images: np.ndarray, shown: Sequence[Dressed]) -> np.ndarray:
    """Whether the right look is the nearest of its `choices`, bool [N]; one subject an image."""
    nearest = (repainted.nearest_look(i, s.design.id, s.choices) for i, s in zip(images, shown, strict=True))
    return np.array([index == 0 for index in nearest])


def read(images: np.ndarray, shown: Sequence[Dressed]) -> list[Look]:
    """The look that each picture's drawing has there."""
    return [repainted.read_look(image, one.design.id)[0] for image, one in zip(images, shown, strict=True)]


def words() -> Iterator[Figure]:
    """Plain SD asked in words for held-out looks of frequent concepts, one picture each."""
    shown = [one for key in (0, 1) for one in dressed(generator.frequent(), "words", key)]
    prompts = [f"{one.words} on a {one.ground} background" for one in shown]
    images = generator.draw(prompts, range(3000, 3000 + len(shown)))
    yield share("sd.look_top1", right_looks(images, shown), 0.80, f"among {1 + OTHERS} looks, chance {CHANCE:.2f}")
    found = read(images, shown)
    patterned = [f.pattern == s.look.pattern for f, s in zip(found, shown, strict=True) if s.look.pattern]
    yield share("sd.look_pattern", patterned, 0.80, f"of those asked for; chance {1 / (1 + len(looks.PATTERNS)):.2f}")
    main = [f.main == s.look.main for f, s in zip(found, shown, strict=True)]
    yield share("sd.look_main", main, None, f"chance {1 / len(looks.COLORS):.2f}")


@functools.cache
def pipeline() -> UMMPipeline:
    """The family's generator with its TIUE in float32, loaded once a process."""
    return load_umm(load_base("mini"), "mini")


def prompts_of(shown: Sequence[Dressed]) -> list[str]:
    """Name and background alone."""
    return [f"{scenes.article(one.design.concept)} on a {one.ground} background" for one in shown]


def draw_subjects(shown: Sequence[Dressed], alpha: float = ALPHA, seeds: Sequence[int] = SEEDS) -> np.ndarray:
    """UMM's pictures, uint8 [subjects * seeds, S, S, 3], from one reference and the name alone."""
    images = []
    for one, prompt in zip(shown, prompts_of(shown), strict=True):
        reference = Image.fromarray(suite.reference(one.sprite, 0))
        images.append(
            pipeline()(
                [prompt] * len(seeds),
                subjects=[Subject(reference, one.design.concept)],
                alpha=alpha,
                num_inference_steps=generator.STEPS,
                guidance_scale=generator.USUAL.guidance_scale,
                subject_guidance_scale=generator.SUBJECT_SCALE,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="np",
            ).images
        )
    return (np.concatenate(images) * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class Kept:
    """What came of subjects, [subjects] each: the share of the pictures with the right look, main colour, pattern,
    concept and background. `pattern` is NaN where the look has none."""

    look: np.ndarray
    main: np.ndarray
    pattern: np.ndarray
    concept: np.ndarray
    background: np.ndarray


def verdicts(images: np.ndarray, shown: Sequence[Dressed], names: Sequence[str]) -> Kept:
    """`images` as `draw_subjects` gives them, subject by subject; the judge chooses among `names`."""
    each = len(images) // len(shown)
    every = [one for one in shown for _ in range(each)]
    found = read(images, every)
    pattern = [
        float(f.pattern == s.look.pattern) if s.look.pattern else np.nan for f, s in zip(found, every, strict=True)
    ]
    of = (
        right_looks(images, every),
        np.array([f.main == s.look.main for f, s in zip(found, every, strict=True)]),
        np.array(pattern),
        judge().ranks(images, [s.design.concept for s in every], names) < 1,
        generator.right_backgrounds(images, [s.ground for s in every]),
    )
    return Kept(*(np.asarray(values, float).reshape(len(shown), each).mean(1) for values in of))


def kept() -> Iterator[Figure]:
    """UMM on held-out looks of frequent and rare concepts, and plain SD on the same prompts and seeds."""
    names = generator.frequent()
    frequent, rare = dressed(names, "kept"), dressed(rare_names(), "kept")
    ours = verdicts(draw_subjects(frequent), frequent, names)
    seeds = list(SEEDS) * len(frequent)
    plain_prompts = [prompt for prompt in prompts_of(frequent) for _ in SEEDS]
    plain = verdicts(generator.draw(plain_prompts, seeds), frequent, names)
    yield _mean("tiue.look_top1", ours.look, 0.55, f"plain SD {plain.look.mean():.3f}; chance {CHANCE:.2f}")
    yield _mean("tiue.main_colour", ours.main, 0.85, f"plain SD {plain.main.mean():.3f}")
    asked = ~np.isnan(ours.pattern)
    note = f"of looks with one; plain SD {plain.pattern[asked].mean():.3f}"
    yield _mean("tiue.pattern", ours.pattern[asked], 0.65, note)
    yield _mean("tiue.look_concept_gap", plain.concept - ours.concept, 0.05, "", higher=False)
    yield _mean("tiue.look_background_gap", plain.background - ours.background, 0.05, "", higher=False)
    seldom = verdicts(draw_subjects(rare), rare, [*names, *(one.design.concept for one in rare)]).look

    def ratio(rows: np.ndarray) -> float:
        few, many = rows[rows < len(seldom)], rows[rows >= len(seldom)] - len(seldom)
        return float(seldom[few].mean() / ours.look[many].mean()) if len(few) and len(many) else float("nan")

    number = len(seldom) + len(ours.look)
    low, high = bootstrap(ratio, number)
    note = f"95% {low:.2f} to {high:.2f}; {seldom.mean():.3f} of {len(rare)} rare concepts' pictures"
    yield Figure("tiue.look_ratio_rare", round(ratio(np.arange(number)), 4), "ratio", True, None, note)


def rare_names() -> list[str]:
    """Concepts that the generator saw seldom, whose names people know."""
    return [concept.name for concept in sprites.load().concepts if suite.frequency(concept) == "rare"]


def _mean(name: str, of: np.ndarray, bar: float | None, note: str, higher: bool = True) -> Figure:
    low, high = bootstrap(lambda rows: float(of[rows].mean()), len(of))
    said = f"95% {low:z.3f} to {high:.3f}, {len(of)} subjects"
    return Figure(name, round(float(of.mean()), 4), "share", higher, bar, f"{said}; {note}" if note else said)
