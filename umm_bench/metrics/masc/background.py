"""MaSC's prompt following: does the image without its subject show what the prompt says without it?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umm_bench.metrics.base import Score, ScoredSample
from umm_bench.metrics.detection import detector
from umm_bench.metrics.masc.patches import PatchEncoder, foreground
from umm_bench.suites.base import Suite

_ARTICLE = re.compile(r"\b(a|an|the) $", re.IGNORECASE)


@dataclass(frozen=True)
class MascPromptConfig:
    """`model`: "mini", a folder or a hub id of a SigLIP, as published google/siglip2-so400m-patch16-naflex, or of a
    convolutional dual encoder. `detector`: the same of a GroundingDINO in transformers format.
    """

    model: str = "mini"
    detector: str = "mini"


class MascPrompt:
    """Cosine of the image's patches outside the subject, pooled as the model pools all, and of the prompt without the
    subject's words.

    For one subject: "next to" is all that is left of a prompt for two. Where the class noun is not found in the image
    nothing is taken out of it, and the row says so.
    """

    name = "masc_prompt"
    config_class = MascPromptConfig
    subjects = (1, 1)

    def __init__(self, config: MascPromptConfig, suite: Suite) -> None:
        self.encoder, self.detector = PatchEncoder(config.model, "scoring_clip"), detector(config.detector)
        self.protocol = (
            f"masc_prompt/1: cosine of the patches outside the subject's box and the prompt without the subject, "
            f"{self.encoder.label}, {self.detector.label}"
        )
        self.weights: Sequence[Path] = [*self.encoder.weights, *self.detector.weights]

    def why_not(self, sample: ScoredSample) -> str | None:
        return None if without_subject(sample) else "the prompt says nothing beside its subject"

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        return [self._row(sample) for sample in batch]

    def _row(self, sample: ScoredSample) -> Score:
        patches, text = self.encoder.patches(sample.path), without_subject(sample)
        noun = sample.case.subject.class_noun
        covered = foreground(self.encoder, self.detector, sample.path, [noun])
        left = np.ones(len(patches.features_ND)) if covered is None else 1 - covered
        cosine = float(self.encoder.pooled(patches, left) @ self.encoder.texts([text])[0])
        what = f"no {noun} is found, the whole image" if covered is None else f"{left.mean():.0%} of the image"
        evidence = {"text": text, "left": round(float(left.mean()), 3), "found": covered is not None}
        return Score(
            sample.key, self.name, self.protocol, cosine, f"{what}: cosine {cosine:.3f} with '{text}'", evidence
        )


def without_subject(sample: ScoredSample) -> str:
    """The prompt without the subject's words and their article: "on a blue background". May be empty."""
    ((start, end),) = sample.prompt.spans(sample.case.class_nouns)
    before = _ARTICLE.sub("", sample.text[:start])
    return " ".join(f"{before} {sample.text[end:]}".split()).strip(" ,.;:")
