"""Two CLIPs from the composer's captions: one that conditions the generator, one that only scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from umm_bench.mini import backgrounds, scenes, sprites, tokenizer
from umm_bench.mini.recipes.common import load_weights
from umm_bench.mini.towers import FlatResNetConfig

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class CLIPSizes:
    """Both towers, and the share of pairs that are one sprite captioned "a NAME", concepts drawn evenly.

    The image tower is a ViT of `image_width`, `image_layers` and `patch`, or, where `stages` are given, a ResNet of
    those widths and `blocks`.
    """

    name: str
    image_size: int = 64
    text_width: int = 192
    text_layers: int = 3
    image_width: int = 192
    image_layers: int = 4
    patch: int = 8
    stages: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    projection: int = 192
    batch_size: int = 128
    even_share: float = 0.25
    all_names: float = 0.0  # weight of naming those sprites among all training concepts, not the batch's alone
    recolor: float = 0.0  # share of them with colours mixed: a concept is its shape, whoever drew it
    seed: int = 1


CONDITIONING = CLIPSizes("clip")
SCORING = CLIPSizes(
    "scoring_clip",
    text_width=96,
    text_layers=2,
    stages=(32, 64, 128, 256),
    blocks=(1, 1, 1, 1),
    even_share=0.75,
    all_names=1.0,
    recolor=0.5,
    seed=2,
)


def image_processor(size: int = 64) -> CLIPImageProcessorPil:
    """The shorter side to `size`, the middle square."""
    crop = {"height": size, "width": size}
    return CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size=crop, image_mean=list(MEAN), image_std=list(STD)
    )


def normalise(images: np.ndarray) -> torch.Tensor:
    """uint8 [B, S, S, 3] to what the processor would give for images of that size."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def build(sizes: CLIPSizes, tokens: CLIPTokenizer) -> PreTrainedModel:
    """A randomly initialised CLIP for the mini tokenizer: a CLIPModel, with a ResNet a dual encoder."""
    text = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=sizes.text_width,
        intermediate_size=4 * sizes.text_width,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=sizes.text_width // 48,
        max_position_embeddings=tokens.model_max_length,
        projection_dim=sizes.projection,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    if sizes.stages:
        tower = FlatResNetConfig(
            embedding_size=sizes.stages[0],
            hidden_sizes=list(sizes.stages),
            depths=list(sizes.blocks),
            layer_type="basic",
        )
        return VisionTextDualEncoderModel(
            VisionTextDualEncoderConfig.from_vision_text_configs(tower, text, projection_dim=sizes.projection)
        )
    vision = CLIPVisionConfig(
        hidden_size=sizes.image_width,
        intermediate_size=4 * sizes.image_width,
        num_hidden_layers=sizes.image_layers,
        num_attention_heads=sizes.image_width // 48,
        image_size=sizes.image_size,
        patch_size=sizes.patch,
        projection_dim=sizes.projection,
    )
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=sizes.projection)
    return CLIPModel(config)


def training_names() -> list[str]:
    """The concepts that are not held out, by rank."""
    return [concept.name for concept in sprites.load().concepts if concept.split == "train"]


def single(key: str, recolor: float = 0.0, size: int = 64) -> tuple[np.ndarray, str]:
    """One training sprite, every concept as likely as another, and its concept; `recolor` mixes channels so often."""
    rng = scenes.rng_for("single", key)
    names = training_names()
    name = names[int(rng.integers(len(names)))]
    members = sprites.load().members(name, "train")
    design = members[int(rng.integers(len(members)))]
    canvas = backgrounds.draw(backgrounds.choose(rng).name, rng, size)
    scale = float(rng.uniform(0.45, 0.95))
    x, y = 0.5 + rng.uniform(-0.5, 0.5, 2) * (1.05 - scale)
    scenes.paste(canvas, design.id, scenes.random_placement(rng, float(x), float(y), scale))
    if rng.random() < recolor:
        canvas = canvas @ rng.dirichlet((0.5, 0.5, 0.5), 3).astype(np.float32)
    return np.clip(canvas, 0, 255).astype(np.uint8), name


class _CLIPRecipe:
    default: CLIPSizes

    def __init__(self, sizes: CLIPSizes | None = None) -> None:
        sizes = sizes or self.default
        self.name, self.config, self.batch_size = sizes.name, sizes, sizes.batch_size
        self.tokenizer = tokenizer.train()
        self.names = training_names()
        texts = [scenes.article(name) for name in self.names]
        self.name_tokens = dict(self.tokenizer(texts, padding=True, return_tensors="pt"))
        torch.manual_seed(sizes.seed)
        self.module = build(sizes, self.tokenizer)
        # A CPU's fused attention has a backward pass slower than the plain products.
        self.module.set_attn_implementation("eager")

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """Images and tokens of a step's pairs, single sprites first.

        `target` [B, B] is the row-normalised truth, equal captions being equally right; `concepts` [S] are the single
        sprites' among `names`.
        """
        images, captions, concepts = [], [], []
        for i in range(self.config.batch_size):
            key = f"{self.name}-{self.config.seed}-{step}-{i}"
            if i < self.config.even_share * self.config.batch_size:
                image, name = single(key, self.config.recolor, self.config.image_size)
                caption = scenes.article(name)
                concepts.append(self.names.index(name))
            else:
                scene = scenes.compose(key, size=self.config.image_size)
                image, caption = scene.image, scene.caption
            images.append(image)
            captions.append(caption)
        tokens = self.tokenizer(captions, padding=True, truncation=True, return_tensors="pt")
        same = torch.tensor([[a == b for b in captions] for a in captions]).float()
        return {
            **tokens,
            "pixel_values": normalise(np.stack(images)),
            "target": same / same.sum(1, keepdim=True),
            "concepts": torch.tensor(concepts),
        }

    def text(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """Unit text embeddings [B, projection]."""
        features = self.module.get_text_features(tokens["input_ids"], tokens["attention_mask"])
        return F.normalize(features.pooler_output.float(), dim=-1)

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        target, text = batch["target"], self.text(batch)
        image = self.module.get_image_features(pixel_values=batch["pixel_values"]).pooler_output
        image = F.normalize(image.float(), dim=-1)
        scale = self.module.logit_scale.clamp(max=4.6052).exp()
        logits = scale * text @ image.T
        contrast = 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
        if not self.config.all_names:
            return contrast
        concepts = batch["concepts"]
        names = self.text({k: v.to(image.device) for k, v in self.name_tokens.items()})
        return contrast + self.config.all_names * F.cross_entropy(scale * image[: len(concepts)] @ names.T, concepts)

    def save(self, folder: Path) -> None:
        self.module.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        image_processor(self.config.image_size).save_pretrained(folder)

    def load(self, folder: Path) -> None:
        load_weights(self.module, folder)

    def parts(self) -> list[Path]:
        return []


class ConditioningCLIP(_CLIPRecipe):
    default = CONDITIONING

    def load_towers(self, text: Path, vision: Path) -> None:
        """Both towers as a generator has them: without the text projection, which is learnt anew."""
        state = dict(CLIPTextModel.from_pretrained(text, dtype=torch.float32).state_dict())
        state |= CLIPVisionModelWithProjection.from_pretrained(vision, dtype=torch.float32).state_dict()
        own = self.module.state_dict()
        renamed = {k if k in own else f"text_model.{k}": v for k, v in state.items()}
        self.module.load_state_dict(own | renamed)


class ScoringCLIP(_CLIPRecipe):
    default = SCORING


def split_towers(folder: Path) -> tuple[CLIPTextModel, CLIPVisionModelWithProjection]:
    """The text encoder for `StableDiffusionPipeline` and the image encoder for the TIUE, from one saved CLIP."""
    text = CLIPTextModel.from_pretrained(folder, dtype=torch.float32)
    vision = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=torch.float32)
    return text, vision
