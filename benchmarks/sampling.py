"""Sampling with a subject beside plain Stable Diffusion: the same base, scheduler, steps, batch and dtype.

python -m benchmarks.sampling [--json]

`theirs` is diffusers' StableDiffusionPipeline with classifier-free guidance; `ours` is UMMPipeline with alpha between 0
and 1, which needs a third branch. `sampling.naive_vs_sd` is UMMPipeline with nothing shared between the branches. Both
sides encode their prompt and decode their images. `--size sd15` has Stable Diffusion 1.5's exact shapes with random
weights: its times mean something, its images and errors do not. Few steps make the fast mode look slower than it is,
as its first step evaluates all branches.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from benchmarks.common import Ratio, time_ratio
from figures import Figure, emit
from umm_bench.cli.arguments import Parser, real, whole
from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.errors import UserError

if TYPE_CHECKING:
    from umm_bench.umm import UMMPipeline

SUBJECTS = 2  # of the mini suite, for the errors of the fast mode
PROMPTS = ("a {} on a blue background", "a {} in the snow")
BARS = {"mini": {"exact": 1.45, "fast": 0.85}, "sd15": {"exact": 1.33, "fast": 0.80}}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.sampling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--size", default="mini", choices=("mini", "sd15"))
    add("--steps", type=whole(), default=30, help="denoising steps (default: %(default)s)")
    add("--batch", type=whole(), default=4, help="images of the prompt (default: %(default)s)")
    add("--alpha", type=real(0, 1), default=0.7, help="between 0 and 1 (default: %(default)s)")
    add("--guidance-scale", type=real(1), default=5.0, help="(default: %(default)s)")
    add("--repeats", type=whole(), default=5, help="timed pairs (default: %(default)s)")
    add("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    add("--clock", default="wall", choices=("wall", "cpu"),
        help="cpu counts this process alone, for a machine that others use too (default: %(default)s)")  # fmt: skip
    add("--no-naive", dest="naive", action="store_false", help="leave out the pipeline that shares nothing")
    add("--json", action="store_true", help="one object a line")
    return parser


def _load(size: str, dtype: str) -> UMMPipeline:
    import torch

    if size == "mini":
        from umm_bench.base import load_base
        from umm_bench.umm_method import load_umm

        return load_umm(load_base("mini"), "mini").to(getattr(torch, dtype))
    from benchmarks.stacks import load_stack
    from umm_bench.base import pick_device
    from umm_bench.umm import TIUE, UMMPipeline

    pipe = UMMPipeline.from_pipe(load_stack(size, pick_device()), tiue=TIUE(768, 768))
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(pick_device(), getattr(torch, dtype))


class Comparison:
    """One prompt with one subject, drawn by each side with the same seeds."""

    def __init__(self, pipe: UMMPipeline, args: argparse.Namespace) -> None:
        from diffusers import StableDiffusionPipeline
        from PIL import Image

        from umm_bench.mini.world import suite

        self.pipe, self.args = pipe, args
        names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
        self.sd = StableDiffusionPipeline(
            **{name: pipe.components[name] for name in names},
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        self.sd.set_progress_bar_config(disable=True)
        self.subjects = [
            (entry["class_noun"], Image.fromarray(suite.reference(entry["design"], 0)))
            for entry in suite.subjects()[:SUBJECTS]
        ]

    def _shared(self) -> dict[str, Any]:
        import torch

        return {
            "num_inference_steps": self.args.steps,
            "guidance_scale": self.args.guidance_scale,
            "num_images_per_prompt": self.args.batch,
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in range(self.args.batch)],
            "output_type": "np",  # on the CPU: a device is done when they are there
        }

    def plain(self) -> np.ndarray:
        return self.sd(PROMPTS[0].format(self.subjects[0][0]), **self._shared()).images

    def with_subject(self, subject: int = 0, prompt: int = 0, fast: bool = False) -> np.ndarray:
        """Images [batch, H, W, 3] in [0, 1]."""
        from umm_bench.umm import Subject

        noun, picture = self.subjects[subject]
        drawn = Subject(picture, noun)
        return self.pipe(PROMPTS[prompt].format(noun), drawn, self.args.alpha, fast=fast, **self._shared()).images

    def naive(self) -> np.ndarray:
        with nothing_shared():
            return self.with_subject()

    def time(self, ours: Callable[[], object]) -> Ratio:
        clock = time.process_time if self.args.clock == "cpu" else time.perf_counter
        return time_ratio(ours, self.plain, self.args.repeats, clock=clock)


@contextmanager
def nothing_shared() -> Iterator[None]:
    """The naive pipeline: the branches of a step have nothing in common but their batch."""
    with patch("umm_bench.umm.pipeline.shared_work", lambda unet, num_images: nullcontext()):
        yield


def _grey_levels(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a - b) * 255


def _psnr(exact: np.ndarray, fast: np.ndarray) -> float:
    """Decibels of one image in [0, 1] against another; 100 for the same."""
    error = float(np.square(exact - fast).mean())
    return min(100.0, -10 * math.log10(error)) if error else 100.0


def _similarities(images: Sequence[tuple[int, int, np.ndarray]], comparison: Comparison) -> tuple[float, float]:
    """Mean cosine with the reference by the self-supervised encoder, and with the prompt by the scoring CLIP."""
    from PIL import Image

    from umm_bench.metrics.embedding import clip_encoder, vision_encoder

    with tempfile.TemporaryDirectory() as folder:
        paths: list[Path] = []
        references, texts = [], []
        for subject, prompt, batch in images:
            noun, picture = comparison.subjects[subject]
            reference = Path(folder) / f"reference-{subject}.png"
            picture.save(reference)
            for image in batch:
                paths.append(Path(folder) / f"{len(paths)}.png")
                Image.fromarray((image * 255).round().astype(np.uint8)).save(paths[-1])
                references.append(reference)
                texts.append(PROMPTS[prompt].format(noun))
        # encoders remember files by name: a new folder each time
        looks, clip = vision_encoder("mini"), clip_encoder("mini")
        identity = (looks.images(paths) * looks.images(references)).sum(axis=1).mean()
        return float(identity), float((clip.images(paths) * clip.texts(texts)).sum(axis=1).mean())


def figures(args: argparse.Namespace) -> Iterator[Figure]:
    """Times first, then what sharing and the fast mode change in the images."""
    pipe = _load(args.size, args.dtype)
    comparison = Comparison(pipe, args)

    def against_sd(name: str, ours: Callable[[], object], bar: float | None) -> Figure:
        ratio = comparison.time(ours)
        return Figure(f"sampling.{name}_vs_sd", ratio.median, "ratio", False, bar, str(ratio))

    if args.naive:
        yield against_sd("naive", comparison.naive, None)
    yield against_sd("exact", comparison.with_subject, BARS[args.size]["exact"])
    yield against_sd("fast", lambda: comparison.with_subject(fast=True), BARS[args.size]["fast"])
    if args.naive:
        apart = float(_grey_levels(comparison.with_subject(), comparison.naive()).max())
        note = "largest difference of a pixel, from rounding in another order"
        yield Figure("sampling.exact_vs_naive_pixel", apart, "of 255", False, None, note)
    if args.size != "mini":
        return
    cases = [(subject, prompt) for subject in range(SUBJECTS) for prompt in range(len(PROMPTS))]
    by_mode = {
        fast: [(subject, prompt, comparison.with_subject(subject, prompt, fast)) for subject, prompt in cases]
        for fast in (False, True)
    }
    pairs = list(zip(by_mode[False], by_mode[True], strict=True))
    decibels = [_psnr(a, b) for slow, quick in pairs for a, b in zip(slow[2], quick[2], strict=True)]
    note = f"median over {len(decibels)} images, against the exact ones; {min(decibels):.1f} to {max(decibels):.1f}"
    yield Figure("sampling.fast_psnr", float(np.median(decibels)), "dB", True, 40.0, note)
    pixels = np.stack([_grey_levels(slow[2], quick[2]) for slow, quick in pairs])
    note = f"mean over {len(cases) * args.batch} images; 99th percentile {np.quantile(pixels, 0.99):.2f}"
    yield Figure("sampling.fast_pixel_error", float(pixels.mean()), "of 255", False, None, note)
    (identity, clip_t), (fast_identity, fast_clip_t) = (_similarities(by_mode[fast], comparison) for fast in by_mode)
    for name, slow, quick in (("identity", identity, fast_identity), ("clip_t", clip_t, fast_clip_t)):
        note = f"of the cosine, either way; exact {slow:.4f}, fast {quick:.4f}"
        yield Figure(f"sampling.fast_{name}_change", abs(quick - slow) / abs(slow), "share", False, 0.01, note)


def _checked(args: argparse.Namespace) -> None:
    if not 0.0 < args.alpha < 1.0:
        raise UserError(f"--alpha is {args.alpha}; at 0 and 1 there are two branches as in Stable Diffusion")
    quiet_libraries()
    emit(figures(args), args.json)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: _checked(_parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
