"""Steps a second and peak memory of TIUE training beside the plain recipe: python -m benchmarks.training [--json].

Ours is what `umm_bench.train` runs: VAE posteriors, image embeddings and h_y encoded once into a cache, then the
trainer's own steps. The plain recipe is the same loss and batch written the short way: every step reads its pictures
(without loader processes, as is the default of diffusers' example scripts), encodes them with the VAE, the references
with CLIP and the captions with the text encoder, h_r runs through the whole caption, gradients are kept for every
parameter, and AdamW, as torch makes it by default, steps the MLP. `training.frozen_ratio` has no aim: it compares with
a plain recipe that freezes the four models but caches nothing. All sides have the same precision and see the same rows,
references and noise, so their losses agree (a test). The precision is that which `umm_bench.train` takes on the device,
bfloat16 where it is fast; with `--mixed-precision no` it is float32. In bfloat16 the plain recipe is accelerate's:
autocast over weights in float32, for their gradients.

Steps: the sides take turns, step by step, in one process; the ratio is the median over pairs of steps.

Memory: each side in a process of its own. On a CPU, the greatest resident size minus that after the imports: the
models, the encoding of the cache (ours), activations and gradients count, Python and its libraries do not. On a GPU,
the greatest allocation, models included.

`--size sd15` has Stable Diffusion 1.5's shapes and random weights; use it with `--device cuda`. It has not been run on
a GPU yet.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from benchmarks.common import time_ratio
from benchmarks.stacks import SIZES, load_stack
from figures import Figure, emit
from umm_bench.base import choose_precision, pick_device
from umm_bench.bench.measure import Measured
from umm_bench.cli.arguments import Parser, whole
from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.images import open_image
from umm_bench.umm import UMMPipeline, fuse_hidden_states
from umm_bench.umm.augment import Augmentation
from umm_bench.umm.encoded import EncodedPairs, encode_pairs
from umm_bench.umm.pairs import Pair, subject_caption, target_image
from umm_bench.umm.settings import EncodeConfig, TrainConfig
from umm_bench.umm.tiue import read_positions, rearrange, rearranged_hidden_states, span_positions
from umm_bench.umm.trainer import (
    PRECISIONS,
    TrainState,
    _indices,
    denoising_loss,
    draw,
    initial_state,
    noise_schedule,
    release_encoders,
    train,
)

ENCODE = EncodeConfig(views=1, head_rate=0.0, augmentation=Augmentation(0, 0, 0, 0, 0), dtype="float32")
SIDES = ("ours", "plain", "frozen")
BARS = {"mini": (3.5, 0.45), "sd15": (4.0, 0.5)}  # of steps and of memory


def make_pairs(count: int, side: int) -> list[Pair]:
    """Pairs of blocky random pictures, `side` pixels square."""
    pairs = []
    for seed in range(count):
        blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST)
        whole, crop = _png(image), _png(image.crop((0, 0, side // 2, side // 2)))
        caption = "a small red dog runs along the beach"
        pairs.append(Pair(str(seed), whole, crop, caption, 0, len("a small red dog"), "dog", (0, 0, 0.5, 0.5)))
    return pairs


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def ours(pipe: UMMPipeline, pairs: list[Pair], config: TrainConfig, cache: Path) -> Iterator[TrainState]:
    """The trainer's steps, after encoding `pairs` into `cache`."""
    encoded = EncodedPairs(list(encode_pairs(pipe, pairs, cache, ENCODE)))
    release_encoders(pipe, for_good=True)
    yield from train(pipe, encoded, config, initial_state(pipe, config))


def plain(pipe: UMMPipeline, pairs: list[Pair], config: TrainConfig, frozen: bool) -> Iterator[TrainState]:
    """The same steps without a cache; unless `frozen`, gradients are kept for every parameter."""
    models = (pipe.vae, pipe.unet, pipe.text_encoder, pipe.image_encoder)
    state, schedule, device = initial_state(pipe, config), noise_schedule(pipe), pipe.unet.device
    state.optimizer = torch.optim.AdamW(state.tiue.parameters(), weight_decay=config.weight_decay)
    lower = PRECISIONS[config.mixed_precision]
    for model in models:
        model.requires_grad_(not frozen).eval()
        if frozen and lower is not None:
            model.to(dtype=lower)
    # weights with gradients stay in float32, as with accelerate's mixed precision
    precision = partial(torch.autocast, device.type, lower, enabled=not frozen and lower is not None)
    latent = (pipe.unet.config.in_channels, *[pipe.unet.config.sample_size] * 2)
    shapes = {"mean": latent, "image_embeds": (1, pipe.image_encoder.config.projection_dim)}
    while state.step < config.steps:
        rows = _indices(len(pairs), config.batch_size, config.seed, state.step)
        draws = draw(shapes, len(rows), config.seed, state.step, schedule.config.num_train_timesteps)
        pixels_BCHW, references_BCHW, input_ids_BL, mask_BL = _inputs(pipe, [pairs[row] for row in rows])
        with precision():
            with torch.set_grad_enabled(not frozen):
                posterior = pipe.vae.encode(pixels_BCHW.to(pipe.vae.dtype)).latent_dist
                z_0_BCHW = posterior.mean + posterior.std * draws.posterior_NCHW.to(device)
                z_0_BCHW = z_0_BCHW.float() * pipe.vae.config.scaling_factor
                embeds_BE = pipe.image_encoder(references_BCHW.to(pipe.image_encoder.dtype)).image_embeds.float()
                embeds_BE = embeds_BE * (draws.drop_N >= config.drop_rate).to(device)[:, None]
                h_y_BLD = pipe.text_encoder(input_ids_BL)[0]
            text = rearrange(input_ids_BL, h_y_BLD, mask_BL[None], [state.tiue(embeds_BE)], [config.placement])
            embedding_BLD = pipe.text_encoder.get_input_embeddings()(text.input_ids_BL)
            words_BLD = text.words_BLD + embedding_BLD * text.added_BL[..., None]
            words_BLD = torch.where(text.mask_BL[..., None], words_BLD, embedding_BLD)
            # the mask of all tokens: h_r of the whole caption
            all_BL = torch.ones_like(mask_BL)
            h_r_BLD = rearranged_hidden_states(pipe.text_encoder, text.input_ids_BL, all_BL, words_BLD)
            read_BL = read_positions(pipe, text.input_ids_BL, text.subject_BL)
            h_u_BLD = fuse_hidden_states(text.h_y_BLD, h_r_BLD, read_BL)
            loss = denoising_loss(pipe, schedule, z_0_BCHW, h_u_BLD, draws, config.min_snr_gamma)
        state.optimizer.zero_grad(set_to_none=True)
        for model in models:
            model.zero_grad(set_to_none=True)
        loss.backward()
        state.grad_norm = torch.nn.utils.clip_grad_norm_(state.tiue.parameters(), config.gradient_clip).item()
        for group in state.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(state.step)
        state.optimizer.step()
        state.loss, state.step = loss.item(), state.step + 1
        yield state


@torch.no_grad()
def _inputs(pipe: UMMPipeline, pairs: list[Pair]) -> tuple[torch.Tensor, ...]:
    """Pixels of targets and references [B, 3, H, W], token ids and subject mask [B, L], on the device."""
    device, size = pipe.unet.device, (pipe.unet.config.sample_size * pipe.vae_scale_factor,) * 2
    captions = [subject_caption(pair, head_only=False) for pair in pairs]
    tokens = pipe.tokenizer(
        [text for text, *_ in captions], padding="max_length", max_length=pipe.tokenizer.model_max_length,
        return_tensors="pt",
    )  # fmt: skip
    mask_BL = torch.zeros_like(tokens.input_ids, dtype=torch.bool)
    for row, caption in enumerate(captions):
        mask_BL[row, list(span_positions(pipe.tokenizer, *caption))] = True
    pixels = pipe.image_processor.preprocess([target_image(pair, size) for pair in pairs])
    references = [ENCODE.augmentation.view(open_image(pair.crop), np.random.default_rng(0)) for pair in pairs]
    pictures = pipe.feature_extractor(references, return_tensors="pt").pixel_values
    return pixels.to(device), pictures.to(device), tokens.input_ids.to(device), mask_BL.to(device)


def steps_of(side: str, args: argparse.Namespace, cache: Path) -> Iterator[TrainState]:
    """The side's states, on models of its own."""
    pipe = load_stack(args.size, args.device)
    pairs = make_pairs(2 * args.batch_size, pipe.unet.config.sample_size * pipe.vae_scale_factor)
    # more steps than are ever asked for
    config = TrainConfig(steps=10**9, batch_size=args.batch_size, mixed_precision=args.mixed_precision)
    if side == "ours":
        return ours(pipe, pairs, config, cache)
    return plain(pipe, pairs, config, frozen=side == "frozen")


def peak_megabytes(side: str, args: argparse.Namespace) -> float:
    """Peak memory of this process after two steps of `side`; see the module."""
    before = psutil.Process().memory_info().rss / 2**20
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as cache, Measured() as cost:
        states = steps_of(side, args, Path(cache))
        for _ in range(2):
            next(states)
    return torch.cuda.max_memory_allocated() / 2**20 if args.device == "cuda" else cost.peak_mb - before


def _peak_in_own_process(side: str, args: argparse.Namespace) -> float:
    settings = ["--size", args.size, "--device", args.device, "--batch-size", str(args.batch_size)]
    settings += ["--mixed-precision", args.mixed_precision, "--peak-of", side]
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", *settings],
        env=os.environ, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(result.stdout)


def _speed(name: str, other: str, bar: float | None, args: argparse.Namespace) -> Figure:
    with tempfile.TemporaryDirectory() as cache:
        mine, theirs = (partial(next, steps_of(side, args, Path(cache))) for side in ("ours", other))
        clock = time.process_time if args.clock == "cpu" else time.perf_counter
        ratio = time_ratio(mine, theirs, repeats=args.repeats, clock=clock)
    return Figure(name, 1 / ratio.median, "ratio", True, bar, str(ratio))


def figures(args: argparse.Namespace) -> Iterator[Figure]:
    yield _speed("training.steps_ratio", "plain", BARS[args.size][0], args)
    mine, theirs, frozen = (_peak_in_own_process(side, args) for side in SIDES)
    note = f"{mine:.0f} MB against {theirs:.0f} MB; {frozen:.0f} MB frozen without a cache"
    yield Figure("training.memory_ratio", mine / theirs, "ratio", False, BARS[args.size][1], note)
    yield _speed("training.frozen_ratio", "frozen", None, args)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--size", choices=SIZES, default="mini")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=pick_device())
    parser.add_argument("--mixed-precision", choices=("auto", *PRECISIONS), default="auto",
                        help="of all sides; auto is what umm_bench.train takes on this device")  # fmt: skip
    parser.add_argument("--batch-size", type=whole(), default=16)
    parser.add_argument("--repeats", type=whole(), default=7, help="timed steps of each side")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall",
                        help="cpu seconds where other work shares the processor")  # fmt: skip
    parser.add_argument("--peak-of", choices=SIDES, help="print the megabytes of one side, measured in this process")
    return parser


def _command(args: argparse.Namespace) -> None:
    args.mixed_precision = choose_precision(args.mixed_precision, args.device)
    if args.peak_of:
        print(json.dumps(peak_megabytes(args.peak_of, args)))
    else:
        emit(figures(args), args.json)


def main(argv: list[str] | None = None) -> int:
    quiet_libraries()
    return run_command(lambda: _command(_parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
