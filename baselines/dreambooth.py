"""DreamBooth (Ruiz et al., 2208.12242): the UNet itself is fine-tuned to know a subject by a rare identifier.

Each step sees the subject's pictures as "a sks dog" and, so that the class is not forgotten, pictures that
the base itself draws of "a dog" (prior preservation, equation 2). The text encoder is not trained, so the
conditions are constants.
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

from baselines.finetuning import (
    Precision,
    denoising_errors,
    image_size,
    mixed,
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

    `curve`: the numbers of steps, `steps` one of them, at which one training is kept (see `umm_bench.bench.asked`).
    These defaults are for the mini family on a CPU.
    """

    source: ClassVar[str] = "sized for the mini family"

    identifiers: tuple[str, ...] = ("sks", "pll", "ucd")
    steps: int = 200
    curve: tuple[int, ...] = ()
    batch_size: int = 2
    learning_rate: float = 3e-4
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    num_class_images: int = 16
    class_inference_steps: int = 20
    class_guidance_scale: float = 5.0
    prior_loss_weight: float = 1.0
    augment: Augment = "none"
    mixed_precision: Precision = "no"
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
        return replace(config, identifiers=identifiers, mixed_precision=precision_of(base))

    @classmethod
    def check(cls, config: DreamBoothConfig, base: Base, case: Case, prompt: Prompt) -> str | None:
        if len(case.subjects) > len(config.identifiers):
            owner = f"--set {cls.name}.identifiers"
            return f"{len(case.subjects)} subjects but {len(config.identifiers)} identifiers; {owner}"
        return (
            refused_identifier(base.tokenizer, cls.name, config.identifiers[: len(case.subjects)], prompt)
            or refused_pictures(case)
            or refused_prompt(base.tokenizer, prompt, cls.words(config, case))
        )

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
        fine_tune(
            directory,
            record,
            lambda progress: self.train(case, unet, progress),
            lambda path: self.save(unet, path),
        )
        logger.info("fine-tuned the UNet for %s", case.id)

    def generate(
        self, states: Sequence[StableDiffusionPipeline], case: Case, prompt: Prompt, seeds: Sequence[int]
    ) -> list[Image.Image]:
        return draw(states[0], prompt.text(self.words(self.config, case)), seeds, self.generation)

    def trainable_unet(self, case: Case) -> UNet2DConditionModel:
        """A float32 copy of the base's UNet in which everything takes gradients."""
        return copy.deepcopy(self.base.pipeline().unet).float().requires_grad_(True)

    def train(
        self, case: Case, unet: UNet2DConditionModel, progress: Progress | None = None
    ) -> Iterator[tuple[int, float]]:
        """Fine-tunes `unet` in place, yielding (step, loss). Diverged, a UserError, when it does.

        Each step draws from the pictures of all subjects. With `progress` it goes on where a former call was cut off.
        """
        config, pipe = self.config, self.base.pipeline()
        size, subjects = image_size(pipe), case.subjects
        texts = [phrase(*named) for named in zip(subjects, self.words(config, case), strict=True)]
        own = Pictures(self, [read_references(subject.references) for subject in subjects], texts, size)
        prior = None
        if config.num_class_images:
            beside = progress.folder.parent if progress else None
            images = [self.class_images(subject, beside) for subject in subjects]
            prior = Pictures(self, images, [phrase(subject, subject.class_noun) for subject in subjects], size)
        schedule = training_schedule(pipe)
        parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
        # Fused: the same update in a quarter of the time, which is an eighth of a step on a CPU.
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        unet.train()
        steps = config.steps * len(subjects)
        for step in range(progress.begin(parameters, optimizer, steps) if progress else 0, steps):
            generator = torch.Generator().manual_seed(seed_for(self.name, case.id, step))
            z_BCHW, h_BLD = own.sample(config.batch_size, generator)
            if prior is not None:
                z_class_BCHW, h_class_BLD = prior.sample(config.batch_size, generator)
                z_BCHW, h_BLD = torch.cat([z_BCHW, z_class_BCHW]), torch.cat([h_BLD, h_class_BLD])
            with mixed(pipe.device, config.mixed_precision):
                errors_B = denoising_errors(unet, schedule, z_BCHW.float(), h_BLD.float(), generator)
            loss = errors_B[: config.batch_size].mean()
            if prior is not None:
                loss = loss + config.prior_loss_weight * errors_B[config.batch_size :].mean()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            require_finite(self.name, case, step, loss, norm)
            optimizer.step()
            optimizer.zero_grad()
            if progress:
                progress.step(loss.item())
            yield step, loss.item()
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

    @torch.no_grad()
    def condition(self, text: str) -> Tensor:
        """Text hidden states [1, L, D], made as the pipeline makes them."""
        pipe = self.base.pipeline()
        h_1LD, _ = pipe.encode_prompt(text, pipe.device, 1, do_classifier_free_guidance=False)
        return h_1LD

    def save(self, unet: UNet2DConditionModel, directory: Path) -> None:
        """Writes `unet/` for `UNet2DConditionModel.from_pretrained`."""
        unet.to(getattr(torch, self.config.save_dtype)).save_pretrained(directory / "unet")

    def load(self, directory: Path) -> StableDiffusionPipeline:
        pipe = self.base.pipeline()
        unet = UNet2DConditionModel.from_pretrained(directory / "unet", dtype=pipe.unet.dtype)
        return with_components(pipe, unet=unet.to(pipe.device))


class Pictures:
    """Latents of one group of pictures a subject, each picture with the condition of its group."""

    def __init__(
        self, method: DreamBooth, groups: Sequence[Sequence[Image.Image]], texts: Sequence[str], size: int
    ) -> None:
        config, vae = method.config, method.base.pipeline().vae
        caches = [cache_latents(vae, images, size, config.augment) for images in groups]
        self.latents = replace(
            caches[0],
            mean_NCHW=torch.cat([cache.mean_NCHW for cache in caches]),
            std_NCHW=torch.cat([cache.std_NCHW for cache in caches]),
        )
        self.group_N = torch.tensor([group for group, cache in enumerate(caches) for _ in range(len(cache))])
        self.h_SLD = torch.cat([method.condition(text) for text in texts])

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents [B, C, H, W] of random pictures, and their conditions [B, L, D]."""
        image_B = torch.randint(len(self.latents), (batch_size,), generator=generator)
        return self.latents.sample(image_B, generator), self.h_SLD[self.group_N[image_B].to(self.h_SLD.device)]
