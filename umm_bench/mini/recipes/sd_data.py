"""What the generator learns from: captions of the composer, each with the latents of pictures that it describes."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file

from atomic import whole_file
from umm_bench.cli.progress import Tracker
from umm_bench.mini import family
from umm_bench.mini.recipes.common import Runtime, made_ahead, run_folder
from umm_bench.mini.recipes.vae import to_tensor
from umm_bench.mini.world import scenes, sprites
from umm_bench.mini.world.redraw import redraw

SCENES = 8
WINDOW = 256  # scenes looked at in one go
ENCODED = 256  # pictures, likewise
FEW = 1024  # captions for which other processes do not make up for their start
COUNTED = 16_384  # `concept_counts.json` says in how many of so many scenes a concept is


def _part(name: str, image_size: int) -> Path:
    """Where a finished VAE or CLIP is: of a training here or, in a clone, one that is ahead of the shipped `sd`."""
    here = run_folder(name, image_size) / "model"
    return family.PARTS / name if image_size == 64 and not here.is_dir() else here


@dataclass(frozen=True)
class SDConfig:
    """`captions` of the composer, each with the latents of `draws` pictures that it describes, in files of `chunk`.

    A scene is kept with a chance that falls with its most frequent concept's share: among the `head` most frequent
    ones by its power `flatten`, and to `tail_rate` beyond: on a CPU's budget the classes that people try first need
    the examples. `concept_counts.json` records what came of it. For the same reason `posed` of the pictures have their
    sprites upright, and a large one in the middle: a place, turn and mirror image for each outline is much to learn,
    and what a sampler cannot decide on becomes a mosaic. And `plain` of the captions are portraits': concepts and a
    background, no more words. `looked` of the sprites are in a look, which the caption says.
    """

    image_size: int = 64
    channels: tuple[int, int] = (96, 192)
    captions: int = 40960
    draws: int = 4
    chunk: int = 256
    batch_size: int = 24
    caption_drop: float = 0.1
    head: int = 100
    flatten: float = 0.7
    tail_rate: float = 0.04
    posed: float = 0.9
    plain: float = 0.65
    looked: float = 0.75
    seed: int = 3
    encoder: str = ""  # digests of the VAE's encoder and the tokenizer: latents and checkpoints belong to them
    vocabulary: str = ""

    @property
    def vae(self) -> Path:
        return _part("vae", self.image_size)

    @property
    def clip(self) -> Path:
        return _part("clip", self.image_size)

    @property
    def cache(self) -> Path:
        """Of the latents, by all that they are made of; SCENES goes up when the composer's pictures change."""
        kept = f"{self.head}-{self.flatten:g}-{self.tail_rate:g}-{self.posed:g}-{self.plain:g}-{self.looked:g}"
        made_of = f"{self.encoder}-{self.captions}x{self.draws}-{kept}-{self.chunk}-{SCENES}"
        return run_folder("sd", self.image_size) / "latents" / made_of


@functools.cache
def _chances(head: int, flatten: float) -> dict[str, float]:
    """With what chance a scene is kept whose most frequent concept is one of the `head` most frequent."""
    trained = [concept for concept in sprites.load().concepts if concept.weight > 0]
    least = trained[min(head, len(trained)) - 1].weight
    return {c.name: (least / c.weight) ** flatten for c in trained[:head]}


def _kept(config: SDConfig, i: int) -> scenes.Scene | None:
    """The scene of number i where the generator learns its caption."""
    key = f"sd-{i}"
    kind = "portrait" if scenes.rng_for("sd-plain", key).random() < config.plain else "compose"
    chances, chance = _chances(config.head, config.flatten), scenes.rng_for("sd-kept", key).random()

    def kept(concepts: Iterable[str]) -> bool:
        return chance < min((chances.get(concept, config.tail_rate) for concept in concepts), default=0.0)

    if not kept(scenes.cast(kind, key)):  # four in five, which need not be drawn
        return None
    if kind == "portrait":
        scene = scenes.portrait(key, size=config.image_size, looked=config.looked)
    else:
        scene = scenes.compose(key, size=config.image_size, posed=config.posed, looked=config.looked)
    return scene if kept(o.concept for o in scene.objects) else None


def _kept_in_window(config: SDConfig, window: int) -> list[int]:
    return [i for i in range(window * WINDOW, (window + 1) * WINDOW) if _kept(config, i)]


def _pictures(config: SDConfig, i: int) -> tuple[dict, np.ndarray]:
    """Caption and concepts of a kept scene; pictures of that caption, uint8 [draws, S, S, 3]."""
    scene = _kept(config, i)
    assert scene is not None
    text = {"caption": scene.caption, "concepts": [o.concept for o in scene.objects]}
    return text, redraw(scene, f"sd-{i}", config.draws, posed=config.posed)


def _write_chunk(path: Path, drawn: Iterable[tuple[dict, np.ndarray]], vae: AutoencoderKL, runtime: Runtime) -> None:
    texts, pictures = zip(*drawn, strict=True)
    stacked, means = torch.from_numpy(np.stack(pictures)), []
    with torch.no_grad(), torch.autocast(runtime.device.type, runtime.dtype, enabled=runtime.dtype != torch.float32):
        for part in stacked.flatten(0, 1).split(ENCODED):
            means.append(vae.encode(to_tensor(part.to(runtime.device))).latent_dist.mean.half().cpu())
    made = torch.cat(means).unflatten(0, stacked.shape[:2]).contiguous()
    with whole_file(path) as unfinished:
        save_file({"mean": made}, unfinished, metadata={"scenes": json.dumps(texts)})


def cached_scenes(config: SDConfig, vae: AutoencoderKL) -> tuple[torch.Tensor, list[dict]]:
    """Posterior means of captions' pictures, float16 [captions, draws, C, S / 4, S / 4], each caption and its concepts.

    Made once for a VAE's encoder, in `config.cache`; what is there is read. Drawn by all processors.
    """
    config.cache.mkdir(parents=True, exist_ok=True)
    paths = {first: config.cache / f"{first:07d}.safetensors" for first in range(0, config.captions, config.chunk)}
    missing = [first for first, path in paths.items() if not path.exists()]
    if missing:
        runtime, todo = Runtime.detect(), config.captions - missing[0]
        workers = (os.cpu_count() or 1) if todo > FEW else 0
        windows = made_ahead(functools.partial(_kept_in_window, config), count(), workers)
        numbers = list(islice(chain.from_iterable(windows), config.captions))
        wanted = [numbers[first : first + config.chunk] for first in missing]
        drawn = iter(made_ahead(functools.partial(_pictures, config), [*chain.from_iterable(wanted)], workers))
        vae.to(runtime.device)
        with Tracker(Console(stderr=True), "captions drawn", config.captions) as tracker:
            for first, part in zip(missing, wanted, strict=True):
                _write_chunk(paths[first], islice(drawn, len(part)), vae, runtime)
                tracker.update(first + len(part))
        vae.to("cpu")
    means, texts = [], []
    for path in paths.values():
        with safe_open(path, "pt") as file:
            means.append(file.get_tensor("mean"))
            texts += json.loads(file.metadata()["scenes"])
    return torch.cat(means), texts
