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
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from torch import Tensor

from baselines.finetuning import (
    Augment,
    Progress,
    cache_latents,
    denoising_errors,
    image_size,
    is_complete,
    read_references,
    require_finite,
    require_positive,
    training_schedule,
    with_components,
)
from baselines.stable_diffusion import draw
from umm_bench.base import Base
from umm_bench.images import open_image
from umm_bench.methods import Case, Generation, Prompt, Subject
from umm_bench.seeding import digest, seed_for

logger = logging.getLogger(__name__)

ATTENTION_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class DreamBoothConfig:
    """Sized for the mini family on a CPU; for SD 1.5 diffusers takes 800 steps at 5e-6 and 200 class images.

    `identifiers` are rare words, one for each subject of a case; `steps` and `num_class_images` are for one subject.
    `lora_rank` None fine-tunes the whole UNet, a number trains adapters of that rank on its attention only
    (which wants a learning rate about ten times as high). `num_class_images` 0 turns prior preservation off.
    The batch is `batch_size` pictures of the subject and as many of the class.
    """

    identifiers: tuple[str, ...] = ("sks", "pll", "ucd")
    steps: int = 200
    batch_size: int = 2
    learning_rate: float = 3e-4
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    num_class_images: int = 16
    class_inference_steps: int = 20
    class_guidance_scale: float = 5.0
    prior_loss_weight: float = 1.0
    lora_rank: int | None = None
    augment: Augment = "none"
    save_dtype: Literal["float16", "float32"] = "float16"

    def __post_init__(self) -> None:
        require_positive(self, "steps", "batch_size", "learning_rate", "class_inference_steps")
        if self.lora_rank is not None:
            require_positive(self, "lora_rank")
        if self.num_class_images < 0:
            raise ValueError(f"num_class_images must not be negative, got {self.num_class_images}")
        if not self.identifiers or len(set(self.identifiers)) < len(self.identifiers):
            raise ValueError(f"identifiers must be at least one word and all different, got {self.identifiers}")


class DreamBooth:
    """Fine-tuned on all subjects of a case together, each with an identifier of its own."""

    name = "dreambooth"
    config_class = DreamBoothConfig
    setup_for: ClassVar[Literal["case"]] = "case"
    max_subjects: ClassVar[int | None] = None

    @staticmethod
    def check(config: DreamBoothConfig, base: Base, case: Case, prompt: Prompt) -> str | None:
        if len(case.subjects) <= len(config.identifiers):
            return None
        return f"{len(case.subjects)} subjects but {len(config.identifiers)} identifiers; --set dreambooth.identifiers"

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
        record = {"method": self.name, "config": asdict(self.config), "base": self.base.fingerprint, "subject": case.id}
        if not is_complete(directory, record):
            unet, progress = self.trainable_unet(case), Progress(directory, record)
            for _ in self.train(case, unet, progress):
                pass
            progress.finish(directory, lambda path: self.save(unet, path))
            logger.info("fine-tuned the UNet for %s", case.id)
        return self.load(directory)

    def generate(
        self, states: Sequence[StableDiffusionPipeline], case: Case, prompt: Prompt, seeds: Sequence[int]
    ) -> list[Image.Image]:
        return draw(states[0], prompt.text(self.words(self.config, case)), seeds, self.generation)

    def trainable_unet(self, case: Case) -> UNet2DConditionModel:
        """A float32 copy of the base's UNet in which everything, or only a new LoRA, takes gradients."""
        unet = copy.deepcopy(self.base.pipeline().unet).float()
        if self.config.lora_rank is None:
            return unet.requires_grad_(True)
        unet.requires_grad_(False)
        rank = self.config.lora_rank
        with torch.random.fork_rng(devices=[]):  # peft draws the adapters from the global generator
            torch.manual_seed(seed_for(self.name, case.id, "lora"))
            unet.add_adapter(
                LoraConfig(
                    r=rank,
                    lora_alpha=rank,
                    init_lora_weights="gaussian",
                    target_modules=[*ATTENTION_PROJECTIONS],
                )
            )
        return unet

    def train(
        self, case: Case, unet: UNet2DConditionModel, progress: Progress | None = None
    ) -> Iterator[tuple[int, float]]:
        """Fine-tunes `unet` in place, yielding (step, loss). UserError when it diverges.

        Each step draws from the pictures of all subjects. With `progress` it goes on where a former call was cut off.
        """
        config, pipe, folder = self.config, self.base.pipeline(), progress.folder if progress else None
        size, named = image_size(pipe), list(zip(case.subjects, config.identifiers, strict=False))
        images = [read_references(subject.references) for subject in case.subjects]
        texts = [instance_prompt(subject, identifier) for subject, identifier in named]
        own = Pictures(self, images, texts, size)
        prior = None
        if config.num_class_images:
            images = [self.class_images(subject, folder) for subject in case.subjects]
            prior = Pictures(self, images, [class_prompt(subject) for subject in case.subjects], size)
        schedule = training_schedule(pipe)
        parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
        # Fused: the same update in a quarter of the time, which is an eighth of a step on a CPU.
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        unet.train()
        steps = config.steps * len(case.subjects)
        for step in range(progress.begin(parameters, optimizer) if progress else 0, steps):
            generator = torch.Generator().manual_seed(seed_for(self.name, case.id, step))
            z_BCHW, h_BLD = own.sample(config.batch_size, generator)
            if prior is not None:
                z_class_BCHW, h_class_BLD = prior.sample(config.batch_size, generator)
                z_BCHW, h_BLD = torch.cat([z_BCHW, z_class_BCHW]), torch.cat([h_BLD, h_class_BLD])
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

    def class_images(self, subject: Subject, folder: Path | None = None) -> list[Image.Image]:
        """What the base draws of the class; eight at a time, which bounds the memory. Kept in `folder`, if any."""
        seeds = [seed_for(self.name, "class", subject.class_noun, i) for i in range(self.config.num_class_images)]
        sampler = Generation(self.config.class_inference_steps, self.config.class_guidance_scale)
        text, pipe = class_prompt(subject), self.base.pipeline()
        images: list[Image.Image] = []
        for start in range(0, len(seeds), 8):
            batch = seeds[start : start + 8]
            noun = digest(subject.class_noun, length=8)
            paths = [folder / f"class-{noun}-{start + i}.png" for i in range(len(batch))] if folder else []
            if paths and all(path.is_file() for path in paths):
                images += [open_image(path) for path in paths]
                continue
            drawn = draw(pipe, text, batch, sampler)
            for path, image in zip(paths, drawn, strict=False):
                partial = path.with_suffix(".part")
                image.save(partial, "PNG")
                partial.replace(path)
            images += drawn
        return images

    @torch.no_grad()
    def condition(self, text: str) -> Tensor:
        """Text hidden states [1, L, D], made as the pipeline makes them."""
        pipe = self.base.pipeline()
        h_1LD, _ = pipe.encode_prompt(text, pipe.device, 1, do_classifier_free_guidance=False)
        return h_1LD

    def save(self, unet: UNet2DConditionModel, directory: Path) -> None:
        """Writes `unet/` for `UNet2DConditionModel.from_pretrained`, or a LoRA for `load_lora_weights`."""
        dtype = getattr(torch, self.config.save_dtype)
        if self.config.lora_rank is None:
            unet.to(dtype).save_pretrained(directory / "unet")
            return
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
        layers = {name: weight.to(dtype) for name, weight in layers.items()}
        StableDiffusionPipeline.save_lora_weights(directory, unet_lora_layers=layers)

    def load(self, directory: Path) -> StableDiffusionPipeline:
        pipe = self.base.pipeline()
        if self.config.lora_rank is None:
            unet = UNet2DConditionModel.from_pretrained(directory / "unet", dtype=pipe.unet.dtype)
            return with_components(pipe, unet=unet.to(pipe.device))
        tuned = with_components(pipe, unet=copy.deepcopy(pipe.unet))
        tuned.load_lora_weights(directory)
        return tuned


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


def instance_prompt(subject: Subject, identifier: str) -> str:
    """ "a sks dog"; a style's phrase takes no article."""
    phrase = f"{identifier} {subject.class_noun}"
    return phrase if subject.kind == "style" else f"a {phrase}"


def class_prompt(subject: Subject) -> str:
    return subject.class_noun if subject.kind == "style" else f"a {subject.class_noun}"
