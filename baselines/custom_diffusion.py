"""Custom Diffusion (Kumari et al., 2212.04488): how text is read is fine-tuned, and a new word for each subject.

Of the UNet only the keys and values of cross-attention change; a case of several subjects is trained on all of their
pictures together, each with a word of its own before its class noun ("a <new1> dog"). Prior images as in DreamBooth.
"""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from baselines.dreambooth import DreamBooth, DreamBoothConfig
from baselines.finetuning import of_device, scale_of, with_components
from baselines.latents import Augment
from baselines.words import is_known, rare_tokens
from umm_bench.base import Base
from umm_bench.methods import Case, Prompt

WEIGHTS_FILE = "pytorch_custom_diffusion_weights.safetensors"  # the name that diffusers' save_attn_procs writes
WORDS_FILE = "learned_embeds.safetensors"
_SAVED_AS = {"to_k": "to_k_custom_diffusion", "to_v": "to_v_custom_diffusion"}


@dataclass(frozen=True)
class CustomDiffusionConfig(DreamBoothConfig):
    """`identifiers` are the rare words that the new ones begin as, one for each subject of a case.

    These defaults are for the mini family on a CPU.
    """

    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_text_encoder:
            raise ValueError("train_text_encoder: Custom Diffusion learns words alone; the method dreambooth trains it")


@dataclass(frozen=True)
class StableDiffusionCustomDiffusion(CustomDiffusionConfig):
    """For Stable Diffusion 1.x and 2.x: 1e-5 by the batch, doubled for class images; pictures mirrored at random."""

    source: ClassVar[str] = "diffusers, examples/custom_diffusion"

    steps: int = 250
    batch_size: int = 2
    learning_rate: float = 4e-5
    augment: Augment = "flip"
    num_class_images: int = 200
    class_inference_steps: int = 50
    class_guidance_scale: float = 7.5
    gradient_checkpointing: bool = True


class WithNewWords(nn.Module):
    """A text encoder's frozen table with rows [N, D] to learn in place of its last N."""

    def __init__(self, table: nn.Embedding, rows_ND: Tensor) -> None:
        super().__init__()
        self.table = table.requires_grad_(False)
        self.rows = nn.Parameter(rows_ND.detach().float().clone())

    @property
    def weight(self) -> Tensor:
        return self.table.weight

    def forward(self, ids_BL: Tensor) -> Tensor:
        first = self.table.num_embeddings - len(self.rows)
        old_BLD = self.table(ids_BL)
        new_BLD = self.rows.to(old_BLD.dtype)[(ids_BL - first).clamp(min=0)]
        return torch.where((ids_BL >= first)[..., None], new_BLD, old_BLD)


class CustomDiffusion(DreamBooth):
    """Keys, values and words, learnt for all subjects of a case together."""

    name = "custom_diffusion"
    config_class = CustomDiffusionConfig
    version: ClassVar[int] = 1

    @staticmethod
    def defaults(base: Base) -> DreamBoothConfig:
        config = StableDiffusionCustomDiffusion() if scale_of(base) == "sd" else CustomDiffusionConfig()
        identifiers = rare_tokens(base.tokenizer, 3) or config.identifiers
        return replace(config, identifiers=identifiers, **of_device(base))

    @classmethod
    def check(cls, config: DreamBoothConfig, base: Base, case: Case, prompt: Prompt) -> str | None:
        if taken := next((word for word in new_words(case) if is_known(base.tokenizer, word)), None):
            return f"{taken!r} is already a word of the base, and Custom Diffusion would learn it anew"
        return super().check(config, base, case, prompt)

    @classmethod
    def read_as(cls, config: DreamBoothConfig, case: Case) -> list[str]:
        return [f"x {noun}" for noun in case.class_nouns]  # one token each, as the new words will be

    @staticmethod
    def words(config: DreamBoothConfig, case: Case) -> tuple[str, ...]:
        return tuple(f"{word} {noun}" for word, noun in zip(new_words(case), case.class_nouns, strict=True))

    def trainable_unet(self, case: Case) -> UNet2DConditionModel:
        """A float32 copy of the base's UNet in which keys and values of cross-attention take gradients."""
        unet = copy.deepcopy(self.base.pipeline().unet).float().requires_grad_(False)
        for layer in text_layers(unet).values():
            layer.requires_grad_(True)
        return unet

    def trainable_text_encoder(self, case: Case) -> CLIPTextModel:
        """A copy of the base's text encoder in which the new words' rows take gradients."""
        pipe, words = self.base.pipeline(), new_words(case)
        text_encoder = copy.deepcopy(pipe.text_encoder).requires_grad_(False)
        ids = [pipe.tokenizer(i, add_special_tokens=False).input_ids[0] for i in self.config.identifiers[: len(words)]]
        text_encoder.resize_token_embeddings(len(pipe.tokenizer) + len(words), mean_resizing=False)
        table = text_encoder.get_input_embeddings()
        text_encoder.set_input_embeddings(WithNewWords(table, table.weight[ids]))
        return text_encoder

    def reader(self, case: Case, text_encoder: CLIPTextModel) -> StableDiffusionPipeline:
        pipe = self.base.pipeline()
        return with_components(pipe, text_encoder=text_encoder.train(), tokenizer=knowing(pipe.tokenizer, case))

    def save(self, unet: UNet2DConditionModel, directory: Path, text_encoder: CLIPTextModel | None = None) -> None:
        """Writes keys and values for `load_attn_procs`, and the words for `load_textual_inversion`."""
        assert text_encoder is not None
        dtype = getattr(torch, self.config.save_dtype)
        layers = {name: layer.weight.detach().to(dtype).contiguous() for name, layer in text_layers(unet).items()}
        save_file(layers, directory / WEIGHTS_FILE, metadata={"format": "pt"})
        rows_ND = text_encoder.get_input_embeddings().rows.detach().cpu()
        save_file({f"<new{n}>": row_D.clone() for n, row_D in enumerate(rows_ND, 1)}, directory / WORDS_FILE)

    def load(self, directory: Path) -> StableDiffusionPipeline:
        pipe = self.base.pipeline()
        unet = copy.deepcopy(pipe.unet)
        saved = load_file(directory / WEIGHTS_FILE)
        with torch.no_grad():
            for name, layer in text_layers(unet).items():
                layer.weight.copy_(saved[name])
        tuned = with_components(
            pipe, unet=unet, tokenizer=copy.deepcopy(pipe.tokenizer), text_encoder=copy.deepcopy(pipe.text_encoder)
        )
        for word, row_D in load_file(directory / WORDS_FILE).items():
            tuned.load_textual_inversion({word: row_D})
        return tuned


def new_words(case: Case) -> list[str]:
    """The words that diffusers' script would give the subjects: "<new1>", "<new2>"."""
    return [f"<new{number}>" for number in range(1, len(case.subjects) + 1)]


def knowing(tokenizer: CLIPTokenizer, case: Case) -> CLIPTokenizer:
    """A copy of the tokenizer that has the case's new words, the last of its ids."""
    copied = copy.deepcopy(tokenizer)
    copied.add_tokens(new_words(case))
    return copied


def text_layers(unet: UNet2DConditionModel) -> dict[str, nn.Linear]:
    """The keys and values of cross-attention, by the names that diffusers saves Custom Diffusion's with."""
    found = {}
    for name, module in unet.named_modules():
        for short, saved_as in _SAVED_AS.items():
            if name.endswith(f".attn2.{short}"):
                found[f"{name.removesuffix(short)}processor.{saved_as}.weight"] = module
    return found
