"""The image encoder for fidelity: self-supervised, one picture in two views, no labels and no text.

Two views of one sprite, each with its own place, turn, light and background, attract; the other sprites of the
batch repel (SimCLR's NT-Xent, 2002.05709). Some of those are the same concept by other designers: colours alone tell a
design from random others. And some are the same drawing in a look that differs in one part. The pooled map is what
DINO's CLS token is to DINO-style fidelity.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import ResNetConfig, ResNetModel, ViTImageProcessorPil

from umm_bench.mini.recipes.clip import MEAN, STD, normalise
from umm_bench.mini.recipes.common import load_weights
from umm_bench.mini.world import backgrounds, looks, scenes, sprites


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes, the temperature of the contrastive loss, and what a batch is made of.

    `whole_concepts` of it are there with all drawings of their concept; `looked` are drawings in looks, each with
    `near` near misses of its look, which are other subjects.
    """

    image_size: int = 64
    stages: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (1, 1, 1, 1)
    batch_size: int = 96
    temperature: float = 0.1
    whole_concepts: float = 0.35
    looked: float = 0.5
    near: int = 3
    seed: int = 4


def build(config: EncoderConfig) -> ResNetModel:
    """A randomly initialised ResNet (1512.03385) of basic blocks."""
    return ResNetModel(
        ResNetConfig(
            embedding_size=config.stages[0],
            hidden_sizes=list(config.stages),
            depths=list(config.blocks),
            layer_type="basic",
        )
    )


@functools.cache
def training_concepts() -> list[list[tuple[str, ...]]]:
    """The training designs by concept and identity: of each concept its drawings, of each drawing its renderings."""
    world = sprites.load()
    concepts = []
    for concept in world.concepts:
        drawings: dict[str, list[str]] = {}
        for design in world.members(concept.name, "train"):
            drawings.setdefault(design.identity, []).append(design.id)
        concepts.append([tuple(renderings) for renderings in drawings.values()])
    return concepts


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
        # Thrown away after training, as in SimCLR: the layer before keeps more.
        width = config.stages[-1]
        self.head = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.GELU(), torch.nn.Linear(width, 128))
        self.module = torch.nn.ModuleDict({"encoder": self.encoder, "head": self.head})

    def designs(self, rng: np.random.Generator) -> list[str]:
        """A batch's sprites, whole concepts first, no two alike; evenly drawn, Zipf would repeat them."""
        concepts = training_concepts()
        drawings = [drawing for i in rng.permutation(len(concepts)) for drawing in concepts[i]]
        c = self.config
        whole, groups = round(c.whole_concepts * c.batch_size), round(c.looked * c.batch_size) // (1 + c.near)
        others = whole + rng.choice(len(drawings) - whole, c.batch_size - whole - c.near * groups, replace=False)
        chosen = [*drawings[:whole], *(drawings[i] for i in others)]
        picked = [renderings[int(rng.integers(len(renderings)))] for renderings in chosen]
        plain, dressed = picked[: len(picked) - groups], picked[len(picked) - groups :]
        return [*plain, *(sprite for drawing in dressed for sprite in self.look_alikes(drawing, rng))]

    def look_alikes(self, design_id: str, rng: np.random.Generator) -> list[str]:
        """A drawing in a look and in `near` looks that differ from it in one part, none of them held out."""
        world = sprites.load()
        concept, second = world.designs[design_id].concept, world.has_second(design_id)
        look = looks.draw(rng, concept, second, held=False)
        misses = [miss for _, miss in looks.near_misses(look, second) if not looks.held_out(concept, miss)]
        order = rng.permutation(len(misses))[: self.config.near]
        return [looks.looked(design_id, worn) for worn in (look, *(misses[i] for i in order))]

    def views(self, step: int) -> np.ndarray:
        """Two views of each sprite of a step, uint8 [2B, S, S, 3]."""
        rng = scenes.rng_for("encoder", self.config.seed, step)
        chosen = self.designs(rng)
        return np.stack([view(design, rng, self.config.image_size) for _ in range(2) for design in chosen])

    def batch(self, step: int) -> torch.Tensor:
        return normalise(self.views(step))

    def loss(self, views_BCHW: torch.Tensor) -> torch.Tensor:
        pooled = self.encoder(views_BCHW).pooler_output.flatten(1)
        z = F.normalize(self.head(pooled).float(), dim=-1)
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
        load_weights(self.encoder, folder)

    def parts(self) -> list[Path]:
        return []
