"""What each augmentation of the references does: python -m benchmarks.augmentation [--json] [--steps N] [--write].

Trains a short TIUE on the mini base with all augmentations, with none, and with each switched off, on the same scenes
from the same seed. Each then draws held-out subjects into other surroundings than their reference's, from the same
noise, and is measured on

  identity   cosine between the drawing and the reference, by the mini family's self-supervised encoder
  checked    share of drawings that the ground-truth checker takes for the very subject
  leakage    how far the drawings' background has moved from the text-only drawing of the same prompt and noise towards
             the reference's background: 0 not at all, 1 all the way; backgrounds are compared by the colours along the
             picture's frame

and, beside it, how far that is above or below the TIUE with all augmentations: the 95 % interval over subjects.
Each is trained once, so the interval does not hold what another draw of the training would change.
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

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch.nn import functional as F

from figures import Figure, emit
from umm_bench.base import load_base
from umm_bench.cli.arguments import Parser, whole
from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.cli.progress import Tracker
from umm_bench.errors import UserError
from umm_bench.metrics.embedding import vision_encoder
from umm_bench.mini.checking import checker
from umm_bench.mini.evaluation.intervals import bootstrap
from umm_bench.mini.measured import FIGURES, write_figures
from umm_bench.mini.world import scenes, suite
from umm_bench.umm import Subject, UMMPipeline
from umm_bench.umm.augment import Augmentation
from umm_bench.umm.encoded import EncodedPairs, encode_pairs
from umm_bench.umm.pairs import Pair
from umm_bench.umm.settings import EncodeConfig, TrainConfig
from umm_bench.umm.trainer import initial_state, train
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


def frame_distances(pictures: Sequence[Image.Image], reference: Image.Image) -> np.ndarray:
    """How far each picture's background is from the reference's, [len(pictures)]."""
    return np.array([np.abs(_frame(picture) - _frame(reference)).mean() for picture in pictures])


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


@dataclass(frozen=True)
class Measured:
    """Means of each subject's drawings, all [subjects]; the two distances make leakage."""

    identity: np.ndarray
    checked: np.ndarray
    distance: np.ndarray
    text_only_distance: np.ndarray

    def summary(self, rows: np.ndarray) -> dict[str, float]:
        """Each measure over the subjects `rows`."""
        return {
            "identity": float(self.identity[rows].mean()),
            "checked": float(self.checked[rows].mean()),
            "leakage": float(1 - self.distance[rows].sum() / self.text_only_distance[rows].sum()),
        }


def _measure(pipe: UMMPipeline, cases: Sequence[Case]) -> Measured:
    rows = []
    for case in cases:
        images = draw(pipe, case.noun, case.reference, alpha=0.7)
        cosine = _embed(images) @ _embed([case.reference])[0]
        checks = [
            checker.check(image, case.design, prompt)["identity"] for image, prompt in zip(images, PROMPTS, strict=True)
        ]
        distances = [frame_distances(pictures, case.reference).mean() for pictures in (images, case.text_only)]
        rows.append([cosine.mean().item(), float(np.mean(checks)), *distances])
    return Measured(*np.array(rows).T)


def report(name: str, own: Measured, whole: Measured | None) -> Iterator[Figure]:
    """The figures of one TIUE, against the one with all augmentations where there is one."""
    subjects = np.arange(len(own.identity))
    for measure, value in own.summary(subjects).items():
        note = ""
        if whole is not None and own is not whole:

            def ahead(rows: np.ndarray, measure: str = measure, whole: Measured = whole) -> float:
                return own.summary(rows)[measure] - whole.summary(rows)[measure]

            low, high = bootstrap(ahead, len(subjects))
            note = f"{ahead(subjects):+.3f} against all, 95% {low:.3f} to {high:.3f}"
        unit = "cosine" if measure == "identity" else "share"
        yield Figure(f"augmentation.{name}.{measure}", round(value, 4), unit, measure != "leakage", None, note)


def figures(args: argparse.Namespace) -> Iterator[Figure]:
    pipe = load_umm(load_base("mini"), "mini")
    cases = _cases(pipe, args.subjects)
    pairs = list(scene_pairs(args.pairs))
    config = TrainConfig(steps=args.steps, learning_rate=5e-4)
    whole = None
    for name in sorted(args.variants, key=list(VARIANTS).index):
        with tempfile.TemporaryDirectory() as cache:
            encode = EncodeConfig(augmentation=VARIANTS[name])
            encoded = EncodedPairs(list(encode_pairs(pipe, pairs, Path(cache), encode)))
            _train(pipe, encoded, config, name)
        measured = _measure(pipe, cases)
        whole = measured if name == "all" else whole
        yield from report(name, measured, whole)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--write", action="store_true", help=f"keep the figures for the model card ({FIGURES.name})")
    parser.add_argument("--steps", type=whole(), default=300, help="of each training, of 16 rows")
    parser.add_argument("--pairs", type=whole(), default=2048, help="scenes to train on")
    add = parser.add_argument
    add("--subjects", type=whole(), default=12, help=f"held-out subjects, each in {len(PROMPTS)} prompts")
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    return parser


def _command(args: argparse.Namespace) -> None:
    for name in ("steps", "pairs", "subjects"):
        if vars(args)[name] < 1:
            raise UserError(f"--{name} must be at least 1, not {vars(args)[name]}")

    def kept() -> Iterator[Figure]:
        for figure in figures(args):
            if args.write:
                write_figures([figure])
            yield figure

    emit(kept(), args.json)


def main(argv: list[str] | None = None) -> int:
    quiet_libraries()
    return run_command(lambda: _command(_parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
