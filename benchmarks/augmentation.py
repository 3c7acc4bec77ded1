"""What each augmentation of the references does: python -m benchmarks.augmentation [--json] [--steps N].

Trains a short TIUE on the mini base with all augmentations, with none, and with each switched off, on the same scenes
from the same seed. Each then draws held-out subjects into other surroundings than their reference's, from the same
noise, and is measured on

  identity   cosine between the drawing and the reference, by the mini family's self-supervised encoder
  checked    share of drawings that the ground-truth checker takes for the very subject
  leakage    how far the drawings' background has moved from the text-only drawing of the same prompt and noise towards
             the reference's background: 0 not at all, 1 all the way; backgrounds are compared by the colours along the
             picture's frame

With the defaults it takes about half an hour on two CPU cores, most of it training; time grows with --steps.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch.nn import functional as F

from benchmarks.common import Figure, emit
from umm_bench.base import load_base
from umm_bench.commands import quiet_libraries, run_command
from umm_bench.errors import UserError
from umm_bench.metrics.embedding import vision_encoder
from umm_bench.mini import checker, scenes, suite
from umm_bench.progress import Tracker
from umm_bench.umm import Subject, UMMPipeline
from umm_bench.umm.augment import Augmentation
from umm_bench.umm.encoded import EncodeConfig, EncodedPairs, encode_pairs
from umm_bench.umm.pairs import Pair
from umm_bench.umm.trainer import TrainConfig, initial_state, train
from umm_bench.umm_method import load_umm

_NONE = Augmentation(jitter=0, flip=0, colour=0, rotation=0, margin=0)
VARIANTS = {
    "all": Augmentation(),
    "none": _NONE,
    "without_crop": replace(Augmentation(), jitter=0),
    "without_flip": replace(Augmentation(), flip=0),
    "without_colour": replace(Augmentation(), colour=0),
    "without_rotation": replace(Augmentation(), rotation=0),
    "without_margin": replace(Augmentation(), margin=0),
}
# the suite's plain requests for another background
PROMPTS = [prompt for prompt in suite.PROMPTS if prompt["kind"] == "recontextualise"]


@dataclass(frozen=True)
class Case:
    """A held-out subject, its reference and, for each prompt, the text-only drawing."""

    noun: str
    design: str
    reference: Image.Image
    text_only: list[Image.Image]


def scene_pairs(count: int) -> Iterator[Pair]:
    """Training pairs from the composer, one subject each, with its true box."""
    for i in range(count):
        scene = scenes.compose(f"augmentation-{i}", subjects=1)
        subject, image = scene.objects[0], Image.fromarray(scene.image)
        x0, y0, x1, y1 = subject.box
        width, height = image.size
        left, top, right, bottom = round(x0 * width), round(y0 * height), round(x1 * width), round(y1 * height)
        crop = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
        start = scene.caption.index(subject.phrase)
        yield Pair(
            str(i), _png(image), _png(crop), scene.caption,
            start, start + len(subject.phrase), subject.concept, subject.box,
        )  # fmt: skip


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def draw(pipe: UMMPipeline, noun: str, reference: Image.Image, alpha: float) -> list[Image.Image]:
    """One drawing a prompt, from the same noise whatever the TIUE."""
    return pipe(
        [prompt["template"].format(subject=noun) for prompt in PROMPTS],
        subjects=[Subject(reference, noun)],
        alpha=alpha,
        num_inference_steps=20,
        guidance_scale=5.0,
        generator=[torch.Generator("cpu").manual_seed(i) for i in range(len(PROMPTS))],
    ).images


def leakage(drawn: Sequence[Image.Image], text_only: Sequence[Image.Image], reference: Sequence[Image.Image]) -> float:
    """1 - distance(drawn, reference) / distance(text_only, reference), over all pictures together; see the module."""

    def distance(pictures: Sequence[Image.Image]) -> float:
        return sum(float(np.abs(_frame(a) - _frame(b)).mean()) for a, b in zip(pictures, reference, strict=True))

    return 1 - distance(drawn) / distance(text_only)


def _frame(image: Image.Image) -> np.ndarray:
    """Colours in [0, 1] along the outermost cells of an 8x8 thumbnail, [28, 3]."""
    cells = np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX), dtype=np.float32) / 255
    return np.concatenate([cells[0], cells[-1], cells[1:-1, 0], cells[1:-1, -1]])


@torch.inference_mode()
def _embed(images: Sequence[Image.Image]) -> torch.Tensor:
    encoder = vision_encoder("mini")
    pixels = encoder.processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]
    return F.normalize(encoder.pool(pixels.to(encoder.model.device)).float().cpu(), dim=-1)


def _cases(pipe: UMMPipeline, count: int) -> list[Case]:
    cases = []
    for subject in suite.subjects()[:count]:
        reference = Image.fromarray(suite.reference(subject["design"], 0))
        text_only = draw(pipe, subject["class_noun"], reference, alpha=0.0)
        cases.append(Case(subject["class_noun"], subject["design"], reference, text_only))
    return cases


def _train(pipe: UMMPipeline, pairs: EncodedPairs, config: TrainConfig, name: str) -> None:
    """Leaves the averaged TIUE in `pipe`."""
    state = initial_state(pipe, config)
    with Tracker(Console(stderr=True), name, config.steps) as tracker:
        for _ in train(pipe, pairs, config, state):
            tracker.update(state.step, f"loss {state.loss:.4f}")
    pipe.register_modules(tiue=state.ema)


def _measure(name: str, pipe: UMMPipeline, cases: Sequence[Case]) -> Iterator[Figure]:
    drawn: list[Image.Image] = []
    text_only: list[Image.Image] = []
    references: list[Image.Image] = []
    checks: list[dict[str, Any]] = []
    for case in cases:
        images = draw(pipe, case.noun, case.reference, alpha=0.7)
        drawn, text_only = drawn + images, text_only + case.text_only
        references += [case.reference] * len(images)
        checks += [checker.check(image, case.design, prompt) for image, prompt in zip(images, PROMPTS, strict=True)]
    cosine = (_embed(drawn) * _embed(references)).sum(dim=1).mean().item()
    checked = float(np.mean([check["identity"] for check in checks]))
    yield Figure(f"augmentation.{name}.identity", cosine, "cosine", True)
    yield Figure(f"augmentation.{name}.checked", checked, "share", True, note=f"of {len(drawn)} drawings")
    yield Figure(f"augmentation.{name}.leakage", leakage(drawn, text_only, references), "share", False)


def figures(args: argparse.Namespace) -> Iterator[Figure]:
    pipe = load_umm(load_base("mini"), "mini")
    cases = _cases(pipe, args.subjects)
    pairs = list(scene_pairs(args.pairs))
    config = TrainConfig(steps=args.steps, learning_rate=5e-4)
    for name in args.variants:
        with tempfile.TemporaryDirectory() as cache:
            encode = EncodeConfig(augmentation=VARIANTS[name])
            encoded = EncodedPairs(list(encode_pairs(pipe, pairs, Path(cache), encode)))
            _train(pipe, encoded, config, name)
        yield from _measure(name, pipe, cases)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--steps", type=int, default=300, help="of each training, of 16 rows")
    parser.add_argument("--pairs", type=int, default=2048, help="scenes to train on")
    parser.add_argument("--subjects", type=int, default=12, help=f"held-out subjects, each in {len(PROMPTS)} prompts")
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    return parser


def _command(args: argparse.Namespace) -> None:
    for name in ("steps", "pairs", "subjects"):
        if vars(args)[name] < 1:
            raise UserError(f"--{name} must be at least 1, not {vars(args)[name]}")
    emit(figures(args), args.json)


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    quiet_libraries()
    return run_command(lambda: _command(args))


if __name__ == "__main__":
    sys.exit(main())
