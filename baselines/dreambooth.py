"""DreamBooth (Ruiz et al., 2208.12242): the UNet itself is fine-tuned to know a subject by a rare identifier.

Each step sees the subject's pictures as "a sks dog" and, so that the class is not forgotten, pictures that
the base itself draws of "a dog" (prior preservation, equation 2). The text encoder is not trained, so the
conditions are constants.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

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
from umm_bench.methods import Generation, Prompt, Subject
from umm_bench.seeding import seed_for

logger = logging.getLogger(__name__)

ATTENTION_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class DreamBoothConfig:
    """Sized for the mini family on a CPU; for SD 1.5 diffusers takes 800 steps at 5e-6 and 200 class images.

    `lora_rank` None fine-tunes the whole UNet, a number trains adapters of that rank on its attention only
    (which wants a learning rate about ten times as high). `num_class_images` 0 turns prior preservation off.
    The batch is `batch_size` pictures of the subject and as many of the class.
    """

    identifier: str = "sks"
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


class DreamBooth:
    name = "dreambooth"
    config_class = DreamBoothConfig

    def __init__(self, base: Base, config: DreamBoothConfig, generation: Generation) -> None:
        self.base, self.config, self.generation = base, config, generation

    def setup(self, subject: Subject, directory: Path) -> StableDiffusionPipeline:
        """Fine-tunes and saves to `directory`, or finds it there; returns a pipeline with the tuned UNet.

        The saved state, in half precision, is what generates, also right after training.
        """
        record = {
            "method": self.name,
            "config": asdict(self.config),
            "base": self.base.fingerprint,
            "subject": subject.id,
        }
        if not is_complete(directory, record):
            unet, progress = self.trainable_unet(subject), Progress(directory, record)
            for _ in self.train(subject, unet, progress):
                pass
            progress.finish(directory, lambda path: self.save(unet, path))
            logger.info("fine-tuned the UNet for %s", subject.id)
        return self.load(directory)

    def generate(
        self, state: StableDiffusionPipeline, subject: Subject, prompt: Prompt, seeds: Sequence[int]
    ) -> list[Image.Image]:
        return draw(state, prompt.text(f"{self.config.identifier} {subject.class_noun}"), seeds, self.generation)

    def trainable_unet(self, subject: Subject) -> UNet2DConditionModel:
        """A float32 copy of the base's UNet in which everything, or only a new LoRA, takes gradients."""
        unet = copy.deepcopy(self.base.pipeline().unet).float()
        if self.config.lora_rank is None:
            return unet.requires_grad_(True)
        unet.requires_grad_(False)
        rank = self.config.lora_rank
        with torch.random.fork_rng(devices=[]):  # peft draws the adapters from the global generator
            torch.manual_seed(seed_for(self.name, subject.id, "lora"))
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
        self, subject: Subject, unet: UNet2DConditionModel, progress: Progress | None = None
    ) -> Iterator[tuple[int, float]]:
        """Fine-tunes `unet` in place, yielding (step, loss). UserError when it diverges.

        With `progress` it goes on where a former call was cut off.
        """
        config, pipe = self.config, self.base.pipeline()
        size = image_size(pipe)
        latents = cache_latents(pipe.vae, read_references(subject.references), size, config.augment)
        h_subject_BLD = self.condition(instance_prompt(subject, config.identifier), config.batch_size)
        prior = None
        if config.num_class_images:
            prior = cache_latents(
                pipe.vae, self.class_images(subject, progress.folder if progress else None), size, config.augment
            )
            h_class_BLD = self.condition(class_prompt(subject), config.batch_size)
        schedule = training_schedule(pipe)
        parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
        # Fused: the same update in a quarter of the time, which is an eighth of a step on a CPU.
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        unet.train()
        for step in range(progress.begin(parameters, optimizer) if progress else 0, config.steps):
            generator = torch.Generator().manual_seed(seed_for(self.name, subject.id, step))
            image_B = torch.randint(len(latents), (config.batch_size,), generator=generator)
            z_BCHW, h_BLD = latents.sample(image_B, generator), h_subject_BLD
            if prior is not None:
                class_B = torch.randint(len(prior), (config.batch_size,), generator=generator)
                z_BCHW = torch.cat([z_BCHW, prior.sample(class_B, generator)])
                h_BLD = torch.cat([h_subject_BLD, h_class_BLD])
            errors_B = denoising_errors(unet, schedule, z_BCHW.float(), h_BLD.float(), generator)
            loss = errors_B[: config.batch_size].mean()
            if prior is not None:
                loss = loss + config.prior_loss_weight * errors_B[config.batch_size :].mean()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            require_finite(self.name, subject, step, loss, norm)
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
            paths = [folder / f"class-{start + i}.png" for i in range(len(batch))] if folder else []
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
    def condition(self, text: str, batch_size: int) -> Tensor:
        """Text hidden states [B, L, D], made as the pipeline makes them."""
        pipe = self.base.pipeline()
        h_1LD, _ = pipe.encode_prompt(text, pipe.device, 1, do_classifier_free_guidance=False)
        return h_1LD.repeat(batch_size, 1, 1)

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


def instance_prompt(subject: Subject, identifier: str) -> str:
    """ "a sks dog"; a style's phrase takes no article."""
    phrase = f"{identifier} {subject.class_noun}"
    return phrase if subject.kind == "style" else f"a {phrase}"


def class_prompt(subject: Subject) -> str:
    return subject.class_noun if subject.kind == "style" else f"a {subject.class_noun}"
