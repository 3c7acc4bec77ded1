"""The TIUE against plain SD on the same prompts and seeds: more identity, at what cost in concept and background?

The subjects are held-out designs of frequent concepts. Each picture has one reference, one of two of its subject: one
may be taken well and another badly. Identity is the checker's forced
choice: which of all the designs of its concept, laid over the picture, explains most of it? That needs no trained
model, and always gives an answer, so that plain SD has a share to compare with (about one in the number of designs).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from benchmarks.common import Figure
from umm_bench.base import load_base
from umm_bench.mini import checker, sprites, suite
from umm_bench.mini.evaluation import generator
from umm_bench.mini.evaluation.embedders import judge
from umm_bench.mini.evaluation.intervals import bootstrap
from umm_bench.mini.sprites import Design
from umm_bench.umm import Subject
from umm_bench.umm_method import load_umm

ALPHA = 0.8
SEEDS = (0, 1, 2)
REFERENCES = (0, 1)
SUBJECTS = 44


def held_out_designs() -> list[Design]:
    """One held-out design of each frequent concept that has any, most frequent first."""
    world = sprites.load()
    held = [world.members(name, "held_out") for name in generator.frequent()]
    return [next((d for d in designs if d.style == "fluent-3d"), designs[0]) for designs in held if designs][:SUBJECTS]


def draw_subjects(designs: list[Design], prompts: list[str]) -> np.ndarray:
    """UMM's images, uint8 [designs * references * seeds, S, S, 3], one subject after the other."""
    pipe = load_umm(load_base("mini"), "mini")
    images = []
    for (design, prompt), reference in itertools.product(zip(designs, prompts, strict=True), REFERENCES):
        images.append(
            pipe(
                prompt,
                subjects=[Subject(Image.fromarray(suite.reference(design.id, reference)), design.concept)],
                alpha=ALPHA,
                num_inference_steps=generator.STEPS,
                guidance_scale=generator.GUIDANCE,
                num_images_per_prompt=len(SEEDS),
                generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
                output_type="np",
            ).images
        )
    return (np.concatenate(images) * 255).round().astype(np.uint8)


def right_designs(images: np.ndarray, designs: list[Design]) -> np.ndarray:
    """Whether the nearest of all designs of the concept is the subject's own, bool [N]; one design an image."""
    world = sprites.load()
    nearest = [checker.nearest_design(image, d.concept) for image, d in zip(images, designs, strict=True)]
    return np.array([world.designs[n].identity == d.identity for n, d in zip(nearest, designs, strict=True)])


def figures() -> Iterator[Figure]:
    """Identity's ratio to plain SD's and how far concept and background fall below it; intervals are over subjects."""
    designs = held_out_designs()
    prompts, grounds = generator.plain_prompts([d.concept for d in designs], "tiue")
    ours = draw_subjects(designs, prompts)
    each = np.repeat(np.arange(len(designs)), len(SEEDS))
    plain = generator.draw([prompts[i] for i in each], SEEDS * len(designs))

    def verdicts(images: np.ndarray) -> list[np.ndarray]:
        """Shares of a subject's images with its identity, its concept and the background asked for, each [designs]."""
        each = np.repeat(np.arange(len(designs)), len(images) // len(designs))
        shown, wanted = [designs[i] for i in each], [grounds[i] for i in each]
        right = (
            right_designs(images, shown),
            judge().ranks(images, [d.concept for d in shown], generator.frequent()) < 1,
            generator.right_backgrounds(images, wanted),
        )
        return [of.reshape(len(designs), -1).mean(1) for of in right]

    identity, concept, background = zip(verdicts(ours), verdicts(plain), strict=True)
    yield _ratio(*identity)
    learnt = generator.learnt_drawings([d.concept for d in designs])
    known, trained = (generator.knows(drawings, generator.frequent()) for drawings in (designs, learnt))
    alone = f"the judge alone, on real drawings: {known.mean():.2f} of the subjects, {trained.mean():.2f} of learnt"
    yield _gap("tiue.concept_gap", concept[0], concept[1], alone)
    remark = "those of the subjects whose real drawing the judge knows"
    yield replace(_gap("tiue.concept_gap_known", concept[0][known], concept[1][known], remark), bar=None)
    yield _gap("tiue.background_gap", *background)


def _ratio(ours: np.ndarray, plain: np.ndarray) -> Figure:
    least = 0.5 / (len(plain) * len(SEEDS))  # none right: as if half of one were

    def ratio(rows: np.ndarray) -> float:
        return float(ours[rows].mean() / max(plain[rows].mean(), least))

    value = ratio(np.arange(len(ours)))
    low, high = bootstrap(ratio, len(ours))
    note = (
        f"{ours.mean():.3f} against {plain.mean():.3f}; 95% {low:.2f} to {high:.2f}, "
        f"{len(ours)} subjects of {len(REFERENCES)} references and {len(SEEDS)} seeds, alpha {ALPHA}"
    )
    return Figure("tiue.identity_ratio_to_sd", round(value, 3), "ratio", True, 2, note)


def _gap(name: str, ours: np.ndarray, plain: np.ndarray, remark: str = "") -> Figure:
    difference = plain - ours
    low, high = bootstrap(lambda rows: float(difference[rows].mean()), len(difference))
    note = f"{ours.mean():.3f} against {plain.mean():.3f}; 95% {low:.3f} to {high:.3f}, {len(ours)} subjects"
    note += f"; {remark}" if remark else ""
    return Figure(name, round(float(difference.mean()), 4), "share", False, 0.05, note)
