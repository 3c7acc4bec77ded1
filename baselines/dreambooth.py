"""DreamBooth (Ruiz et al., 2208.12242): the UNet itself is fine-tuned to know a subject by a rare identifier.

Each step sees the subject's pictures as "a sks dog" and, so that the class is not forgotten, pictures that
the base itself draws of "a dog" (prior preservation, equation 2). The conditions are constants, unless the text
encoder is trained too, as diffusers' script can.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel

from baselines.finetuning import (
    Precision,
    adamw,
    denoising_errors,
    image_size,
    mixed,
    of_device,
    of_training,
    read_references,
    require_curve,
    require_finite,
    require_positive,
    scale_of,
    training_schedule,
    with_components,
)
from baselines.latents import Augment
from baselines.pictures import Pictures
from baselines.progress import Progress, fine_tune, is_complete, room
from baselines.stable_diffusion import draw
from baselines.words import phrase, rare_tokens, refused_identifier, refused_pictures, refused_prompt
from umm_bench.base import Base
from umm_bench.images import open_image
from umm_bench.methods import Case, Generation, Prompt, Subject
from umm_bench.seeding import digest, seed_for

logger = logging.getLogger(__name__)

DRAWN_AT_ONCE = 8  # class images, which bounds the memory


@dataclass(frozen=True)
class DreamBoothConfig:
    """`identifiers` are rare words of one token each, one for each subject of a case; `steps` and `num_class_images`
    are for one subject. `num_class_images` 0 turns prior preservation off. The batch is `batch_size` pictures of the
    subject and as many of the class.

    `training_seed` chooses the noise and the pictures of each step.
    `curve`: the numbers of steps, `steps` one of them, at which one training is kept (see `umm_bench.bench.asked`).
    These defaults are for the mini family on a CPU.
    """

    source: ClassVar[str] = "sized for the mini family"

    identifiers: tuple[str, ...] = ("sks", "pll", "ucd")
    steps: int = 200
    curve: tuple[int, ...] = ()
    training_seed: int = 0
    batch_size: int = 2
    learning_rate: float = 3e-4
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    num_class_images: int = 16
    class_inference_steps: int = 20
    class_guidance_scale: float = 5.0
    prior_loss_weight: float = 1.0
    train_text_encoder: bool = False
    augment: Augment = "none"
    mixed_precision: Precision = "no"
    gradient_checkpointing: bool = False
    use_8bit_adam: bool = False
    save_dtype: Literal["float16", "float32"] = "float16"

    def __post_init__(self) -> None:
        require_positive(self, "steps", "batch_size", "learning_rate", "class_inference_steps")
        require_curve(self.steps, self.curve)
        if self.num_class_images < 0:
            raise ValueError(f"num_class_images must not be negative, got {self.num_class_images}")
        if not self.identifiers or len(set(self.identifiers)) < len(self.identifiers):
            raise ValueError(f"identifiers must be at least one word and all different, got {self.identifiers}")


@dataclass(frozen=True)
class StableDiffusionDreamBooth(DreamBoothConfig):
    """For Stable Diffusion 1.x and 2.x, with prior preservation."""

    source: ClassVar[str] = "diffusers, examples/dreambooth"

    steps: int = 800
    batch_size: int = 1
    learning_rate: float = 5e-6
    num_class_images: int = 200
    class_inference_steps: int = 50
    class_guidance_scale: float = 7.5
    gradient_checkpointing: bool = True


class DreamBooth:
    """Fine-tuned on all subjects of a case together, each with an identifier of its own."""

    name = "dreambooth"
    config_class = DreamBoothConfig
    setup_for: ClassVar[Literal["subject", "case"]] = "case"
    max_subjects: ClassVar[int | None] = None
    version: ClassVar[int] = 2

    @staticmethod
    def defaults(base: Base) -> DreamBoothConfig:
        config = StableDiffusionDreamBooth() if scale_of(base) == "sd" else DreamBoothConfig()
        # A base without rare words keeps those that `check` then refuses with its reason.
        identifiers = rare_tokens(base.tokenizer, 3) or config.identifiers
        return replace(config, identifiers=identifiers, **of_device(base))

    @classmethod
    def check(cls, config: DreamBoothConfig, base: Base, case: Case, prompt: Prompt) -> str | None:
        if len(case.subjects) > len(config.identifiers):
            owner = f"--set {cls.name}.identifiers"
            return f"{len(case.subjects)} subjects but {len(config.identifiers)} identifiers; {owner}"
        return (
            refused_identifier(base.tokenizer, cls.name, config.identifiers[: len(case.subjects)], prompt)
            or refused_pictures(case)
            or refused_prompt(base.tokenizer, prompt, cls.read_as(config, case))
        )

    @classmethod
    def read_as(cls, config: DreamBoothConfig, case: Case) -> Sequence[str]:
        """Words of as many tokens as what names the subjects."""
        return cls.words(config, case)

    @staticmethod
    def words(config: DreamBoothConfig, case: Case) -> tuple[str, ...]:
        named = zip(config.identifiers, case.class_nouns, strict=False)
        return tuple(f"{identifier} {noun}" for identifier, noun in named)

    def __init__(self, base: Base, config: DreamBoothConfig, generation: Generation) -> None:
        self.base, self.config, self.generation = base, config, generation

    def setup(self, case: Case, directory: Path) -> StableDiffusionPipeline:
        """Fine-tunes and saves to `directory`, or finds it there; returns a pipeline with the tuned UNet.

        The saved state, in half precision, is what generates, also right after training.
        """
        self.trained(case, directory)
        return self.load(directory)

    def trained(self, case: Case, directory: Path) -> None:
        record = {"method": self.name, "config": asdict(self.config), "base": self.base.fingerprint, "subject": case.id}
        if is_complete(directory, record):
            return
        unet = self.trainable_unet(case)
        text_encoder = self.trainable_text_encoder(case)
        fine_tune(
            directory,
            record,
            lambda progress: self.train(case, unet, progress, text_encoder),
            lambda path: self.save(unet, path, text_encoder),
        )
        logger.info("fine-tuned the UNet for %s", case.id)

    def generate(
        self, states: Sequence[StableDiffusionPipeline], case: Case, prompt: Prompt, seeds: Sequence[int]
    ) -> list[Image.Image]:
        return draw(states[0], prompt.text(self.words(self.config, case)), seeds, self.generation)

    def trainable_unet(self, case: Case) -> UNet2DConditionModel:
        """A float32 copy of the base's UNet in which everything takes gradients."""
        return copy.deepcopy(self.base.pipeline().unet).float().requires_grad_(True)

    def trainable_text_encoder(self, case: Case) -> CLIPTextModel | None:
        """A copy of the base's text encoder with what of it takes gradients; None where nothing does."""
        if not self.config.train_text_encoder:
            return None
        return copy.deepcopy(self.base.pipeline().text_encoder).requires_grad_(True)

    def reader(self, case: Case, text_encoder: CLIPTextModel) -> StableDiffusionPipeline:
        """The base's pipeline with a text encoder that is trained, to read texts by."""
        return with_components(self.base.pipeline(), text_encoder=text_encoder.train())

    def train(
        self,
        case: Case,
        unet: UNet2DConditionModel,
        progress: Progress | None = None,
        text_encoder: CLIPTextModel | None = None,
    ) -> Iterator[tuple[int, float]]:
        """Fine-tunes `unet` in place, and `text_encoder` if given, yielding (step, loss). Diverged where it does.

        Each step draws from the pictures of all subjects. With `progress` it goes on where a former call was cut off.
        """
        config, pipe = self.config, self.base.pipeline()
        size, subjects = image_size(pipe), case.subjects
        texts = [phrase(*named) for named in zip(subjects, self.words(config, case), strict=True)]
        images = [read_references(subject.references) for subject in subjects]
        pools = [Pictures(pipe.vae, images, texts, size, config.augment)]
        if config.num_class_images:
            beside = progress.folder.parent if progress else None
            images = [self.class_images(subject, beside) for subject in subjects]
            texts = [phrase(subject, subject.class_noun) for subject in subjects]
            pools.append(Pictures(pipe.vae, images, texts, size, config.augment))
        parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
        if text_encoder is not None:
            pipe = self.reader(case, text_encoder)
            parameters += [parameter for parameter in text_encoder.parameters() if parameter.requires_grad]
        with torch.no_grad():
            constant = [read(pipe, pool.texts) for pool in pools]
        schedule = training_schedule(pipe)
        optimizer = adamw(parameters, config.learning_rate, config.weight_decay, config.use_8bit_adam)
        unet.train()
        if config.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        steps = config.steps * len(subjects)
        for step in range(progress.begin(parameters, optimizer, steps) if progress else 0, steps):
            generator = torch.Generator().manual_seed(seed_for(self.name, case.id, step, *of_training(config)))
            drawn = [pool.sample(config.batch_size, generator) for pool in pools]
            z_BCHW = torch.cat([z_BCHW for z_BCHW, _ in drawn]).float()
            with mixed(pipe.device, config.mixed_precision):
                h_SLDs = constant if text_encoder is None else [read(pipe, pool.texts) for pool in pools]
                h_BLD = torch.cat([h_SLD[group_B] for h_SLD, (_, group_B) in zip(h_SLDs, drawn, strict=True)]).float()
                errors_B = denoising_errors(unet, schedule, z_BCHW, h_BLD, generator)
            loss = errors_B[: config.batch_size].mean()
            if config.num_class_images:
                loss = loss + config.prior_loss_weight * errors_B[config.batch_size :].mean()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            require_finite(self.name, case, step, loss, norm)
            optimizer.step()
            optimizer.zero_grad()
            if progress:
                progress.step(loss.item())
            yield step, loss.item()
        unet.disable_gradient_checkpointing()
        unet.eval()

    def class_images(self, subject: Subject, beside: Path | None = None) -> list[Image.Image]:
        """What the base draws of the class. In a folder in `beside`, if any, they are made once for all subjects of it,
        whatever method asks, and for more of them the first ones count too.
        """
        config, text = self.config, phrase(subject, subject.class_noun)
        sampler = Generation(config.class_inference_steps, config.class_guidance_scale)
        if beside is None:
            numbers = range(config.num_class_images)
            return [image for _, image in self._draw_class(text, list(numbers), sampler)]
        folder = beside / f"class-{digest(self.base.fingerprint, text, asdict(sampler))}"
        paths = [folder / f"{number:04}.png" for number in range(config.num_class_images)]
        with room(folder):
            folder.mkdir(parents=True, exist_ok=True)
            missing = [number for number, path in enumerate(paths) if not path.is_file()]
            for number, image in self._draw_class(text, missing, sampler):
                partial = paths[number].with_suffix(".part")
                image.save(partial, "PNG")
                partial.replace(paths[number])
        return [open_image(path) for path in paths]

    def _draw_class(self, text: str, numbers: Sequence[int], sampler: Generation) -> Iterator[tuple[int, Image.Image]]:
        for start in range(0, len(numbers), DRAWN_AT_ONCE):
            some = numbers[start : start + DRAWN_AT_ONCE]
            seeds = [seed_for("dreambooth", "class", text, number) for number in some]
            yield from zip(some, draw(self.base.pipeline(), text, seeds, sampler), strict=True)

    def save(self, unet: UNet2DConditionModel, directory: Path, text_encoder: CLIPTextModel | None = None) -> None:
        """Writes `unet/` and, where it was trained, `text_encoder/`, for `from_pretrained`."""
        dtype = getattr(torch, self.config.save_dtype)
        unet.to(dtype).save_pretrained(directory / "unet")
        if text_encoder is not None:
            text_encoder.to(dtype).save_pretrained(directory / "text_encoder")

    def load(self, directory: Path) -> StableDiffusionPipeline:
        pipe = self.base.pipeline()
        unet = UNet2DConditionModel.from_pretrained(directory / "unet", dtype=pipe.unet.dtype)
        tuned = {"unet": unet.to(pipe.device)}
        if self.config.train_text_encoder:
            text_encoder = CLIPTextModel.from_pretrained(directory / "text_encoder", dtype=pipe.text_encoder.dtype)
            tuned["text_encoder"] = text_encoder.to(pipe.device)
        return with_components(pipe, **tuned)


def read(pipe: StableDiffusionPipeline, texts: Sequence[str]) -> Tensor:
    """Text hidden states [S, L, D], made as the pipeline makes them."""
    h_SLD, _ = pipe.encode_prompt(list(texts), pipe.device, 1, do_classifier_free_guidance=False)
    return h_SLD
