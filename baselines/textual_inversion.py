"""Textual Inversion (Gal et al., 2208.01618): a subject becomes a word; its embedding alone is optimised."""

import copy
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from baselines.finetuning import (
    Precision,
    denoising_errors,
    frozen,
    image_size,
    mixed,
    of_training,
    precision_of,
    read_references,
    require_curve,
    require_finite,
    require_positive,
    scale_of,
    training_schedule,
    with_components,
)
from baselines.latents import Augment, cache_latents
from baselines.progress import Progress, fine_tune, is_complete
from baselines.stable_diffusion import draw
from baselines.words import is_known, refused_prompt, training_texts
from umm_bench.base import Base
from umm_bench.errors import UserError
from umm_bench.methods import Case, Generation, Prompt, Subject
from umm_bench.seeding import seed_for

logger = logging.getLogger(__name__)

EMBEDDINGS_FILE = "learned_embeds.safetensors"  # the name that diffusers' load_textual_inversion looks for


@dataclass(frozen=True)
class TextualInversionConfig:
    """`num_vectors` rows are learnt for the word; all start at the mean embedding of the class noun's tokens.

    `training_seed` chooses the noise and the pictures of each step. `curve`: the numbers of steps, `steps` one of them,
    at which one training is kept (see `umm_bench.bench.asked`).
    These defaults are for the mini family on a CPU.
    """

    source: ClassVar[str] = "sized for the mini family"

    placeholder: str = "<umm-subject>"
    num_vectors: int = 1
    steps: int = 300
    curve: tuple[int, ...] = ()
    training_seed: int = 0
    batch_size: int = 4
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    augment: Augment = "none"
    mixed_precision: Precision = "no"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "num_vectors", "steps", "batch_size", "learning_rate")
        require_curve(self.steps, self.curve)
        if not self.placeholder or any(character.isspace() for character in self.placeholder):
            raise ValueError(f"placeholder must be one word, got {self.placeholder!r}")


@dataclass(frozen=True)
class StableDiffusionTextualInversion(TextualInversionConfig):
    """For Stable Diffusion 1.x and 2.x: 5e-4 scaled by a batch of 4, the pictures mirrored at random."""

    source: ClassVar[str] = "diffusers, examples/textual_inversion"

    steps: int = 3000
    learning_rate: float = 2e-3
    augment: Augment = "flip"
    gradient_checkpointing: bool = True


class TextualInversion:
    """A word for each subject, learnt alone; a prompt for several has them all."""

    name = "textual_inversion"
    config_class = TextualInversionConfig
    max_subjects: ClassVar[int | None] = None
    version: ClassVar[int] = 2

    @staticmethod
    def defaults(base: Base) -> TextualInversionConfig:
        config = StableDiffusionTextualInversion() if scale_of(base) == "sd" else TextualInversionConfig()
        return replace(config, mixed_precision=precision_of(base))

    @staticmethod
    def check(config: TextualInversionConfig, base: Base, case: Case, prompt: Prompt) -> str | None:
        words = TextualInversion.words(config, case)
        if taken := next((word for word in words if is_known(base.tokenizer, word)), None):
            return f"the placeholder {taken!r} is already a word of the base; --set textual_inversion.placeholder"
        stand_ins = ["x"] * len(words)  # one token each, as the words will be
        return refused_prompt(base.tokenizer, prompt, stand_ins, more=config.num_vectors - 1)

    @staticmethod
    def words(config: TextualInversionConfig, case: Case) -> tuple[str, ...]:
        """The placeholder, and for further subjects one with a number in it: "<umm-subject>", "<umm-subject-2>"."""
        # None may begin with another: diffusers replaces a word of several vectors wherever it finds it.
        start, end = config.placeholder[:-1], config.placeholder[-1:]
        return (config.placeholder, *(f"{start}-{n}{end}" for n in range(2, len(case.subjects) + 1)))

    def __init__(self, base: Base, config: TextualInversionConfig, generation: Generation) -> None:
        self.base, self.config, self.generation = base, config, generation
        self._known: tuple[list[Tensor], StableDiffusionPipeline] | None = None

    def setup(self, subject: Subject, directory: Path) -> Tensor:
        """Learns the word's rows [V, D] and saves them to `directory`, or finds them there."""
        record = {
            "method": self.name,
            "config": asdict(self.config),
            "base": self.base.fingerprint,
            "subject": subject.id,
        }
        if not is_complete(directory, record):
            rows_VD = self.initial_rows(subject)
            fine_tune(
                directory,
                record,
                lambda progress: self.train(subject, rows_VD, progress),
                lambda path: save_file({self.config.placeholder: rows_VD.detach().cpu()}, path / EMBEDDINGS_FILE),
            )
            logger.info("learnt %s for %s", self.config.placeholder, subject.id)
        return load_file(directory / EMBEDDINGS_FILE)[self.config.placeholder]

    def generate(self, states: Sequence[Tensor], case: Case, prompt: Prompt, seeds: Sequence[int]) -> list[Image.Image]:
        words = self.words(self.config, case)
        return draw(self.knowing(states, words), prompt.text(words), seeds, self.generation)

    def knowing(self, states: Sequence[Tensor], words: Sequence[str]) -> StableDiffusionPipeline:
        """A pipeline that knows each word by its rows. The last one is kept."""
        known = self._known[0] if self._known else []
        if len(known) != len(states) or any(a is not b for a, b in zip(known, states, strict=True)):
            pipe = self.copied_pipeline()
            for word, rows_VD in zip(words, states, strict=True):
                pipe.load_textual_inversion({word: rows_VD})
            self._known = (list(states), pipe)
        assert self._known is not None
        return self._known[1]

    def copied_pipeline(self) -> StableDiffusionPipeline:
        """The base with its own tokenizer and text encoder: a new word changes both."""
        pipe = self.base.pipeline()
        return with_components(
            pipe, tokenizer=copy.deepcopy(pipe.tokenizer), text_encoder=copy.deepcopy(pipe.text_encoder)
        )

    def initial_rows(self, subject: Subject) -> nn.Parameter:
        """[V, D], float32, each row the mean embedding of the class noun's tokens."""
        pipe = self.base.pipeline()
        ids_T = pipe.tokenizer(subject.class_noun, add_special_tokens=False, return_tensors="pt").input_ids[0]
        if len(ids_T) == 0:
            raise UserError(f"subject {subject.id!r} has no class noun to start its word from")
        table = pipe.text_encoder.get_input_embeddings().weight
        mean_D = table.detach()[ids_T.to(table.device)].float().mean(0)
        return nn.Parameter(mean_D.repeat(self.config.num_vectors, 1))

    def train(
        self, subject: Subject, rows_VD: nn.Parameter, progress: Progress | None = None
    ) -> Iterator[tuple[int, float]]:
        """Optimises `rows_VD` in place, yielding (step, loss). The base's own weights collect no gradient.

        With `progress` it goes on where a former call was cut off. UserError when it diverges.
        """
        config = self.config
        pipe = self.copied_pipeline()
        # As load_textual_inversion will name them.
        words = [config.placeholder, *(f"{config.placeholder}_{i}" for i in range(1, config.num_vectors))]
        if is_known(pipe.tokenizer, config.placeholder):
            raise UserError(f"the placeholder {config.placeholder!r} is already a word of the base's tokenizer")
        pipe.tokenizer.add_tokens(words)
        word_ids = pipe.tokenizer.convert_tokens_to_ids(words)
        pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer), mean_resizing=False)
        ids_NL = pipe.tokenizer(
            [text.replace(config.placeholder, " ".join(words)) for text in training_texts(subject, config.placeholder)],
            padding="max_length",
            truncation=True,
            max_length=pipe.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids.to(rows_VD.device)
        if not all(bool((ids_NL == word_id).any(1).all()) for word_id in word_ids):
            most = pipe.tokenizer.model_max_length
            raise UserError(f"{config.num_vectors} vectors do not fit into the {most} tokens of the text encoder")

        def put_rows(module: nn.Module, args: tuple[Tensor, ...], embeddings_BLD: Tensor) -> Tensor:
            for word_id, row_D in zip(word_ids, rows_VD.to(embeddings_BLD.dtype), strict=True):
                embeddings_BLD = torch.where((args[0] == word_id)[..., None], row_D, embeddings_BLD)
            return embeddings_BLD

        images = read_references(subject.references)
        latents = cache_latents(pipe.vae, images, image_size(pipe), config.augment)
        schedule = training_schedule(pipe)
        optimizer = torch.optim.AdamW([rows_VD], lr=config.learning_rate, weight_decay=config.weight_decay)
        hook = pipe.text_encoder.get_input_embeddings().register_forward_hook(put_rows)
        if config.gradient_checkpointing:
            pipe.unet.enable_gradient_checkpointing()
        try:
            for step in range(progress.begin([rows_VD], optimizer, config.steps) if progress else 0, config.steps):
                generator = torch.Generator().manual_seed(seed_for(self.name, subject.id, step, *of_training(config)))
                image_B = torch.randint(len(latents), (config.batch_size,), generator=generator)
                text_B = torch.randint(len(ids_NL), (config.batch_size,), generator=generator)
                z_BCHW = latents.sample(image_B, generator)
                with frozen(pipe.unet, pipe.text_encoder):
                    with mixed(pipe.device, config.mixed_precision):
                        h_BLD = pipe.text_encoder(ids_NL[text_B])[0]
                        loss = denoising_errors(pipe.unet, schedule, z_BCHW, h_BLD, generator).mean()
                    loss.backward()
                norm = nn.utils.clip_grad_norm_([rows_VD], math.inf)  # measured, not clipped
                require_finite(self.name, subject, step, loss, norm)
                optimizer.step()
                optimizer.zero_grad()
                if progress:
                    progress.step(loss.item())
                yield step, loss.item()
        finally:
            hook.remove()
            pipe.unet.disable_gradient_checkpointing()  # it is the base's own
