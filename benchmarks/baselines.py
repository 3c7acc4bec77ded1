"""Seconds of DreamBooth and Textual Inversion beside the plain recipes: python -m benchmarks.baselines [--json].

Ours is what `umm_bench.run` runs: the setups of some subjects of one class in an empty folder, the saving included.
The plain recipes are those of diffusers' `train_dreambooth.py` (with prior preservation) and `textual_inversion.py`,
written the short way: for each subject, the class images are drawn again; every step opens its pictures, encodes them
with the VAE, and the texts with the text encoder; Textual Inversion takes gradients for the whole vocabulary, steps it
with AdamW and puts the old rows back. Both sides have the same pictures, prompts, numbers of steps and of class images,
rates, batch and precision, and draw the same noise, so their losses agree (a test; the note of each figure has those of
the last quarter of the steps).

The sides take turns, whole fine-tunes at a time, in one process; the ratio is the median over the turns. The base is
loaded before, for both.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from baselines import latents
from baselines.dreambooth import DreamBooth, DreamBoothConfig
from baselines.finetuning import image_size, mixed, training_schedule
from baselines.stable_diffusion import draw
from baselines.textual_inversion import TextualInversion, TextualInversionConfig
from baselines.words import phrase, training_texts
from benchmarks.common import time_ratio
from figures import Figure, emit
from umm_bench.base import Base, load_base
from umm_bench.cli.arguments import Parser, whole
from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.images import open_image
from umm_bench.methods import Case, Generation, Subject
from umm_bench.seeding import seed_for

AIM = 2.5
CLASS_BATCH = 4  # `--sample_batch_size` of the script


@dataclass(frozen=True)
class Sides:
    """Two ways to the same fine-tunes; each returns the losses of all subjects, one after the other."""

    ours: Callable[[], list[float]]
    plain: Callable[[], list[float]]


def make_subjects(folder: Path, count: int, pictures: int, side: int = 64) -> list[Subject]:
    """Subjects of blocky random pictures, all of one class."""
    subjects = []
    for number in range(count):
        paths = []
        for picture in range(pictures):
            pixels = np.random.default_rng([number, picture]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            paths.append(folder / f"{number}-{picture}.png")
            Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST).save(paths[-1])
        subjects.append(Subject(f"subject-{number}", "dog", tuple(paths)))
    return subjects


def dreambooth(base: Base, config: DreamBoothConfig, subjects: Sequence[Subject]) -> Sides:
    method = DreamBooth(base, config, Generation())

    def ours() -> list[float]:
        latents.forget()
        losses: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            for number, subject in enumerate(subjects):
                directory = Path(folder) / str(number)
                method.setup(Case((subject,)), directory)
                losses += losses_of(directory)
        return losses

    def plain() -> list[float]:
        return [loss for subject in subjects for loss in _plain_dreambooth(method, subject)]

    return Sides(ours, plain)


def textual_inversion(base: Base, config: TextualInversionConfig, subjects: Sequence[Subject]) -> Sides:
    method = TextualInversion(base, config, Generation())

    def ours() -> list[float]:
        latents.forget()
        losses: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            for number, subject in enumerate(subjects):
                directory = Path(folder) / str(number)
                method.setup(subject, directory)
                losses += losses_of(directory)
        return losses

    def plain() -> list[float]:
        return [loss for subject in subjects for loss in _plain_textual_inversion(method, subject)]

    return Sides(ours, plain)


def losses_of(directory: Path) -> list[float]:
    return json.loads((directory / "state.json").read_text())["losses"]


def _plain_dreambooth(method: DreamBooth, subject: Subject) -> Iterator[float]:
    config, pipe = method.config, method.base.pipeline()
    case, schedule = Case((subject,)), training_schedule(pipe)
    texts = [phrase(subject, method.words(config, case)[0]), phrase(subject, subject.class_noun)]
    with tempfile.TemporaryDirectory() as folder:
        drawn = _draw_class(method, texts[1], Path(folder))
        unet = copy.deepcopy(pipe.unet).float().requires_grad_(True).train()
        optimizer = torch.optim.AdamW(unet.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        for step in range(config.steps):
            generator = torch.Generator().manual_seed(seed_for(method.name, case.id, step))
            z_BCHW = torch.cat([_encode(pipe, pool, config.batch_size, generator)
                                for pool in (subject.references, drawn) if pool])  # fmt: skip
            with torch.no_grad():
                h_BLD = _read(pipe, [text for text in texts[: 1 + bool(drawn)] for _ in range(config.batch_size)])
            with mixed(pipe.device, config.mixed_precision):
                errors_B = _errors(unet, schedule, z_BCHW, h_BLD, generator)
            loss = errors_B[: config.batch_size].mean()
            if drawn:
                loss = loss + config.prior_loss_weight * errors_B[config.batch_size :].mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            yield loss.item()
        unet.save_pretrained(Path(folder) / "unet")


def _draw_class(method: DreamBooth, text: str, folder: Path) -> list[Path]:
    config = method.config
    sampler = Generation(config.class_inference_steps, config.class_guidance_scale)
    paths: list[Path] = []
    for start in range(0, config.num_class_images, CLASS_BATCH):
        numbers = range(start, min(start + CLASS_BATCH, config.num_class_images))
        seeds = [seed_for("dreambooth", "class", text, number) for number in numbers]
        for image in draw(method.base.pipeline(), text, seeds, sampler):
            paths.append(folder / f"{len(paths)}.png")
            image.save(paths[-1])
    return paths


def _plain_textual_inversion(method: TextualInversion, subject: Subject) -> Iterator[float]:
    config, pipe = method.config, method.copied_pipeline()
    schedule, rows_VD = training_schedule(pipe), method.initial_rows(subject)
    words = [config.placeholder, *(f"{config.placeholder}_{i}" for i in range(1, config.num_vectors))]
    pipe.tokenizer.add_tokens(words)
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer), mean_resizing=False)
    table = pipe.text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        table[-config.num_vectors :] = rows_VD
    kept = table.detach()[: -config.num_vectors].clone()
    texts = [text.replace(config.placeholder, " ".join(words)) for text in training_texts(subject, config.placeholder)]
    unet = copy.deepcopy(pipe.unet).requires_grad_(False)
    pipe.text_encoder.requires_grad_(False)
    table.requires_grad_(True)
    optimizer = torch.optim.AdamW([table], lr=config.learning_rate, weight_decay=config.weight_decay)
    for step in range(config.steps):
        generator = torch.Generator().manual_seed(seed_for(method.name, subject.id, step))
        image_B = torch.randint(len(subject.references), (config.batch_size,), generator=generator)
        text_B = torch.randint(len(texts), (config.batch_size,), generator=generator)
        z_BCHW = _encode_these(pipe, [subject.references[image] for image in image_B.tolist()], generator)
        with mixed(pipe.device, config.mixed_precision):
            h_BLD = _read(pipe, [texts[text] for text in text_B.tolist()])
            loss = _errors(unet, schedule, z_BCHW, h_BLD, generator).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            table[: -config.num_vectors] = kept
        yield loss.item()


def _encode(pipe: Any, pool: Sequence[Path], batch_size: int, generator: torch.Generator) -> Tensor:
    image_B = torch.randint(len(pool), (batch_size,), generator=generator)
    return _encode_these(pipe, [pool[image] for image in image_B.tolist()], generator)


@torch.no_grad()
def _encode_these(pipe: Any, paths: Sequence[Path], generator: torch.Generator) -> Tensor:
    side = image_size(pipe)
    squares = [ImageOps.fit(open_image(path), (side, side), Image.Resampling.BICUBIC) for path in paths]
    pixels_BHWC = np.stack([np.asarray(square, dtype=np.float32) for square in squares]) / 127.5 - 1
    posterior = pipe.vae.encode(torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).to(pipe.device)).latent_dist
    noise_BCHW = torch.randn(posterior.mean.shape, generator=generator).to(pipe.device)
    shift = pipe.vae.config.shift_factor or 0.0
    return (posterior.mean + posterior.std * noise_BCHW - shift) * pipe.vae.config.scaling_factor


def _read(pipe: Any, texts: Sequence[str]) -> Tensor:
    ids_BL = pipe.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids
    return pipe.text_encoder(ids_BL.to(pipe.device))[0]


def _errors(unet: Any, schedule: DDPMScheduler, z_BCHW: Tensor, h_BLD: Tensor, generator: torch.Generator) -> Tensor:
    noise_BCHW = torch.randn(z_BCHW.shape, generator=generator).to(z_BCHW)
    t_B = torch.randint(schedule.config.num_train_timesteps, (len(z_BCHW),), generator=generator).to(z_BCHW.device)
    velocity = schedule.config.prediction_type == "v_prediction"
    target_BCHW = schedule.get_velocity(z_BCHW, noise_BCHW, t_B) if velocity else noise_BCHW
    noisy_BCHW = schedule.add_noise(z_BCHW, noise_BCHW, t_B)
    out_BCHW = unet(noisy_BCHW, t_B, encoder_hidden_states=h_BLD).sample
    return F.mse_loss(out_BCHW.float(), target_BCHW.float(), reduction="none").mean(dim=(1, 2, 3))


def figures(args: argparse.Namespace) -> Iterator[Figure]:
    base = load_base("mini")
    base.pipeline()
    given = {name: value for name, value in (("steps", args.steps),) if value is not None}
    prior = {} if args.class_images is None else {"num_class_images": args.class_images}
    with tempfile.TemporaryDirectory() as folder:
        subjects = make_subjects(Path(folder), args.subjects, args.pictures)
        booth = replace(DreamBooth.defaults(base), **given, **prior)
        yield _speedup("baselines.dreambooth_speedup", dreambooth(base, booth, subjects), booth, args)
        inversion = replace(TextualInversion.defaults(base), **given)
        yield _speedup(
            "baselines.textual_inversion_speedup", textual_inversion(base, inversion, subjects), inversion, args
        )


def _speedup(name: str, sides: Sides, config: Any, args: argparse.Namespace) -> Figure:
    last: dict[str, list[float]] = {}

    def noted(side: str, run: Callable[[], list[float]]) -> Callable[[], None]:
        return lambda: last.__setitem__(side, run())

    ratio = time_ratio(noted("ours", sides.ours), noted("plain", sides.plain), args.repeats, warm=args.warm)
    ours, plain = (final_loss(last[side], config.steps) for side in ("ours", "plain"))
    note = (
        f"{ratio.ours_seconds:.3g} s against {ratio.theirs_seconds:.3g} s for {args.subjects} subjects of "
        f"{config.steps} steps, {config.mixed_precision} mixed precision; final loss {ours:.4f} against {plain:.4f}"
    )
    return Figure(name, 1 / ratio.median, "x", True, AIM, note)


def final_loss(losses: Sequence[float], steps: int) -> float:
    """The mean over the last quarter of each subject's steps."""
    return statistics.mean(loss for i, loss in enumerate(losses) if i % steps >= steps - max(1, steps // 4))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--subjects", type=whole(1), default=2)
    parser.add_argument("--pictures", type=whole(1), default=4, help="of each subject")
    parser.add_argument("--steps", type=whole(1), help="of each fine-tune (default: the method's)")
    parser.add_argument("--class-images", type=whole(0), help="of DreamBooth (default: the method's)")
    parser.add_argument("--repeats", type=whole(1), default=2, help="timed turns")
    parser.add_argument("--warm", type=whole(0), default=0, help="untimed turns before")
    return parser


def _command(args: argparse.Namespace) -> None:
    emit(figures(args), args.json)


def main(argv: list[str] | None = None) -> int:
    quiet_libraries()
    return run_command(lambda: _command(_parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
