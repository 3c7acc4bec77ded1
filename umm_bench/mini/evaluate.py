"""Measure the shipped mini models on held-out data: `python -m umm_bench.mini.evaluate [NAME ...] [--json]`.

Nothing that is measured on was in any training: held-out designs and concepts, and scene keys of their own. Prompts
for `sd` name frequent concepts, which the generator has seen; its seeds are fixed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoModel,
    AutoProcessor,
    CLIPModel,
    CLIPTokenizer,
    GroundingDinoForObjectDetection,
)

from umm_bench.commands import run_command
from umm_bench.errors import UserError
from umm_bench.mini import backgrounds, checker, family, scenes, sprites, suite
from umm_bench.mini.recipes import encoder as encoder_recipe
from umm_bench.mini.recipes.clip import normalise
from umm_bench.mini.recipes.detector_data import detector_metrics
from umm_bench.mini.recipes.vae import to_tensor


@dataclass(frozen=True)
class Figure:
    """One measured figure; `bar` is what the project aims at, `ok` whether it is reached."""

    name: str
    value: float
    unit: str
    higher_is_better: bool
    bar: float
    ok: bool


def _figure(name: str, value: float, bar: float, unit: str = "share", higher: bool = True) -> Figure:
    return Figure(name, round(value, 4), unit, higher, bar, value >= bar if higher else value <= bar)


def _pictures(count: int, concepts: int | None = None) -> tuple[np.ndarray, list[str]]:
    """Held-out designs, one a picture, uint8 [N, 64, 64, 3], and their ids; of the most frequent concepts only."""
    world = sprites.load()
    pool = [d for c in world.concepts[:concepts] for d in world.members(c.name, "held_out")]
    step = max(1, len(pool) // count)
    chosen = pool[::step][:count]
    images = [encoder_recipe.view(d.id, scenes.rng_for("evaluate", d.id)) for d in chosen]
    return np.stack(images), [d.id for d in chosen]


@torch.no_grad()
def _vae() -> Iterator[Figure]:
    vae = StableDiffusionPipeline.from_pretrained(family.path("sd"), torch_dtype=torch.float32).vae
    x = to_tensor(np.stack([scenes.compose(f"evaluate-{i}", "held_out").image for i in range(128)]))
    y = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1) for part in x.split(32)])
    psnr = 10 * torch.log10(4 / (x - y).square().mean((1, 2, 3)))
    yield _figure("vae.psnr", psnr.mean().item(), 28, "dB")


class _Judge:
    """The scoring CLIP as a classifier over concept names."""

    def __init__(self) -> None:
        folder = family.path("scoring_clip")
        self.model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def ranks(self, images: np.ndarray, truth: list[str], names: list[str]) -> np.ndarray:
        """Rank (0 is first) of each image's true name among `names`."""
        tokens = self.tokenizer([scenes.article(name) for name in names], padding=True, return_tensors="pt")
        text = F.normalize(self.model.get_text_features(**tokens).pooler_output, dim=-1)
        pixels = normalise(images).split(64)
        image = torch.cat([self.model.get_image_features(pixel_values=p).pooler_output for p in pixels])
        scores = F.normalize(image, dim=-1) @ text.T
        own = scores[torch.arange(len(truth)), [names.index(name) for name in truth]]
        return (scores > own[:, None]).sum(1).numpy()


def _scoring_clip() -> Iterator[Figure]:
    world = sprites.load()
    images, ids = _pictures(400)
    ranks = _Judge().ranks(images, [world.designs[i].concept for i in ids], [c.name for c in world.concepts])
    yield _figure("scoring_clip.top1", float((ranks < 1).mean()), 0.50)
    yield _figure("scoring_clip.top5", float((ranks < 5).mean()), 0.80)


@torch.no_grad()
def _encoder() -> Iterator[Figure]:
    model = AutoModel.from_pretrained(family.path("encoder"), dtype=torch.float32).eval()
    world = sprites.load()
    held = [d for d in world.designs.values() if d.split == "held_out"]

    def embed(view: str) -> torch.Tensor:
        images = np.stack([encoder_recipe.view(d.id, scenes.rng_for("identity", view, d.id)) for d in held])
        parts = [model(p).last_hidden_state[:, 0] for p in normalise(images).split(64)]
        return F.normalize(torch.cat(parts), dim=-1)

    nearest = (embed("query") @ embed("reference").T).argmax(1)
    right = [held[i].identity == d.identity for d, i in zip(held, nearest.tolist(), strict=True)]
    yield _figure("encoder.identity_top1", float(np.mean(right)), 0.85)


def _detector() -> Iterator[Figure]:
    folder = family.path("detector")
    model = GroundingDinoForObjectDetection.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    held = [scenes.compose(f"evaluate-{i}", "held_out") for i in range(200)]
    with torch.no_grad():
        figures = detector_metrics(model, processor, held)
    yield _figure("detector.ap50", figures["ap50"], 0.70)
    yield _figure("detector.false_positive_rate", figures["false_positive_rate"], 0.10, higher=False)


def _sd() -> Iterator[Figure]:
    pipe = StableDiffusionPipeline.from_pretrained(
        family.path("sd"), torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    frequent = [c.name for c in sprites.load().concepts[:100]]
    rng = scenes.rng_for("evaluate", "sd")
    plain = [name for name in backgrounds.PLAIN_COLORS]
    grounds = [plain[int(rng.integers(len(plain)))] for _ in frequent]
    prompts = [f"{scenes.article(n)} on a {g} background" for n, g in zip(frequent, grounds, strict=True)]
    began = time.perf_counter()
    images = []
    for start in range(0, len(prompts), 10):
        generators = [torch.Generator().manual_seed(i) for i in range(start, start + 10)]
        images += pipe(
            prompts[start : start + 10],
            num_inference_steps=20,
            guidance_scale=5.0,
            generator=generators,
            output_type="np",
        ).images.tolist()
    seconds = (time.perf_counter() - began) / len(prompts)
    pixels = (np.asarray(images) * 255).round().astype(np.uint8)
    ranks = _Judge().ranks(pixels, frequent, frequent)
    found = [checker.background_of(image) == ground for image, ground in zip(pixels, grounds, strict=True)]
    yield _figure("sd.concept_accuracy", float((ranks < 1).mean()), 0.80)
    yield _figure("sd.background_accuracy", float(np.mean(found)), 0.95)
    yield _figure("sd.seconds_per_image", seconds, 1.0, "s", higher=False)


def _posed(subject: dict[str, Any], prompt: dict[str, Any]) -> np.ndarray:
    """What a perfect generator would draw for a suite prompt, uint8 [64, 64, 3]."""
    rng = scenes.rng_for("checker", subject["id"], prompt["id"])
    canvas = backgrounds.draw(prompt["background"], rng, 64)
    beside = prompt["kind"] == "two_subjects"
    scale = 0.3 if prompt.get("size") == "tiny" else float(rng.uniform(0.4, 0.5) if beside else rng.uniform(0.6, 0.95))
    at = scenes.random_placement(rng, 0.27 if beside else 0.5, 0.5, scale)
    scenes.paste(canvas, subject["design"], at)
    if "other" in prompt:
        drawing = sprites.load().members(prompt["other"], "train")[0].id
        other = scenes.random_placement(rng, 0.74, 0.5, 0.45)
        scenes.paste(canvas, drawing, other if beside else scenes.accessory_placement(prompt["other"], at))
    if "style" in prompt:
        canvas = scenes.apply_style(canvas, prompt["style"])
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _checker() -> Iterator[Figure]:
    """The suite's ground-truth checker against composed pictures, whose truth is known."""
    prompts = [prompt for prompt in suite.PROMPTS if "background" in prompt]
    pairs = [(subject, prompt) for subject in suite.subjects()[:16] for prompt in prompts[:6]]
    found = [checker.check(_posed(subject, prompt), subject["design"], prompt) for subject, prompt in pairs]
    for part in ("identity", "concept", "background"):
        yield _figure(f"checker.{part}", float(np.mean([result[part] for result in found])), 0.95)


NAMES: dict[str, Callable[[], Iterator[Figure]]] = {
    "vae": _vae,
    "scoring_clip": _scoring_clip,
    "encoder": _encoder,
    "detector": _detector,
    "sd": _sd,
    "checker": _checker,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; default all")
    parser.add_argument("--json", action="store_true", help="one object a line")
    args = parser.parse_args(argv)
    return run_command(lambda: _evaluate(args))


def _evaluate(args: argparse.Namespace) -> None:
    table = Table("figure", "value", "unit", "aim", "reached")
    for name in args.names or list(NAMES):
        if name not in NAMES:
            raise UserError(f"unknown mini model {name!r}; choose from {', '.join(NAMES)}")
        for figure in NAMES[name]():
            if args.json:
                print(json.dumps(asdict(figure)), flush=True)
            sign = "≥" if figure.higher_is_better else "≤"
            table.add_row(
                figure.name,
                f"{figure.value:.3f}",
                figure.unit,
                f"{sign} {figure.bar}",
                "yes" if figure.ok else "no",
            )
    if not args.json:
        Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
