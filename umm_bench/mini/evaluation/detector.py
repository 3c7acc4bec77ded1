"""The detector: average precision on its own, false positives as curation meets them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, GroundingDinoForObjectDetection

from curation.config import BuildConfig
from curation.grounding import Grounder, load_grounder, with_threshold
from curation.records import Box
from figures import Figure
from umm_bench.mini import family
from umm_bench.mini.evaluation.intervals import share
from umm_bench.mini.recipes.detector_data import PromptConfig, detector_metrics, ground_truth
from umm_bench.mini.world import scenes

SCENES = 200


@functools.cache
def grounder() -> Grounder:
    """The detector as `curation.build` uses it by default, on the CPU; loaded once a process."""
    return load_grounder(BuildConfig(device="cpu"), str(family.path("detector")))


def rule() -> str:
    """When a phrase counts as found, in words."""
    config = with_threshold(BuildConfig(), str(family.path("detector")))
    return f"found as in curation: {config.phrase_score} over the phrase's tokens >= {config.box_threshold}"


def boxes(images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
    """Boxes of each image's phrases by curation's default rule, best first; images uint8 [S, S, 3]."""
    return grounder().ground([Image.fromarray(image) for image in images], phrases)


def figures() -> Iterator[Figure]:
    """On held-out scenes and designs, each with a prompt of its phrases and absent ones."""
    folder = family.path("detector")
    model = GroundingDinoForObjectDetection.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    held = [scenes.compose(f"evaluate-{i}", "held_out") for i in range(SCENES)]
    with torch.no_grad():
        measured = detector_metrics(model, processor, held)
    note = f"recall {measured['recall']:.3f}, best box right whatever its score {measured['localisation']:.3f}"
    yield Figure("detector.ap50", round(measured["ap50"], 4), "share", True, 0.70, f"{note}, n = {SCENES} scenes")
    prompts = [ground_truth(s, scenes.rng_for("evaluate", i), PromptConfig()) for i, s in enumerate(held)]
    found = boxes([s.image for s in held], [p.phrases for p in prompts])
    boxed = [bool(b) for p, of in zip(prompts, found, strict=True) for t, b in zip(p.boxes, of, strict=True) if not t]
    yield share("detector.false_positive_rate", boxed, 0.10, rule(), higher=False)
