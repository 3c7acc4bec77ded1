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
)

from umm_bench.mini import backgrounds, scenes, sprites, tokenizer

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class CLIPSizes:
    """Both towers, and the share of pairs that are one sprite captioned "a NAME", concepts drawn evenly."""

    name: str
    text_width: int = 192
    text_layers: int = 3
    image_width: int = 192
    image_layers: int = 4
    patch: int = 8
    projection: int = 192
    batch_size: int = 128
    even_share: float = 0.25
    seed: int = 1


CONDITIONING = CLIPSizes("clip")
SCORING = CLIPSizes("scoring_clip", text_layers=2, even_share=0.6, seed=2)


def image_processor() -> CLIPImageProcessorPil:
    """64 px, the same for every mini encoder."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=list(MEAN), image_std=list(STD)
    )


def normalise(images: np.ndarray) -> torch.Tensor:
    """uint8 [B, S, S, 3] to what the processor would give for images of that size."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def build(sizes: CLIPSizes, tokens: CLIPTokenizer) -> CLIPModel:
    """A randomly initialised CLIP for the mini tokenizer."""
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
    vision = CLIPVisionConfig(
        hidden_size=sizes.image_width,
        intermediate_size=4 * sizes.image_width,
        num_hidden_layers=sizes.image_layers,
        num_attention_heads=sizes.image_width // 48,
        image_size=64,
        patch_size=sizes.patch,
        projection_dim=sizes.projection,
    )
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=sizes.projection)
    return CLIPModel(config)


def single(key: str) -> tuple[np.ndarray, str]:
    """One training sprite, every concept as likely as another, captioned "a NAME"."""
    rng = scenes.rng_for("single", key)
    world = sprites.load()
    train = [c for c in world.concepts if c.split == "train"]
    concept = train[int(rng.integers(len(train)))]
    members = world.members(concept.name, "train")
    design = members[int(rng.integers(len(members)))]
    canvas = backgrounds.draw(backgrounds.choose(rng).name, rng, 64)
    scenes.paste(canvas, design.id, scenes.random_placement(rng, 0.5, 0.5, float(rng.uniform(0.5, 0.95))))
    return np.clip(canvas, 0, 255).astype(np.uint8), scenes.article(concept.name)


class _CLIPRecipe:
    def __init__(self, sizes: CLIPSizes) -> None:
        self.name, self.sizes = sizes.name, sizes
        self.tokenizer = tokenizer.train()
        torch.manual_seed(sizes.seed)
        self.module = build(sizes, self.tokenizer)

    def pairs(self, step: int) -> tuple[np.ndarray, list[str]]:
        """The images [B, 64, 64, 3] and captions of a step."""
        images, captions = [], []
        for i in range(self.sizes.batch_size):
            key = f"{self.name}-{self.sizes.seed}-{step}-{i}"
            if i < self.sizes.even_share * self.sizes.batch_size:
                image, caption = single(key)
            else:
                scene = scenes.compose(key)
                image, caption = scene.image, scene.caption
            images.append(image)
            captions.append(caption)
        return np.stack(images), captions

    def loss(self, step: int) -> torch.Tensor:
        images, captions = self.pairs(step)
        # Padded to the longest only: positions after the end token are never read by a causal encoder's pooling.
        tokens = self.tokenizer(captions, padding=True, truncation=True, return_tensors="pt")
        text = F.normalize(self.module.get_text_features(**tokens).pooler_output, dim=-1)
        image = F.normalize(self.module.get_image_features(pixel_values=normalise(images)).pooler_output, dim=-1)
        logits = self.module.logit_scale.clamp(max=4.6052).exp() * text @ image.T
        # Equal captions are equally right: the target is spread over them.
        same = torch.tensor([[a == b for b in captions] for a in captions]).float()
        target = same / same.sum(1, keepdim=True)
        return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))

    def save(self, folder: Path) -> None:
        self.module.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        image_processor().save_pretrained(folder)

    def load(self, folder: Path) -> None:
        self.module.load_state_dict(CLIPModel.from_pretrained(folder, dtype=torch.float32).state_dict())


class ConditioningCLIP(_CLIPRecipe):
    def __init__(self) -> None:
        super().__init__(CONDITIONING)


class ScoringCLIP(_CLIPRecipe):
    def __init__(self) -> None:
        super().__init__(SCORING)


def split_towers(folder: Path) -> tuple[CLIPTextModel, CLIPVisionModelWithProjection]:
    """The text encoder for `StableDiffusionPipeline` and the image encoder for the TIUE, from one saved CLIP."""
    text = CLIPTextModel.from_pretrained(folder, dtype=torch.float32)
    vision = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=torch.float32)
    return text, vision
