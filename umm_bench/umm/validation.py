"""What a TIUE in training makes of a few references: a grid of pictures, the same seeds each time."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from diffusers.utils import make_image_grid
from PIL import Image
from transformers import CLIPTokenizer

from umm_bench.errors import UserError
from umm_bench.images import open_image, square
from umm_bench.umm.pairs import Pair
from umm_bench.umm.pipeline import Subject, UMMPipeline
from umm_bench.umm.settings import ValidationConfig
from umm_bench.umm.tiue import TIUE, cut_off, find_phrase


@dataclass(frozen=True)
class Reference:
    """A picture of a subject and the noun for it."""

    image: Image.Image
    noun: str

    def prompts(self, config: ValidationConfig) -> list[str]:
        """The texts to draw; a template's other braces are its own."""
        return [prompt.replace("{subject}", self.noun) for prompt in config.prompts]


def check_prompts(tokenizer: CLIPTokenizer, references: Sequence[Reference], config: ValidationConfig) -> None:
    """Raises UserError where a prompt cannot be drawn with a reference, or is longer than the tokenizer reads."""
    for reference in references:
        for prompt in reference.prompts(config):
            find_phrase(tokenizer, prompt, reference.noun)
            if lost := cut_off(tokenizer, prompt):
                raise UserError(f'the validation prompt "{prompt}" is too long; not read: "{lost}"')


def choose_references(pairs: Iterable[Pair], config: ValidationConfig) -> list[Reference]:
    """The first `config.subjects` readable crops of different nouns that no prompt has already."""
    chosen: dict[str, Reference] = {}
    for pair in pairs:
        if len(chosen) == config.subjects:
            break
        taken = any(re.search(rf"(?<!\w){re.escape(pair.noun)}(?!\w)", p, re.IGNORECASE) for p in config.prompts)
        if pair.noun not in chosen and not taken:
            try:
                chosen[pair.noun] = Reference(open_image(pair.crop), pair.noun)
            except UserError:
                continue  # counted where the pairs are encoded
    return list(chosen.values())


def validation_grid(
    pipe: UMMPipeline, tiue: TIUE, references: Sequence[Reference], config: ValidationConfig
) -> Image.Image:
    """A row for each reference: the reference, then one image for each prompt.

    The parts of `pipe` are brought to the UNet's device and precision, and `tiue` stays its TIUE. No random
    state but the pictures' own is used.
    """
    pipe.register_modules(tiue=tiue)
    pipe.vae.to(pipe.unet.device, pipe.unet.dtype)
    pipe.image_encoder.to(pipe.unet.device, pipe.unet.dtype)
    rows = []
    for reference in references:
        images = pipe(
            reference.prompts(config),
            subjects=[Subject(reference.image, reference.noun)],
            alpha=config.alpha,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(config.seed) for _ in config.prompts],
        ).images
        rows.append([square(reference.image).resize(images[0].size, Image.Resampling.LANCZOS), *images])
    pictures = [image for row in rows for image in row]
    return make_image_grid(pictures, rows=len(rows), cols=len(rows[0]))
