"""Scoring side by side with a plain evaluation script: `python -m benchmarks.scoring [--json]`.

The plain side is the loop of published scripts: for each image and each of the subject's pictures, read both, embed
both, take the cosine; and so again for each metric. Ours reads and embeds a picture once for all that look at it. Both
have the same models, which are loaded before, and give the same DINO, CLIP-I and CLIP-T.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.common import time_ratio
from figures import Figure, emit
from umm_bench.cli.arguments import Parser, whole
from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.images import open_image
from umm_bench.methods import Case, Prompt, Subject
from umm_bench.metrics.base import ScoredSample
from umm_bench.metrics.clip_i import ClipI
from umm_bench.metrics.clip_t import ClipT
from umm_bench.metrics.dino import Dino
from umm_bench.metrics.embedding import ClipEncoder, Encoder, VisionEncoder, unit
from umm_bench.metrics.features import kept_in

BAR = 6.0
PROMPT = Prompt("beach", "a {subject} on the beach", "recontextualise")

Scores = dict[tuple[str, str], float]
"""By metric and sample."""


@dataclass
class Models:
    """Loaded once, for both sides."""

    dino: VisionEncoder
    clip: ClipEncoder

    @classmethod
    def load(cls, dino: str = "mini", clip: str = "mini") -> Models:
        models = cls(VisionEncoder(dino, "encoder"), ClipEncoder(clip, "scoring_clip"))
        for encoder in (models.dino, models.clip):
            encoder.model, encoder.processor  # noqa: B018  # loaded at their first use, which is not to be timed
        models.clip.texts(["a dog"])
        return models


def pictures(folder: Path, subjects: int, references: int, images: int, pixels: int) -> list[ScoredSample]:
    """Pictures of coloured noise: what they show costs nothing and changes nothing."""
    random, samples = np.random.default_rng(0), []

    def draw(name: str) -> Path:
        coarse = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((pixels, pixels), Image.Resampling.BICUBIC).save(folder / name)
        return folder / name

    for number in range(subjects):
        seen = tuple(draw(f"{number}-{index}.png") for index in range(references))
        case = Case((Subject(f"subject-{number}", "dog", seen),))
        samples += [
            ScoredSample(f"{number}-{index}", draw(f"{number}-drawn-{index}.png"), case, PROMPT, index)
            for index in range(images)
        ]
    return samples


def plain(models: Models, samples: Sequence[ScoredSample]) -> Scores:
    """Image by image, pair by pair."""

    def embed(encoder: Encoder, path: Path) -> np.ndarray:
        pixel_values = encoder.processor([open_image(path)], return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            return unit(encoder.pool(pixel_values.to(encoder.model.device)))[0]

    scores: Scores = {}
    encoders: list[tuple[str, Encoder]] = [("dino", models.dino), ("clip_i", models.clip)]
    for sample in samples:
        for name, encoder in encoders:
            cosines = [
                float(embed(encoder, sample.path) @ embed(encoder, reference))
                for reference in sample.case.subject.references
            ]
            scores[name, sample.key] = float(np.mean(cosines))
        text = models.clip._embed_text(sample.text)
        scores["clip_t", sample.key] = float(embed(models.clip, sample.path) @ text)
    return scores


def ours(models: Models, samples: Sequence[ScoredSample]) -> Scores:
    """As a run scores, with nothing remembered from before and features kept on disk."""
    dino, clip = VisionEncoder(models.dino.name, "encoder"), ClipEncoder(models.clip.name, "scoring_clip")
    for fresh, loaded in ((dino, models.dino), (clip, models.clip)):
        fresh.__dict__ |= {"model": loaded.model, "processor": loaded.processor}
    clip.__dict__["tokenizer"] = models.clip.tokenizer
    nothing: Any = None
    classes: tuple[Any, ...] = (Dino, ClipI, ClipT)
    metrics = [made(made.config_class(), nothing) for made in classes]
    for metric, encoder in zip(metrics, (dino, clip, clip), strict=True):
        metric.encoder = encoder
    with tempfile.TemporaryDirectory() as folder, kept_in(Path(folder)):
        rows = [row for metric in metrics for row in metric.score(samples)]
    return {(row.metric, row.sample_key): row.value for row in rows}


def figures(args: argparse.Namespace) -> Iterator[Figure]:
    """How many times as fast, and by how much the scores differ."""
    models = Models.load()
    with tempfile.TemporaryDirectory() as folder:
        samples = pictures(Path(folder), args.subjects, args.references, args.images, args.pixels)
        found: dict[str, Scores] = {}

        def side(name: str, score: Any) -> Any:
            return lambda: found.update({name: score(models, samples)})

        clock = time.process_time if args.cpu_time else time.perf_counter
        ratio = time_ratio(side("plain", plain), side("ours", ours), args.repeats, clock=clock)
    shape = f"{len(samples)} images, {args.references} pictures a subject, {args.pixels} px"
    yield Figure("scoring.speedup", round(ratio.median, 2), "ratio", True, BAR, f"{shape}: plain {ratio}")
    yield Figure("scoring.seconds_an_image", ratio.theirs_seconds / len(samples), "s", False, None, "of three metrics")
    apart = max(abs(found["ours"][key] - value) for key, value in found["plain"].items())
    yield Figure("scoring.largest_difference", apart, "cosine", False, 1e-5, f"of {len(found['plain'])} scores")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: _measure(argv))


def _measure(argv: Sequence[str] | None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--subjects", type=whole(), default=3, help="(default: %(default)s)")
    parser.add_argument("--references", type=whole(), default=5, help="pictures of a subject (default: %(default)s)")
    parser.add_argument("--images", type=whole(), default=8, help="drawn of each subject (default: %(default)s)")
    parser.add_argument("--pixels", type=whole(8, 4096), default=512, help="of a side (default: %(default)s)")
    parser.add_argument("--repeats", type=whole(), default=3, help="(default: %(default)s)")
    parser.add_argument("--cpu-time", action="store_true", help="processor time: where other work runs beside")
    args = parser.parse_args(argv)
    quiet_libraries()
    emit(figures(args), args.json)


if __name__ == "__main__":
    sys.exit(main())
