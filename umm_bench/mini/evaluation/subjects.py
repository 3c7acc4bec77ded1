"""The TIUE against plain SD on the same prompts and seeds: more identity, at what cost in concept and background?

The subjects are held-out designs of frequent concepts. Each picture has one reference, one of two of its subject, and
each seed a background of its own: a subject may come right from one reference or on one background and fail on
another. The seeds are of no draw by which a model was chosen. Identity is the checker's forced choice: which of all
the designs of its concept, laid over the picture, explains most of it? That needs no trained model, and always gives an
answer, so that plain SD has a share to compare with (none where it always draws the concept's usual design).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from figures import Figure
from umm_bench.base import load_base
from umm_bench.mini.checking import checker
from umm_bench.mini.evaluation import generator
from umm_bench.mini.evaluation.embedders import judge
from umm_bench.mini.evaluation.intervals import bootstrap
from umm_bench.mini.recipes.vae import to_tensor
from umm_bench.mini.world import backgrounds, scenes, sprites, suite
from umm_bench.mini.world.sprites import Design
from umm_bench.umm import Subject, UMMPipeline
from umm_bench.umm.trainer import noise_schedule
from umm_bench.umm_method import load_umm

ALPHA = generator.USUAL.alpha
SEEDS = (100, 101, 102)
REFERENCES = (0, 1)
SUBJECTS = 44
NOISY = (800, 900, 990)  # timesteps at which the generator decides on a design
POSE = scenes.Placement(0.5, 0.5, 0.76)  # of one sprite in the scenes that it mostly learnt from


def held_out_designs() -> list[Design]:
    """One held-out design of each frequent concept that has any, most frequent first."""
    world = sprites.load()
    held = [world.members(name, "held_out") for name in generator.frequent()]
    return [next((d for d in designs if d.style == "fluent-3d"), designs[0]) for designs in held if designs][:SUBJECTS]


def another(design: Design) -> Design:
    """A training design of the same concept and another identity, the usual drawing only where there is no other."""
    others = [d for d in sprites.load().members(design.concept, "train") if d.identity != design.identity]
    unusual = [d for d in others if d.identity != scenes.usual(d.concept).identity] or others
    return unusual[int(scenes.rng_for("evaluate", "tiue another", design.id).integers(len(unusual)))]


def asked(designs: list[Design]) -> tuple[list[str], list[str]]:
    """Prompts and their backgrounds, [designs * seeds] each, one subject after the other."""
    names = [design.concept for design in designs]
    drawn = [generator.plain_prompts(names, "tiue", seed) for seed in SEEDS]
    prompts, grounds = ([of[i] for i in range(len(names)) for of in part] for part in zip(*drawn, strict=True))
    return prompts, grounds


@functools.cache
def pipeline() -> UMMPipeline:
    """The family's generator with its TIUE in float32, loaded once a process."""
    return load_umm(load_base("mini"), "mini")


def _subject(design: Design, reference: int) -> Subject:
    return Subject(Image.fromarray(suite.reference(design.id, reference)), design.concept)


def draw_subjects(designs: list[Design], prompts: list[str], references: Sequence[int] = REFERENCES) -> np.ndarray:
    """UMM's images of `asked`'s prompts, uint8 [designs * references * seeds, S, S, 3], subject by subject."""
    images = []
    for (i, design), reference in itertools.product(enumerate(designs), references):
        images.append(
            pipeline()(
                prompts[i * len(SEEDS) : (i + 1) * len(SEEDS)],
                subjects=[_subject(design, reference)],
                alpha=ALPHA,
                num_inference_steps=generator.STEPS,
                guidance_scale=generator.USUAL.guidance_scale,
                subject_guidance_scale=generator.SUBJECT_SCALE,
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


@torch.no_grad()
def errors(designs: list[Design]) -> np.ndarray:
    """The generator's errors about pictures of the designs, [designs, 3]: given a reference of each, of another, none.

    The other one is `another` design of the concept. The pictures are such as the generator learnt from: upright,
    large, on a plain background. The errors are of its velocity where there is much noise, for the same noise.
    """
    pipe = pipeline()
    schedule = noise_schedule(pipe)
    prompts, grounds = generator.plain_prompts([design.concept for design in designs], "tiue errors")
    whole, t_T = frozenset({0}), torch.tensor(NOISY)
    found = []
    for design, prompt, ground in zip(designs, prompts, grounds, strict=True):
        rng = scenes.rng_for("evaluate", "tiue errors", design.id)
        canvas = backgrounds.draw(ground, rng, pipe.unet.config.sample_size * pipe.vae_scale_factor)
        scenes.paste(canvas, design.id, POSE)
        latent = pipe.vae.encode(to_tensor(canvas.astype(np.uint8)[None])).latent_dist.mean
        clean_TCHW = (latent * pipe.vae.config.scaling_factor).repeat(len(t_T), 1, 1, 1)
        noise_TCHW = torch.from_numpy(rng.standard_normal(clean_TCHW.shape, dtype=np.float32))
        noisy_TCHW = schedule.add_noise(clean_TCHW, noise_TCHW, t_T)
        target_TCHW = schedule.get_velocity(clean_TCHW, noise_TCHW, t_T)
        h_y_1LD, _ = pipe.encode_prompt(prompt, "cpu", 1, False)
        subjects = [_subject(shown, 0) for shown in (design, another(design))]
        h_u = [pipe.encode_subject_prompt([prompt], h_y_1LD, [subject], [whole])[whole] for subject in subjects]
        h_RLD = torch.cat([*h_u, h_y_1LD]).repeat_interleave(len(t_T), 0)
        predicted = pipe.unet(noisy_TCHW.repeat(3, 1, 1, 1), t_T.repeat(3), h_RLD).sample.unflatten(0, (3, -1))
        found.append((predicted - target_TCHW).square().flatten(1).mean(1).numpy())
    return np.stack(found)


def figures() -> Iterator[Figure]:
    """Identity's ratio to plain SD's and how far concept and background fall below it; intervals are over subjects.

    Then, without an aim, what the same TIUE does for drawings that the generator has learnt, and `errors`, which tell
    TIUEs apart that identity, right in a few pictures only, does not.
    """
    designs = held_out_designs()
    prompts, grounds = asked(designs)
    ours = draw_subjects(designs, prompts)
    plain = generator.draw(prompts, SEEDS * len(designs))

    def verdicts(images: np.ndarray, references: int) -> list[np.ndarray]:
        """Shares of a subject's images with its identity, its concept and the background asked for, each [designs]."""
        shown = [design for design in designs for _ in range(references * len(SEEDS))]
        wanted = np.array(grounds).reshape(len(designs), 1, -1).repeat(references, 1)
        right = (
            right_designs(images, shown),
            judge().ranks(images, [d.concept for d in shown], generator.frequent()) < 1,
            generator.right_backgrounds(images, wanted.ravel().tolist()),
        )
        return [of.reshape(len(designs), -1).mean(1) for of in right]

    identity, concept, background = zip(verdicts(ours, len(REFERENCES)), verdicts(plain, 1), strict=True)
    yield _ratio(*identity)
    usual = generator.learnt_drawings([d.concept for d in designs])
    known, familiar = (generator.knows(drawings, generator.frequent()) for drawings in (designs, usual))
    alone = f"the judge alone, on real drawings: {known.mean():.2f} of the subjects, {familiar.mean():.2f} of learnt"
    yield _gap("tiue.concept_gap", concept[0], concept[1], alone)
    remark = "those of the subjects whose real drawing the judge knows"
    yield replace(_gap("tiue.concept_gap_known", concept[0][known], concept[1][known], remark), bar=None)
    yield _gap("tiue.background_gap", *background)
    trained = [another(design) for design in designs]
    images = draw_subjects(trained, asked(trained)[0], REFERENCES[:1])
    right = right_designs(images, [design for design in trained for _ in SEEDS])
    yield _learnt_identity(right.reshape(len(trained), -1).mean(1))
    yield _saved("tiue.error_saved", errors(designs))
    yield _saved("tiue.error_saved_learnt", errors(trained))


def _ratio(ours: np.ndarray, plain: np.ndarray) -> Figure:
    least = 0.5 / (len(plain) * len(SEEDS))  # none right: as if half of one were

    def ratio(rows: np.ndarray) -> float:
        return float(ours[rows].mean() / max(plain[rows].mean(), least))

    value = ratio(np.arange(len(ours)))
    low, high = bootstrap(ratio, len(ours))
    note = (
        f"{ours.mean():.3f} against {plain.mean():.3f}; 95% {low:.2f} to {high:.2f}, "
        f"{len(ours)} subjects of {len(REFERENCES)} references and {len(SEEDS)} backgrounds and seeds, alpha {ALPHA}"
    )
    return Figure("tiue.identity_ratio_to_sd", round(value, 3), "ratio", True, 2, note)


def _learnt_identity(right: np.ndarray) -> Figure:
    low, high = bootstrap(lambda rows: float(right[rows].mean()), len(right))
    note = f"95% {low:.3f} to {high:.3f}, {len(right)} designs that the generator learnt from, the usual ones left out"
    return Figure("tiue.identity_learnt", round(float(right.mean()), 4), "share", True, None, note)


def _saved(name: str, of: np.ndarray) -> Figure:
    """How much of the error with another drawing's reference is gone with the own one; `of` as `errors` gives it."""

    def share(rows: np.ndarray, than: int = 1) -> float:
        return float(1 - of[rows, 0].sum() / of[rows, than].sum())

    every = np.arange(len(of))
    low, high = bootstrap(share, len(of))
    note = (
        f"its own reference against another drawing's of the concept, timesteps {', '.join(map(str, NOISY))}; "
        f"95% {low:.3f} to {high:.3f}; against none {share(every, 2):.3f}"
    )
    return Figure(name, round(share(every), 4), "share", True, None, note)


def _gap(name: str, ours: np.ndarray, plain: np.ndarray, remark: str = "") -> Figure:
    difference = plain - ours
    low, high = bootstrap(lambda rows: float(difference[rows].mean()), len(difference))
    note = f"{ours.mean():.3f} against {plain.mean():.3f}; 95% {low:z.3f} to {high:.3f}, {len(ours)} subjects"
    note += f"; {remark}" if remark else ""
    return Figure(name, round(float(difference.mean()), 4), "share", False, 0.05, note)
