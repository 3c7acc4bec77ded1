"""DreamBooth of low-rank adapters (Hu et al., 2106.09685): the UNet's attention gets a small addition for each subject.

A subject is learnt alone, and a case of several is drawn with the sum of their adapters.
"""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel

from baselines.dreambooth import DreamBooth, DreamBoothConfig
from baselines.finetuning import of_device, of_training, require_positive, scale_of, with_components
from baselines.stable_diffusion import draw
from baselines.words import rare_tokens, refused_identifier, refused_pictures, refused_prompt
from umm_bench.base import Base
from umm_bench.methods import Case, Generation, Prompt, Subject
from umm_bench.seeding import seed_for

ATTENTION_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
WEIGHTS_FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers' load_lora_weights looks for

Adapter = dict[str, Tensor]


@dataclass(frozen=True)
class DreamBoothLoraConfig(DreamBoothConfig):
    """`identifiers` are the words that subjects get, by a digest of their ids: an adapter knows its subject by one word
    wherever it is used. `scale` is the weight of each adapter when drawing.

    These defaults are for the mini family on a CPU, and weak: of 3e-3, 1e-3 and 5e-4 the last alone kept the class.
    """

    source: ClassVar[str] = "the best of three rates on one mini subject, not tuned"

    learning_rate: float = 5e-4
    rank: int = 8
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "rank")
        if self.train_text_encoder:
            raise ValueError("train_text_encoder: adapters are of the UNet only; the method dreambooth trains it")


@dataclass(frozen=True)
class StableDiffusionDreamBoothLora(DreamBoothLoraConfig):
    """For Stable Diffusion 1.x and 2.x, without prior preservation, which the source does not use."""

    source: ClassVar[str] = "diffusers, examples/dreambooth, LoRA"

    steps: int = 500
    batch_size: int = 1
    learning_rate: float = 1e-4
    num_class_images: int = 0
    rank: int = 4
    gradient_checkpointing: bool = True


class DreamBoothLora(DreamBooth):
    """An adapter for each subject, learnt alone; the adapters of a case are summed."""

    name = "dreambooth_lora"
    config_class = DreamBoothLoraConfig
    setup_for: ClassVar[Literal["subject", "case"]] = "subject"
    version: ClassVar[int] = 1

    config: DreamBoothLoraConfig

    def __init__(self, base: Base, config: DreamBoothLoraConfig, generation: Generation) -> None:
        super().__init__(base, config, generation)
        self._drawn_with: tuple[list[Adapter], StableDiffusionPipeline] | None = None

    @staticmethod
    def defaults(base: Base) -> DreamBoothLoraConfig:
        config = StableDiffusionDreamBoothLora() if scale_of(base) == "sd" else DreamBoothLoraConfig()
        identifiers = rare_tokens(base.tokenizer, 32) or config.identifiers
        return replace(config, identifiers=identifiers, **of_device(base))

    @classmethod
    def check(cls, config: DreamBoothConfig, base: Base, case: Case, prompt: Prompt) -> str | None:
        identifiers = [identifier_of(config, subject) for subject in case.subjects]
        if len(set(identifiers)) < len(identifiers):
            return f"two subjects share an identifier ({', '.join(identifiers)}); --set {cls.name}.identifiers, more"
        return (
            refused_identifier(base.tokenizer, cls.name, identifiers, prompt)
            or refused_pictures(case)
            or refused_prompt(base.tokenizer, prompt, cls.words(config, case))
        )

    @staticmethod
    def words(config: DreamBoothConfig, case: Case) -> tuple[str, ...]:
        return tuple(f"{identifier_of(config, subject)} {subject.class_noun}" for subject in case.subjects)

    def setup(self, subject: Subject, directory: Path) -> Adapter:  # type: ignore[override]
        """Learns an adapter and saves it to `directory`, or finds it there."""
        self.trained(Case((subject,)), directory)
        return load_file(directory / WEIGHTS_FILE)

    def generate(  # type: ignore[override]
        self, states: Sequence[Adapter], case: Case, prompt: Prompt, seeds: Sequence[int]
    ) -> list[Image.Image]:
        pipe = self.with_adapters(states)
        return draw(pipe, prompt.text(self.words(self.config, case)), seeds, self.generation)

    def with_adapters(self, adapters: Sequence[Adapter]) -> StableDiffusionPipeline:
        """A pipeline whose UNet, a copy, has all adapters on, each by `scale`. The last one is kept."""
        known = self._drawn_with[0] if self._drawn_with else []
        if len(known) != len(adapters) or any(a is not b for a, b in zip(known, adapters, strict=True)):
            pipe = with_components(self.base.pipeline(), unet=copy.deepcopy(self.base.pipeline().unet))
            names = [f"subject_{number}" for number in range(1, len(adapters) + 1)]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several are what is wanted
                for name, adapter in zip(names, adapters, strict=True):
                    pipe.load_lora_weights(dict(adapter), adapter_name=name)
            pipe.set_adapters(names, [self.config.scale] * len(names))
            self._drawn_with = (list(adapters), pipe)
        assert self._drawn_with is not None
        return self._drawn_with[1]

    def trainable_unet(self, case: Case) -> UNet2DConditionModel:
        """A copy of the base's UNet in which only a new adapter, in float32, takes gradients; float32 but in mixed
        precision, where what is frozen stays as it is."""
        unet = copy.deepcopy(self.base.pipeline().unet).requires_grad_(False)
        if self.config.mixed_precision == "no":
            unet.float()
        rank = self.config.rank
        with torch.random.fork_rng(devices=[]):  # peft draws the adapters from the global generator
            torch.manual_seed(seed_for(self.name, case.id, "lora", *of_training(self.config)))
            unet.add_adapter(
                LoraConfig(
                    r=rank,
                    lora_alpha=rank,
                    init_lora_weights="gaussian",
                    target_modules=[*ATTENTION_PROJECTIONS],
                )
            )
        cast_training_params(unet)
        return unet

    def save(self, unet: UNet2DConditionModel, directory: Path, text_encoder: CLIPTextModel | None = None) -> None:
        """Writes an adapter for `load_lora_weights`."""
        dtype = getattr(torch, self.config.save_dtype)
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
        layers = {name: weight.to(dtype) for name, weight in layers.items()}
        StableDiffusionPipeline.save_lora_weights(directory, unet_lora_layers=layers)


def identifier_of(config: DreamBoothConfig, subject: Subject) -> str:
    return config.identifiers[seed_for("identifier", subject.id) % len(config.identifiers)]
