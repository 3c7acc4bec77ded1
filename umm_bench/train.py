"""Train a TIUE on pairs from curation: python -m umm_bench.train --data data/pairs --output tiue."""

import argparse
import dataclasses
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from umm_bench.commands import quiet_libraries, run_command
from umm_bench.errors import UserError
from umm_bench.progress import Tracker

if TYPE_CHECKING:
    from umm_bench.umm import UMMPipeline
    from umm_bench.umm.encoded import EncodeConfig, EncodedPairs
    from umm_bench.umm.trainer import TrainConfig, TrainState


def _parser() -> argparse.ArgumentParser:
    from umm_bench.umm.encoded import EncodeConfig
    from umm_bench.umm.trainer import TrainConfig

    run, encode = TrainConfig(), EncodeConfig()
    parser = argparse.ArgumentParser(
        prog="python -m umm_bench.train",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder that curation.build wrote")
    add("--output", type=Path, required=True, help="folder for the TIUE and its training state")
    add("--base", default="mini", help="Stable Diffusion: mini, a folder or a hub id")
    add("--image-encoder", default="", help="CLIP that embeds the references; empty is the base's own")
    add("--cache", type=Path, help="folder for encoded pairs (default: DATA/.encoded)")
    add("--resume", action="store_true", help="go on from OUTPUT; ends at once when it is complete")
    add("--steps", type=int, default=run.steps)
    add("--batch-size", type=int, default=run.batch_size)
    add("--lr", dest="learning_rate", type=float, default=run.learning_rate)
    add("--warmup-steps", type=int, default=run.warmup_steps)
    add("--weight-decay", type=float, default=run.weight_decay)
    add("--min-snr-gamma", type=float, default=run.min_snr_gamma, help="0 weighs all timesteps alike")
    add("--drop-rate", type=float, default=run.drop_rate, help="part of the rows trained without their image")
    add("--ema-decay", type=float, default=run.ema_decay)
    add("--num-pseudo-words", type=int, default=run.num_pseudo_words)
    add("--hidden-dim", type=int, default=run.hidden_dim)
    add("--depth", type=int, default=run.depth, help="hidden layers of the MLP")
    add("--views", type=int, default=encode.views, help="augmented references a pair")
    add("--head-rate", type=float, default=encode.head_rate, help="captions cut to the subject's noun")
    add("--seed", type=int, default=run.seed)
    add("--checkpoint-every", type=int, default=500, help="steps between checkpoints")
    return parser


def _encode(pipe: "UMMPipeline", data: Path, cache: Path, config: "EncodeConfig") -> "EncodedPairs":
    from umm_bench.umm.encoded import EncodedPairs, encode_pairs
    from umm_bench.umm.pairs import count_pairs, read_pairs

    chunks, done = [], 0
    with Tracker(Console(), "encoding pairs", count_pairs(data)) as tracker:
        for chunk in encode_pairs(pipe, read_pairs(data), cache, config):
            chunks.append(chunk)
            done += chunk.pairs + chunk.skipped.total()
            tracker.update(done)
    pairs = EncodedPairs(chunks)
    reused = sum(chunk.pairs for chunk in chunks if chunk.reused)
    skipped = "".join(f", {count} skipped ({reason})" for reason, count in pairs.skipped.items())
    print(f"{len(pairs)} pairs, {reused} of them encoded before{skipped}")
    return pairs


def _train(
    pipe: "UMMPipeline",
    pairs: "EncodedPairs",
    config: "TrainConfig",
    state: "TrainState",
    output: Path,
    checkpoint_every: int,
) -> None:
    from umm_bench.umm.trainer import save_state, train

    smoothed = None
    with Tracker(Console(), "training", config.steps) as tracker, _ctrl_c_noted() as interrupted:
        for _ in train(pipe, pairs, config, state):
            smoothed = state.loss if smoothed is None else 0.98 * smoothed + 0.02 * state.loss
            tracker.update(state.step, f"loss {smoothed:.4f}")
            if interrupted or state.step % checkpoint_every == 0 or state.step == config.steps:
                save_state(output, state, config, pairs.digest)
            if interrupted:
                print(f"stopped after step {state.step}, go on with --resume; ", end="", file=sys.stderr)
                raise KeyboardInterrupt


@contextmanager
def _ctrl_c_noted() -> Iterator[list[int]]:
    # an exception amid optimizer.step() would leave half of a step in the checkpoint
    noted: list[int] = []

    def note(number: int, frame: object) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def command(args: argparse.Namespace) -> None:
    """Encodes the pairs, trains, and leaves the TIUE in `args.output`. UserError for unusable arguments."""
    from umm_bench.base import load_base
    from umm_bench.umm.encoded import EncodeConfig
    from umm_bench.umm.trainer import STATE_FILE, TrainConfig, initial_state, load_state
    from umm_bench.umm_method import load_umm

    settings = vars(args)
    config = TrainConfig(**{field.name: settings[field.name] for field in dataclasses.fields(TrainConfig)
                            if field.name in settings})  # fmt: skip
    for name in ("steps", "batch_size", "checkpoint_every", "views", "num_pseudo_words", "hidden_dim"):
        if settings[name] < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {settings[name]}")
    if (args.output / STATE_FILE).exists() and not args.resume:
        raise UserError(f"{args.output} holds a training run; pass --resume to go on, or another --output")
    pipe = load_umm(load_base(args.base), None, args.image_encoder)
    encode = EncodeConfig(views=args.views, head_rate=args.head_rate)
    pairs = _encode(pipe, args.data, args.cache or args.data / ".encoded", encode)
    if args.resume and (args.output / STATE_FILE).exists():
        state = load_state(args.output, pipe, config, pairs.digest)
    else:
        state = initial_state(pipe, config)
    _train(pipe, pairs, config, state, args.output, args.checkpoint_every)
    print(f"{args.output}: TIUE after {state.step} steps; use it with `--tiue {args.output}`")


def main(argv: Sequence[str] | None = None) -> int:
    quiet_libraries()
    args = _parser().parse_args(argv)
    return run_command(lambda: command(args))


if __name__ == "__main__":
    sys.exit(main())
