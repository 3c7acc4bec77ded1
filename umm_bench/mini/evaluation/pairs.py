"""Two subjects at once: can the generator draw two looks that are said, and what does UMM mix up of two references?

What became of each subject is the ground truth's to say (`umm_bench.mini.checking.pairs`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch

from figures import Figure
from umm_bench.methods import Case, Prompt
from umm_bench.mini.checking.pairs import LABELS, check_pair
from umm_bench.mini.evaluation import generator, looks
from umm_bench.mini.evaluation.intervals import bootstrap, share
from umm_bench.mini.world import backgrounds, scenes
from umm_bench.suites.mini import MiniSuite
from umm_bench.umm_method import subjects_of

PAIRS = 48
SEEDS = (300, 301)


def words() -> Iterator[Figure]:
    """Plain SD asked in words for two frequent concepts in a held-out look each, one picture a pair."""
    shown = looks.dressed(generator.frequent(), "two looks")
    rng = scenes.rng_for("evaluate", "two looks")
    order = rng.permutation(len(shown))
    pairs, prompts, grounds = [], [], []
    for place in range(PAIRS):
        one, two = shown[order[place % len(order)]], shown[order[(place + 1) % len(order)]]
        worn = {look for each in (one, two) for look in (each.look.main, each.look.second, each.look.mark)}
        ground = str(rng.choice([colour for colour in backgrounds.PLAIN_COLORS if colour not in worn]))
        pairs.append((one.sprite, two.sprite))
        grounds.append(ground)
        prompts.append(f"{one.words} and {two.words} on a {ground} background")
    images = generator.draw(prompts, range(4000, 4000 + PAIRS))
    labels = [
        [subject["label"] for subject in check_pair(image, pair, {"background": ground})["subjects"]]
        for image, pair, ground in zip(images, pairs, grounds, strict=True)
    ]
    note = f"of the subjects {_counted(labels)}"
    yield share("sd.two_looks", [two == ["right", "right"] for two in labels], 0.50, note)


def subjects() -> Iterator[Figure]:
    """UMM given the suite's pairs, a reference each and their names: how often does a part of one go to the other?"""
    suite = MiniSuite()
    pipe, blended, labels = looks.pipeline(), [], []
    for case in suite.pairs():
        prompt = next(prompt for prompt in suite.prompts(case) if prompt.subjects == 2)
        told = [_told(suite, image, case, prompt) for image in _draw(pipe, case, prompt)]
        labels += [[subject["label"] for subject in two] for two in told]
        blended.append(np.mean([any(map(_has_of_the_other, two)) for two in told]))
    each = np.array(blended)
    low, high = bootstrap(lambda rows: float(each[rows].mean()), len(each))
    note = f"95% {low:.3f} to {high:.3f}, {len(each)} pairs; of the subjects {_counted(labels)}"
    yield Figure("pairs.blending", round(float(each.mean()), 4), "share", False, None, note)
    both = np.array([two == ["right", "right"] for two in labels])
    yield share("pairs.both_right", both, None)


def _draw(pipe, case: Case, prompt: Prompt) -> list:
    text = prompt.text(case.class_nouns)
    return pipe(
        [text] * len(SEEDS),
        subjects=subjects_of(case, prompt, references=1),
        alpha=looks.ALPHA,
        num_inference_steps=generator.STEPS,
        guidance_scale=generator.USUAL.guidance_scale,
        subject_guidance_scale=generator.SUBJECT_SCALE,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
    ).images


def _told(suite: MiniSuite, image, case: Case, prompt: Prompt) -> list[dict]:
    check = suite.check(image, case, prompt)
    assert check is not None  # this suite has a truth
    return [subject.evidence for subject in check.subjects]


def _has_of_the_other(subject: dict) -> bool:
    return any(part["other"] for part in subject["parts"].values())


def _counted(labels: list[list[str]]) -> str:
    counts = Counter(label for two in labels for label in two)
    return ", ".join(f"{label} {counts[label]}" for label in LABELS if counts[label])
