"""Plain Stable Diffusion: it sees the class nouns and never the subjects' pictures. The floor for identity."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from umm_bench.base import Base
from umm_bench.methods import Case, Generation, Prompt, Subject


@dataclass(frozen=True)
class StableDiffusionConfig:
    """Nothing to set: what a run varies is in `Generation`."""


class StableDiffusion:
    name = "sd"
    config_class = StableDiffusionConfig
    max_subjects: ClassVar[int | None] = None
    can_offload: ClassVar[bool] = True

    def __init__(self, base: Base, config: StableDiffusionConfig, generation: Generation) -> None:
        self.base, self.config, self.generation = base, config, generation

    def setup(self, subject: Subject, directory: Path) -> None:
        return None

    def generate(self, states: Sequence[None], case: Case, prompt: Prompt, seeds: Sequence[int]) -> list[Image.Image]:
        return draw(self.base.pipeline(), prompt.text(case.class_nouns), seeds, self.generation)


def draw(pipe: StableDiffusionPipeline, text: str, seeds: Sequence[int], generation: Generation) -> list[Image.Image]:
    """One image a seed, in one batch; the noise of each depends on its own seed only."""
    return pipe(
        [text] * len(seeds),
        num_inference_steps=generation.num_inference_steps,
        guidance_scale=generation.guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
    ).images
