"""The VAE, the image encoder that conditions, the CLIP that scores and the encoder, each on held-out drawings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from transformers import AutoModel, CLIPTokenizer

import umm_bench.mini.towers  # noqa: F401  # registers the scoring CLIP's image tower
from figures import Figure
from umm_bench.metrics.embedding import image_features
from umm_bench.mini import family
from umm_bench.mini.evaluation.intervals import share
from umm_bench.mini.recipes import encoder as encoder_recipe
from umm_bench.mini.recipes.clip import normalise
from umm_bench.mini.recipes.vae import to_tensor
from umm_bench.mini.world import scenes, sprites
from umm_bench.mini.world.sprites import Design
from umm_bench.umm_method import load_image_encoder


@torch.no_grad()
def vae() -> Iterator[Figure]:
    """PSNR of held-out scenes after encoding and decoding."""
    model = AutoencoderKL.from_pretrained(family.path("sd") / "vae", torch_dtype=torch.float32).eval()
    x_BCHW = to_tensor(np.stack([scenes.compose(f"evaluate-{i}", "held_out").image for i in range(128)]))
    y_BCHW = torch.cat(
        [model.decode(model.encode(part).latent_dist.mean).sample.clamp(-1, 1) for part in x_BCHW.split(32)]
    )
    psnr = (10 * torch.log10(4 / (x_BCHW - y_BCHW).square().mean((1, 2, 3)))).numpy()
    half = 1.96 * psnr.std(ddof=1) / np.sqrt(len(psnr))
    note = f"95% {psnr.mean() - half:.2f} to {psnr.mean() + half:.2f}, n = {len(psnr)}"
    yield Figure("vae.psnr", round(float(psnr.mean()), 3), "dB", True, 28, note)


@torch.no_grad()
def image_encoder() -> Iterator[Figure]:
    """What a TIUE can know of a held-out drawing: itself, and the concept of the learnt drawing most like it."""
    model = load_image_encoder(str(family.path("image_encoder"))).eval()
    concepts = [c.name for c in sprites.load().concepts if c.split == "train"]

    def embed(split: str) -> tuple[list[Design], torch.Tensor]:
        designs = [d for name in concepts for d in sprites.load().members(name, split)]
        images = np.stack([encoder_recipe.view(d.id, scenes.rng_for("nearest", d.id)) for d in designs])
        parts = [model(part).image_embeds for part in normalise(images).split(64)]
        return designs, F.normalize(torch.cat(parts), dim=-1)

    (learnt, learnt_ND), (held, held_MD) = embed("train"), embed("held_out")
    nearest = (held_MD @ learnt_ND.T).argmax(1).tolist()
    right = [learnt[i].concept == d.concept for d, i in zip(held, nearest, strict=True)]
    yield share("image_encoder.nearest_concept", right, None, f"nearest of {len(learnt)} learnt drawings")
    yield share("image_encoder.identity_top1", identity_top1(lambda pixels: model(pixels).image_embeds), None)


class Judge:
    """The scoring CLIP as a classifier over concept names."""

    def __init__(self) -> None:
        folder = family.path("scoring_clip")
        self.model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def ranks(self, images: np.ndarray, truth: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """Rank (0 is first) of each image's true name among `names`; images uint8 [N, 64, 64, 3]."""
        tokens = self.tokenizer([scenes.article(name) for name in names], padding=True, return_tensors="pt")
        text = F.normalize(self.model.get_text_features(**tokens).pooler_output, dim=-1)
        pixels = normalise(images).split(64)
        image = torch.cat([self.model.get_image_features(pixel_values=p).pooler_output for p in pixels])
        scores = F.normalize(image, dim=-1) @ text.T
        own = scores[torch.arange(len(truth)), [names.index(name) for name in truth]]
        return (~(scores <= own[:, None])).sum(1).numpy()  # a NaN ranks last, not first


@functools.cache
def judge() -> Judge:
    """Loaded once a process."""
    return Judge()


def scoring_clip() -> Iterator[Figure]:
    """The concept of held-out designs among all, prompt "a NAME".

    A name that no training saw is a word without a meaning: those concepts' designs are in the note only.
    """
    world = sprites.load()
    names = [c.name for c in world.concepts]

    def ranks(split: str) -> np.ndarray:
        chosen = [d for c in world.concepts if c.split == split for d in world.members(c.name, "held_out")]
        images = np.stack([encoder_recipe.view(d.id, scenes.rng_for("evaluate", d.id)) for d in chosen])
        return judge().ranks(images, [d.concept for d in chosen], names)

    known, unknown = ranks("train"), ranks("held_out")
    for name, first, bar in (("top1", 1, 0.50), ("top5", 5, 0.80)):
        note = f"among all {len(names)} concepts; {np.mean(unknown < first):.3f} of {len(unknown)} on those never seen"
        yield share(f"scoring_clip.{name}", known < first, bar, note)


def identity_top1(embed: Callable[[torch.Tensor], torch.Tensor]) -> list[bool]:
    """Same-identity retrieval among all held-out designs, from one picture of each to another; `embed` gives [B, D]."""
    held = [d for d in sprites.load().designs.values() if d.split == "held_out"]

    def embedded(view: str) -> torch.Tensor:
        images = np.stack([encoder_recipe.view(d.id, scenes.rng_for("identity", view, d.id)) for d in held])
        return F.normalize(torch.cat([embed(part) for part in normalise(images).split(64)]), dim=-1)

    nearest = (embedded("query") @ embedded("reference").T).argmax(1)
    return [held[i].identity == d.identity for d, i in zip(held, nearest.tolist(), strict=True)]


@torch.no_grad()
def encoder() -> Iterator[Figure]:
    """Identity by the encoder for fidelity."""
    model = AutoModel.from_pretrained(family.path("encoder"), dtype=torch.float32).eval()
    yield share("encoder.identity_top1", identity_top1(lambda pixels: image_features(model(pixels))), 0.85)
