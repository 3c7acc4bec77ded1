"""The image encoder for fidelity: self-supervised, one picture in two views, no labels and no text.

Two views of one sprite, each with its own place, turn, light and background, attract; the other sprites of the
batch repel (SimCLR's NT-Xent, 2002.05709). Its CLS token is what DINO's is to DINO-style fidelity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

from umm_bench.mini import backgrounds, scenes, sprites
from umm_bench.mini.recipes.clip import MEAN, STD, normalise


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and the temperature of the contrastive loss."""

    image_size: int = 64
    width: int = 192
    layers: int = 4
    patch: int = 8
    batch_size: int = 96
    temperature: float = 0.1
    seed: int = 4


def build(config: EncoderConfig) -> ViTModel:
    """A randomly initialised ViT without the pooling head."""
    vit = ViTConfig(
        hidden_size=config.width,
        intermediate_size=4 * config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.width // 48,
        image_size=config.image_size,
        patch_size=config.patch,
    )
    return ViTModel(vit, add_pooling_layer=False)


def view(design_id: str, rng: np.random.Generator, size: int = 64) -> np.ndarray:
    """One picture of a design, uint8 [size, size, 3], everything but the design drawn from `rng`."""
    canvas = backgrounds.draw(backgrounds.choose(rng).name, rng, size)
    scale = float(rng.uniform(0.45, 0.95))
    x, y = 0.5 + rng.uniform(-0.5, 0.5, 2) * (1.05 - scale)
    scenes.paste(canvas, design_id, scenes.random_placement(rng, float(x), float(y), scale))
    return np.clip(canvas, 0, 255).astype(np.uint8)


class EncoderRecipe:
    name = "encoder"
    default = EncoderConfig()

    def __init__(self, config: EncoderConfig = default) -> None:
        self.config, self.batch_size = config, config.batch_size
        torch.manual_seed(config.seed)
        self.encoder = build(config)
        self.encoder.set_attn_implementation("eager")  # as in clip.py
        # Thrown away after training, as in SimCLR: the layer before keeps more.
        self.head = torch.nn.Sequential(
            torch.nn.Linear(config.width, config.width), torch.nn.GELU(), torch.nn.Linear(config.width, 128)
        )
        self.module = torch.nn.ModuleDict({"encoder": self.encoder, "head": self.head})

    def views(self, step: int) -> np.ndarray:
        """Two views of each sprite of a step, uint8 [2B, S, S, 3]; sprites evenly drawn, Zipf would repeat them."""
        rng = scenes.rng_for("encoder", self.config.seed, step)
        pool = [d.id for d in sprites.load().designs.values() if d.split == "train"]
        chosen = [pool[i] for i in rng.choice(len(pool), self.config.batch_size, replace=False)]
        return np.stack([view(design, rng, self.config.image_size) for _ in range(2) for design in chosen])

    def batch(self, step: int) -> torch.Tensor:
        return normalise(self.views(step))

    def loss(self, views_BCHW: torch.Tensor) -> torch.Tensor:
        states = self.encoder(views_BCHW).last_hidden_state
        z = F.normalize(self.head(states[:, 0]).float(), dim=-1)
        similarity = z @ z.T / self.config.temperature
        similarity.fill_diagonal_(-1e4)
        n = self.config.batch_size
        return F.cross_entropy(similarity, torch.arange(2 * n, device=z.device).roll(n))

    def save(self, folder: Path) -> None:
        self.encoder.save_pretrained(folder)
        side = self.config.image_size
        ViTImageProcessorPil(
            size={"height": side, "width": side}, image_mean=list(MEAN), image_std=list(STD)
        ).save_pretrained(folder)

    def load(self, folder: Path) -> None:
        """The encoder only: the head is not kept, and is learnt anew in the first steps."""
        self.encoder.load_state_dict(ViTModel.from_pretrained(folder, dtype=torch.float32).state_dict(), strict=False)

    def parts(self) -> list[Path]:
        return []
